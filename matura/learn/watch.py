"""Red lines: what must stop a training run at once, each with the step and the batch by name.

Checked before the optimizer's arithmetic, from step 0, so that no bad number ever reaches a weight
or a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matura.core.errors import RedLine

START_TOLERANCE = 0.10
"""Share of ln V that the first loss of a fresh model may be off (FAULTS D2)."""
SPOILED = 2.0
"""Times ln V that the first loss of a trained model may be. Random token runs cost a good base
model 1.4 times ln V, for it is sure of other things; swapped embedding rows cost more than 2."""
STILL_STEPS = 3
"""Steps in a row that may leave every weight as it was: at 1, a legitimate zero gradient would
stop a run."""


@dataclass
class Watch:
    """The detectors of one run and what they remember; `state` survives a restart."""

    vocab_size: int
    scratch: bool
    """Whether the model starts from random weights."""
    still: int = 0

    def batch(self, step: int, name: str, weight: float) -> None:
        """Raises RedLine if a batch has nothing to learn from: the loss mask is empty."""
        if not weight > 0:
            raise RedLine(
                f"nothing trained: step {step}, {name}: every loss weight is 0; look at what is "
                "masked with `matura show`"
            )

    def loss(self, step: int, name: str, mean: float, grad_norm: float) -> None:
        """Raises RedLine if a number is not finite, or the first loss is not what chance gives."""
        if not (math.isfinite(mean) and math.isfinite(grad_norm)):
            raise RedLine(
                f"non-finite values: step {step}, {name}: loss {mean}, gradient norm {grad_norm}; "
                "the step was not applied; try a lower learning rate"
            )
        chance = math.log(self.vocab_size)
        if step == 0 and self.scratch and abs(mean - chance) > START_TOLERANCE * chance:
            raise RedLine(
                f"start loss far from ln V: step 0, {name}: {mean:.3f} where a fresh model of "
                f"{self.vocab_size} ids must be near {chance:.3f}"
            )
        if step == 0 and not self.scratch and mean > SPOILED * chance:
            raise RedLine(
                f"start loss far above ln V: step 0, {name}: {mean:.3f} > {SPOILED * chance:.3f}: "
                "far worse than chance, so the weights or the tokenizer are not the parent's"
            )

    def update(self, step: int, name: str, moved: float) -> None:
        """Raises RedLine if a step threw a weight out of range, or several moved none at all."""
        if not math.isfinite(moved):
            raise RedLine(
                f"non-finite values: step {step}, {name}: the update is {moved} times the weights; "
                "nothing was saved; try a lower learning rate"
            )
        self.still = self.still + 1 if moved == 0 else 0
        if self.still >= STILL_STEPS:
            raise RedLine(
                f"no update: step {step}, {name}: {self.still} steps in a row left every weight as "
                "it was; is the learning rate 0, or the gradient cut off?"
            )

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {"still": self.still}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state."""
        self.still = int(state["still"])


def check_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Raises RedLine naming the tensor that holds a NaN or an infinity: such a state is never
    saved."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RedLine(f"non-finite values: {name} after step {step}; nothing was saved")
