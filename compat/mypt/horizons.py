"""What MyPT's iterations come to: epochs for chats, tokens for text; and how often that shows each
episode.

An iteration there is `batch_size` episodes, each in a padded row of its own. Rows are packed here,
so a step holds as many tokens as those episodes have, and the number of steps stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compat.mypt.configuring import Config
from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.build import rendered
from matura.data.mixture import MAX_REPEATS
from matura.data.sources.prepared import Prepared
from matura.data.tokens import TokenFolder
from matura.stages.parts import Train
from matura.text.template import Template

USUAL_EPOCHS = 3.0
"""Instead of more than 5: a set seen 56 times was known by heart, and its rule was not."""
THEIR_RATE = 3e-4
"""What MyPT's base learned at with AdamW alone; its other rates are told as multiples of it."""
MOST_EVALUATIONS = 50


@dataclass(frozen=True)
class Horizon:
    """How a stage is to learn, as a recipe says it, and what a user should know of that."""

    train: dict[str, Any]
    max_repeats: float
    told: tuple[str, ...]


def counted(
    config: Config, data: Prepared, template: Template, length: int, *, heart: bool
) -> Horizon:
    """The stage's `train`; reads all the data once, for chats.

    Raises:
        DataError: the data are wrong, or there are none.
    """
    told: list[str] = []
    if data.is_text:
        episodes, tokens = _chats(data, template)
        per_step = config.rows * tokens / episodes
        epochs = config.max_iters * config.rows / episodes
        said = f"{config.max_iters:,} iterations of {config.rows} are {epochs:.1f} epochs of "
        said += f"{episodes:,} episodes"
        if epochs > MAX_REPEATS and not heart:
            told.append(
                f"mind: {said}: learnt by heart; it trains for {USUAL_EPOCHS:g} instead "
                "(--allow-overexposure: all of them)"
            )
            epochs = USUAL_EPOCHS
        else:
            told.append(said)
        total = epochs * tokens
        horizon: dict[str, Any] = {"epochs": epochs}
    else:
        tokens = TokenFolder.open(data.path).count("train")
        per_step = config.rows * length
        total = config.max_iters * per_step
        epochs = total / max(tokens, 1)
        told.append(f"{config.max_iters:,} iterations are {total:,.0f} tokens: {epochs:.2f} epochs")
        horizon = {"tokens": round(total)}
    batch = min(max(round(per_step), length), max(length, round(total)))
    train = horizon | _rates(config) | _manner(config, total, batch)
    rates = ", ".join(f"{name} {train[name]:.3g}" for name in _rates(config))
    told.append(
        f"learning rate {config.learning_rate:g} is {config.learning_rate / THEIR_RATE:.3g} of the "
        f"base's {THEIR_RATE:g}; the same part of the usual rates here: {rates}"
    )
    return Horizon(train, max(MAX_REPEATS, epochs * 1.1 + 1), tuple(told))


def _chats(data: Prepared, template: Template) -> tuple[int, int]:
    """Episodes for training and their tokens, as the start model's tokenizer writes them."""
    given = Given(rng=rng(0, "mypt", "count"), tokenizer=template.tokenizer)
    lengths = [len(example.ids) for example in rendered(template, list(data.read(given)))]
    if not lengths:
        raise DataError(f"{data.path}: nothing to train on")
    return len(lengths), sum(lengths)


def _rates(config: Config) -> dict[str, float]:
    part = config.learning_rate / THEIR_RATE
    usual = Train()
    return {
        name: getattr(usual, name) * part
        for name in ("learning_rate", "embedding_learning_rate", "matrix_learning_rate")
    }


def _manner(config: Config, total: float, batch: int) -> dict[str, Any]:
    steps = max(1, int(total / batch))
    share = config.warmup_share
    return {
        "batch_tokens": batch,
        "warmup_tokens": int(share * total),
        "decay": min(Train().decay, 0.95 * (1 - share)),
        "weight_decay": config.weight_decay,
        "clip": config.grad_clip,
        "evaluations": max(1, min(config.evaluations, MOST_EVALUATIONS, steps)),
        "order": config.batch_sampling_mode,
        "min_tokens": config.episode_min_tokens,
        "positions": "segment" if config.segment_position_reset else "row",
        "neftune": config.neftune_alpha,
    }
