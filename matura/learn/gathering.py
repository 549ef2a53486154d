"""Gradients of one batch, cut up and summed: exactly the same however many processes share it.

A sum of floats depends on its order. Here a batch is cut into a fixed number of shards, whose
gradients are the leaves of a fixed binary tree. A process that has an aligned block of the leaves
has a subtree; its root is then exchanged along the rest of the tree. So every addition is the same
one, whoever makes it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from matura.core.errors import RankError
from matura.learn.batch import Batch
from matura.learn.step import Stepper

SHARDS = 8
"""At most as many processes share a batch in exact mode. More cost little: each is a pass of its
own, with rows enough to keep one core busy at any size worth training on several."""


def shards_of(rows: int) -> int:
    """How many shards a batch of that many rows is cut into: a power of two, none empty."""
    return min(SHARDS, 1 << (rows.bit_length() - 1))


def block(rows: int, number: int, blocks: int) -> slice:
    """The rows of one of `blocks` parts of about the same size, in order."""
    return slice(rows * number // blocks, rows * (number + 1) // blocks)


def summed_shards(
    stepper: Stepper,
    batch: Batch,
    weight: float,
    *,
    micro_rows: int | None,
    step: int,
    rank: int = 0,
    size: int = 1,
) -> float:
    """Leaves in `.grad` the tree's sum over this rank's block of shards; returns that of totals.

    Raises:
        RankError: the shards cannot be shared out evenly among so many processes.
    """
    rows = len(batch.ids_BL)
    shards = shards_of(rows)
    if shards % size:
        raise RankError(
            f"exact mode: a batch of {rows} rows is cut into {shards} shards, which {size} "
            f"processes cannot share evenly; take 1, 2, 4 or 8, at most {shards}"
        )
    own = range(rank * shards // size, (rank + 1) * shards // size)
    leaves = (
        _leaf(stepper, batch, block(rows, shard, shards), weight, micro_rows, step) for shard in own
    )
    *grads, total = tree_sum(leaves)
    put(stepper, grads)
    return float(total)


def _leaf(
    stepper: Stepper,
    batch: Batch,
    rows: slice,
    weight: float,
    micro_rows: int | None,
    step: int,
) -> list[Tensor]:
    """One shard's gradients, and its total in fp64."""
    total = stepper.gradients(
        batch.rows(rows), weight, micro_rows=micro_rows, step=step, first_row=rows.start
    )
    return [*taken(stepper), torch.tensor(total, dtype=torch.float64)]


def taken(stepper: Stepper) -> list[Tensor]:
    """The gradients of all that learns, taken out of `.grad`."""
    found = []
    for weight in _learning(stepper):
        found.append(torch.zeros_like(weight) if weight.grad is None else weight.grad)
        weight.grad = None
    return found


def put(stepper: Stepper, grads: Iterable[Tensor]) -> None:
    """The other way round."""
    for weight, grad in zip(_learning(stepper), grads, strict=True):
        weight.grad = grad


def _learning(stepper: Stepper) -> list[nn.Parameter]:
    return [weight for weight in stepper.model.parameters() if weight.requires_grad]


def tree_sum(leaves: Iterable[list[Tensor]]) -> list[Tensor]:
    """The sum of a power of two of lists along a binary tree, in place; the logarithm of their
    number is alive at once."""
    waiting: list[tuple[int, list[Tensor]]] = []
    for leaf in leaves:
        height, node = 0, leaf
        while waiting and waiting[-1][0] == height:
            lower = waiting.pop()[1]
            for left, right in zip(lower, node, strict=True):
                left.add_(right)
            height, node = height + 1, lower
        waiting.append((height, node))
    ((_, root),) = waiting
    return root
