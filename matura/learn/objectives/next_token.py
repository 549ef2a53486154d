"""Cross-entropy of the next token, twice: the plain definition, and one that never stores all
logits.

The second forms the gradient chunk by chunk in the forward pass (the loss is a sum, so its
gradient does not depend on anything computed later), and only where a target has a weight: of a
chat, less than half of the positions. A test holds it to the first.

Axes: B rows, T positions, C model width, V vocabulary, N = B * T.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from matura.learn.batch import Batch
from matura.learn.objective import Loss, Objective

CHUNK = 512  # rows of logits at once: the last chunk is half empty, and larger ones are no faster
CUDA_LOGITS = 2**28
"""Logits at once on a GPU, a gigabyte: each chunk reads and writes the head's whole gradient, which
takes longer there than the product of 512 rows."""
MOST_ROWS = 8192


class NextToken(Objective):
    """One objective for pre-training (weights 1), chat tuning (1 on the assistant's words) and
    policy gradient."""

    def __call__(self, logits_BTV: Tensor, batch: Batch) -> Loss:
        """Sum of weight times nats, and sum of absolute weights."""
        nats = F.cross_entropy(
            logits_BTV.flatten(0, 1).float(), batch.targets_BT.flatten(), reduction="none"
        )
        weights = batch.target_weights_BT.flatten()
        return Loss(total=(nats * weights).sum(), weight=weights.abs().sum())

    def fused(
        self,
        hidden_NC: Tensor,
        head_VC: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        *,
        compiled: bool = False,
    ) -> Tensor:
        """The same total from the hidden states and the output head."""
        apply: Callable[..., Tensor] = _ChunkedCrossEntropy.apply
        return apply(hidden_NC, head_VC, targets_N, weights_N, compiled)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of weight times cross-entropy; logits live for one chunk at a time, and only those of
    positions with a weight are made at all."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: Tensor,
        head_VC: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        compiled: bool,
    ) -> Tensor:
        chunk = _compiled() if compiled else _chunk
        head = head_VC.to(hidden_NC.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden_NC.device)
        d_head = None  # of a frozen head: a third of the arithmetic
        if ctx.needs_input_grad[1]:
            d_head = torch.zeros(head_VC.shape, dtype=torch.float32, device=hidden_NC.device)
        d_hidden = torch.zeros_like(hidden_NC)
        trained = weights_N.nonzero().flatten()
        size = chunk_rows(head.shape[0], head.device.type)
        for start in range(0, len(trained), size):
            where = trained[start : start + size]
            # what is compiled is compiled for whole chunks: the last is filled up with weight 0
            short = size - len(where) if compiled else 0
            rows = F.pad(where, (0, short))
            weights = F.pad(weights_N[where], (0, short))
            total, d_rows, d_head = chunk(
                total, d_head, hidden_NC[rows], head, targets_N[rows], weights
            )
            d_hidden[where] = d_rows[: len(where)]
        ctx.save_for_backward(d_hidden, d_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_head = ctx.saved_tensors
        scaled = None if d_head is None else d_head * grads[0]
        return d_hidden * grads[0].to(d_hidden.dtype), scaled, None, None, None


def chunk_rows(vocab: int, device: str) -> int:
    """How many rows of logits are made at once, a multiple of `CHUNK`."""
    if device != "cuda":
        return CHUNK
    return max(CHUNK, min(MOST_ROWS, CUDA_LOGITS // vocab // CHUNK * CHUNK))


def _chunk(
    total: Tensor,
    d_head_VC: Tensor | None,
    hidden_NC: Tensor,
    head_VC: Tensor,
    targets_N: Tensor,
    weights_N: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The total and the head's gradient with a chunk added, and the chunk's own gradient."""
    targets, weights = targets_N[:, None], weights_N[:, None]
    column_V = torch.arange(head_VC.shape[0], device=head_VC.device)
    logits = (hidden_NC @ head_VC.T).float()
    top = logits.amax(-1, keepdim=True)
    powers = torch.exp(logits - top)
    sums = powers.sum(-1, keepdim=True)
    total = total + ((top + sums.log() - logits.gather(1, targets)) * weights).sum()
    d_logits = (powers / sums - (column_V == targets).float()) * weights
    d_logits = d_logits.to(hidden_NC.dtype)
    if d_head_VC is not None:
        d_head_VC = d_head_VC + (d_logits.T @ hidden_NC).float()
    return total, d_logits @ head_VC, d_head_VC


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor, Tensor | None]]:
    return torch.compile(_chunk, dynamic=False)
