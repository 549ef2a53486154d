"""What a report tells, gathered from a run's records alone: no model, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from matura.core.errors import DataError, StoreError
from matura.core.ledger import METRICS, read_rows
from matura.core.store import Folder
from matura.core.types import Item, Outcome, Score
from matura.exams.proof import score_from_json
from matura.ladder.gate import worst
from matura.ladder.status import Status, status
from matura.ladder.transcript import EXAMS, Row, columns, correction
from matura.report.prompted import Prompted, prompted

RIGHT_SHOWN, WRONG_SHOWN = 3, 5


UPDATE = "update/"
"""What rows call how far a group of weights moved."""


@dataclass(frozen=True)
class Curve:
    """How a stage learned."""

    losses: tuple[tuple[int, float], ...]
    """By step, of the training batches."""
    validation: Mapping[str, tuple[tuple[int, float], ...]]
    """By source."""
    moved: Mapping[str, float] = field(default_factory=dict)
    """How far a step moved each group of weights, relative to their size: the median over the
    steps in which it was measured."""


@dataclass(frozen=True)
class Share:
    """A part of a stage's tokens."""

    name: str
    asked: float
    got: float
    tokens: int
    replayed: bool


@dataclass(frozen=True)
class Samples:
    """Answers of one sitting."""

    exam: str
    stage: str
    score: Score
    outcome: Outcome
    """Of the sitting: for an exam sat again, whether it was kept."""
    right: tuple[Item, ...]
    wrong: tuple[Item, ...]


@dataclass(frozen=True)
class Stage:
    """One stage with all that is told about it."""

    row: Row
    kind: str
    curve: Curve
    shares: tuple[Share, ...]
    compute: str
    parameters: int
    prompted: Prompted | None = None
    """What its eval prompts were answered with."""
    events: tuple[Mapping[str, Any], ...] = ()
    """What went wrong in training and was passed over or gone back from."""


@dataclass(frozen=True)
class Facts:
    """All of a run."""

    name: str
    stages: tuple[Stage, ...]
    status: Status
    samples: tuple[Samples, ...]
    """The last sitting of each exam."""
    lineage: Mapping[str, int]
    """Tokens of the whole model by origin, as of its last stage."""
    machines: Sequence[Mapping[str, Any]]
    """Different ones, in the order they were used."""
    version: str
    columns: tuple[Row, ...] = ()
    """The transcript's: the stages that yield a model, each with the attempts it was compared
    with."""
    corrections: tuple[Mapping[str, Any], ...] = ()
    """Attempts side by side, as `transcript.correction` tells of them."""

    @property
    def trained(self) -> tuple[Stage, ...]:
        """The stages that yield a model."""
        return tuple(stage for stage in self.stages if stage.row.tokens or stage.row.sittings)


def facts(run: Path) -> Facts:
    """What there is to tell of a run.

    Raises:
        StoreError: no run there, or one of its folders is not whole or lacks something.
    """
    every = columns(run)
    found = [row for row in every if row.standing == "current"]
    try:
        stages = tuple(_stage(row) for row in found)
        last = found[-1].folder.record if found else {}
        machines: list[Mapping[str, Any]] = []
        for row in found:
            if (used := row.folder.record.get("machine", {})) not in machines:
                machines.append(used)
        return Facts(
            name=run.resolve().name,
            stages=stages,
            status=status(run),
            samples=tuple(_samples(found)),
            lineage=dict(last.get("lineage", {}).get("model_tokens", {})),
            machines=machines,
            version=str(last.get("version", "")),
            columns=tuple(row for row in every if row.tokens or row.sittings),
            corrections=tuple(told for row in every if (told := correction(row.folder))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise StoreError(f"{run}: a record is not what this version writes: {problem}") from problem


def _stage(row: Row) -> Stage:
    numbers = row.folder.record["numbers"]
    parts: Mapping[str, Any] = numbers.get("mixture", {}).get("parts", {})
    return Stage(
        row=row,
        kind=str(row.folder.record["asked"]["stage"]["kind"]),
        curve=_curve(row.folder),
        shares=tuple(
            Share(
                name,
                float(part["share_asked"]),
                float(part["share_got"]),
                int(part["tokens"]),
                name.startswith("replay:"),
            )
            for name, part in parts.items()
        )
        or _from_lineage(row),
        compute=_computed(numbers),
        parameters=int(numbers.get("parameters", 0)),
        prompted=prompted(row.folder),
        events=_events(row.folder),
    )


def _computed(numbers: Mapping[str, Any]) -> str:
    """How the arithmetic was done, and what of the model learnt, if not all."""
    told, lora = str(numbers.get("compute", "")), numbers.get("lora")
    if not lora:
        return told
    learnt, size = int(lora["trained_parameters"]), int(lora["adapter_bytes"])
    return f"{told}; LoRA of rank {lora['rank']}: {learnt:,} numbers learnt, {size / 1e6:.2f} MB"


def _from_lineage(row: Row) -> tuple[Share, ...]:
    """Shares of a stage whose record counts no parts."""
    found = row.folder.record.get("lineage", {})
    asked, got = found.get("asked", {}), found.get("got", {})
    return tuple(
        Share(
            name,
            float(share),
            float(got.get(name, 0.0)),
            round(got.get(name, 0.0) * row.tokens),
            not name.startswith(f"{row.name}/"),
        )
        for name, share in asked.items()
        if row.tokens
    )


def _events(folder: Folder) -> tuple[Mapping[str, Any], ...]:
    if METRICS not in folder.record["files"]:
        return ()
    return tuple(row for row in read_rows(folder.file(METRICS)) if "event" in row)


def _curve(folder: Folder) -> Curve:
    if METRICS not in folder.record["files"]:
        return Curve((), {})
    found = read_rows(folder.file(METRICS))
    validation: dict[str, list[tuple[int, float]]] = {}
    for row in found:
        for name, value in row.items():
            if name.startswith("validation/"):
                source = name.removeprefix("validation/")
                validation.setdefault(source, []).append((row["step"], float(value)))
    losses = tuple((row["step"], float(row["loss"])) for row in found if "loss" in row)
    moved: dict[str, list[float]] = {}
    for row in found:
        for name, value in row.items():
            if name.startswith(UPDATE):
                moved.setdefault(name.removeprefix(UPDATE), []).append(float(value))
    return Curve(
        losses,
        {name: tuple(points) for name, points in validation.items()},
        {name: median(values) for name, values in moved.items()},
    )


def _samples(found: Sequence[Row]) -> list[Samples]:
    """Each exam's last sitting, with a few answers that were right and the worst."""
    last: dict[str, tuple[Row, Mapping[str, Any]]] = {}
    for row in found:
        if EXAMS in row.folder.record["files"]:
            for score in row.folder.json(EXAMS)["sittings"]:
                last[score["exam"]] = (row, score)
    told = []
    for name, (row, spelled) in last.items():
        try:
            score = score_from_json(spelled)
        except DataError as problem:
            raise StoreError(f"{row.folder.path / EXAMS}: {problem}") from problem
        lower = score.settings.get("better") == "lower"
        ranked = sorted(score.items, key=lambda item: item.grade if lower else -item.grade)
        right = [item for item in ranked if lower or item.grade == 1.0]
        outcome = next(sitting.outcome for sitting in row.sittings if sitting.name == name)
        told.append(
            Samples(
                name,
                row.name,
                score,
                outcome,
                tuple(right[:RIGHT_SHOWN]),
                tuple(worst(score)[:WRONG_SHOWN]),
            )
        )
    return told
