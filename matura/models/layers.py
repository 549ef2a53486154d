"""What a decoder's layers are made of: norms, attention, short convolutions, feed-forward.

Axes: B rows, T positions, S cached positions, H heads, K key-value heads, D head width, C model
width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.models.attending import Attend, attend_fused, rotate
from matura.models.shape import DecoderConfig


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """`x` scaled to unit root mean square over its last axis, in fp32, then times `gain`."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * gain).to(x.dtype)


class Gain(nn.Module):
    """A norm's gain under the name Hugging Face gives it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Adapter(nn.Module):
    """What LoRA puts beside a linear: `scale` times `up` times `down` (B and A of the paper)."""

    def __init__(self, beside: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = beside.weight.shape
        self.rank, self.alpha, self.scale = rank, alpha, alpha / rank
        self.down = nn.Parameter(torch.zeros(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def whole(self) -> Tensor:
        """It as one matrix, of the shape of the weight beside it."""
        return (self.up @ self.down) * self.scale


def joined(x: Tensor, *linears: nn.Linear) -> Tensor:
    """What these linears make of the same input, side by side, by one product; and what is added by
    the adapters that `lora.attach` put beside them.

    Weights are cast where they are used, and all but the input's width may differ.
    """
    weight = _cat([linear.weight for linear in linears])
    biases = [linear.bias for linear in linears if linear.bias is not None]
    bias = _cat(biases).to(x.dtype) if biases else None
    made = F.linear(x, weight.to(x.dtype), bias)
    adapters: list[Adapter | None] = [getattr(linear, "lora", None) for linear in linears]
    ranks = [0 if adapter is None else adapter.rank for adapter in adapters]
    if not any(ranks):
        return made
    downs = _cat([adapter.down for adapter in adapters if adapter is not None])
    lows = torch.split(F.linear(x, downs.to(x.dtype)), ranks, dim=-1)
    parts = torch.split(made, [len(linear.weight) for linear in linears], dim=-1)
    return _cat(
        [
            part
            if adapter is None
            else part + F.linear(low, adapter.up.to(x.dtype)) * adapter.scale
            for adapter, part, low in zip(adapters, parts, lows, strict=True)
        ],
        dim=-1,
    )


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and, if asked, normalised queries and keys."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        c, d = config.hidden_size, config.head_width
        self.heads, self.kv_heads, self.width = config.heads, config.kv_heads, d
        self.eps = config.norm_eps
        biased = config.biases != "none"
        self.q_proj = nn.Linear(c, config.heads * d, bias=biased)
        self.k_proj = nn.Linear(c, config.kv_heads * d, bias=biased)
        self.v_proj = nn.Linear(c, config.kv_heads * d, bias=biased)
        self.o_proj = nn.Linear(config.heads * d, c, bias=config.biases == "all")
        self.q_norm = Gain(d) if config.qk_norm else None
        self.k_norm = Gain(d) if config.qk_norm else None

    def project(self, x_BTC: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries BHTD, rotated keys BKTD and values BKTD."""
        rows, length, _ = x_BTC.shape
        qkv = joined(x_BTC, self.q_proj, self.k_proj, self.v_proj)
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
        return joined(mixed, self.o_proj)

    def grouped(self, kv_BKSD: Tensor) -> Tensor:
        """Each key-value head repeated for the query heads that share it."""
        if self.heads == self.kv_heads:
            return kv_BKSD
        return kv_BKSD.repeat_interleave(self.heads // self.kv_heads, dim=1)


class ShortConv(nn.Module):
    """A gated convolution over the last few positions, each channel by itself.

    A layer that reads its left neighbour without attending leaves attention free for what lies far
    away: copying is then found in a fraction of the steps (docs/LOG.md). Source: LFM2 (Liquid AI
    2025), as `transformers` computes it.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        c = config.hidden_size
        self.width = config.conv_width
        self.in_proj = nn.Linear(c, 3 * c, bias=False)
        self.conv = nn.Conv1d(c, c, self.width, groups=c, bias=False)
        self.out_proj = nn.Linear(c, c, bias=False)

    def forward(self, x_BTC: Tensor, near: Sequence[Tensor]) -> Tensor:
        """All positions at once; `near` is what `neighbours` says."""
        told, gate = self._told(x_BTC)
        shifted = (
            F.pad(told[:, :-back], (0, 0, back, 0)) * same
            for back, same in enumerate(near, start=1)
            if back < told.shape[1]
        )
        return self._mixed(gate, [told, *shifted])

    def cached(self, x_BTC: Tensor, positions_BT: Tensor, told_BSC: Tensor) -> Tensor:
        """New positions, with what was told at earlier ones read from a cache and written there."""
        told, gate = self._told(x_BTC)
        where = positions_BT[..., None].expand_as(told)
        told_BSC.scatter_(1, where, told.to(told_BSC.dtype))
        taps = [told]
        for back in range(1, self.width):
            there = told_BSC.gather(1, (where - back).clamp(min=0)).to(told.dtype)
            taps.append(there * (where >= back))
        return self._mixed(gate, taps)

    def _told(self, x_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """What each position tells those after it, and the gate on what it hears."""
        before, gate, x = joined(x_BTC, self.in_proj).chunk(3, dim=-1)
        return before * x, gate

    def _mixed(self, gate: Tensor, taps: Sequence[Tensor]) -> Tensor:
        weights = self.conv.weight[:, 0].to(gate.dtype)
        heard = sum(tap * weights[:, -1 - back] for back, tap in enumerate(taps))
        return joined(gate * heard, self.out_proj)


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
        gate, up = joined(x, self.gate_proj, self.up_proj).chunk(2, dim=-1)
        return joined(F.silu(gate) * up, self.down_proj)


class Block(nn.Module):
    """One layer: attention or a convolution, then SwiGLU, each on a normalised copy of the residual
    stream."""

    def __init__(self, config: DecoderConfig, number: int) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.self_attn = None if number in config.conv_layers else Attention(config)
        self.conv = ShortConv(config) if self.self_attn is None else None
        self.mlp = SwiGLU(config)
        self.input_layernorm = Gain(config.hidden_size)
        self.post_attention_layernorm = Gain(config.hidden_size)

    @property
    def mixed(self) -> Tensor:
        """The matrix that what was read at other positions comes through."""
        if self.self_attn is not None:
            return self.self_attn.o_proj.weight
        assert self.conv is not None
        return self.conv.out_proj.weight

    def forward(
        self,
        x_BTC: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias_B1TS: Tensor,
        near: Sequence[Tensor],
        attend: Attend,
    ) -> Tensor:
        """The residual stream after this layer, all positions at once."""
        normed = rms_norm(x_BTC, self.input_layernorm.weight, self.eps)
        if self.self_attn is not None:
            attn = self.self_attn
            q, k, v = attn.project(normed, cos, sin)
            x = x_BTC + attn.out(attend(q, attn.grouped(k), attn.grouped(v), bias_B1TS))
        else:
            assert self.conv is not None
            x = x_BTC + self.conv(normed, near)
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
        normed = rms_norm(x_BTC, self.input_layernorm.weight, self.eps)
        if self.self_attn is not None:
            attn = self.self_attn
            q, k, v = attn.project(normed, cos, sin)
            where = positions_BT[:, None, :, None].expand_as(k)
            keys_BKSD.scatter_(2, where, k.to(keys_BKSD.dtype))
            values_BKSD.scatter_(2, where, v.to(values_BKSD.dtype))
            span = mask_B1TS.shape[-1]
            keys, values = keys_BKSD[:, :, :span].to(q.dtype), values_BKSD[:, :, :span].to(q.dtype)
            mixed = attend_fused(q, attn.grouped(keys), attn.grouped(values), mask_B1TS)
            x = x_BTC + attn.out(mixed)
        else:
            assert self.conv is not None
            x = x_BTC + self.conv.cached(normed, positions_BT, keys_BKSD[:, 0])
        fed: Tensor = self.mlp(rms_norm(x, self.post_attention_layernorm.weight, self.eps))
        return x + fed


def neighbours(bias_B1TT: Tensor, width: int) -> list[Tensor]:
    """For each of the `width` - 1 steps back, BT1: 1 where the position that far back may be read,
    else 0. Taken from what attention may see, so that both hold to one rule."""
    seen_BTT = bias_B1TT[:, 0] == 0
    return [
        F.pad(seen_BTT.diagonal(-back, 1, 2), (back, 0))[..., None].to(bias_B1TT.dtype)
        for back in range(1, width)
    ]
