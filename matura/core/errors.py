"""What can go wrong, by whose fault it is; the command line turns each into one line and an exit
code."""

from __future__ import annotations


class MaturaError(Exception):
    """Anything Matura itself refuses to do. `exit_code` is what the command line returns for it."""

    exit_code = 1


class RecipeError(MaturaError):
    """The recipe, an option or a name in one of them is wrong; nothing has run."""

    exit_code = 2


class DataError(MaturaError):
    """An input file is wrong; the message starts with `file:line` or `file`."""


class NotHereError(DataError):
    """What a source reads is nowhere on this machine, and may not be fetched."""


class StoreError(MaturaError):
    """A run folder is missing, torn, corrupt, or in use by somebody else."""


class DriftError(MaturaError):
    """What is on disk was made from something else than what is asked for now."""


class UnprovenError(MaturaError):
    """An export is not what it was made from; the message names what differs, and nothing was
    published."""


class RedLine(MaturaError):
    """Training went wrong in a way that must stop it; the message names the detector, step and
    batch."""


class ShortOfMemory(MaturaError):
    """Not even the smallest part of a step fits into the memory there is; the message says what to
    change."""


class RankError(MaturaError):
    """Processes that train together do not agree, or one of them is lost; the message names it."""


class GateClosed(MaturaError):
    """A stage did not pass its exams, or forgot too much."""

    exit_code = 3


class RolloutError(MaturaError):
    """A conversation broke: neither right nor wrong."""
