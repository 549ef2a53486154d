"""Rotary positions and attention, with gradients written out where that is faster.

The surprising thing: `torch.compile` differentiates a rotation into masked copies, and a softmax
into a second softmax. Both gradients are short when written by hand, and a step of a small model
is a tenth faster for it (docs/LOG.md). Tests hold them to automatic differentiation.

Axes: B rows, T queries, S keys, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CAUSAL_BLOCKS = 4
LEAST_BLOCK = 32
CAUSAL = (-1, 0)
"""Positions before and after its own that one may see: any, and none."""
SPANS_A_ROW = 4
"""Room for at least so many spans a row, where their number is rounded up."""


@torch.library.custom_op("matura::summed", mutates_args=())
def summed(blocks: list[Tensor], other_BHTD: Tensor) -> Tensor:
    """The sum over query blocks of block transposed times their rows of `other`: BHSD.

    An operator of its own, because the compiler would fuse the sum with the rotation and the
    transposes that follow into one loop that is not vectorised, ten times as slow.
    """
    *earlier, last = [block.flatten(0, 1) for block in blocks]
    rows = other_BHTD.flatten(0, 1)
    step = last.shape[1]
    out = last.mT @ rows[:, -step:]
    for number, block in enumerate(earlier):
        start, end = number * step, (number + 1) * step
        out[:, :end].baddbmm_(block.mT, rows[:, start:end])
    return out.view(other_BHTD.shape)


@summed.register_fake
def _(blocks: list[Tensor], other_BHTD: Tensor) -> Tensor:
    return torch.empty_like(other_BHTD, memory_format=torch.contiguous_format)


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def rotate(x_BTHD: Tensor, cos_BT1D: Tensor, sin_BT1D: Tensor) -> Tensor:
    """Rotary positions, halves convention (Hugging Face Llama)."""
    apply: Callable[..., Tensor] = _Rotate.apply
    return apply(x_BTHD, cos_BT1D, sin_BT1D)


class _Written(torch.autograd.Function):
    """Attention with its weights kept: the gradient needs no second softmax and no mask."""

    @staticmethod
    def forward(
        ctx: Any, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, bias_B1TS: Tensor
    ) -> Tensor:
        scale = q_BHTD.shape[-1] ** -0.5
        weights, mixed = [], []
        for start, end in blocks(q_BHTD.shape[2]):
            keys, values = k_BHSD[:, :, :end], v_BHSD[:, :, :end]
            scores = (q_BHTD[:, :, start:end] @ keys.transpose(-1, -2)).float() * scale
            scores = scores + bias_B1TS[:, :, start:end, :end]
            found = scores.softmax(-1).to(values.dtype)
            weights.append(found)
            mixed.append(found @ values)
        out = torch.cat(mixed, dim=2)
        ctx.save_for_backward(q_BHTD, k_BHSD, v_BHSD, out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *weights = ctx.saved_tensors
        (d_out,) = grads
        scale = q.shape[-1] ** -0.5
        # a row's weights times their gradients sum to the output times its gradient
        level = (d_out.float() * out.float()).sum(-1, keepdim=True)
        d_q, moves = [], []
        for (start, end), found in zip(blocks(q.shape[2]), weights, strict=True):
            d_found = d_out[:, :, start:end] @ v[:, :, :end].transpose(-1, -2)
            d_scores = found.float() * (d_found.float() - level[:, :, start:end]) * scale
            moves.append(d_scores.to(q.dtype))
            d_q.append(moves[-1] @ k[:, :, :end])
        return torch.cat(d_q, dim=2), summed(moves, q), summed(weights, d_out), None


def blocks(length: int) -> list[tuple[int, int]]:
    """Queries in equal blocks, if they can be cut so."""
    count = CAUSAL_BLOCKS
    while count > 1 and (length % count or length // count < LEAST_BLOCK):
        count //= 2
    step = length // count
    return [(start, start + step) for start in range(0, length, step)]


def attend_written(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, bias_B1TS: Tensor) -> Tensor:
    """Attention as matmul, softmax, matmul: on CPU, compiled, faster than the fused operator.

    Queries go in blocks, and a block reads no keys after its own end, which are masked anyway:
    four blocks save three eighths of the work.
    """
    apply: Callable[..., Tensor] = _Written.apply
    return apply(q_BHTD, k_BHSD, v_BHSD, bias_B1TS)


def attend_fused(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, bias_B1TS: Tensor) -> Tensor:
    """The same by torch's own operator: faster where nothing is compiled."""
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=bias_B1TS)


def starts(segments_BT: Tensor) -> Tensor:
    """Where the spans of these rows begin that see only themselves, counted through all rows one
    after the other, and where the last one ends; int32.

    The end is repeated up to a power of two, so that what is compiled for one number of spans
    serves most batches: a span without positions costs next to nothing.
    """
    rows, length = segments_BT.shape
    first = torch.ones_like(segments_BT, dtype=torch.bool)
    first[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    found = first.flatten().nonzero().flatten()
    size = 1 << max(len(found), SPANS_A_ROW * rows).bit_length()
    return F.pad(found, (0, size + 1 - len(found)), value=rows * length).int()


def attend_spans(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, starts_N: Tensor) -> Tensor:
    """Causal attention within each span that `starts` found: nothing is computed for pairs of
    positions in different ones, and no mask is ever made. On a GPU by the flash kernel for many
    lengths (half precision only), elsewhere one span after the other.
    """
    rows, _, length, _ = q_BHTD.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTD, k_BHTD, v_BHTD))
    if q.is_cuda:
        # Here, not above: it takes torch's compiler with it, a second that a CPU need not pay.
        from torch.nn.attention.varlen import varlen_attn

        both = (starts_N, starts_N, length, length)
        mixed = varlen_attn(q, k, v, *both, window_size=CAUSAL)
        assert isinstance(mixed, Tensor)
    else:
        ends = starts_N.tolist()
        spans = [slice(start, end) for start, end in pairwise(ends) if start < end]
        mixed = torch.cat([_causal(q[span], k[span], v[span]) for span in spans])
    return mixed.view(rows, length, *mixed.shape[1:]).transpose(1, 2)


def _causal(q_THD: Tensor, k_THD: Tensor, v_THD: Tensor) -> Tensor:
    q, k, v = q_THD.transpose(0, 1), k_THD.transpose(0, 1), v_THD.transpose(0, 1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1)


def nearby(starts_N: Tensor, like_BTC: Tensor, width: int) -> list[Tensor]:
    """For each of the `width` - 1 steps back, BT1: 1 where the position that far back is of the
    same span, else 0."""
    rows, length, _ = like_BTC.shape
    place = torch.arange(rows * length, device=starts_N.device, dtype=starts_N.dtype)
    begin = starts_N[torch.searchsorted(starts_N, place, right=True) - 1]
    within = (place - begin).view(rows, length, 1)
    return [(within >= back).to(like_BTC.dtype) for back in range(1, width)]


def best_way(device: str, dtype: torch.dtype, *, compiled: bool) -> Attend:
    """The fastest attention for what trains there; `attend_spans` wants `starts`, the others a
    bias."""
    if device == "cuda":
        return attend_spans if dtype in (torch.bfloat16, torch.float16) else attend_fused
    return attend_written if compiled else attend_fused


Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
