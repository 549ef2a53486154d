"""Stages that learn more the more they replay, for tests of the corrective branch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import Lay, Quiz, recipe, replay

from matura.core.errors import GateClosed
from matura.core.ledger import Ledger
from matura.ladder.climb import climb
from matura.ladder.recipe import Recipe
from matura.ladder.retry import Retried, retry
from matura.stages.parts import Train
from matura.stages.stage import Context, Made

QUIET = Ledger(mode="quiet")
QUIZ = Quiz(at_least=0.9)
RIDDLE = Quiz(exam="riddle", at_least=0.5)


class Learner(Lay):
    """Knows more of an exam the more it replays, or the longer it trains."""

    train: Train = Train(tokens=1000, batch_tokens=100)
    by_replay: dict[str, int] = {}  # noqa: RUF012
    """Right answers more for each 0.1 of replay."""
    by_tokens: dict[str, int] = {}  # noqa: RUF012
    """For each 1,000 tokens."""

    def make(self, work: Path, parents: Mapping[str, Path], context: Context) -> Made:
        share = sum(old.share for old in self.replay)
        knows = dict(self.knows)
        for name, more in self.by_replay.items():
            knows[name] += round(more * share * 10)
        for name, more in self.by_tokens.items():
            knows[name] += round(more * (self.train.tokens or 0) / 1000)
        return Lay.make(self.model_copy(update={"knows": knows}), work, parents, context)


def learner(name: str, knows: dict[str, int], *exams: Quiz, **more: Any) -> Learner:
    return Learner.model_construct(name=name, knows=knows, exams=exams, **more)


def three(folder: Path, **more: Any) -> Recipe:
    """`chat` forgets the quiz with little replay: 150 right, 20 more for each 0.1."""
    given = {"by_replay": {"quiz": 20}} | more
    return recipe(
        folder,
        learner("base", {"quiz": 190}, QUIZ),
        learner(
            "chat",
            {"riddle": 150, "quiz": 150},
            RIDDLE,
            replay=(replay("base", 0.1),),
            **given,
        ),
        learner("tools", {}, replay=(replay("base", 0.1), replay("chat", 0.2))),
    )


def closed(folder: Path, **more: Any) -> tuple[Recipe, Path, str]:
    """A run that was stopped at the gate of `chat`, and what it said."""
    made = three(folder / "text", **more)
    with pytest.raises(GateClosed) as problem:
        climb(made, folder, ledger=QUIET)
    return made, folder / "run", str(problem.value)


def again(made: Recipe, run: Path, *asked: str, ledger: Ledger = QUIET, **more: Any) -> Retried:
    return retry(made, run, "chat", replay=asked, ledger=ledger, **more)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir() if not path.name.startswith("."))
