"""One dial: from a model's depth to its width, heads, rates, batch and token budget.

The surprising thing: it only fills in what a recipe leaves out, before the recipe is read. So
whatever is stated beside `depth` wins, what follows from it follows from what was stated, and the
resolved recipe holds every number. Formulas, their reasons and sources are in docs/dial.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ASPECT = 64
"""Channels a layer: Karpathy 2025 (nanochat); GPT-2 to GPT-3 lie between 64 and 128."""
WIDE_HEAD, NARROW_HEAD = 128, 64
"""Channels of a head from `WIDE_FROM` on and below: Karpathy 2025; Radford et al. 2019."""
WIDE_FROM = 768
SHORTEST, LONGEST = 256, 2048
"""Of a row."""
PER_PARAMETER = 20.0
"""Tokens: Hoffmann et al. 2022."""
# The point that batches and rates are measured from: nanochat's d20 at 20 tokens a parameter.
BATCH = 2**19
BATCH_AT = 20 * 560_988_160
BATCH_POWER = 0.383
"""Best batch over tokens trained on: Bergsma et al. 2025."""
LEAST_BATCH = 2**12
RATES: Mapping[str, float] = {
    "matrix_learning_rate": 0.02,
    "embedding_learning_rate": 0.2,
    "learning_rate": 0.004,
}
"""At `BATCH` and a width of `WIDTH`: Karpathy 2025."""
WIDTH = 768
ROWS_FILLED = 0.985
"""Of a packed row's tokens; measured 0.97 to 0.999."""
DEEPEST = 256
MODEL, TRAIN = "model", "train"


@dataclass(frozen=True)
class Budget:
    """How much a base learns from, and how much at a time."""

    parameters: int
    """As the dial counts: the matrices and both tables; no norms, no rounding of the SwiGLU."""
    steps: int
    tokens: int
    """What `train.tokens` counts: what stands in the rows, padding left out."""
    batch_tokens: int


def shape(depth: int) -> dict[str, Any]:
    """The fields of `ModelSpec` that a depth gives."""
    narrow = ASPECT * depth < WIDE_FROM
    head = NARROW_HEAD if narrow else WIDE_HEAD
    heads = math.ceil(ASPECT * depth / head)
    row = 2 ** round(math.log2(2 * ASPECT * depth))
    return {
        "hidden_size": heads * head,
        "layers": depth,
        "heads": heads,
        "sequence_length": min(LONGEST, max(SHORTEST, row)),
        "qk_norm": True,
        "tie_embeddings": False,
    }


def counted(layers: int, hidden_size: int, vocab_size: int) -> int:
    """Parameters as the dial counts them: 12 squares of the width a layer, and two tables."""
    return 12 * layers * hidden_size**2 + 2 * vocab_size * hidden_size


def budget(
    parameters: int,
    sequence_length: int,
    *,
    per_parameter: float = PER_PARAMETER,
    batch_tokens: int | None = None,
) -> Budget:
    """The horizon of a base, and its batch unless that is given."""
    learned = per_parameter * parameters
    if batch_tokens is None:
        best = BATCH * (learned / BATCH_AT) ** BATCH_POWER
        batch_tokens = max(LEAST_BATCH, sequence_length, 2 ** round(math.log2(best)))
    rows = max(1, batch_tokens // sequence_length)
    steps = max(1, round(learned / (rows * sequence_length)))
    # a row reads one token more than it learns, and is not quite full
    tokens = round(steps * rows * (sequence_length + 1) * ROWS_FILLED)
    return Budget(parameters, steps, tokens, batch_tokens)


def rates(hidden_size: int, batch_tokens: int) -> dict[str, float]:
    """The three rates, to three digits: all by the root of the batch (Malladi et al. 2022), those
    of tables by the inverse root of the width as well (Karpathy 2025)."""
    batch = math.sqrt(batch_tokens / BATCH)
    width = math.sqrt(WIDTH / hidden_size)
    return {
        name: float(f"{rate * batch * (1.0 if name.startswith('matrix') else width):.3g}")
        for name, rate in RATES.items()
    }


def filled_model(given: Any) -> Any:
    """A recipe's `model` with what its depth gives put in; as it is without one."""
    if not isinstance(given, Mapping) or given.get("depth") is None:
        return given
    # no such depth is refused where it stands, and nothing else need be complained of
    found = shape(min(_count(given, "depth") or 1, DEEPEST))
    if width := _count(given, "hidden_size"):  # heads as wide as the dial's, if they fit
        head = _count(given, "head_dim") or found["hidden_size"] // found["heads"]
        found["heads"] = max(1, width // head)
    return found | dict(given)


def filled(value: Any) -> Any:
    """A recipe's value with what its depth gives put in wherever nothing is stated."""
    if not isinstance(value, Mapping) or not _count(value.get(MODEL), "depth"):
        return value
    model = filled_model(value[MODEL])
    width, length = _count(model, "hidden_size"), _count(model, "sequence_length")
    vocabulary = _count(value.get("tokenizer"), "vocab_size")
    layers, stages = _count(model, "layers"), value.get("stages")
    if not (width and length and vocabulary and layers) or not isinstance(stages, Sequence):
        return {**value, MODEL: model}  # what is wrong is said where it stands
    per = _number(model, "tokens_per_parameter") or PER_PARAMETER
    size = counted(layers, width, vocabulary)
    base = _base(stages)
    found = []
    for number, stage in enumerate(stages):
        train = stage.get(TRAIN, {}) if isinstance(stage, Mapping) else None
        if not isinstance(train, Mapping) or stage.get("kind") == "given":
            found.append(stage)
            continue
        if number != base and train.get("parent_rates") is not None:
            found.append(stage)  # `stages.parent` fills these in
            continue
        stated = _count(train, "batch_tokens")
        more: dict[str, float] = {}
        if number == base:
            asked = budget(size, length, per_parameter=per, batch_tokens=stated)
            stated = asked.batch_tokens
            if train.get("tokens") is None and train.get("epochs") is None:
                train = {name: v for name, v in train.items() if name != "tokens"}
                more["tokens"] = asked.tokens
        batch = stated or max(LEAST_BATCH, length)
        more = {"batch_tokens": batch, **more, **rates(width, batch)}
        found.append({**stage, TRAIN: more | dict(train)})
    return {**value, MODEL: model, "stages": found}


def told(recipe: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each place that the dial of a resolved recipe speaks of: its name, what stands there, and
    what the dial gives for it with everything else as it stands."""
    spec = recipe.model
    if spec.depth is None:
        return
    names = [*shape(spec.depth), "head_dim"]
    stands = {name: value for name in names if (value := getattr(spec, name)) is not None}
    for name in shape(spec.depth):
        others = {other: value for other, value in stands.items() if other != name}
        yield f"{MODEL}.{name}", stands[name], filled_model({"depth": spec.depth, **others})[name]
    size = counted(spec.layers, spec.hidden_size, recipe.tokenizer.vocab_size)
    per = spec.tokens_per_parameter or PER_PARAMETER
    kinds = [
        {"kind": stage.kind, "model": getattr(stage, "model", None)} for stage in recipe.stages
    ]
    for number, stage in enumerate(recipe.stages):
        train = getattr(stage, TRAIN, None)
        if train is None or train.parent_rates is not None:
            continue
        given: dict[str, Any] = {}
        if number == _base(kinds):
            free = budget(size, spec.sequence_length, per_parameter=per)
            held = budget(
                size, spec.sequence_length, per_parameter=per, batch_tokens=train.batch_tokens
            )
            given = {"batch_tokens": free.batch_tokens, "tokens": held.tokens}
        given |= rates(spec.hidden_size, train.batch_tokens)
        for name, value in given.items():
            yield f"stages.{stage.name}.{TRAIN}.{name}", getattr(train, name), value


def _base(stages: Sequence[Any]) -> int | None:
    """The number of the stage whose horizon the dial sets: the first one trained, if that is
    pretraining and goes on from no given model."""
    for number, stage in enumerate(stages):
        if not isinstance(stage, Mapping):
            return None
        if stage.get("kind") == "given":
            if stage.get(MODEL) is not None:
                return None
            continue
        return number if stage.get("kind") == "pretrain" else None
    return None


def _number(given: Any, name: str) -> float | None:
    """A number above 0 under that name, if there is one."""
    value = given.get(name) if isinstance(given, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < math.inf else None


def _count(given: Any, name: str) -> int | None:
    """A whole number above 0 under that name, if there is one."""
    value = _number(given, name)
    return None if value is None or value != int(value) else int(value)
