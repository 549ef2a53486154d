"""How far a run is, read from its folder alone: it may be climbing in another process meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from matura.core.errors import StoreError
from matura.core.ledger import METRICS, read_rows, spell_count, spell_seconds
from matura.core.lock import held, holder
from matura.core.store import address, attempts, work_place
from matura.ladder.transcript import RECIPE, Row, rows, stage_names

State = Literal["passed", "not passed", "in progress", "unfinished", "waiting"]
COLOURS: dict[State, str] = {
    "passed": "green",
    "not passed": "red",
    "in progress": "cyan",
    "unfinished": "yellow",
    "waiting": "dim",
}
MADE, SITTINGS = "made.json", "sittings"


@dataclass(frozen=True)
class StageState:
    """Where one stage is."""

    name: str
    state: State
    attempt: int
    """The newest one, made or being made; 0 if none."""
    tokens: int
    seconds: float
    detail: str
    """What it is doing, or what keeps its gate closed."""


@dataclass(frozen=True)
class Status:
    """Where a run is."""

    run: Path
    climbing: str
    """Who is climbing it now; empty if nobody."""
    stages: tuple[StageState, ...]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run": self.run.resolve().name,
            "climbing": self.climbing or None,
            "stages": [vars(stage) for stage in self.stages],
        }


def status(run: Path) -> Status:
    """The state of every stage of a run.

    Raises:
        StoreError: no run there, or one of its folders is not whole.
    """
    made = {row.name: row for row in rows(run)}
    climbing = holder(run) if held(run) else ""
    stages = tuple(
        _state(run, name, made.get(name), climbing=bool(climbing)) for name in stage_names(run)
    )
    return Status(run, climbing, stages)


def runs(root: Path) -> list[Path]:
    """The run folders in a folder, by name.

    Raises:
        StoreError: the folder is not there.
    """
    if not root.is_dir():
        raise StoreError(
            f"{root}: not there, so there are no runs yet; `matura run RECIPE` starts one"
        )
    return sorted(path for path in root.iterdir() if (path / RECIPE).is_file())


def _state(run: Path, name: str, row: Row | None, *, climbing: bool) -> StageState:
    last = (attempts(run, name) or [0])[-1]
    work = work_place(run / address(name, last + 1))
    if work.is_dir():
        state: State = "in progress" if climbing else "unfinished"
        return StageState(name, state, last + 1, 0, 0.0, _doing(work))
    if row is None:
        return StageState(name, "waiting", 0, 0, 0.0, "")
    closed = [f"{s.name} {s.outcome}" for s in row.sittings if s.outcome != "pass"]
    state = "passed" if row.passed else "not passed"
    return StageState(name, state, row.attempt, row.tokens, row.seconds, ", ".join(closed))


def _doing(work: Path) -> str:
    if (work / MADE).exists():
        sat = len(list((work / SITTINGS).glob("*.json"))) if (work / SITTINGS).is_dir() else 0
        return f"sitting exams, {sat} done"
    found = read_rows(work / METRICS)
    losses = [row for row in found if "loss" in row]
    if not losses:
        return "making data"
    return f"training, step {losses[-1]['step'] + 1}, loss {losses[-1]['loss']:.3f}"


def drawn(found: Status) -> Table:
    """The state as a table."""
    title = f"{found.run.resolve().name}: " + (
        f"climbing ({found.climbing})" if found.climbing else "nobody is climbing"
    )
    table = Table("stage", "state", title=title, title_justify="left")
    for head in ("attempt", "tokens", "time"):
        table.add_column(head, justify="right")
    table.add_column("")
    for stage in found.stages:
        table.add_row(
            stage.name,
            Text(stage.state, style=COLOURS[stage.state]),
            str(stage.attempt or ""),
            spell_count(stage.tokens) if stage.tokens else "",
            spell_seconds(stage.seconds) if stage.seconds else "",
            Text(stage.detail),
        )
    return table
