"""The matrix exams × stages of a run, read from the records alone: no model, no torch.

What a sitting's outcome means: for a stage's own exam, whether its floors were met; for an earlier
stage's exam sat again, whether it was kept (the paired test). A gate is open if all are `pass`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from matura.core.errors import RecipeError, StoreError
from matura.core.ledger import spell_count, spell_seconds
from matura.core.store import Folder, address, attempts, latest, recorded
from matura.core.types import Outcome
from matura.ladder.lines import read

EXAMS = "exams.json"
RECIPE = "recipe.yaml"
Standing = Literal["current", "replaced", "not adopted"]
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


@dataclass(frozen=True)
class Sitting:
    """One exam sat after one stage."""

    name: str
    owner: str
    """The stage whose exam it is."""
    score: float
    low: float
    high: float
    n: int
    outcome: Outcome
    change: float | None
    """Against the sitting before; None the first time. For bits per byte, up is worse."""
    why: str
    """What the outcome hangs on, in a few words; empty if it passed."""


@dataclass(frozen=True)
class Row:
    """What a stage came to."""

    name: str
    attempt: int
    seconds: float
    peak_rss_bytes: int
    tokens: int
    sittings: tuple[Sitting, ...]
    folder: Folder
    standing: Standing = "current"
    """Whether it is the stage's current attempt, or one that a correction is compared with."""

    @property
    def passed(self) -> bool:
        """Whether the gate after this stage is open."""
        return all(sitting.outcome == "pass" for sitting in self.sittings)


def stage_names(run: Path) -> list[str]:
    """The run's stages in climbing order, as its saved recipe lists them.

    Raises:
        StoreError: no run there, or its recipe cannot be read.
    """
    if not run.is_dir():
        raise StoreError(f"{run}: {'not a folder' if run.exists() else 'not there'}")
    path = run / RECIPE
    try:
        return ["tokenizer", *(str(stage["name"]) for stage in read(path).value["stages"])]
    except RecipeError as problem:
        raise StoreError(f"not a run: {problem}") from problem
    except (KeyError, TypeError) as problem:
        raise StoreError(f"{path}: not a run's recipe: it lists no stages") from problem


def rows(run: Path) -> list[Row]:
    """Each stage that has an attempt, its current one, in climbing order.

    Raises:
        StoreError: no run there, or one of its folders is not whole.
    """
    return _rows(run, family=False)


def columns(run: Path) -> list[Row]:
    """The same, with the attempts that a correction compared beside the current one of its stage.

    Raises:
        StoreError: no run there, or one of its folders is not whole.
    """
    return _rows(run, family=True)


def _rows(run: Path, *, family: bool) -> list[Row]:
    found: list[Row] = []
    last: dict[str, float] = {}
    for name in stage_names(run):
        path = latest(run, name)
        if path is None:
            continue
        before = dict(last)
        for member in _family(run, name, path) if family else [path]:
            row = read_row(Folder.open(member, hashes="when read"), before)
            if member == path:
                last |= {sitting.name: sitting.score for sitting in row.sittings}
            else:
                declined = row.folder.record.get("adopted") is False
                row = replace(row, standing="not adopted" if declined else "replaced")
            found.append(row)
    return found


def _family(run: Path, name: str, current: Path) -> list[Path]:
    """The attempts of a stage that corrections tie to the current one, itself included, in order.

    An older one that is torn is left out: nothing stands on it.
    """
    paths = [run / address(name, number) for number in attempts(run, name)]
    corrects: dict[str, str] = {}
    for path in paths:
        try:
            corrects[path.name] = str(recorded(path).get("lineage", {}).get("corrects", ""))
        except (StoreError, AttributeError):
            if path == current:
                raise
    tied = {current.name}
    while more := {
        at
        for pair in corrects.items()
        if tied & set(pair)
        for at in pair
        if at in corrects and at not in tied
    }:
        tied |= more
    return [path for path in paths if path.name in tied]


def correction(folder: Folder) -> dict[str, Any] | None:
    """What a corrective attempt changed, and how it did against the one it was to better: what
    `matura retry --json` prints; scripts rely on these names and no others. None for any other
    attempt.

    Raises:
        StoreError: the record lacks something.
    """
    record = folder.record
    if "correction" not in record:
        return None
    try:
        kept, lineage = record["correction"], record["lineage"]
        return {
            "stage": str(record["stage"]),
            "old": str(lineage["corrects"]),
            "new": folder.path.name,
            "changes": list(lineage["changes"]),
            "adopted": bool(record["adopted"]),
            "why": str(kept["why"]),
            "exams": list(kept["exams"]),
        }
    except (KeyError, TypeError) as problem:
        raise StoreError(f"{folder.path}: not a correction's record: {problem!r}") from problem


def corrections(run: Path) -> list[dict[str, Any]]:
    """Every correction that `columns` shows.

    Raises:
        StoreError: no run there, or one of its folders is not whole.
    """
    return [found for row in columns(run) if (found := correction(row.folder)) is not None]


def read_row(folder: Folder, last: Mapping[str, float]) -> Row:
    """A stage's row; `last` has each exam's score at the sitting before.

    Raises:
        StoreError: the record or `exams.json` lacks something.
    """
    try:
        record, numbers = folder.record, folder.record["numbers"]
        kept = folder.json(EXAMS) if EXAMS in record["files"] else {"sittings": [], "owners": {}}
        again = {entry["exam"]: entry for entry in kept.get("regressions", [])}
        return Row(
            name=str(record["stage"]),
            attempt=int(record["attempt"]),
            seconds=float(numbers["seconds"]),
            peak_rss_bytes=int(numbers["peak_rss_bytes"]),
            tokens=int(numbers["tokens"]),
            sittings=tuple(
                _sitting(score, kept["owners"], again.get(score["exam"]), last)
                for score in kept["sittings"]
            ),
            folder=folder,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise StoreError(f"{folder.path}: not a stage's record: {problem!r}") from problem


def _sitting(
    score: Mapping[str, Any],
    owners: Mapping[str, str],
    again: Mapping[str, Any] | None,
    last: Mapping[str, float],
) -> Sitting:
    name, whole = score["exam"], score["overall"]
    before = last.get(name)
    outcome = _outcome(score, again)
    why = ""
    if outcome != "pass":
        why = _forgotten(again) if again else _short_of(score)
    return Sitting(
        name=name,
        owner=owners[name],
        score=whole["score"],
        low=whole["low"],
        high=whole["high"],
        n=whole["n"],
        outcome=outcome,
        change=None if before is None else whole["score"] - before,
        why=why,
    )


def _outcome(score: Mapping[str, Any], again: Mapping[str, Any] | None) -> Outcome:
    found: Outcome = again["outcome"] if again else score["outcome"]
    return found


def outcomes(kept: Mapping[str, Any]) -> dict[str, Outcome]:
    """The verdict of each sitting in an `exams.json`, by the exam's name."""
    again = {entry["exam"]: entry for entry in kept.get("regressions", [])}
    return {score["exam"]: _outcome(score, again.get(score["exam"])) for score in kept["sittings"]}


def _forgotten(again: Mapping[str, Any]) -> str:
    return (
        f"fell by {again['drop']:.3f} [{again['low']:.3f}, {again['high']:.3f}] "
        f"on {again['n']} items, {again['at_most']:g} allowed"
    )


def _short_of(score: Mapping[str, Any]) -> str:
    cells = {"": score["overall"], **score["buckets"]}
    return "; ".join(
        f"{name or 'all'} {cell['score']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}] "
        f"n={cell['n']}, {cell['floor']:g} asked"
        for name, cell in cells.items()
        if cell["outcome"] != "pass" and cell["floor"] is not None
    )


def transcript_json(run: Path) -> dict[str, Any]:
    """What `matura transcript RUN --json` prints; scripts rely on these names and no others.

    Raises:
        StoreError: no run there, or one of its folders is not whole.
    """
    corrected = corrections(run)
    return {
        "run": run.resolve().name,
        "stages": [
            {
                "name": row.name,
                "attempt": row.attempt,
                "seconds": row.seconds,
                "peak_rss_bytes": row.peak_rss_bytes,
                "tokens": row.tokens,
                "exams": [
                    {
                        "name": sitting.name,
                        "score": sitting.score,
                        "low": sitting.low,
                        "high": sitting.high,
                        "n": sitting.n,
                        "outcome": sitting.outcome,
                        "change": sitting.change,
                    }
                    for sitting in row.sittings
                ],
            }
            for row in rows(run)
        ],
        **({"corrections": corrected} if corrected else {}),
    }


def transcript_table(run: Path) -> Table:
    """The same as a table: a row for each exam, a column for each stage, or for each attempt of it
    where a correction compared some.

    Raises:
        StoreError: no run there, or one of its folders is not whole.
    """
    trained = [row for row in columns(run) if row.tokens or row.sittings]
    title = f"transcript of {run.resolve().name}"
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column("exam" if trained else "no stage has been trained yet")
    if not trained:
        return table
    for row in trained:
        standing = "" if row.standing == "current" else f"\n{row.standing}"
        table.add_column(f"{row.name}@{row.attempt}{standing}", justify="right")
    names = dict.fromkeys(sitting.name for row in trained for sitting in row.sittings)
    for name in names:
        cells = [next((s for s in row.sittings if s.name == name), None) for row in trained]
        table.add_row(name, *(_cell(sitting) for sitting in cells))
    table.add_section()
    table.add_row("tokens", *(spell_count(row.tokens) for row in trained))
    table.add_row("time", *(spell_seconds(row.seconds) for row in trained))
    table.add_row("peak memory", *(f"{row.peak_rss_bytes / 1e9:.2f} GB" for row in trained))
    return table


def _cell(sitting: Sitting | None) -> Text:
    if sitting is None:
        return Text("")
    change = "" if sitting.change is None else f" ({sitting.change:+.3f})"
    cell = Text(f"{sitting.score:.3f}{change}\n", style=COLOURS[sitting.outcome])
    # words, not colour alone: reports are read without colour too
    verdict = "" if sitting.outcome == "pass" else f"\n{sitting.outcome}"
    return cell.append(f"{sitting.low:.3f}–{sitting.high:.3f} n={sitting.n}{verdict}", style="dim")


def last_passed(run: Path) -> Folder:
    """The highest stage with a model up to which every gate is open: what a run's name stands for.

    Raises:
        StoreError: no stage has passed yet.
    """
    best: Folder | None = None
    for row in rows(run):
        if not row.passed:
            break
        if "model/config.json" in row.folder.record["files"]:
            best = row.folder
    if best is None:
        raise StoreError(f"{run}: no stage has passed its gate yet")
    return best
