"""The optimizer where each process has some rows of every weight, gradient and momentum.

AdamW needs nothing but those rows. Muon needs whole matrices: each matrix has one owner, to whom
all send their rows of its momentum; the owner orthogonalises it and sends each its rows of the
update back. Owners are chosen so that all have about the same work, and each has about as much of
the matrices at once as it has weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from matura.learn.optim import Optimizer, is_matrix, orthogonalised
from matura.models.pieces import mine, rows_of


class Others(Protocol):
    """What the optimizer asks of the other processes."""

    rank: int
    size: int

    def added(self, numbers: Tensor) -> Tensor:
        """The sum of each number over all processes."""

    def exchanged(self, parts: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """What each process sends to this one; `parts` go to each, `counts` numbers come."""


@dataclass
class ShardedOptimizer(Optimizer):
    """Updates this process's rows in place. `parameters` are those rows, as tensors of their
    own."""

    sharded: dict[str, nn.Parameter] = field(default_factory=dict)
    """The model's parameters."""
    others: Others | None = None
    owners: dict[str, int] = field(default_factory=dict)
    """Which process orthogonalises a matrix."""

    @classmethod
    def shared(cls, model: nn.Module, others: Others, **rates: Any) -> ShardedOptimizer:
        """The optimizer of what learns of a sharded model, with zero state."""
        made = cls.of(model, **rates)
        assert isinstance(made, cls)
        made.others, made.sharded = others, made.parameters
        made.parameters = {name: nn.Parameter(mine(w)) for name, w in made.sharded.items()}
        made.buffers = {name: mine(buffer) for name, buffer in made.buffers.items()}
        shapes = {n: tuple(w.shape) for n, w in made.sharded.items() if is_matrix(n, w)}
        made.owners = owners(shapes, others.size)
        return made

    def has(self, name: str, weight: nn.Parameter) -> bool:
        """Whether this parameter of the model is updated."""
        return self.sharded.get(name) is weight

    def clip(self, limit: float) -> float:
        """Gradients scaled so that the joint norm of all processes' rows is at most `limit`; the
        norm before."""
        self._take()
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        grads: list[Tensor] = [_of(self.parameters[name]) for name in names]
        squares = torch.stack(torch._foreach_norm(grads)).double().square()
        norms = self._others.added(squares).sqrt()
        norm = torch.linalg.vector_norm(norms).float()
        torch._foreach_mul_(grads, float((limit / (norm + 1e-6)).clamp(max=1.0)))
        self.norms = dict.fromkeys(self.parameters, 0.0)
        self.norms |= dict(zip(names, norms.tolist(), strict=True))
        return float(norm)

    def drop(self) -> None:
        """Forgets the gradients, applied or not."""
        super().drop()
        for weight in self.sharded.values():
            weight.grad = None

    def step(self, factor: float) -> None:
        """One update with all learning rates times `factor`; gradients are dropped afterwards."""
        self.step_count += 1
        self._take()
        rest = [name for name in self.parameters if name not in self.owners]
        embeddings = [name for name in rest if "embed_tokens" in name]
        with torch.no_grad():
            self._muon([*self.owners], factor)
            self._adamw([n for n in rest if n not in embeddings], self.learning_rate * factor)
            self._adamw(embeddings, self.embedding_learning_rate * factor)
        self.drop()

    @property
    def _others(self) -> Others:
        assert self.others is not None
        return self.others

    def _take(self) -> None:
        """The gradients' rows that are this process's; they share the gradients' memory."""
        for name, weight in self.sharded.items():
            self.parameters[name].grad = None if weight.grad is None else mine(weight.grad)

    def _muon(self, names: list[str], factor: float) -> None:
        if not names:
            return
        weights: list[Tensor] = [self.parameters[name] for name in names]
        grads = [_of(weight) for weight in weights]
        buffers = [self.buffers[f"momentum.{name}"] for name in names]
        torch._foreach_lerp_(buffers, grads, 1 - self.momentum)
        nesterov = torch._foreach_lerp(grads, buffers, self.momentum)
        moves = self._moves(dict(zip(names, nesterov, strict=True)))
        rate = self.matrix_learning_rate * factor
        torch._foreach_mul_(weights, 1 - rate * self.weight_decay)
        for name, weight in zip(names, weights, strict=True):
            rows, columns = self.sharded[name].shape
            scale = max(1.0, rows / columns) ** 0.5  # as `Optimizer` scales them
            weight.add_(moves[name], alpha=-rate * scale)

    def _moves(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each matrix orthogonalised by its owner; this process's rows of all of them."""
        others = self._others
        ranks = range(others.size)
        of = [[name for name in rows if self.owners[name] == owner] for owner in ranks]
        own = of[others.rank]
        came = others.exchanged(
            [_flat([rows[name] for name in names], like=rows) for names in of],
            [sum(self._numbers(name, rank) for name in own) for rank in ranks],
        )
        split = [torch.split(p, [self._numbers(n, r) for n in own]) for r, p in enumerate(came)]
        wholes = {
            name: torch.cat([parts[at] for parts in split]).view(self.sharded[name].shape)
            for at, name in enumerate(own)
        }
        done = orthogonal(wholes, self.muon_dtype)
        back = others.exchanged(
            [_flat([done[n][self._rows(n, rank)] for n in own], like=rows) for rank in ranks],
            [sum(rows[name].numel() for name in names) for names in of],
        )
        moves: dict[str, Tensor] = {}
        for names, flat in zip(of, back, strict=True):
            pieces = torch.split(flat, [rows[name].numel() for name in names])
            for name, piece in zip(names, pieces, strict=True):
                moves[name] = piece.view_as(rows[name])
        return moves

    def _rows(self, name: str, rank: int) -> slice:
        return rows_of(len(self.sharded[name]), rank, self._others.size)

    def _numbers(self, name: str, rank: int) -> int:
        rows = self._rows(name, rank)
        return int((rows.stop - rows.start) * self.sharded[name].shape[1])


def owners(shapes: Mapping[str, tuple[int, ...]], size: int) -> dict[str, int]:
    """An owner for each matrix: the largest work first, each to whoever has least so far."""
    work = {name: rows * columns * min(rows, columns) for name, (rows, columns) in shapes.items()}
    loads = [0] * size
    found = dict.fromkeys(shapes, 0)
    for name in sorted(work, key=lambda n: -work[n]):
        found[name] = loads.index(min(loads))
        loads[found[name]] += work[name]
    return found


def orthogonal(matrices: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The matrices, orthogonalised; those of one shape together, tall ones lying down."""
    made: dict[str, Tensor] = {}

    def shape(name: str) -> tuple[int, ...]:
        return tuple(sorted(matrices[name].shape))

    for _, group in itertools.groupby(sorted(matrices, key=shape), key=shape):
        names = list(group)
        tall = [matrices[name].shape[0] > matrices[name].shape[1] for name in names]
        lying = [matrices[n].mT if up else matrices[n] for n, up in zip(names, tall, strict=True)]
        moves = orthogonalised(torch.stack(lying), dtype)
        made |= {n: m.mT if up else m for n, m, up in zip(names, moves, tall, strict=True)}
    return made


def _of(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _flat(parts: Sequence[Tensor], *, like: Mapping[str, Tensor]) -> Tensor:
    """All numbers in one row; of the type and on the device of the others if there are none."""
    if parts:
        return torch.cat([part.reshape(-1) for part in parts])
    return next(iter(like.values())).new_empty(0)
