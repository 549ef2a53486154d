"""What an objective is: sums, never means, so that micro-batches of uneven size add up to the
whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from matura.learn.batch import Batch


@dataclass(frozen=True)
class Loss:
    """Sum of weight times nats over a batch, and the sum of absolute weights to divide by."""

    total: Tensor
    weight: Tensor


class Objective(ABC):
    """`(logits, batch) -> Loss`, and the same computed without ever storing all logits."""

    @abstractmethod
    def __call__(self, logits_BTV: Tensor, batch: Batch) -> Loss:
        """The plain definition."""

    @abstractmethod
    def fused(
        self,
        hidden_NC: Tensor,
        head_VC: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        *,
        compiled: bool = False,
    ) -> Tensor:
        """The same total, from the hidden states and the output head. `compiled`: by compiled
        code."""
