"""How much of its data a stage reads: parts as they are laid out, tokens or epochs, and what the
plan makes of both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from matura.core.errors import RecipeError
from matura.data.mixture import MAX_REPEATS, Part, cut
from matura.data.too_long import Fit
from matura.stages.parts import ModelSpec, Train
from matura.stages.parts import Part as Listed
from matura.stages.stage import Context, StageKind
from matura.text.pack import Policy
from matura.text.shards import Shard
from matura.text.template import PRESETS, Weights

if TYPE_CHECKING:
    from matura.learn.settings import Settings
    from matura.models.decoder import Decoder, DecoderConfig


def weights_of(stage: StageKind) -> Weights:
    """How much each part of a conversation counts when the stage's own data are rendered."""
    return PRESETS[getattr(stage, "weights", "plain")]


def policy_of(kind: str) -> Policy:
    """What becomes of examples longer than a row when rows are laid out. Conversations are made to
    fit before; those of older runs, which were not, are left out in a chat stage."""
    return "split" if kind in ("pretrain", "given") else "drop"


def fit_of(
    part: Listed, kind: str, model: ModelSpec, *, faults: Literal["raise", "count"] = "raise"
) -> Fit:
    """How long the examples of a part may be in a stage of that kind, and what if they are not."""
    return Fit(
        row_length=model.sequence_length + 1,
        too_long=part.too_long,
        lose_at_most=part.lose_at_most,
        documents="drop" if policy_of(kind) == "drop" else "split",
        faults=faults,
    )


def laid_out(
    name: str, shard: Shard, share: float, *, kind: str, train: Train, max_repeats: float
) -> Part:
    """A shard as the stage reads it; `kind` is that of the stage which made it."""
    return Part(
        name=name,
        shard=shard,
        share=share,
        policy=policy_of(kind),
        max_repeats=max_repeats,
        min_tokens=train.min_tokens,
        order=train.order,
    )


def horizon(train: Train, own: Sequence[tuple[float, int]]) -> int:
    """The tokens that a stage trains on; `own` are the share and the size in tokens of each part
    that is not replayed."""
    if train.epochs is None:
        assert train.tokens is not None
        return train.tokens
    share = sum(part_share for part_share, _ in own)
    return max(1, round(train.epochs * sum(size for _, size in own) / share))


def resolved(stage: str, train: Train, own: Sequence[Part], row_length: int) -> int:
    """The same from the parts themselves, once they are there.

    Raises:
        RecipeError: what the recipe asks for does not fit into so many tokens.
        DataError: a part has nothing to learn from.
    """
    if train.tokens is not None:
        return train.tokens
    sized = [(part.share, cut(part, row_length).tokens) for part in own]
    tokens = horizon(train, sized)
    for field, why in train.complaints(tokens):
        raise RecipeError(
            f"{stage}: train.{field}: {why} (epochs {train.epochs:g} are {tokens:,} tokens)"
        )
    return tokens


def plan_fit(
    train: Train, feed_rows: int, batch_rows: int, sequence_length: int, *, stage: str = "train"
) -> Settings:
    """The steps, schedule and evaluations that a stage's settings come to.

    Raises:
        RecipeError: its patience could never end it early.
    """
    from matura.learn.schedule import Schedule
    from matura.learn.settings import Settings

    steps = max(1, round(feed_rows / batch_rows))
    per_step = batch_rows * sequence_length
    count = min(train.evaluations, steps)
    if why := train.impatience(count):
        raise RecipeError(f"{stage}: patience: {why} ({steps} steps)")
    return Settings(
        steps=steps,
        schedule=Schedule(
            tokens=steps * per_step,
            warmup_tokens=train.warmup_tokens,
            decay_tokens=round(train.decay * steps * per_step),
        ),
        tokens_per_step=per_step,
        learning_rate=train.learning_rate,
        embedding_learning_rate=train.embedding_learning_rate,
        matrix_learning_rate=train.matrix_learning_rate,
        weight_decay=train.weight_decay,
        clip=train.clip,
        evaluate_at=frozenset(math.ceil(steps * (i + 1) / count) for i in range(count)),
        checkpoint_every_s=train.checkpoint_every_s,
        micro_rows=train.micro_rows,
        recompute=train.recompute,
        patience=train.patience,
    )


def flops_so_far(tokens: int, context: Context, model: Decoder) -> float:
    """Arithmetic of a stage of so many tokens and those below it: whether compiling is earned back
    in one climb.

    A function of the recipe and its data alone: a resumed stage must compute as the first try did.
    Stages below whose horizon is in epochs are left out: their data are not looked at again.
    """
    earlier = [getattr(stage, "train", None) for stage in context.earlier.values()]
    tokens += sum(t.tokens or 0 for t in earlier if isinstance(t, Train))
    return 6.0 * model.config.parameters * tokens


def learning(train: Train, config: DecoderConfig) -> int:
    """How many numbers learn: all of the model's, or its adapters'."""
    return config.parameters if train.lora is None else train.lora.trained_parameters(config)


def flops_per_token(train: Train, config: DecoderConfig, length: int) -> float:
    """Two for each weight forwards, two back through it, two for its own gradient, which frozen
    ones have not; and attention."""
    attention = 6.0 * len(config.attending) * config.hidden_size * length
    if train.lora is None:
        return 6.0 * config.parameters + attention
    return 4.0 * config.parameters + 6.0 * learning(train, config) + attention


def often(seen: Mapping[str, float]) -> Iterator[str]:
    """A line for each part whose items are seen so often that they are learnt by heart."""
    for name, times in seen.items():
        if times > MAX_REPEATS * 1.001:
            yield (
                f"{name} is seen {times:.1f} times: more than {MAX_REPEATS:g} teaches the examples "
                "themselves; give it more data or a smaller share, or train for less"
            )


def exposures(report: Mapping[str, Any]) -> dict[str, float]:
    """How often each part's items are seen, from a feed's report."""
    return {name: float(part["exposures"]) for name, part in report["parts"].items()}
