"""The corrective branch: a stage made once more with something changed, held against the attempt
there is, and adopted only if better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core.disk import delete, preflight, replace_atomically
from matura.core.errors import DriftError, RecipeError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger
from matura.core.lock import RunLock
from matura.core.record import plain
from matura.core.store import Folder, address, attempts, latest, recorded, work_place
from matura.ladder import gate
from matura.ladder.climb import asked_of, decide, gate_closed
from matura.ladder.compare import Correction, scores
from matura.ladder.correction import corrected, place_of, taken_over
from matura.ladder.making import Step, least_bytes, make, unfinished
from matura.ladder.recipe import Recipe, load, spell
from matura.ladder.transcript import EXAMS, RECIPE, correction, read_row


@dataclass(frozen=True)
class Retried:
    """What a retry came to."""

    run: Path
    found: dict[str, Any]
    """Both attempts side by side, as `transcript.correction` tells it."""
    closed: str
    """What keeps the gate after the stage closed, whichever attempt it has now; empty if open."""

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"run": self.run.resolve().name, **self.found}


def whose(named: Path | None, runs_root: Path) -> tuple[Recipe, Path]:
    """The recipe and the run that `--run RUN|RECIPE` names; without it, the only run there is.

    Raises:
        RecipeError: no such run or recipe, or several to choose from.
    """
    made = sorted(runs_root.glob(f"*/{RECIPE}")) if runs_root.is_dir() else []
    names = [path.parent.name for path in made]
    if named is None:
        if len(names) != 1:
            several = f"several runs in {runs_root} ({', '.join(names)})"
            raise RecipeError(
                f"{several if names else f'no run in {runs_root}'}: give --run RUN or RECIPE"
            )
        named = made[0].parent
    if named.is_dir():
        if not (named / RECIPE).is_file():
            raise RecipeError(f"--run {named}: not a run: it has no {RECIPE}")
        return load(named / RECIPE), named
    if not named.exists():
        known = did_you_mean(named.name, names) if names else ""
        raise RecipeError(f"--run {named}: not there{known}")
    recipe = load(named)
    run = runs_root / recipe.name
    if not (run / RECIPE).is_file():
        raise RecipeError(f"--run {named}: {run} is no run yet; `matura run {named}` makes it")
    return recipe, run


def retry(
    recipe: Recipe,
    run: Path,
    name: str,
    *,
    replay: Sequence[str] = (),
    tokens: float | None = None,
    sets: Sequence[str] = (),
    ledger: Ledger | None = None,
) -> Retried:
    """Makes the stage's next attempt with something changed, and adopts it only if it is better.

    Killed at any moment, the same call goes on where it stopped.

    Raises:
        RecipeError: what is asked for makes no sense, or was tried already.
        DriftError: the run was made from another recipe, or its exams have changed since.
        StoreError: the run folder is in use, torn, corrupt or cannot be written.
    """
    ledger = ledger or Ledger()
    place_of(recipe, name)
    preflight(run)
    with RunLock(run):
        before = taken_over(recipe, run)
        after, changes = corrected(before, name, replay=replay, tokens=tokens, sets=sets)
        below, old = _standing(before, run, name)
        step = _step(after, run, name, below, Correction(old, _plain(before, name), changes))
        preflight(run, need_bytes=least_bytes(after, [step]))
        _make_room(work_place(step.final), step, ledger)
        ledger.say(f"{step.final.name} corrects {old.path.name}: {'; '.join(changes)}")
        held: dict[str, gate.Held] = {}
        for under in below:
            assert under.folder is not None
            held |= gate.held(under.stage.name, under.stage.exams, under.folder.path)
        done = {under.stage.name: under.folder for under in below if under.folder is not None}
        folder = make(after, step, done, list(held.values()), ledger)
        found = correction(folder)
        assert found is not None
        if found["adopted"]:
            replace_atomically(run / RECIPE, spell(after).encode())
        kept = after if found["adopted"] else before
        row = read_row(folder if found["adopted"] else old, {})
        for attempt in (old, folder):
            gate.tell(read_row(attempt, {}), ledger)
        _tell(found, after, run, ledger)
        stage = kept.stages[place_of(kept, name)]
        return Retried(run, found, "" if row.passed else gate_closed([(stage, row)], run))


def _plain(recipe: Recipe, name: str) -> Any:
    return plain(recipe.stages[place_of(recipe, name)])


def _standing(recipe: Recipe, run: Path, name: str) -> tuple[list[Step], Folder]:
    """The stages below, all there, and the attempt that is to be bettered."""
    stages = recipe.stages[: place_of(recipe, name) + 1]
    steps = decide(recipe.model_copy(update={"stages": stages}), run)
    missing = next((step for step in steps if step.folder is None), None)
    if missing is not None:
        raise RecipeError(
            f"retry {name}: {missing.final.name} is not made yet; `matura run` makes it first"
        )
    *below, last = steps
    assert last.folder is not None
    kept = scores(last.folder.json(EXAMS), last.folder.path / EXAMS)
    if not kept:
        raise RecipeError(f"retry {name}: no exam was sat, so nothing tells which is better")
    for exam in [exam for step in steps for exam in step.stage.exams]:
        then = kept[exam.exam].version if exam.exam in kept else None
        if then != exam.version:
            raise DriftError(
                f"{last.folder.path.name} sat {exam.exam} "
                f"{f'version {then}' if then else 'not at all'}, now it has version "
                f"{exam.version}: run again with --rebuild {name} first"
            )
    return below, last.folder


def _step(after: Recipe, run: Path, name: str, below: Sequence[Step], change: Correction) -> Step:
    addresses = {step.stage.name: step.final.name for step in below}
    asked = asked_of(after, len(below), addresses)
    numbers = attempts(run, name)
    for number in numbers:
        there = recorded(run / address(name, number))
        if there.get("asked") == asked:
            verdict = "was not adopted" if there.get("adopted") is False else "was replaced since"
            raise RecipeError(
                f"retry {name}: {address(name, number)} was made from exactly this and {verdict}; "
                "the same recipe makes the same model again"
            )
    final = run / address(name, numbers[-1] + 1)
    return Step(after.ladder[len(below)], "make", final, asked, None, change)


def _make_room(work: Path, step: Step, ledger: Ledger) -> None:
    """Drops what was begun there and is not what is asked for now."""
    begun = unfinished(work)
    if work.exists() and begun != step.noted:
        ledger.say(f"{work.name}: begun from something else, dropped")
        delete(work)


def _tell(found: dict[str, Any], after: Recipe, run: Path, ledger: Ledger) -> None:
    old, new, name = found["old"], found["new"], found["stage"]
    ledger.say(f"{new} {found['why']}")
    if not found["adopted"]:
        ledger.say(f"{old} stays the run's {name}; {new} is kept beside it, not adopted")
        return
    ledger.say(
        f"{new} is adopted; {run / RECIPE} now says {'; '.join(found['changes'])}, and "
        "`matura run` of the recipe as it was goes on from there"
    )
    names = [stage.name for stage in after.stages]
    above = [at for at in names[names.index(name) + 1 :] if latest(run, at) is not None]
    if above:
        ledger.say(f"{', '.join(above)} stand on {old}: `matura run` makes them again on {new}")
