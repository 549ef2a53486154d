"""A recipe made smaller by one factor: what is meant for a cluster can be tried on a laptop.

What grows with money is scaled: tokens, budgets, examples, warm-up by the factor; the model's
parameters, the batch and the evaluations by its square root, as compute-optimal models do. What
decides what is taught is not: shares, replay, rates, cleaners, exams and their floors. Whoever
climbs the same recipe at another scale climbs another run: its name says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from matura.core.errors import RecipeError
from matura.data.split import EXAM_SHARE, VALIDATION_SHARE
from matura.ladder.spelling import whole
from matura.stages.given import Given
from matura.stages.horizon import horizon
from matura.stages.parts import ModelSpec, Part, Train
from matura.stages.stage import StageKind

LEAST_TOKENS = 20_000
"""Of a source or a training: fewer cannot be split, or are over before the first evaluation."""
LEAST_EXAMPLES = 200
LEAST_VOCABULARY, LEAST_ROW, LEAST_LAYERS = 1024, 256, 2
LEAST_CORPUS_BYTES = 300_000
LEAST_ROWS = 8
"""Of a batch: a step of fewer takes hardly less time."""
SIZES = {
    "token_budget": LEAST_TOKENS,
    "tokens": LEAST_TOKENS,
    "max_examples": LEAST_EXAMPLES,
    "max_bytes": 4 * LEAST_TOKENS,
}
"""Fields of a source that say how much of it there is, and the least that makes sense."""


def scaled(recipe: Any, factor: float) -> dict[str, Any]:
    """The recipe's value, smaller by the factor; 1 leaves it as it is.

    Raises:
        RecipeError: the factor is not above 0 and at most 1.
    """
    if not 0 < factor <= 1:
        raise RecipeError(f"--scale {factor:g}: expected a number above 0 and up to 1")
    value: dict[str, Any] = whole(recipe)
    if factor == 1:
        return value
    value["name"] = f"{recipe.name}-at-{_spelled(factor)}"
    value["model"] |= _model(recipe.model, factor)
    if recipe.tokenizer.path is None:  # one that is there has the size it has
        value["tokenizer"] |= {
            "vocab_size": _vocabulary(recipe.tokenizer.vocab_size, factor),
            "corpus_bytes": _less(recipe.tokenizer.corpus_bytes, factor, LEAST_CORPUS_BYTES),
        }
    for part in value["tokenizer"]["mixture"] or ():
        part["source"] |= dict(_sizes(part["source"], factor))
    length = value["model"]["sequence_length"]
    for stage, spelled in zip(recipe.stages, value["stages"], strict=True):
        for part in spelled["mixture"]:
            part["source"] |= dict(_sizes(part["source"], factor))
        if isinstance(train := getattr(stage, "train", None), Train):
            spelled["train"] |= _train(stage, train, length, factor)
        if isinstance(stage, Given):
            spelled["tokens"] = None  # at this scale it is another model
        for exam in spelled["exams"]:
            if exam.get("row_length"):
                exam["row_length"] = min(exam["row_length"], length)
    return value


def _spelled(factor: float) -> str:
    """`1e-4`; as a name may hold no dot, 0.0025 is `25e-4`."""
    digits, _, exponent = f"{factor:.3e}".partition("e")
    figures = digits.replace(".", "").rstrip("0") or "0"
    return f"{figures}e{int(exponent) - len(figures) + 1}"


def _less(count: int, factor: float, least: int) -> int:
    """The count times the factor; never under the least, and never more than it was."""
    smaller: int = round(count * factor)
    return min(count, max(least, smaller))


def _sizes(source: Mapping[str, Any], factor: float) -> Iterator[tuple[str, Any]]:
    for field, least in SIZES.items():
        if source.get(field):
            yield field, _less(source[field], factor, least)
            if field == "max_examples" and source.get("size"):
                yield "size", None  # the name of the number it was


def _model(model: ModelSpec, factor: float) -> dict[str, Any]:
    """A shape with about the square root of the factor of its parameters: width, depth and rows
    each by the sixth root, heads as wide as before."""
    root = factor ** (1 / 6)
    heads = max(1, round(model.heads * root))
    kv_heads = model.kv_heads and max(1, round(model.kv_heads * root))
    while kv_heads and heads % kv_heads:
        kv_heads -= 1
    width = model.head_dim or model.hidden_size // model.heads
    row = 2 ** round(math.log2(model.sequence_length * root))
    layers = _less(model.layers, root, LEAST_LAYERS)
    return {
        "depth": None,  # what it gave stands in the recipe by now, and is what is scaled
        "tokens_per_parameter": None,
        "hidden_size": heads * width if model.head_dim is None else round(model.hidden_size * root),
        "layers": layers,
        "conv_layers": [n for n in model.conv_layers if n < layers - 1],
        "heads": heads,
        "kv_heads": kv_heads,
        "intermediate_size": model.intermediate_size
        and 64 * max(1, round(model.intermediate_size * root / 64)),
        "sequence_length": min(model.sequence_length, max(LEAST_ROW, row)),
    }


def _vocabulary(size: int, factor: float) -> int:
    """The ids by the cube root, to a multiple of 64: less text has fewer merges."""
    smaller: int = 64 * round(size * factor ** (1 / 3) / 64)
    return min(size, max(LEAST_VOCABULARY, smaller))


def _train(stage: StageKind, train: Train, length: int, factor: float) -> dict[str, Any]:
    root = math.sqrt(factor)
    tokens = train.tokens or _declared(stage.mixture, train)
    evaluations = _less(train.evaluations, root, 2)
    found: dict[str, Any] = {
        "batch_tokens": _less(train.batch_tokens, root, LEAST_ROWS * length),
        "evaluations": evaluations,
        "warmup_tokens": round(train.warmup_tokens * factor),
        "patience": (train.patience and min(train.patience, evaluations - 2)) or None,
    }
    if tokens is not None:
        fewer = _less(tokens, factor, LEAST_TOKENS)
        found |= {"tokens": fewer, "epochs": None}
        found["warmup_tokens"] = round(train.warmup_tokens * fewer / tokens)
    return found


def _declared(mixture: tuple[Part, ...], train: Train) -> int | None:
    """The tokens that so many epochs are, if every source says how much it is; then they hold also
    where a source is replaced by a folder, which does not say."""
    kept = 1 - EXAM_SHARE - VALIDATION_SHARE
    sizes = [
        (part.share, round(budget * kept))
        for part in mixture
        if isinstance(budget := getattr(part.source, "token_budget", None), int)
    ]
    return horizon(train, sizes) if len(sizes) == len(mixture) else None
