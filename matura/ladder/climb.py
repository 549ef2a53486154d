"""The climb: each stage is skipped, refused or made, then examined; a closed gate ends it.

All refusals come before anything is made. What is made is made beside its place (`base@1.work`) and
found there again after a kill; which stage needs what is written nowhere but in the records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.disk import GONE, PROBE, WORK, delete, preflight, replace_atomically
from matura.core.errors import DriftError, GateClosed, RecipeError, StoreError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger, spell_count, spell_seconds
from matura.core.lock import RunLock
from matura.core.record import differences, plain
from matura.core.store import (
    RECORD,
    Folder,
    address,
    attempts,
    latest,
    leftovers,
    parse_address,
    work_place,
)
from matura.ladder import gate
from matura.ladder.correction import suggestion, taken_over
from matura.ladder.lineage import input_hashes
from matura.ladder.making import CORRECTS, Step, least_bytes, make, unfinished, worth_keeping
from matura.ladder.recipe import Recipe, spell
from matura.ladder.transcript import EXAMS, RECIPE, Row, correction, read_row
from matura.stages.prompts import load as load_prompts
from matura.stages.stage import StageKind

if TYPE_CHECKING:
    from matura.learn.team import Team


@dataclass(frozen=True)
class Climbed:
    """What a climb came to, by `stage@attempt`."""

    run: Path
    made: tuple[str, ...]
    skipped: tuple[str, ...]


def climb(
    recipe: Recipe,
    runs_root: Path,
    *,
    rebuild: str | None = None,
    until: str | None = None,
    ledger: Ledger | None = None,
    team: Team | None = None,
    after: Callable[[Path], object] | None = None,
) -> Climbed:
    """Every stage of the recipe in `runs_root/<recipe's name>`, those already there skipped; or
    those up to `until`. Of a `team` this is the leader; the others follow. `after` is given the run
    whenever a stage was made.

    Raises:
        RecipeError: `rebuild` or `until` names no stage, or `rebuild` one above `until`.
        DriftError: a folder was made from something else, and was not asked to be rebuilt.
        StoreError: the run folder is in use, torn, corrupt or cannot be written.
        GateClosed: a stage did not pass, or forgot too much.
    """
    run = runs_root / recipe.name
    ledger = ledger or Ledger()
    last = _last(recipe, rebuild, until)
    preflight(run)
    with RunLock(run):
        recipe = taken_over(recipe, run, rebuild=rebuild, ledger=ledger)
        steps = decide(recipe, run, rebuild)[: last + 1]
        preflight(run, need_bytes=least_bytes(recipe, steps))
        replace_atomically(run / RECIPE, spell(recipe).encode())
        _tidy(run, steps)
        return _climb(recipe, run, steps, ledger, team, after)


def _last(recipe: Recipe, rebuild: str | None, until: str | None) -> int:
    """The number of the last stage to climb."""
    names = [stage.name for stage in recipe.ladder]
    for option, name in (("--rebuild", rebuild), ("--until", until)):
        if name is not None and name not in names:
            raise RecipeError(f"{option} {name}: no such stage{did_you_mean(name, names)}")
    last = len(names) - 1 if until is None else names.index(until)
    if rebuild is not None and names.index(rebuild) > last:
        raise RecipeError(f"--rebuild {rebuild}: stands above --until {until}")
    return last


def _climb(
    recipe: Recipe,
    run: Path,
    steps: Sequence[Step],
    ledger: Ledger,
    team: Team | None,
    after: Callable[[Path], object] | None,
) -> Climbed:
    done: dict[str, Folder] = {}
    held: dict[str, gate.Held] = {}
    last: dict[str, float] = {}
    closed: list[tuple[StageKind, Row]] = []
    for step in steps:
        folder = step.folder or make(recipe, step, done, list(held.values()), ledger, team)
        done[step.stage.name] = folder
        held |= gate.held(step.stage.name, step.stage.exams, folder.path)
        row = read_row(folder, last)
        last |= {sitting.name: sitting.score for sitting in row.sittings}
        _tell(step, row, ledger)
        if after is not None and step.action == "make":
            after(run)
        if not row.passed:
            closed.append((step.stage, row))
            gate.show_worst(row, ledger)
            if recipe.gates.on_fail == "stop":
                break
    if closed:
        raise GateClosed(gate_closed(closed, run))
    return Climbed(
        run,
        made=tuple(step.final.name for step in steps if step.action == "make"),
        skipped=tuple(step.final.name for step in steps if step.action == "skip"),
    )


def gate_closed(closed: Sequence[tuple[StageKind, Row]], run: Path) -> str:
    """What keeps the gates after these stages closed, and what can be done about the first."""
    stage, first = closed[0]
    lines = [f"{row.folder.path.name} did not pass: {gate.why_closed(row)}" for _, row in closed]
    return "\n".join(lines) + (
        f"\nEvery answer is in {first.folder.path / EXAMS}. Change the recipe and run again with "
        f"--rebuild {first.name}; or make {first.name} once more beside this attempt, adopted only "
        f"if better, with: {suggestion(first, stage, run)}"
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
        newest = (attempts(run, stage.name) or [0])[-1]
        current = latest(run, stage.name)
        final = run / address(stage.name, newest + 1)
        begun = unfinished(work_place(final))
        if current is not None and not forced and begun != asked:
            there = Folder.open(current)
            changes = differences(_asked_then(there), asked)
            if changes and _outgrown(there, asked["parents"]):
                forced = True
            elif changes:
                drift += _drift(there.path.name, changes, stage.name)
                drift += _corrected(there)
            if not forced:
                _check_parents(run, there)
                steps.append(Step(stage, "skip", there.path, asked, there))
                addresses[stage.name] = there.path.name
                continue
        given_up = begun is not None and begun != asked and not forced
        if begun is not None and given_up and worth_keeping(work_place(final)):
            drift += _drift(final.name + WORK, differences(begun, asked), stage.name)
        if current is not None or forced:
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
    asked["inputs"] = input_hashes(stage.mixture) | stage.inputs()
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


def _corrected(there: Folder) -> list[str]:
    """A line about the correction that a drifting stage is, if it is one."""
    found = correction(there)
    if found is None:
        return []
    return [f"  ({found['new']} corrects {found['old']}: {'; '.join(found['changes'])})"]


def _as_set(change: str, stage: str) -> str:
    """A difference as `--set` would spell its place."""
    if not change.startswith("stage."):
        return change
    inner = change.removeprefix("stage.")
    if stage == "tokenizer":
        return f"tokenizer.{inner.removeprefix('bpe.')}"
    return f"stages.{stage}.{inner}"


def _tidy(run: Path, steps: Sequence[Step]) -> None:
    """Removes what nobody will go on with: half-deleted folders, and unfinished ones given up.

    An unfinished correction stays for `matura retry`, unless its place is needed.
    """
    making = {work_place(step.final): step.noted for step in steps if step.action == "make"}
    ours = {step.stage.name for step in steps}
    for path in leftovers(run):
        given_up = path.name.endswith(GONE) or path.name.startswith(PROBE)
        if not given_up and path.name.partition("@")[0] in ours:
            begun = unfinished(path)
            kept = begun == making[path] if path in making else CORRECTS in (begun or {})
            given_up = not kept
        if given_up:
            delete(path)
