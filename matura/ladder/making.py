"""One stage from work folder to whole folder: made, examined, recorded.

Killed at any moment, it goes on from what lies in the work folder, and only from what was made of
the very same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matura
from matura.core.disk import delete, read_json, replace_atomically, sync_tree, telling
from matura.core.errors import MaturaError, StoreError
from matura.core.ledger import CLOCK, Ledger
from matura.core.store import RECORD, Folder, parse_address, place, publish, work_place
from matura.ladder import gate
from matura.ladder.calibrate import shape_of
from matura.ladder.compare import Correction
from matura.ladder.lineage import lineage
from matura.ladder.machine import forget_peak, machine, peak_rss_bytes
from matura.ladder.plan import CHECKPOINTS_KEPT, STATE_TIMES
from matura.ladder.recipe import Recipe, spell
from matura.stages.stage import Context, Made, StageKind

if TYPE_CHECKING:
    from matura.learn.team import Team

ASKED = "asked.json"
"""What an unfinished folder is made from: it is never finished from something else."""
MADE = "made.json"
"""A finished stage's numbers, while its exams are being sat."""
CORRECTS = "corrects"
"""In `asked.json` of a corrective attempt: the attempt that it is to better."""


@dataclass(frozen=True)
class Step:
    """What is to be done about one stage."""

    stage: StageKind
    action: Literal["skip", "make"]
    final: Path
    asked: Mapping[str, Any]
    folder: Folder | None
    """The stage's whole folder, if it is there already."""
    correction: Correction | None = None

    @property
    def parents(self) -> dict[str, Path]:
        """Where each needed stage lies, by its name."""
        asked: Mapping[str, str] = self.asked["parents"]
        return {name: self.final.parent / at for name, at in asked.items()}

    @property
    def noted(self) -> dict[str, Any]:
        """What `asked.json` says in its work folder."""
        corrects = {CORRECTS: self.correction.of.path.name} if self.correction else {}
        return {**self.asked, **corrects}


def least_bytes(recipe: Recipe, steps: Sequence[Step]) -> int:
    """What the weights still to be made, and the checkpoints of one stage, surely take on disk."""
    making = sum(step.action == "make" and step.stage.has_model for step in steps)
    if not making:
        return 0
    model_bytes = 4 * shape_of(recipe, recipe.tokenizer.vocab_size).parameters
    return round(model_bytes * (making + CHECKPOINTS_KEPT * STATE_TIMES))


def unfinished(work: Path) -> dict[str, Any] | None:
    """What an unfinished folder is being made from; None if there is none.

    Raises:
        StoreError: it does not say.
    """
    path = work / ASKED
    if not path.exists():
        return None
    asked = read_json(path)
    if not isinstance(asked, dict):
        raise StoreError(f"{path}: does not say what was asked")
    return asked


def worth_keeping(work: Path) -> bool:
    """Whether an unfinished folder holds training, not only data that is soon made again."""
    return any((work / name).exists() for name in (MADE, RECORD)) or any(work.glob("state/step-*"))


def make(
    recipe: Recipe,
    step: Step,
    done: Mapping[str, Folder],
    earlier: Sequence[gate.Held],
    ledger: Ledger,
    team: Team | None = None,
) -> Folder:
    """The stage's whole folder, made and examined, going on from an interrupted try.

    `done` are the folders of the stages below, in climbing order, and `earlier` their exams.

    Raises:
        MaturaError: it cannot be made; what is worth keeping stays for the next try.
    """
    work, stage = work_place(step.final), step.stage
    if (work / RECORD).exists():  # killed between the record and the rename
        return place(Folder.open(work), step.final)
    with telling(work, "make"):
        work.mkdir(exist_ok=True)
    if not (work / ASKED).exists():
        replace_atomically(work / ASKED, step.noted)
    forget_peak()
    below = {name: recipe.ladder[i] for i, name in enumerate(done)}
    with ledger.at(work, stage.name) as pages:
        context = Context(
            seed=recipe.seed,
            tokenizer=recipe.tokenizer,
            model=recipe.model,
            start=next((name for name, kind in reversed(below.items()) if kind.has_model), None),
            earlier=below,
            ledger=pages,
            exams=tuple(exam for kind in recipe.stages for exam in kind.exams),
            team=team,
            order=order(recipe, step, work, list(below)) if team is not None else {},
        )
        try:
            made = _made(stage, work, step.parents, context)
        except MaturaError:
            pages.close()  # its writer would look for the folder
            if not worth_keeping(work):
                delete(work)
            raise
        if stage.has_model:
            own = [gate.Held(exam, stage.name, work) for exam in stage.exams]
            if own or earlier:
                gate.examine(
                    stage.sampler(work, step.parents, context),
                    work,
                    own,
                    earlier,
                    seed=recipe.seed,
                    forget_at_most=recipe.gates.forget_at_most,
                    ledger=pages,
                )
        seconds, peak = pages.seconds, max(peak_rss_bytes(), int(made["peak_rss_bytes"]))
    whence = _whence(stage, made, done, below, context.start)
    verdict: Mapping[str, Any] = {}
    if (correction := step.correction) is not None:
        whence |= {"corrects": correction.of.path.name, "changes": list(correction.changes)}
        verdict = correction.verdict(work)
    record = {
        "stage": stage.name,
        "attempt": parse_address(step.final.name)[1],
        **verdict,
        "asked": step.asked,
        "lineage": whence,
        "version": matura.__version__,
        "machine": machine(),
        "numbers": {
            **made["numbers"],
            "seconds": round(seconds, 3),
            "peak_rss_bytes": peak,
            "tokens": made["tokens"],
        },
    }
    for name in (MADE, CLOCK):
        with telling(work / name, "remove"):
            (work / name).unlink(missing_ok=True)
    return publish(work, step.final, record)


def order(recipe: Recipe, step: Step, work: Path, below: Sequence[str]) -> dict[str, Any]:
    """What the other processes of a team are told, so that they train the stage too."""
    return {
        "recipe": spell(recipe),
        "stage": step.stage.name,
        "work": work.absolute().as_posix(),
        "parents": {name: at.absolute().as_posix() for name, at in step.parents.items()},
        "below": list(below),
    }


def _whence(
    stage: StageKind,
    made: Mapping[str, Any],
    done: Mapping[str, Folder],
    below: Mapping[str, StageKind],
    start: str | None,
) -> dict[str, Any]:
    """The stage's lineage, on top of that of the model it went on from."""
    before = done[start].record["lineage"] if start else None
    if "model_tokens" in made["numbers"]:  # of a model that is given: nothing below it is its
        before = {"model_tokens": made["numbers"]["model_tokens"]}
    data = {name: folder.record["numbers"].get("data", {}) for name, folder in done.items()}
    data[stage.name] = made["numbers"].get("data", {})
    return lineage(stage, below, made["shares"], made["tokens"], before, data)


def _made(
    stage: StageKind, work: Path, parents: Mapping[str, Path], context: Context
) -> dict[str, Any]:
    """What making the stage came to, kept so that a kill during its exams costs no training."""
    path = work / MADE
    if not path.exists():
        made: Made = stage.make(work, parents, context)
        sync_tree(work)
        numbers = {
            "tokens": made.tokens,
            "shares": dict(made.shares),
            "numbers": dict(made.numbers),
            "peak_rss_bytes": peak_rss_bytes(),
        }
        replace_atomically(path, numbers)
    found = read_json(path)
    if not isinstance(found, dict):
        raise StoreError(f"{path}: not a stage's numbers")
    return found
