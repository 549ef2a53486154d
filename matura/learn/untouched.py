"""Between two updates nothing may change the weights or the optimizer's state: what does is no
training, but a bug or the machine.

Each tensor's bits are added up as whole numbers, so that one flipped bit always changes the sum.
That reads everything twice a step: 20 bytes a parameter, where a step of 4,096 tokens computes
25,000 times with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.learn.optim import Optimizer
from matura.models.decoder import Decoder
from matura.models.pieces import mine

EMBEDDINGS = "model.embed_tokens.weight"
WORD = 8
"""Bytes that are added at once: four times as fast as adding numbers of four bytes."""


@dataclass
class Untouched:
    """What the last update left behind. Never saved: a restart reads files that are hashed."""

    left: tuple[Tensor, Tensor] | None = None
    """A sum for each row of the embeddings, and one for each tensor."""

    def after(self, model: Decoder, optimizer: Optimizer) -> None:
        """Remembers everything as an update left it."""
        self.left = _sums(_tensors(model, optimizer))

    def forget(self) -> None:
        """Takes what there is as it is: it was just read from a file."""
        self.left = None

    def changed(self, model: Decoder, optimizer: Optimizer) -> tuple[str, str] | None:
        """The red line and what is no longer as the last update made it; None if all is."""
        if self.left is None:
            return None
        tensors = _tensors(model, optimizer)
        rows, sums = _sums(tensors)
        rows_then, sums_then = self.left
        if torch.equal(sums, sums_then) and torch.equal(rows, rows_then):
            return None
        odd = torch.nonzero(rows != rows_then).flatten().tolist()
        if odd:
            ids = _some(map(str, odd), 5)
            return "embeddings broken", f"{len(odd)} rows changed since the last update (ids {ids})"
        changed = (sums != sums_then).tolist()
        names = _some((n for n, other in zip(tensors, changed, strict=True) if other), 3)
        return "weights changed", f"{names} changed since the last update"


def bits(model: Decoder, optimizer: Optimizer) -> dict[str, str]:
    """All weights and moments, their bits added up, by name: the same in all that have the same."""
    tensors = _tensors(model, optimizer)
    sums = _sums(tensors)[1].tolist()
    return {name: f"{one % 2**64:016x}" for name, one in zip(tensors, sums, strict=True)}


def _some(words: Iterable[str], most: int) -> str:
    found = list(words)
    return ", ".join(found[:most]) + (" …" if len(found) > most else "")


def _tensors(model: Decoder, optimizer: Optimizer) -> dict[str, Tensor]:
    weights = {name: mine(weight) for name, weight in model.named_parameters()}
    return weights | {f"optimizer {name}": tensor for name, tensor in optimizer.buffers.items()}


def _sums(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The bits of each row of the embeddings, and of each tensor, added up."""
    rows = torch.zeros(0)
    sums: list[Tensor] = []
    for name, tensor in tensors.items():
        if name == EMBEDDINGS and tensor.shape[1] * tensor.element_size() % WORD == 0:
            rows = tensor.view(torch.int64).sum(dim=1)
            sums.append(rows.sum())
        else:
            sums.append(_sum(tensor))
    return rows, torch.stack(sums)


def _sum(tensor: Tensor) -> Tensor:
    """All bits of a tensor, eight bytes at a time, and the bytes that are left over."""
    flat = tensor.reshape(-1)
    whole = flat.numel() - flat.numel() % (WORD // flat.element_size())
    return flat[:whole].view(torch.int64).sum() + flat[whole:].view(torch.uint8).sum()
