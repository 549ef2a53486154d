"""What a source calls its files in ids: short, and no two alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path


def named(paths: Sequence[Path], below: str | None = None) -> Iterator[tuple[Path, str]]:
    """Each file and what its rows are called after: its path below a folder where that is known, or
    where names are equal; else its name."""
    top = below or shared(paths)
    for path in paths:
        inside = top is not None and path.is_relative_to(top) and path != Path(top)
        yield path, path.relative_to(top).as_posix() if inside and top else path.name


def shared(paths: Sequence[Path]) -> str | None:
    """The folder from which files of equal names are told apart; None if all names differ."""
    names = Counter(path.name for path in paths)
    if len(names) == len(paths):
        return None
    try:
        return os.path.commonpath([path.parent for path in paths]) or "."
    except ValueError:  # some are relative and some are not: as they were given
        return "/" if all(path.is_absolute() for path in paths) else "."
