"""Fakes at the seam between the ladder and what trains: a stage that writes a file, a model that
knows a number of answers, an exam that counts them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from matura.core.disk import replace_atomically
from matura.core.errors import DataError
from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.core.types import Cell, Item, Outcome, Score, Task, Trace
from matura.data.sources.folder import Folder as FolderSource
from matura.exams.exam import Exam, Hall
from matura.ladder.recipe import Gates, Recipe
from matura.stages.parts import ModelSpec, Part, Replay, TokenizerSpec, Train
from matura.stages.stage import Context, Made, StageKind

N = 200


@dataclass
class Knows:
    """A model that gets so many of each exam's items right."""

    right: Mapping[str, int]
    weights_sha256: str
    template: Any = None


class Quiz(Exam):
    """The first `right` of 200 items are right."""

    exam: Literal["quiz", "riddle"] = "quiz"
    version: ClassVar[int] = 3

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        yield from ()

    def grade(self, task: Task, trace: Trace) -> float:
        return 0.0

    def sit(self, hall: Hall) -> Score:
        right = hall.sampler.right[self.exam]  # type: ignore[attr-defined]
        floor = self.at_least or 0.0
        share = right / N
        outcome: Outcome = "pass" if share >= floor else "fail"
        cell = Cell(share, share - 0.02, share + 0.02, N, outcome, floor)
        items = tuple(
            Item(f"{self.exam}/{i}", "", grade, f"asked {i}", "gold", f"said {i}", "stop")
            for i, grade in enumerate([1.0] * right + [0.0] * (N - right))
        )
        weights = hall.sampler.weights_sha256
        return Score(
            self.exam, 3, cell, {}, cell.outcome, 0, items, "0", weights, {"better": "higher"}
        )


class Lay(StageKind):
    """Writes what its model knows, and notes that it was asked to."""

    calls: ClassVar[list[str]] = []
    stops: ClassVar[set[str]] = set()
    """Stages that are interrupted in the middle."""
    breaks: ClassVar[set[str]] = set()
    """Stages whose input is wrong."""

    kind: Literal["lay"] = "lay"
    knows: dict[str, int] = {}  # noqa: RUF012

    def make(self, work: Path, parents: Mapping[str, Path], context: Context) -> Made:
        self.calls.append(self.name)
        assert set(parents) >= {"tokenizer"}
        before = (
            json.loads((parents[context.start] / "model" / "config.json").read_text())
            if (context.start)
            else {}
        )
        (work / "model").mkdir(exist_ok=True)
        context.ledger.rewind(0)
        context.ledger.row(1, {"loss": 1.0})
        if self.name in self.breaks:
            raise DataError("text.jsonl:3: not JSON")
        if self.name in self.stops:
            Checkpoints(work / "state").save(1, lambda step: replace_atomically(step / "step", 1))
            raise KeyboardInterrupt
        replace_atomically(work / "model" / "config.json", before | self.knows)
        shares = {part.title: part.share for part in self.mixture}
        shares |= {f"replay:{old.stage}.folder": old.share for old in self.replay}
        return Made(tokens=1000, shares=shares, numbers={"steps": 10})

    def sampler(self, work: Path, parents: Mapping[str, Path], context: Context) -> Any:
        raw = (work / "model" / "config.json").read_bytes()
        return Knows(json.loads(raw), weights_sha256=raw.hex())


def lay(name: str, knows: dict[str, int], *exams: Exam, **more: Any) -> Lay:
    # unchecked: a recipe that is read may only name exams that are files
    return Lay.model_construct(name=name, knows=knows, exams=exams, **more)


def recipe(folder: Path, *stages: Lay, **more: Any) -> Recipe:
    """A recipe of fake stages over one small real folder of text."""
    folder.mkdir(exist_ok=True)
    if not (folder / "a.txt").exists():
        (folder / "a.txt").write_text("all the words there are\n" * 20)
        (folder / "b.txt").write_text("and some other words\n" * 20)
    source = FolderSource(path=folder)
    filled = []
    for stage in stages:
        replayed = sum(old.share for old in stage.replay)
        part = Part.model_construct(source=source, share=1 - replayed, name=None, max_repeats=5.0)
        filled.append(stage.model_copy(update={"mixture": (part,)}))
    fields: dict[str, Any] = {
        "name": "run",
        "seed": 0,
        "tokenizer": TokenizerSpec.model_construct(vocab_size=300, mixture=None),
        "model": ModelSpec(hidden_size=8, layers=1, heads=2, sequence_length=8),
        "gates": Gates(),
    }
    return Recipe.model_construct(**fields | {"stages": tuple(filled)} | more)


def replay(stage: str, share: float) -> Replay:
    return Replay(stage=stage, share=share)


def heard() -> tuple[Ledger, io.StringIO]:
    stream = io.StringIO()
    return Ledger(stream=stream), stream


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
