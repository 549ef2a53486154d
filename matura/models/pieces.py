"""Weights of which each process has some rows, asked in the same way as those that one has whole.

A sharded weight is a `DTensor` split along its first axis, as `fully_shard` makes it: each process
has the same number of rows but the last ones, which may have fewer, or none.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def mine(tensor: Tensor) -> Tensor:
    """The rows that this process has, without a gradient; they share the tensor's memory."""
    local = getattr(tensor.detach(), "to_local", None)
    return tensor.detach() if local is None else cast(Tensor, local())


def whole(tensor: Tensor) -> Tensor:
    """All rows, without a gradient; where they are sharded, every process must ask for them."""
    gathered = getattr(tensor.detach(), "full_tensor", None)
    return tensor.detach() if gathered is None else cast(Tensor, gathered())


def rows_mine(tensor: Tensor) -> slice:
    """Which rows `mine` are."""
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return slice(0, len(tensor))
    return rows_of(len(tensor), mesh.get_local_rank(), mesh.size())


def rows_of(rows: int, rank: int, size: int) -> slice:
    """Which of a tensor's rows a process has."""
    each = -(-rows // size)
    return slice(min(rank * each, rows), min((rank + 1) * each, rows))


def is_sharded(model: nn.Module) -> bool:
    """Whether this process has some rows only of the model's weights."""
    return any(hasattr(weight, "to_local") for weight in model.parameters())
