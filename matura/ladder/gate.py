"""After a stage: its own exams and every earlier one are sat, and the gate opens or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matura.core.disk import delete, read_json, replace_atomically
from matura.core.errors import DataError, StoreError
from matura.core.ledger import Ledger
from matura.core.store import Folder
from matura.core.types import Item, Score
from matura.exams.exam import Exam, Hall, forgotten, score_from_json, score_to_json
from matura.ladder.transcript import EXAMS, Row
from matura.stages.loading import held_out_documents
from matura.talk.rollout import Sampler
from matura.talk.tool import toolbox

SITTINGS = "sittings"
"""Finished sittings of a stage that is being examined, so that a kill costs one exam at most."""
WORST = 10
SHOWN_CHARACTERS = 72


@dataclass(frozen=True)
class Held:
    """An exam, the stage it belongs to, and that stage's folder."""

    exam: Exam
    owner: str
    folder: Path


def held(owner: str, exams: Sequence[Exam], folder: Path) -> dict[str, Held]:
    """A stage's exams by name, as later stages sit them again."""
    return {exam.exam: Held(exam, owner, folder) for exam in exams}


def examine(
    sampler: Sampler,
    work: Path,
    own: Sequence[Held],
    earlier: Sequence[Held],
    *,
    seed: int,
    forget_at_most: float,
    ledger: Ledger,
) -> None:
    """Writes `exams.json` into `work`: own exams, earlier ones sat again, and what was forgotten.

    Raises:
        RolloutError: too many conversations of an exam broke.
        StoreError: an earlier sitting cannot be read, or the disk refuses.
    """
    names = {held.exam.exam for held in own}
    again = [held for held in earlier if held.exam.exam not in names]
    sittings: list[Score] = []
    regressions: list[dict[str, Any]] = []
    weights = sampler.weights_sha256
    for number, held in enumerate([*own, *again]):
        ledger.progress(number, len(own) + len(again), unit="exams", notes={"now": held.exam.exam})
        score = _sat(sampler, weights, work, held, seed)
        sittings.append(score)
        if number >= len(own):
            limit = held.exam.forget_at_most
            at_most = forget_at_most if limit is None else limit
            change = forgotten(earlier_sitting(held), score, at_most)
            regressions.append(asdict(change))
    ledger.clear()
    kept = {
        "owners": {held.exam.exam: held.owner for held in (*own, *again)},
        "sittings": [score_to_json(score) for score in sittings],
        "regressions": regressions,
    }
    replace_atomically(work / EXAMS, kept)
    if (work / SITTINGS).exists():
        delete(work / SITTINGS)


def _sat(sampler: Sampler, weights: str, work: Path, held: Held, seed: int) -> Score:
    """The score of a sitting, from an interrupted try of the same model if it got that far."""
    path = work / SITTINGS / f"{held.exam.exam}.json"
    if path.exists():
        score = _read_score(read_json(path), path)
        if score.weights_sha256 == weights:
            return score
    hall = Hall(
        sampler,
        seed,
        held_out=lambda: held_out_documents(held.folder / "data"),
        purpose="gate",
        tools=toolbox(),
    )
    score = held.exam.sit(hall)
    if score.weights_sha256 != weights:
        raise StoreError(f"exam {held.exam.exam}: sat by other weights than those it was given")
    path.parent.mkdir(exist_ok=True)
    replace_atomically(path, score_to_json(score))
    return score


def earlier_sitting(held: Held) -> Score:
    """How the exam went when its own stage sat it: what later stages are held to.

    Raises:
        StoreError: that stage has no such sitting.
    """
    kept = Folder.open(held.folder, hashes="when read").json(EXAMS)
    for score in kept["sittings"]:
        if score["exam"] == held.exam.exam:
            return _read_score(score, held.folder / EXAMS)
    raise StoreError(f"{held.folder / EXAMS}: no sitting of {held.exam.exam}")


def _read_score(data: Mapping[str, Any], where: Path) -> Score:
    try:
        return score_from_json(data)
    except DataError as problem:
        raise StoreError(f"{where}: {problem}") from problem


def tell(row: Row, ledger: Ledger) -> None:
    """One line for each sitting."""
    for sitting in row.sittings:
        change = "" if sitting.change is None else f", {sitting.change:+.3f}"
        ledger.say(
            f"{row.name}@{row.attempt}: {sitting.name} {sitting.score:.3f} "
            f"[{sitting.low:.3f}, {sitting.high:.3f}] n={sitting.n}{change}: {sitting.outcome}"
        )


def why_closed(row: Row) -> str:
    """What keeps the gate after this stage closed, in one line."""
    return ", ".join(
        f"{sitting.name} {sitting.outcome} ({sitting.why})"
        for sitting in row.sittings
        if sitting.outcome != "pass"
    )


def show_worst(row: Row, ledger: Ledger) -> None:
    """The worst ten answers of each exam that keeps the gate closed."""
    kept = row.folder.json(EXAMS)
    scores = {data["exam"]: data for data in kept["sittings"]}
    for sitting in row.sittings:
        if sitting.outcome == "pass":
            continue
        score = _read_score(scores[sitting.name], row.folder.path / EXAMS)
        table = [
            (
                _short(item.prompt),
                _short(item.gold),
                _short(item.error or item.output),
                item.finish_reason,
                item.grade,
            )
            for item in worst(score)
        ]
        title = f"{row.name}@{row.attempt}: worst answers in {sitting.name}"
        ledger.table(title, ("asked", "expected", "said", "ended by", "grade"), table)


def worst(score: Score) -> list[Item]:
    """The ten items that went worst, wrong ones only; those that broke come last."""
    sign = -1.0 if score.settings.get("better") == "lower" else 1.0
    short = [item for item in score.items if sign < 0 or item.grade < 1 or item.error]
    return sorted(short, key=lambda item: (item.error is not None, sign * item.grade))[:WORST]


def _short(text: str) -> str:
    line = text.replace("\n", "\\n")
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
