"""Rotary positions and attention, with gradients written out where that is faster.

The surprising thing: `torch.compile` differentiates a rotation into masked copies, and a softmax
into a second softmax. Both gradients are short when written by hand, and a step of a small model
is a tenth faster for it (docs/LOG.md). Tests hold them to automatic differentiation.

Axes: B rows, T queries, S keys, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CAUSAL_BLOCKS = 4
LEAST_BLOCK = 32


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


Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
