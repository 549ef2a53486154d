"""Which learning rate a stage wants: its first steps at several, from its own start and data.

Nothing is written into the run. What the stage stands on is read from there; the tokenizer of a run
that is not begun is made in a temporary folder, for the first stage alone needs nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from matura.core.errors import DriftError, RecipeError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger
from matura.core.record import differences
from matura.core.store import Folder, latest
from matura.ladder.climb import asked_of
from matura.ladder.recipe import Recipe
from matura.stages.learning import prepare
from matura.stages.parts import Train
from matura.stages.stage import Context

if TYPE_CHECKING:
    from matura.learn.sweep import Tried

END = 5
"""The last fifth of the steps is what a try came to: one batch says little."""
RATES = ("matrix_learning_rate", "embedding_learning_rate", "learning_rate")
HIGHEST: Mapping[str, float] = {
    name: limit.le
    for name in RATES
    for limit in Train.model_fields[name].metadata
    if hasattr(limit, "le")
}


@dataclass(frozen=True)
class Suggestion:
    """The factor to take, if there is one, and why."""

    factor: float | None
    why: str


@dataclass(frozen=True)
class Sweep:
    """What the tries came to."""

    recipe: str
    stage: str
    start: str
    """What the stage goes on from; the words `from scratch` for the first."""
    steps: int
    tokens_per_step: int
    compute: str
    rates: Mapping[str, float]
    """As the recipe has them, by the place in its `train`."""
    tried: tuple[Tried, ...]
    suggestion: Suggestion
    seconds: float

    def scaled(self, factor: float) -> dict[str, float]:
        """The rates at a factor, in three digits."""
        return {name: float(f"{rate * factor:.3g}") for name, rate in self.rates.items()}

    def sets(self) -> list[str]:
        """The suggestion as `--set` takes it, each rate no higher than a recipe may say."""
        if self.suggestion.factor is None:
            return []
        found = self.scaled(self.suggestion.factor).items()
        return [f"stages.{self.stage}.train.{n}={min(r, HIGHEST.get(n, r)):g}" for n, r in found]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "recipe": self.recipe,
            "stage": self.stage,
            "start": self.start,
            "steps": self.steps,
            "tokens_per_step": self.tokens_per_step,
            "compute": self.compute,
            "rates": dict(self.rates),
            "tried": [
                {
                    "factor": one.factor,
                    "rates": self.scaled(one.factor),
                    "losses": list(one.losses),
                    "end": end_of(one),
                    "stopped": one.stopped,
                    "diverged": diverged(one),
                }
                for one in self.tried
            ],
            "suggestion": {
                "factor": self.suggestion.factor,
                "why": self.suggestion.why,
                "set": self.sets(),
            },
            "seconds": self.seconds,
        }


def factors_between(low: float, high: float, count: int) -> tuple[float, ...]:
    """So many factors at equal ratios, both ends included, to three digits.

    Raises:
        RecipeError: they do not rise from above 0, or are fewer than three.
    """
    if not 0 < low < high < 1e6:
        raise RecipeError(f"--low {low:g} --high {high:g}: expected factors that rise from above 0")
    if count < 3:
        raise RecipeError(f"--tries {count}: at least 3 are needed to see a lowest one")
    ratio = (high / low) ** (1 / (count - 1))
    return tuple(float(f"{low * ratio**number:.3g}") for number in range(count))


def end_of(tried: Tried) -> float | None:
    """Mean loss over the last fifth of the steps; None if it was not reached."""
    if tried.stopped is not None or not tried.losses:
        return None
    last = tried.losses[-max(1, len(tried.losses) // END) :]
    return sum(last) / len(last)


def diverged(tried: Tried) -> bool:
    """Whether it ran out of numbers, or ended worse than it began."""
    end = end_of(tried)
    return end is None or end > tried.losses[0]


def suggest(tried: Sequence[Tried]) -> Suggestion:
    """The factor with the lowest loss at the end, unless the next one up diverged: then the one
    below it, for a whole training meets worse batches than these few."""
    ends = [None if diverged(one) else end_of(one) for one in tried]
    fine = [(end, number) for number, end in enumerate(ends) if end is not None]
    if not fine:
        return Suggestion(None, "every factor diverged: look lower with --low")
    end, best = min(fine)
    lowest = f"×{tried[best].factor:g} ends lowest, at {end:.3f}"
    higher = best + 1
    if higher < len(tried) and ends[higher] is None:
        told = f"{lowest}, but ×{tried[higher].factor:g} diverged"
        if best == 0 or ends[best - 1] is None:
            return Suggestion(tried[best].factor, f"{told}: nothing lower was tried, --low would")
        back = tried[best - 1]
        return Suggestion(back.factor, f"{told}: one step back, {ends[best - 1]:.3f}")
    beside = [
        f"{ends[number]:.3f} at ×{tried[number].factor:g}"
        for number in (best - 1, best + 1)
        if 0 <= number < len(tried) and ends[number] is not None
    ]
    edge = {0: "; nothing lower was tried, --low would", len(tried) - 1: "; nothing higher was "
            "tried, --high would"}.get(best, "")  # fmt: skip
    return Suggestion(tried[best].factor, f"{lowest} ({', '.join(beside)}){edge}")


def find(
    recipe: Recipe,
    run: Path,
    name: str,
    *,
    factors: Sequence[float],
    steps: int,
    ledger: Ledger | None = None,
) -> Sweep:
    """The first steps of a stage at each factor of its own rates.

    Raises:
        RecipeError: no such stage, one that does not train, or one whose lower stages are not made.
        DriftError: those below were made from something else than the recipe says.
        DataError: a source is wrong or yields nothing.
    """
    from matura.learn.sweep import shortened, sweep

    began = time.monotonic()
    ledger = ledger or Ledger(stage=name)
    index = _index(recipe, name)
    stage = recipe.ladder[index]
    train: Train = stage.train  # type: ignore[attr-defined]
    with TemporaryDirectory(prefix="matura-lr-") as folder:
        context, parents, work = standing(recipe, run, index, Path(folder), ledger)
        rows = max(1, train.batch_tokens // recipe.model.sequence_length)
        sized = steps * rows * recipe.model.sequence_length * len(factors)
        weigh = stage.weighs_tags(context)
        ready = prepare(stage, train, work, parents, context, weigh_tags=weigh, sized=sized)
        settings = shortened(ready.settings, steps)
        ledger.say(f"{name}: {len(factors)} tries of {settings.steps} steps")
        tried = sweep(
            ready.stepper, ready.batch, settings, factors, ledger, inherits=ready.inherits
        )
    return Sweep(
        recipe=recipe.name,
        stage=name,
        start="from scratch" if context.start is None else parents[context.start].name,
        steps=settings.steps,
        tokens_per_step=settings.tokens_per_step,
        compute=str(ready.compute),
        rates=_rates(train, settings.learning_rate),
        tried=tried,
        suggestion=suggest(tried),
        seconds=time.monotonic() - began,
    )


def _rates(train: Train, learning_rate: float) -> dict[str, float]:
    """What is to be multiplied, by its place in `train`: with adapters, theirs alone is in use."""
    if getattr(train, "lora", None) is not None:
        return {"lora.learning_rate": learning_rate}
    return {name: getattr(train, name) for name in RATES}


def _index(recipe: Recipe, name: str) -> int:
    """The place of a stage in the ladder.

    Raises:
        RecipeError: there is none of that name, or it does not train.
    """
    index = place_in_ladder(recipe, name)
    if not isinstance(getattr(recipe.ladder[index], "train", None), Train):
        kind = recipe.ladder[index].kind
        raise RecipeError(f"--stage {name}: a stage of kind {kind!r} has no learning rate")
    return index


def place_in_ladder(recipe: Recipe, name: str) -> int:
    """Which of the stages has that name, the tokenizer's counted.

    Raises:
        RecipeError: none.
    """
    names = [stage.name for stage in recipe.ladder]
    if name not in names:
        raise RecipeError(f"--stage {name}: no such stage{did_you_mean(name, names)}")
    return names.index(name)


def standing(
    recipe: Recipe, run: Path, index: int, folder: Path, ledger: Ledger
) -> tuple[Context, dict[str, Path], Path]:
    """What the stage may lean on, its parents' folders, and where its data are or may be put.

    Raises:
        RecipeError: a stage below is not made.
        DriftError: one was made from something else.
    """
    stage = recipe.ladder[index]
    below = recipe.ladder[:index]
    context = Context(
        seed=recipe.seed,
        tokenizer=recipe.tokenizer,
        model=recipe.model,
        start=next((kind.name for kind in reversed(below) if kind.has_model), None),
        earlier={kind.name: kind for kind in below},
        ledger=ledger,
        exams=tuple(exam for kind in recipe.stages for exam in kind.exams),
    )
    parents: dict[str, Path] = {}
    for number, kind in enumerate(below):
        there = latest(run, kind.name)
        if there is not None:
            _refuse_drift(recipe, number, there, parents)
            parents[kind.name] = there
        elif number == 0 and index == 1:
            parents[kind.name] = folder / kind.name
            parents[kind.name].mkdir()
            kind.make(parents[kind.name], {}, context)
        else:
            raise RecipeError(
                f"--stage {stage.name}: goes on from {kind.name!r}, which is not made in {run}; "
                f"make it first with --until {below[-1].name}"
            )
    own = latest(run, stage.name)
    if own is not None and _same_data(recipe, index, own, parents):
        return context, parents, own
    (folder / "work").mkdir()
    return context, parents, folder / "work"


def _refuse_drift(recipe: Recipe, number: int, there: Path, parents: Mapping[str, Path]) -> None:
    addresses = {name: path.name for name, path in parents.items()}
    asked = asked_of(recipe, number, addresses)
    changes = differences(Folder.open(there).record["asked"], asked)
    if changes:
        raise DriftError(f"{there.name} was made from something else:\n  " + "\n  ".join(changes))


def _same_data(recipe: Recipe, index: int, own: Path, parents: Mapping[str, Path]) -> bool:
    """Whether the stage is there already, of the same data, however it was trained."""
    addresses = {name: path.name for name, path in parents.items()}
    asks = (Folder.open(own).record["asked"], asked_of(recipe, index, addresses))
    then, now = ({**ask, "stage": {**ask["stage"], "train": None}} for ask in asks)
    return not differences(then, now)
