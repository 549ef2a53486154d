"""Two attempts of one stage side by side, on the same items of every exam: which one is better.

The newer one is adopted if it passes the gate and the older does not; it never is if it is the
other way round; otherwise only if it is surely better somewhere and surely worse nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from matura.core.disk import read_json
from matura.core.errors import DataError, StoreError
from matura.core.store import Folder
from matura.core.types import Outcome, Score
from matura.exams.forgetting import SURE, forgotten
from matura.exams.proof import score_from_json
from matura.ladder.transcript import COLOURS, EXAMS, outcomes

Verdict = Literal["better", "worse", "same"]
VERDICT_COLOURS: Mapping[Verdict, str] = {"better": "green", "worse": "red", "same": ""}


@dataclass(frozen=True)
class Side:
    """How one attempt did in one exam."""

    score: float
    low: float
    high: float
    n: int
    outcome: Outcome


@dataclass(frozen=True)
class Compared:
    """One exam of both attempts."""

    name: str
    old: Side
    new: Side
    gain: float
    """Of the new one, on the items both were asked; positive is better, for bits per byte too."""
    low: float
    high: float
    """95 % interval of the gain."""
    n: int
    """Items both were asked."""
    verdict: Verdict


@dataclass(frozen=True)
class Correction:
    """A stage that is made again with something changed, to be better than an attempt there is."""

    of: Folder
    was: Mapping[str, Any]
    """How that attempt's stage was spelled, as `record.plain` does."""
    changes: tuple[str, ...]

    def verdict(self, work: Path) -> dict[str, Any]:
        """What the record of the new attempt, examined in `work`, says of the two.

        Raises:
            StoreError: one of them did not sit what the other sat.
        """
        old, new = self.of.json(EXAMS), read_json(work / EXAMS)
        before, after = scores(old, self.of.path / EXAMS), scores(new, work / EXAMS)
        if before.keys() != after.keys():
            odd = ", ".join(sorted(before.keys() ^ after.keys()))
            raise StoreError(f"{self.of.path}: the two attempts sat different exams: {odd}")
        verdicts = outcomes(old), outcomes(new)
        found = [
            compare(before[name], after[name], [seen[name] for seen in verdicts], len(after))
            for name in after
        ]
        passed = [set(seen.values()) <= {"pass"} for seen in verdicts]
        adopted, why = decision(found, self.of.path.name, *passed)
        return {
            "adopted": adopted,
            "correction": {"was": self.was, "why": why, "exams": [asdict(exam) for exam in found]},
        }


def scores(kept: Mapping[str, Any], where: Path) -> dict[str, Score]:
    """Every sitting in an `exams.json`, by the exam's name.

    Raises:
        StoreError: one is no score.
    """
    try:
        return {str(data["exam"]): score_from_json(data) for data in kept["sittings"]}
    except (DataError, KeyError, TypeError) as problem:
        raise StoreError(f"{where}: {problem}") from problem


def compare(old: Score, new: Score, verdicts: Sequence[Outcome], exams: int) -> Compared:
    """One exam of two attempts, by a paired test on the items both were asked.

    Among many exams one looks better by chance alone, so a gain must be surer the more there are;
    a loss need not be: in doubt the old attempt stays.

    Raises:
        DriftError: they are different versions of the exam, or have no item in common.
    """
    drop, rise = forgotten(old, new, 0.0), forgotten(new, old, 0.0)
    verdict: Verdict = "same"
    if drop.drop > 0 and drop.chance < SURE:
        verdict = "worse"
    elif rise.drop > 0 and rise.chance < SURE / exams:
        verdict = "better"
    before, after = (
        Side(cell.score, cell.low, cell.high, cell.n, outcome)
        for cell, outcome in zip((old.overall, new.overall), verdicts, strict=True)
    )
    return Compared(old.exam, before, after, rise.drop, rise.low, rise.high, rise.n, verdict)


def decision(
    exams: Sequence[Compared], old: str, old_passed: bool, new_passed: bool
) -> tuple[bool, str]:
    """Whether the new attempt is adopted, and why, in words that follow its name."""
    if new_passed and not old_passed:
        return True, f"passes the gate that {old} did not pass"
    if old_passed and not new_passed:
        return False, f"does not pass the gate that {old} passed"
    better, worse = (_named(exams, verdict) for verdict in ("better", "worse"))
    if worse:
        return False, f"is worse than {old} in {worse}"
    if better:
        return True, f"is better than {old} in {better} and worse nowhere"
    return False, f"is not surely better than {old} anywhere"


def _named(exams: Sequence[Compared], verdict: str) -> str:
    return ", ".join(f"{e.name} ({e.gain:+.3f})" for e in exams if e.verdict == verdict)


def comparison_table(found: Mapping[str, Any]) -> Table:
    """Both attempts of a correction as a table, from what `transcript.correction` tells of it."""
    table = Table("exam", title=f"{found['old']} and {found['new']}", title_justify="left")
    for head in (found["old"], found["new"], "gain on the same items"):
        table.add_column(str(head), justify="right")
    table.add_column("")
    for exam in found["exams"]:
        verdict: Verdict = exam["verdict"]
        table.add_row(
            exam["name"],
            *(_side(exam[side]) for side in ("old", "new")),
            f"{exam['gain']:+.3f}\n{exam['low']:+.3f} to {exam['high']:+.3f} n={exam['n']}",
            Text(verdict, style=VERDICT_COLOURS[verdict]),
        )
    return table


def _side(side: Mapping[str, Any]) -> Text:
    cell = Text(f"{side['score']:.3f}\n", style=COLOURS[side["outcome"]])
    verdict = "" if side["outcome"] == "pass" else f"\n{side['outcome']}"
    return cell.append(f"{side['low']:.3f}–{side['high']:.3f} n={side['n']}{verdict}", style="dim")
