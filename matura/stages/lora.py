"""LoRA in a stage: how a recipe spells it, how the model is made ready, and what is left behind:
the adapter, and the merged model once it is shown to say the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from matura.core.disk import telling
from matura.core.errors import StoreError
from matura.core.leaves import did_you_mean
from matura.core.record import Frozen
from matura.core.rng import rng, stream_seed

if TYPE_CHECKING:
    from torch import Tensor

    from matura.learn.settings import Settings
    from matura.models.decoder import Decoder, DecoderConfig
    from matura.stages.stage import Context

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
CONVOLUTION = ("in_proj", "out_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
TARGETS = (*ATTENTION, *CONVOLUTION, *FEED_FORWARD)
ADAPTER, UNCHECKED = "adapter", "model.unchecked"
MERGE_TOLERANCE = 1e-4
"""That a logit of the merged model may be off in fp32."""
PROMPTS, PROMPT_TOKENS = 8, 64
"""What both models are asked."""
USUAL_RATE, USUAL_WIDTH, NARROWER = 5e-4, 2000, 0.78
"""Thinking Machines 2025 (LoRA Without Regret): ten times the rate of full training, and higher
for narrow models."""
_WHOLE = ("embed_tokens", "lm_head")


class Lora(Frozen):
    """Train small matrices beside the weights, which stay as they are."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    """What an adapter says counts alpha / rank."""
    targets: Literal["all"] | tuple[str, ...] = "all"
    """Which linears of every layer have one: `all`, or some of q_proj, k_proj, v_proj, o_proj,
    gate_proj, up_proj, down_proj, and in_proj, out_proj of convolutions."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Of AdamW, for all adapters; the other rates are of the weights, and not used. If absent,
    5e-4 (2000 / hidden_size)^0.78."""

    @field_validator("targets", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if given == "all":
            return given
        if not isinstance(given, list | tuple) or not given:
            raise ValueError(f"{given!r} is neither 'all' nor a list such as [q_proj, v_proj]")
        for number, name in enumerate(given):
            if name in _WHOLE:
                raise ValueError(f"{name!r} takes no adapter: only linears inside the layers do")
            if name not in TARGETS:
                raise ValueError(f"unknown target {name!r}{did_you_mean(str(name), TARGETS)}")
            if name in given[:number]:
                raise ValueError(f"{name!r} twice")
        return given

    def rate(self, config: DecoderConfig) -> float:
        """The learning rate, given or usual."""
        if self.learning_rate is not None:
            return self.learning_rate
        return float(USUAL_RATE * (USUAL_WIDTH / config.hidden_size) ** NARROWER)

    def names(self, *, convolutions: bool) -> tuple[str, ...]:
        """The targets by name, in a model with convolutions or without."""
        if self.targets != "all":
            return self.targets
        return tuple(name for name in TARGETS if convolutions or name not in CONVOLUTION)

    def trained_parameters(self, config: DecoderConfig) -> int:
        """How many numbers learn."""
        from matura.models.lora import trained_parameters

        names = self.names(convolutions=bool(config.conv_layers))
        return trained_parameters(config, rank=self.rank, targets=names)


def put_on(model: Decoder, lora: Lora, stage: str, context: Context) -> None:
    """Freezes the model, gives it fresh adapters, and says so."""
    from matura.learn.loop import seeded
    from matura.models.lora import attach

    context.ledger.say(
        f"{stage}: LoRA of rank {lora.rank}: {lora.trained_parameters(model.config):,} numbers "
        f"learn at {lora.rate(model.config):.2g}; {model.config.parameters:,} weights are frozen"
    )
    attach(
        model,
        rank=lora.rank,
        alpha=lora.alpha,
        targets=lora.names(convolutions=bool(model.config.conv_layers)),
        generator=seeded(stream_seed(context.seed, stage, "lora")),
    )


@contextmanager
def tried_on(model: Decoder, lora: Lora | None) -> Iterator[None]:
    """The model with fresh adapters for a while; as it is where there are to be none."""
    from matura.learn.loop import seeded
    from matura.models.lora import attach, detach

    if lora is None:
        yield
        return
    names = lora.names(convolutions=bool(model.config.conv_layers))
    attach(model, rank=lora.rank, alpha=lora.alpha, targets=names, generator=seeded(0))
    try:
        yield
    finally:
        detach(model)


def paced(settings: Settings, lora: Lora | None, config: DecoderConfig) -> Settings:
    """A run's settings with the adapters' learning rate, where there are any."""
    if lora is None:
        return settings
    return replace(settings, learning_rate=lora.rate(config))


def leave(
    model: Decoder, lora: Lora, work: Path, *, base: Path, seed: int, save: Callable[[Path], None]
) -> dict[str, Any]:
    """The adapter in `work/adapter` and the merged model in `work/model`; figures for the record.

    `save` writes the model, which is merged by then, into a folder. It is read from there again and
    asked what the model with its adapters was asked before; only then does `work/model` exist.

    Raises:
        StoreError: the two do not say the same.
    """
    from matura.models import adapter, hf
    from matura.models.lora import merge
    from matura.models.weights import weights_sha256

    folder, unchecked = work / ADAPTER, work / UNCHECKED
    for path in (folder, unchecked, work / "model"):
        shutil.rmtree(path, ignore_errors=True)  # of a try that was killed in here
    adapter.save(model, folder, base=base)
    before = _asked(model, seed)
    merge(model)
    save(unchecked)
    off = float((_asked(hf.load(unchecked), seed) - before).abs().max())
    if not off <= MERGE_TOLERANCE:
        raise StoreError(
            f"{unchecked}: the merged model's logits are off by up to {off:.1e} from those of the "
            f"model with its adapter ({MERGE_TOLERANCE:g} is allowed); it was not taken"
        )
    with telling(work / "model", "make"):
        unchecked.rename(work / "model")
    return {
        "rank": lora.rank,
        "alpha": lora.alpha,
        "targets": list(lora.names(convolutions=bool(model.config.conv_layers))),
        "trained_parameters": lora.trained_parameters(model.config),
        "adapter_bytes": (folder / adapter.WEIGHTS).stat().st_size,
        "base_sha256": weights_sha256(base),
        "merged": {
            "prompts": PROMPTS,
            "tokens": PROMPTS * before.shape[1],
            "largest_logit": float(before.abs().max()),
            "largest_difference": off,
            "allowed": MERGE_TOLERANCE,
        },
    }


def _asked(model: Decoder, seed: int) -> Tensor:
    """The logits of seeded prompts, in fp32."""
    import torch

    draw = rng(seed, "lora", "prompts")
    length = min(PROMPT_TOKENS, model.config.sequence_length)
    ids = [[draw.randrange(model.config.vocab_size) for _ in range(length)] for _ in range(PROMPTS)]
    was, model.compute_dtype = model.compute_dtype, torch.float32
    try:
        with torch.no_grad():
            logits: Tensor = model(torch.tensor(ids, device=model.device))
    finally:
        model.compute_dtype = was
    return logits.cpu()
