"""How every command here begins and ends: literal options, one line on what does it better, one
line and an exit code for what is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matura.cli import out
from matura.cli.main import INTERRUPTED
from matura.core.errors import MaturaError, RecipeError


@dataclass(frozen=True)
class Command:
    """A documented command and the `matura` command to go over to."""

    name: str
    about: str
    better: str
    """The command line itself, then why."""
    why: str

    def parser(self) -> argparse.ArgumentParser:
        """Options by their whole names only: half a name means another option a version later."""
        return argparse.ArgumentParser(
            prog=self.name,
            description=self.about,
            epilog=f"better: {self.better} ({self.why})",
            allow_abbrev=False,
        )

    def run(
        self,
        parser: argparse.ArgumentParser,
        work: Callable[[argparse.Namespace], None],
        arguments: Sequence[str] | None,
    ) -> int:
        """The exit code of one call: 0, 1 for what failed, 2 for what was asked wrongly."""
        out.forgiving()
        try:
            asked = parser.parse_args(arguments)
        except SystemExit as done:  # argparse has said why
            return done.code if isinstance(done.code, int) else 2
        self.tell(f"better: {self.better} ({self.why})")
        try:
            work(asked)
        except MaturaError as problem:
            self.tell(str(problem))
            return problem.exit_code
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as problem:
            where = f"{problem.filename}: " if problem.filename else ""
            self.tell(f"{where}{problem.strerror or problem}")
            return 1
        except KeyboardInterrupt:
            self.tell("interrupted; the same command goes on from here")
            return INTERRUPTED
        return 0

    def tell(self, text: str) -> None:
        """One line on stderr."""
        out.tell(f"{self.name}: {text}")


def share_between_0_and_1(text: str) -> float:
    """An argument that is a share of something.

    Raises:
        RecipeError: it is no number, or not between 0 and 1.
    """
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise RecipeError(f"{text!r}: expected a share above 0 and below 1")
    return share
