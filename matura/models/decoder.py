"""A Llama-, Qwen- or LFM2-shaped decoder: ids in, logits out, under Hugging Face's weight names.

The surprising thing: weights stay fp32 and are cast where they are used (`compute_dtype`), so that
a relative update of 1e-6 survives; and the embedding lookup stands outside the blocks, because a
compiled embedding gradient adds atomically, in no fixed order, and training could not be resumed
bit for bit.

Axes: B rows, T positions, S cached positions, H heads, K key-value heads, D head width, C model
width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from matura.models.attending import Attend, attend_fused, nearby
from matura.models.layers import Block, Gain, neighbours, rms_norm
from matura.models.shape import DecoderConfig, Stretched

__all__ = ["Cache", "Decoder", "DecoderConfig", "rms_norm", "rotary_table", "unseen"]

_again: Callable[..., Tensor] = checkpoint
TIED_GAIN = 0.03
"""Of the last norm at the start, where the head is the embedding matrix of deviation 1."""
BELOW_CHANCE = 1.6
"""Nats that a token's own logit then stays below ln V at least. A layer starts as the identity, so
that logit is gain times width, and a wide model would be sure of hearing each token again; so far
below, its loss is 0.2 nats above chance."""


@dataclass
class Cache:
    """Keys and values of what was read so far; of a convolution, in the place of keys, what each
    position tells those after it. Each row writes at its own positions."""

    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def empty(
        cls,
        config: DecoderConfig,
        rows: int,
        length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Cache:
        """Room for `rows` conversations of `length` tokens."""
        heads = (rows, config.kv_heads, length, config.head_width)
        told, nothing = (rows, 1, length, config.hidden_size), (rows, 1, length, 0)

        def make(of_convolutions: tuple[int, ...]) -> list[Tensor]:
            return [
                torch.zeros(
                    of_convolutions if layer in config.conv_layers else heads,
                    dtype=dtype,
                    device=device,
                )
                for layer in range(config.layers)
            ]

        return cls(make(told), make(nothing))

    def keep(self, rows: Tensor) -> Cache:
        """The cache of some of its rows."""
        return Cache([k[rows] for k in self.keys], [v[rows] for v in self.values])


class _Body(nn.Module):
    """Everything but the head, under the name Hugging Face gives it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, n) for n in range(config.layers))
        self.norm = Gain(config.hidden_size)


class Decoder(nn.Module):
    """A decoder whose `state_dict` has Hugging Face's names: `transformers` loads it unchanged."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.compute_dtype = torch.float32
        self.recompute = False
        """Whether the gradient computes each layer once more instead of reading what it kept: a
        third more arithmetic, and of each layer only its input stays in memory."""
        cos, sin = rotary_table(config)
        self.register_buffer("cos_SD", cos, persistent=False)
        self.register_buffer("sin_SD", sin, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm_head.weight.device

    def start(self, generator: torch.Generator) -> Decoder:
        """Fresh weights: normal with deviation 1/sqrt(fan in), output projections of layers zero.

        Embeddings start at deviation 1, so that layers read clear tokens while circuits form, and
        every layer starts as the identity. A tied head would then be far too loud, which the last
        norm's gain makes up for. With this start a model of 4 layers learns to copy random tokens
        in a third of the steps it takes from deviation 0.02 (docs/LOG.md).
        """
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim == 1:
                    weight.fill_(0.0 if name.endswith(".bias") else 1.0)
                elif name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight")):
                    weight.zero_()
                elif "embed_tokens" in name:
                    weight.normal_(0.0, 1.0, generator=generator)
                elif name == "lm_head.weight":
                    weight.normal_(0.0, 0.002, generator=generator)
                else:
                    weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
            if self.config.tie_embeddings:
                most = max(math.log(self.config.vocab_size) - BELOW_CHANCE, 0.5)
                self.model.norm.weight.fill_(min(TIED_GAIN, most / self.config.hidden_size))
        return self

    def angles(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary cosines and sines BT1D of these positions, in the compute type."""
        cos, sin = self.cos_SD[positions_BT], self.sin_SD[positions_BT]  # type: ignore[index]
        return cos[:, :, None].to(self.compute_dtype), sin[:, :, None].to(self.compute_dtype)

    def within(self, work: Callable[[], Tensor]) -> Tensor:
        """What `work` makes of this model. Where weights are sharded, those outside of the layers
        are whole in here only, so what reads the embeddings or the head stands in it."""
        return work()

    def trunk(
        self, x_BTC: Tensor, cos: Tensor, sin: Tensor, bias_B1TS: Tensor, attend: Attend
    ) -> Tensor:
        """The normalised residual stream after all layers, from the embedded ids. For
        `attend_spans` the bias is what `starts` says."""
        config = self.config
        near: list[Tensor] = []
        if config.conv_layers and bias_B1TS.ndim == 1:
            near = nearby(bias_B1TS, x_BTC, config.conv_width)
        elif config.conv_layers:
            near = neighbours(bias_B1TS, config.conv_width)
        again = self.recompute and torch.is_grad_enabled()
        for block in self.model.layers:
            if again:  # nothing in a layer is random, so no generator's state is kept
                x_BTC = _again(
                    block, x_BTC, cos, sin, bias_B1TS, near, attend,
                    use_reentrant=False, preserve_rng_state=False,
                )  # fmt: skip
            else:
                x_BTC = block(x_BTC, cos, sin, bias_B1TS, near, attend)
        return rms_norm(x_BTC, self.model.norm.weight, self.config.norm_eps)

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
        attend: Attend = attend_fused,
    ) -> Tensor:
        """The normalised residual stream BTC; with `segments_BT`, no segment sees another."""
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
        x = self.model.embed_tokens(ids_BT).to(self.compute_dtype)
        bias = unseen(ids_BT.shape[1], segments_BT, x)
        return self.trunk(x, *self.angles(positions_BT), bias, attend)

    def forward(
        self,
        ids_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits BTV, fp32."""
        hidden = self.hidden(ids_BT, positions_BT=positions_BT, segments_BT=segments_BT)
        return self.head(hidden)

    def hidden_cached(
        self, ids_BT: Tensor, positions_BT: Tensor, cache: Cache, *, span: int | None = None
    ) -> Tensor:
        """The normalised residual stream BTC of new tokens at their rows' own positions.

        The cache is written in place. `span` bounds the cached positions that are read, all if
        absent. A position sees those up to its own, so stale ones beyond it do no harm.
        """
        span = cache.keys[0].shape[2] if span is None else span
        reach = torch.arange(span, device=ids_BT.device)
        mask = (reach[None, None, :] <= positions_BT[:, :, None])[:, None]
        cos, sin = self.angles(positions_BT)
        x = self.model.embed_tokens(ids_BT).to(self.compute_dtype)
        for block, keys, values in zip(self.model.layers, cache.keys, cache.values, strict=True):
            x = block.cached(x, cos, sin, mask, positions_BT, keys, values)  # type: ignore[operator]
        return rms_norm(x, self.model.norm.weight, self.config.norm_eps)

    def forward_cached(
        self, ids_BT: Tensor, positions_BT: Tensor, cache: Cache, *, span: int | None = None
    ) -> Tensor:
        """Logits BTV of new tokens, as `hidden_cached` reads them."""
        return self.head(self.hidden_cached(ids_BT, positions_BT, cache, span=span))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits, fp32, of any leading shape."""
        return F.linear(hidden, self.lm_head.weight.to(hidden.dtype)).float()

    def attention(self, ids_BT: Tensor) -> list[Tensor]:
        """The attention weights BHTT of each layer that attends: what the prefix-matching probe
        reads."""
        seen: list[Tensor] = []

        def watch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
            scores = (q @ k.transpose(-1, -2)).float() * (q.shape[-1] ** -0.5)
            seen.append((scores + bias).softmax(-1))
            return seen[-1].to(v.dtype) @ v

        with torch.no_grad():
            self.hidden(ids_BT, attend=watch)
        return seen


def unseen(length: int, segments_BT: Tensor | None, like: Tensor) -> Tensor:
    """What attention adds to its scores, B1TS: 0 up to a position's own in its own segment, else
    minus infinity. Of the type and on the device of `like`."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()[None, None]
    if segments_BT is not None:
        allowed = allowed & (segments_BT[:, None, :, None] == segments_BT[:, None, None, :])
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill_(
        ~allowed, float("-inf")
    )


def rotary_table(config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines SD of every position, halves convention, computed in fp32."""
    half = torch.arange(0, config.head_width, 2, dtype=torch.int64).float() / config.head_width
    turning = 1.0 / (config.rope_theta**half)
    if config.stretched is not None:
        turning = slowed(turning, config.stretched)
    turns = torch.arange(config.sequence_length).float()[:, None] * turning
    both = torch.cat((turns, turns), dim=-1)
    return both.cos(), both.sin()


def slowed(turning: Tensor, how: Stretched) -> Tensor:
    """Radians a position of each rotation, once the context is longer than the first one."""
    if how.kind == "linear":
        return turning / how.factor
    times = how.original_length * turning / (2 * math.pi)  # turns within the first context
    low, high = how.low_freq_factor, how.high_freq_factor
    kept = ((times - low) / (high - low)).clamp(0.0, 1.0)
    return turning * (kept + (1 - kept) / how.factor)
