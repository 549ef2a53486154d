"""The climb: each stage is skipped, refused or made, then examined; a closed gate ends it.

All refusals come before anything is made. What is made is made beside its place (`base@1.work`) and
found there again after a kill; which stage needs what is written nowhere but in the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matura
from matura.core.disk import (
    GONE,
    PROBE,
    WORK,
    delete,
    preflight,
    read_json,
    replace_atomically,
    sync_tree,
    telling,
)
from matura.core.errors import DriftError, GateClosed, MaturaError, RecipeError, StoreError
from matura.core.leaves import did_you_mean
from matura.core.ledger import CLOCK, Ledger, spell_count, spell_seconds
from matura.core.lock import RunLock
from matura.core.record import differences, plain
from matura.core.store import (
    RECORD,
    Folder,
    address,
    attempts,
    leftovers,
    parse_address,
    place,
    publish,
    work_place,
)
from matura.ladder import gate
from matura.ladder.calibrate import shape_of
from matura.ladder.lineage import input_hashes, lineage
from matura.ladder.machine import forget_peak, machine, peak_rss_bytes
from matura.ladder.plan import CHECKPOINTS_KEPT, STATE_TIMES
from matura.ladder.recipe import Recipe, spell
from matura.ladder.transcript import EXAMS, RECIPE, Row, read_row
from matura.stages.prompts import load as load_prompts
from matura.stages.stage import Context, Made, StageKind

ASKED = "asked.json"
"""What an unfinished folder is made from: it is never finished from something else."""
MADE = "made.json"
"""A finished stage's numbers, while its exams are being sat."""


@dataclass(frozen=True)
class Climbed:
    """What a climb came to, by `stage@attempt`."""

    run: Path
    made: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What is to be done about one stage."""

    stage: StageKind
    action: Literal["skip", "make"]
    final: Path
    asked: Mapping[str, Any]
    folder: Folder | None
    """The stage's whole folder, if it is there already."""

    @property
    def parents(self) -> dict[str, Path]:
        """Where each needed stage lies, by its name."""
        asked: Mapping[str, str] = self.asked["parents"]
        return {name: self.final.parent / at for name, at in asked.items()}


def climb(
    recipe: Recipe, runs_root: Path, *, rebuild: str | None = None, ledger: Ledger | None = None
) -> Climbed:
    """Every stage of the recipe in `runs_root/<recipe's name>`, those already there skipped.

    Raises:
        RecipeError: `rebuild` names no stage.
        DriftError: a folder was made from something else, and was not asked to be rebuilt.
        StoreError: the run folder is in use, torn, corrupt or cannot be written.
        GateClosed: a stage did not pass, or forgot too much.
    """
    run = runs_root / recipe.name
    ledger = ledger or Ledger()
    if rebuild is not None and rebuild not in [stage.name for stage in recipe.ladder]:
        known = did_you_mean(rebuild, (stage.name for stage in recipe.ladder))
        raise RecipeError(f"--rebuild {rebuild}: no such stage{known}")
    preflight(run)
    with RunLock(run):
        steps = decide(recipe, run, rebuild)
        preflight(run, need_bytes=_least_bytes(recipe, steps))
        replace_atomically(run / RECIPE, spell(recipe).encode())
        _tidy(run, steps)
        return _climb(recipe, run, steps, ledger)


def _least_bytes(recipe: Recipe, steps: Sequence[Step]) -> int:
    """What the weights still to be made, and the checkpoints of one stage, surely take on disk."""
    making = sum(step.action == "make" and step.stage.trains for step in steps)
    if not making:
        return 0
    model_bytes = 4 * shape_of(recipe, recipe.tokenizer.vocab_size).parameters
    return round(model_bytes * (making + CHECKPOINTS_KEPT * STATE_TIMES))


def _climb(recipe: Recipe, run: Path, steps: Sequence[Step], ledger: Ledger) -> Climbed:
    done: dict[str, Folder] = {}
    held: dict[str, gate.Held] = {}
    last: dict[str, float] = {}
    closed: list[Row] = []
    for step in steps:
        folder = step.folder or _make(recipe, step, done, list(held.values()), ledger)
        done[step.stage.name] = folder
        held |= {
            exam.exam: gate.Held(exam, step.stage.name, folder.path) for exam in step.stage.exams
        }
        row = read_row(folder, last)
        last |= {sitting.name: sitting.score for sitting in row.sittings}
        _tell(step, row, ledger)
        if not row.passed:
            closed.append(row)
            gate.show_worst(row, ledger)
            if recipe.gates.on_fail == "stop":
                break
    if closed:
        first = closed[0]
        raise GateClosed(
            "\n".join(
                f"{row.folder.path.name} did not pass: {gate.why_closed(row)}" for row in closed
            )
            + f"\nEvery answer is in {first.folder.path / EXAMS}. Change the recipe and run again "
            f"with --rebuild {first.name}"
        )
    return Climbed(
        run,
        made=tuple(step.final.name for step in steps if step.action == "make"),
        skipped=tuple(step.final.name for step in steps if step.action == "skip"),
    )


def _tell(step: Step, row: Row, ledger: Ledger) -> None:
    did = "there already" if step.action == "skip" else "made"
    ledger.say(
        f"{step.final.name}: {did}, {spell_count(row.tokens)} tokens in "
        f"{spell_seconds(row.seconds)}, {row.peak_rss_bytes / 1e9:.2f} GB at most"
    )
    gate.tell(row, ledger)


# What is to be done


def decide(recipe: Recipe, run: Path, rebuild: str | None = None) -> list[Step]:
    """What is to be done about each stage, before anything is done.

    Raises:
        DriftError: some are there, made from something else; every difference is listed.
        StoreError: one that is there is not whole, or stands on one that is not there.
    """
    steps: list[Step] = []
    drift: list[str] = []
    addresses: dict[str, str] = {}
    anew: set[str] = set()
    """Stages made again although an attempt is there: what stands on them is made again too."""
    for index, stage in enumerate(recipe.ladder):
        asked = asked_of(recipe, index, addresses)
        forced = stage.name == rebuild or bool(anew & asked["parents"].keys())
        last = (attempts(run, stage.name) or [0])[-1]
        final = run / address(stage.name, last + 1)
        unfinished = _unfinished(work_place(final))
        if last and not forced and unfinished != asked:
            there = Folder.open(run / address(stage.name, last))
            changes = differences(_asked_then(there), asked)
            if changes and _outgrown(there, asked["parents"]):
                forced = True
            elif changes:
                drift += _drift(there.path.name, changes, stage.name)
            if not forced:
                _check_parents(run, there)
                steps.append(Step(stage, "skip", there.path, asked, there))
                addresses[stage.name] = there.path.name
                continue
        given_up = unfinished is not None and unfinished != asked and not forced
        if unfinished is not None and given_up and _worth_keeping(work_place(final)):
            drift += _drift(final.name + WORK, differences(unfinished, asked), stage.name)
        if last or forced:
            anew.add(stage.name)
        steps.append(Step(stage, "make", final, asked, None))
        addresses[stage.name] = final.name
    if drift:
        raise DriftError(
            "\n".join(drift)
            + "\nWays out: put the recipe back; or run again with --rebuild and the "
            "lowest stage named above, which makes its next attempt and all that stands on it and "
            f"leaves the old ones; or --set name=… for another run beside {run.name!r}"
        )
    return steps


def asked_of(recipe: Recipe, index: int, addresses: Mapping[str, str]) -> dict[str, Any]:
    """All that the stage is a function of; two folders with equal `asked` hold the same.

    Raises:
        DataError: an input file cannot be read.
    """
    stage = recipe.ladder[index]
    if stage.eval_prompts is not None:
        load_prompts(stage.eval_prompts)  # no part of what is asked, but to be right from the start
    asked: dict[str, Any] = {"stage": plain(stage), "seed": recipe.seed, "parents": {}}
    if stage.trains:
        needs = ["tokenizer", recipe.ladder[index - 1].name, *(r.stage for r in stage.replay)]
        asked |= {
            "model": plain(recipe.model),
            "gates": plain(recipe.gates),
            "parents": {name: addresses[name] for name in dict.fromkeys(needs)},
        }
    asked["inputs"] = input_hashes(stage.mixture)
    return asked


def _asked_then(there: Folder) -> dict[str, Any]:
    asked = there.record.get("asked")
    if not isinstance(asked, dict) or not isinstance(asked.get("parents"), dict):
        raise StoreError(f"{there.path / RECORD}: does not say what was asked")
    return asked


def _outgrown(there: Folder, parents: Mapping[str, str]) -> bool:
    """Whether a parent has a newer attempt: an earlier `--rebuild` was interrupted in between."""
    then = _asked_then(there)["parents"]
    return any(
        name in then and parse_address(now)[1] > parse_address(then[name])[1]
        for name, now in parents.items()
    )


def _check_parents(run: Path, there: Folder) -> None:
    for name, at in _asked_then(there)["parents"].items():
        if not (run / at).is_dir():
            raise StoreError(
                f"{there.path.name} stands on {at}, which is not in {run}; "
                f"put it back, or run again with --rebuild {name}"
            )


def _drift(what: str, changes: Sequence[str], stage: str) -> list[str]:
    return [
        f"{what} was made from something else:",
        *(f"  {_as_set(change, stage)}" for change in changes),
    ]


def _as_set(change: str, stage: str) -> str:
    """A difference as `--set` would spell its place."""
    if not change.startswith("stage."):
        return change
    inner = change.removeprefix("stage.")
    if stage == "tokenizer":
        return f"tokenizer.{inner.removeprefix('bpe.')}"
    return f"stages.{stage}.{inner}"


def _unfinished(work: Path) -> dict[str, Any] | None:
    """What an unfinished folder is being made from; None if there is none."""
    path = work / ASKED
    if not path.exists():
        return None
    asked = read_json(path)
    if not isinstance(asked, dict):
        raise StoreError(f"{path}: does not say what was asked")
    return asked


def _worth_keeping(work: Path) -> bool:
    """Whether an unfinished folder holds training, not only data that is soon made again."""
    return any((work / name).exists() for name in (MADE, RECORD)) or any(work.glob("state/step-*"))


def _tidy(run: Path, steps: Sequence[Step]) -> None:
    """Removes what nobody will go on with: half-deleted folders, and unfinished ones given up."""
    wanted = {
        work_place(step.final)
        for step in steps
        if step.action == "make" and _unfinished(work_place(step.final)) == step.asked
    }
    ours = {step.stage.name for step in steps}
    for path in leftovers(run):
        given_up = path not in wanted and path.name.partition("@")[0] in ours
        if given_up or path.name.endswith(GONE) or path.name.startswith(PROBE):
            delete(path)


# Making


def _make(
    recipe: Recipe,
    step: Step,
    done: Mapping[str, Folder],
    earlier: Sequence[gate.Held],
    ledger: Ledger,
) -> Folder:
    """The stage's whole folder, made and examined, going on from an interrupted try."""
    work, stage = work_place(step.final), step.stage
    if (work / RECORD).exists():  # killed between the record and the rename
        return place(Folder.open(work), step.final)
    with telling(work, "make"):
        work.mkdir(exist_ok=True)
    if not (work / ASKED).exists():
        replace_atomically(work / ASKED, step.asked)
    forget_peak()
    below = {name: recipe.ladder[i] for i, name in enumerate(done)}
    with ledger.at(work, stage.name) as pages:
        context = Context(
            seed=recipe.seed,
            tokenizer=recipe.tokenizer,
            model=recipe.model,
            start=next((name for name, kind in reversed(below.items()) if kind.trains), None),
            earlier=below,
            ledger=pages,
        )
        try:
            made = _made(stage, work, step.parents, context)
        except MaturaError:
            pages.close()  # its writer would look for the folder
            if not _worth_keeping(work):
                delete(work)
            raise
        if stage.trains:
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
    before = done[context.start].record["lineage"] if context.start else None
    record = {
        "stage": stage.name,
        "attempt": parse_address(step.final.name)[1],
        "asked": step.asked,
        "lineage": lineage(stage, below, made["shares"], made["tokens"], before),
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
