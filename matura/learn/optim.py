"""Muon for the matrices inside the layers, AdamW for everything else, as one optimizer with named
state.

Muon (Jordan et al. 2024) moves each matrix by its orthogonalised momentum. Matrices of one shape
are orthogonalised together, tall ones lying down, in batched bf16 products: at 192 x 4 layers that
is two stacks, and half the time of one matrix after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# Newton-Schulz coefficients of Muon's authors: fast rise of small singular values, all end in about
# [0.7, 1.2]
NS_A, NS_B, NS_C = 3.4445, -4.7750, 2.0315
NS_STEPS = 5


def orthogonalised(stack_NRC: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Each matrix of the stack (R <= C) with its singular values pushed to about 1."""
    x = stack_NRC.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NS_STEPS):
        square = x @ x.mT
        both = torch.baddbmm(square, square, square, beta=NS_B, alpha=NS_C)
        x = torch.baddbmm(x, both, x, beta=NS_A)
    return x.float()


@dataclass
class Optimizer:
    """Updates a model in place from `.grad`. State is plain tensors by parameter name."""

    parameters: dict[str, nn.Parameter]
    matrix_learning_rate: float
    learning_rate: float
    embedding_learning_rate: float
    weight_decay: float
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    step_count: int = 0
    buffers: dict[str, Tensor] = field(default_factory=dict)
    muon_dtype: torch.dtype = torch.bfloat16
    norms: dict[str, float] = field(default_factory=dict)
    """Of each parameter's gradient, before it was last clipped."""

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        matrix_learning_rate: float,
        learning_rate: float,
        embedding_learning_rate: float,
        weight_decay: float,
        muon_dtype: torch.dtype = torch.bfloat16,
    ) -> Optimizer:
        """The optimizer of what learns of a model, with zero state."""
        made = cls(
            {name: weight for name, weight in model.named_parameters() if weight.requires_grad},
            matrix_learning_rate,
            learning_rate,
            embedding_learning_rate,
            weight_decay,
            muon_dtype=muon_dtype,
        )
        for name, weight in made.parameters.items():
            made.buffers[f"momentum.{name}"] = torch.zeros_like(weight)
            if not is_matrix(name, weight):
                made.buffers[f"variance.{name}"] = torch.zeros_like(weight)
        return made

    def has(self, name: str, weight: nn.Parameter) -> bool:
        """Whether this parameter of the model is updated."""
        return self.parameters.get(name) is weight

    def clip(self, limit: float) -> float:
        """Gradients scaled so that their joint norm is at most `limit`; the norm before."""
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        grads = [_grad(self.parameters[name]) for name in names]
        norms = torch.stack(torch._foreach_norm(grads))
        norm = torch.linalg.vector_norm(norms)
        torch._foreach_mul_(grads, float((limit / (norm + 1e-6)).clamp(max=1.0)))
        self.norms = dict.fromkeys(self.parameters, 0.0)
        self.norms |= dict(zip(names, norms.tolist(), strict=True))
        return float(norm)

    def drop(self) -> None:
        """Forgets the gradients, applied or not."""
        for weight in self.parameters.values():
            weight.grad = None

    def step(self, factor: float) -> None:
        """One update with all learning rates times `factor`; gradients are dropped afterwards."""
        self.step_count += 1
        groups: dict[tuple[int, ...], list[str]] = {}
        rest: list[str] = []
        embeddings: list[str] = []
        for name, weight in self.parameters.items():
            if is_matrix(name, weight):
                groups.setdefault(tuple(sorted(weight.shape)), []).append(name)
            else:
                (embeddings if "embed_tokens" in name else rest).append(name)
        with torch.no_grad():
            for names in groups.values():
                self._muon(names, factor)
            self._adamw(rest, self.learning_rate * factor)
            self._adamw(embeddings, self.embedding_learning_rate * factor)
        self.drop()

    def _muon(self, names: list[str], factor: float) -> None:
        weights: list[Tensor] = [self.parameters[name] for name in names]
        grads = [_grad(weight) for weight in weights]
        buffers = [self.buffers[f"momentum.{name}"] for name in names]
        torch._foreach_lerp_(buffers, grads, 1 - self.momentum)
        nesterov = torch._foreach_lerp(grads, buffers, self.momentum)
        lying = [move.mT if move.shape[0] > move.shape[1] else move for move in nesterov]
        moves = orthogonalised(torch.stack(lying), self.muon_dtype)
        rate = self.matrix_learning_rate * factor
        torch._foreach_mul_(weights, 1 - rate * self.weight_decay)
        for weight, move in zip(weights, moves, strict=True):
            rows, columns = weight.shape
            # max(1, rows/columns) ** 0.5: Jordan's scale, the same root-mean-square change
            # for tall and wide matrices
            scale = max(1.0, rows / columns) ** 0.5
            weight.add_(move.mT if rows > columns else move, alpha=-rate * scale)

    def _adamw(self, names: list[str], rate: float) -> None:
        if not names:
            return
        weights: list[Tensor] = [self.parameters[name] for name in names]
        grads = [_grad(weight) for weight in weights]
        first = [self.buffers[f"momentum.{name}"] for name in names]
        second = [self.buffers[f"variance.{name}"] for name in names]
        b1, b2 = self.betas
        torch._foreach_lerp_(first, grads, 1 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, grads, grads, value=1 - b2)
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, (1 - b2**self.step_count) ** 0.5)
        torch._foreach_add_(scale, self.eps)
        # beyond what fp32 holds torch raises; an update out of range is for the loop to judge
        pace = min(rate / (1 - b1**self.step_count), torch.finfo(torch.float32).max)
        torch._foreach_addcdiv_(weights, first, scale, value=-pace)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that must survive a restart, by name."""
        return dict(self.buffers)

    def restore(self, tensors: dict[str, Tensor], step_count: int) -> None:
        """Back to a saved state.

        Raises:
            KeyError: the saved state lacks a tensor, or has one too many.
            ValueError: a tensor has another shape or type.
        """
        if tensors.keys() != self.buffers.keys():
            raise KeyError(
                f"optimizer state differs: {sorted(tensors.keys() ^ self.buffers.keys())}"
            )
        for name, tensor in tensors.items():
            own = self.buffers[name]
            if (tensor.shape, tensor.dtype) != (own.shape, own.dtype):  # copy_ would broadcast
                raise ValueError(f"{name} is {tuple(tensor.shape)}, expected {tuple(own.shape)}")
            own.copy_(tensor)
        self.step_count = step_count


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether Muon takes this parameter: a matrix inside a layer, not an embedding, not the head,
    and not an adapter's: those are thin, and what counts is their product."""
    return weight.ndim == 2 and ".layers." in name and ".lora." not in name


def _grad(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def update_ratio(
    before: Iterable[Tensor],
    after: Iterable[Tensor],
    added: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> float:
    """How far a step moved the weights, relative to their size (Frobenius norms over all).

    `added` sums over the processes that share the weights out among them.
    """
    moved = size = 0.0
    for old, new in zip(before, after, strict=True):
        moved += float((old - new).square().sum())
        size += float(old.square().sum())
    moved, size = added(torch.tensor([moved, size], dtype=torch.float64)).tolist()
    return math.sqrt(moved / size) if size else math.sqrt(moved)


def update_ratios(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    added: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, float]:
    """The same for each group that has a rate of its own, by its name: too small or too large a
    rate shows there first."""
    groups: dict[str, list[str]] = {}
    for name, weight in before.items():
        groups.setdefault(group_of(name, weight), []).append(name)
    return {
        group: update_ratio([before[n] for n in names], [after[n] for n in names], added)
        for group, names in groups.items()
    }


def group_of(name: str, weight: Tensor) -> str:
    """What a parameter is to the optimizer: of the matrices, the embeddings, the head, or the
    rest."""
    if is_matrix(name, weight):
        return "matrices"
    for part, group in (("embed_tokens", "embeddings"), ("lm_head", "head")):
        if part in name:
            return group
    return "rest"
