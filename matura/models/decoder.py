"""A Llama- or Qwen3-shaped decoder: ids in, logits out, under Hugging Face's weight names.

The surprising thing: weights stay fp32 and are cast where they are used (`compute_dtype`), so that
a relative update of 1e-6 survives; and the embedding lookup stands outside the blocks, because a
compiled embedding gradient adds atomically, in no fixed order, and training could not be resumed
bit for bit.

Axes: B rows, T positions, S cached positions, H heads, K key-value heads, D head width, C model
width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from matura.core.record import Frozen
from matura.models.attending import Attend, attend_fused, rotate

TIED_GAIN = 0.03
"""Of the last norm at the start, where the head is the embedding matrix of deviation 1."""


class DecoderConfig(Frozen):
    """The shape of a decoder; widths not given follow from `hidden_size` and `heads`."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    sequence_length: PositiveInt
    head_dim: PositiveInt | None = None
    """Width of one head; `hidden_size / heads` if absent."""
    intermediate_size: PositiveInt | None = None
    """Width of the SwiGLU; 8/3 of `hidden_size` rounded up to a multiple of 64 if absent."""
    rope_theta: PositiveFloat = 10_000.0
    qk_norm: bool = False
    """RMS-normalise each head's queries and keys (Qwen3)."""
    tie_embeddings: bool = False
    norm_eps: PositiveFloat = 1e-6

    @model_validator(mode="after")
    def _fits(self) -> DecoderConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        c = self.hidden_size
        if self.head_dim is None and c % self.heads:
            raise ValueError(f"hidden_size {c} is not a multiple of heads {self.heads}")
        if self.head_width % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.head_width}")
        return self

    @property
    def head_width(self) -> int:
        """D: channels of one head."""
        return self.head_dim or self.hidden_size // self.heads

    @property
    def inner_width(self) -> int:
        """Channels inside the SwiGLU."""
        return self.intermediate_size or math.ceil(self.hidden_size * 8 / 3 / 64) * 64

    @property
    def parameters(self) -> int:
        """How many numbers the model learns."""
        c, d = self.hidden_size, self.head_width
        attention = c * d * (2 * self.heads + 2 * self.kv_heads) + (2 * d if self.qk_norm else 0)
        block = attention + 3 * c * self.inner_width + 2 * c
        return self.layers * block + c + self.vocab_size * c * (1 if self.tie_embeddings else 2)


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """`x` scaled to unit root mean square over its last axis, in fp32, then times `gain`."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * gain).to(x.dtype)


@dataclass
class Cache:
    """Keys and values of what was read so far. Each row writes at its own positions."""

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
        shape = (rows, config.kv_heads, length, config.head_width)

        def make() -> list[Tensor]:
            return [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]

        return cls(make(), make())

    def keep(self, rows: Tensor) -> Cache:
        """The cache of some of its rows."""
        return Cache([k[rows] for k in self.keys], [v[rows] for v in self.values])


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and, if asked, normalised queries and keys."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        c, d = config.hidden_size, config.head_width
        self.heads, self.kv_heads, self.width = config.heads, config.kv_heads, d
        self.eps = config.norm_eps
        self.q_proj = nn.Linear(c, config.heads * d, bias=False)
        self.k_proj = nn.Linear(c, config.kv_heads * d, bias=False)
        self.v_proj = nn.Linear(c, config.kv_heads * d, bias=False)
        self.o_proj = nn.Linear(config.heads * d, c, bias=False)
        self.q_norm = _Gain(d) if config.qk_norm else None
        self.k_norm = _Gain(d) if config.qk_norm else None

    def project(self, x_BTC: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries BHTD, rotated keys BKTD and values BKTD."""
        rows, length, _ = x_BTC.shape
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        qkv = F.linear(x_BTC, weight.to(x_BTC.dtype))
        qkv = qkv.view(rows, length, self.heads + 2 * self.kv_heads, self.width)
        q, k, v = torch.split(qkv, [self.heads, self.kv_heads, self.kv_heads], dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q = rms_norm(q, self.q_norm.weight, self.eps)
            k = rms_norm(k, self.k_norm.weight, self.eps)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def out(self, mixed_BHTD: Tensor) -> Tensor:
        """Heads merged and projected back to the model width."""
        rows, _, length, _ = mixed_BHTD.shape
        mixed = mixed_BHTD.transpose(1, 2).reshape(rows, length, self.heads * self.width)
        return F.linear(mixed, self.o_proj.weight.to(mixed.dtype))

    def grouped(self, kv_BKSD: Tensor) -> Tensor:
        """Each key-value head repeated for the query heads that share it."""
        if self.heads == self.kv_heads:
            return kv_BKSD
        return kv_BKSD.repeat_interleave(self.heads // self.kv_heads, dim=1)


class _Gain(nn.Module):
    """A norm's gain under the name Hugging Face gives it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        c, inner = config.hidden_size, config.inner_width
        self.gate_proj = nn.Linear(c, inner, bias=False)
        self.up_proj = nn.Linear(c, inner, bias=False)
        self.down_proj = nn.Linear(inner, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x of any leading shape; the last axis is the model width."""
        both = torch.cat([self.gate_proj.weight, self.up_proj.weight]).to(x.dtype)
        gate, up = F.linear(x, both).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down_proj.weight.to(x.dtype))


class Block(nn.Module):
    """One layer: attention and SwiGLU, each on a normalised copy of the residual stream."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.self_attn = Attention(config)
        self.mlp = SwiGLU(config)
        self.input_layernorm = _Gain(config.hidden_size)
        self.post_attention_layernorm = _Gain(config.hidden_size)

    def forward(
        self, x_BTC: Tensor, cos: Tensor, sin: Tensor, bias_B1TS: Tensor, attend: Attend
    ) -> Tensor:
        """The residual stream after this layer, all positions at once."""
        attn = self.self_attn
        q, k, v = attn.project(rms_norm(x_BTC, self.input_layernorm.weight, self.eps), cos, sin)
        x = x_BTC + attn.out(attend(q, attn.grouped(k), attn.grouped(v), bias_B1TS))
        fed: Tensor = self.mlp(rms_norm(x, self.post_attention_layernorm.weight, self.eps))
        return x + fed

    def cached(
        self,
        x_BTC: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask_B1TS: Tensor,
        positions_BT: Tensor,
        keys_BKSD: Tensor,
        values_BKSD: Tensor,
    ) -> Tensor:
        """The same, reading and writing a cache in place."""
        attn = self.self_attn
        q, k, v = attn.project(rms_norm(x_BTC, self.input_layernorm.weight, self.eps), cos, sin)
        where = positions_BT[:, None, :, None].expand_as(k)
        keys_BKSD.scatter_(2, where, k.to(keys_BKSD.dtype))
        values_BKSD.scatter_(2, where, v.to(values_BKSD.dtype))
        span = mask_B1TS.shape[-1]
        keys, values = keys_BKSD[:, :, :span].to(q.dtype), values_BKSD[:, :, :span].to(q.dtype)
        x = x_BTC + attn.out(attend_fused(q, attn.grouped(keys), attn.grouped(values), mask_B1TS))
        fed: Tensor = self.mlp(rms_norm(x, self.post_attention_layernorm.weight, self.eps))
        return x + fed


class _Body(nn.Module):
    """Everything but the head, under the name Hugging Face gives it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = _Gain(config.hidden_size)


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
                    weight.fill_(1.0)
                elif name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()
                elif "embed_tokens" in name:
                    weight.normal_(0.0, 1.0, generator=generator)
                elif name == "lm_head.weight":
                    weight.normal_(0.0, 0.002, generator=generator)
                else:
                    weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
            if self.config.tie_embeddings:
                self.model.norm.weight.fill_(TIED_GAIN)
        return self

    def angles(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary cosines and sines BT1D of these positions, in the compute type."""
        cos, sin = self.cos_SD[positions_BT], self.sin_SD[positions_BT]  # type: ignore[index]
        return cos[:, :, None].to(self.compute_dtype), sin[:, :, None].to(self.compute_dtype)

    def trunk(
        self, x_BTC: Tensor, cos: Tensor, sin: Tensor, bias_B1TS: Tensor, attend: Attend
    ) -> Tensor:
        """The normalised residual stream after all layers, from the embedded ids."""
        for block in self.model.layers:
            x_BTC = block(x_BTC, cos, sin, bias_B1TS, attend)
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
        """Each layer's attention weights BHTT: what the prefix-matching probe reads."""
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
    turns = torch.arange(config.sequence_length).float()[:, None] / (config.rope_theta**half)
    both = torch.cat((turns, turns), dim=-1)
    return both.cos(), both.sin()
