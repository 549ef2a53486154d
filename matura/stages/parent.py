"""What a stage takes from its parent besides weights: `parent_rates: 0.8`, and what it cannot take.

The surprising thing: rates are written out before the recipe is read, as the dial does it. So what
is stated beside `parent_rates` wins, the resolved recipe holds every number, and the same numbers
written by hand are the same stage. A given model has its rates in the record beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError
from matura.stages.given import Given
from matura.stages.origin import record_of
from matura.stages.parts import Train
from matura.stages.stage import StageKind

RATES = ("learning_rate", "embedding_learning_rate", "matrix_learning_rate")
BATCH = "batch_tokens"
"""Goes with the rates, which are right for a batch of some size."""
TRAIN, TIMES, STATE = "train", "parent_rates", "optimizer_state"
DIGITS = 10
"""0.8 times 0.03 is 0.024, and not 0.024000000000000004."""


def filled(value: Any) -> Any:
    """A recipe's value with the rates that stages take from their parents written out."""
    stages = value.get("stages") if isinstance(value, Mapping) else None
    if not isinstance(stages, Sequence) or not any(_asks(stage) for stage in stages):
        return value
    found: list[Any] = []
    parent: int | None = None
    for number, stage in enumerate(stages):
        if _asks_state(stage) and parent is not None and found[parent].get("kind") == "given":
            found[parent] = {"optimizer_state": "copied", **found[parent]}
        found.append(_with(stage, None if parent is None else found[parent]))
        if isinstance(stage, Mapping) and (stage.get("kind") != "given" or stage.get("model")):
            parent = number
    return {**value, "stages": found}


def told(stages: Sequence[StageKind]) -> Iterator[str]:
    """A line for each thing that a stage takes from its parent, with the numbers that came of it
    and, where another was stated, what the parent gives."""
    for number, stage in enumerate(stages):
        train, parent = getattr(stage, TRAIN, None), parent_of(stages[:number])
        if not isinstance(train, Train) or parent is None:
            continue
        if train.parent_rates is not None:
            words = []
            for name, rate in (rates_of(parent) or {}).items():
                gives, stands = _given(name, rate, train.parent_rates), getattr(train, name)
                other = "" if stands == gives else f" (stated; {parent.name} gives {gives:,})"
                words.append(f"{name} {stands:,}{other}")
            yield f"{stage.name}: by {train.parent_rates:g} × {parent.name}: {', '.join(words)}"
        if train.optimizer_state == "parent":
            yield f"{stage.name}: its optimizer goes on from {parent.name}'s"


def parent_of(below: Sequence[StageKind]) -> StageKind | None:
    """The stage whose model one above them goes on with."""
    return next((stage for stage in reversed(below) if stage.has_model), None)


def rates_of(parent: StageKind) -> dict[str, float] | None:
    """The rates of a stage and its batch; None of adapters, or if nobody says."""
    train = getattr(parent, TRAIN, None)
    if isinstance(train, Train):
        return _of(train.model_dump(include={*RATES, BATCH, "lora"}))
    return _recorded(parent.model) if isinstance(parent, Given) else None


def refused(train: Train, below: Sequence[StageKind]) -> Iterator[tuple[str, str]]:
    """What a stage asks of its parent and cannot have: the field, and why."""
    state = train.optimizer_state == "parent"
    asked = [field for field, on in ((STATE, state), (TIMES, train.parent_rates)) if on]
    parent = parent_of(below)
    for field in asked:
        what = "an optimizer" if field == STATE else "rates"
        if parent is None:
            yield field, f"no stage below makes a model, so there is no parent that had {what}"
        elif train.lora is not None:
            yield field, f"adapters have {what} of their own; leave out this or 'lora'"
        elif getattr(getattr(parent, TRAIN, None), "lora", None) is not None:
            yield field, f"{parent.name} trains adapters, which had {what} of their own"
        elif isinstance(parent, Given) and (field, parent.optimizer_state) == (STATE, "left"):
            yield field, f"{parent.name} leaves it where it is; say 'copied' there, or 'fresh' here"
        elif field == TIMES and rates_of(parent) is None:
            yield field, f"no record says with what rates {parent.name} was trained; state them"


def _with(stage: Any, parent: Any) -> Any:
    """The stage with its parent's rates, if it asks for them and they are known."""
    times = _times(stage)
    if times is None or not isinstance(parent, Mapping):
        return stage
    if parent.get("kind") == "given":
        model = parent.get("model")
        rates = _recorded(Path(model)) if isinstance(model, str | Path) else None
    else:
        train = parent.get(TRAIN, {})
        rates = _of(train) if isinstance(train, Mapping) else None
    if rates is None:
        return stage  # why is said where it stands
    own = {name: _given(name, rate, times) for name, rate in rates.items()}
    return {**stage, TRAIN: own | stage[TRAIN]}


def _recorded(model: Path | None) -> dict[str, float] | None:
    """The rates that the record beside a model says it was trained with."""
    if model is None:
        return None
    try:
        asked = record_of(model).get("asked", {})
    except MaturaError:
        return None
    train = asked.get("stage", {}).get(TRAIN)
    return _of(train) if isinstance(train, dict) and {*RATES, BATCH} <= train.keys() else None


def _of(train: Mapping[str, Any]) -> dict[str, float] | None:
    """The rates and the batch of a training as it is spelled; None where they are of adapters, or
    are no numbers."""
    if train.get("lora") is not None:
        return None
    usual = {name: Train.model_fields[name].default for name in (*RATES, BATCH)}
    found = {name: _number(train.get(name, default)) for name, default in usual.items()}
    numbers = {name: number for name, number in found.items() if number is not None}
    return numbers if numbers.keys() == usual.keys() else None


def _asks(stage: Any) -> bool:
    return _times(stage) is not None or _asks_state(stage)


def _asks_state(stage: Any) -> bool:
    train = stage.get(TRAIN) if isinstance(stage, Mapping) else None
    return isinstance(train, Mapping) and train.get(STATE) == "parent"


def _times(stage: Any) -> float | None:
    train = stage.get(TRAIN) if isinstance(stage, Mapping) else None
    return _number(train.get(TIMES)) if isinstance(train, Mapping) else None


def _given(name: str, value: float, times: float) -> float:
    """What comes of a parent's rate; its batch is taken as it is."""
    return value if name == BATCH else float(f"{value * times:.{DIGITS}g}")


def _number(given: Any) -> float | None:
    """A number above 0, if it is one."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return given if 0 < given < math.inf else None
