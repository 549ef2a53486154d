"""Red lines: what must stop a training run at once, each with the step and the batch by name.

Checked before the optimizer's arithmetic, from step 0, so that no bad number ever reaches a weight
or a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from matura.core.errors import RedLine
from matura.learn.optim import Optimizer

START_TOLERANCE = 0.10
"""Share of ln V that the first loss of a fresh model may be off."""
SPOILED = 2.0
"""Times ln V that the first loss of a trained model may be. Random token runs cost a good base
model 1.4 times ln V, for it is sure of other things; swapped embedding rows cost more than 2."""
STILL_STEPS = 3
"""Steps in a row that may leave every weight as it was: at 1, a legitimate zero gradient would
stop a run."""
SILENT_STEPS = 5
"""Steps in a row without a gradient: in a fresh model, whose layers add nothing yet, what is inside
them has none in the first."""


@dataclass
class Watch:
    """The detectors of one run and what they remember; `state` survives a restart."""

    vocab_size: int
    scratch: bool
    """Whether the model starts from random weights."""
    still: int = 0
    begun: bool = False
    """Whether a first step was made: a fresh model's loss is known only then."""
    silent: dict[str, int] = field(default_factory=dict)
    """For each parameter whose gradient is zero, the steps in a row that it has been."""

    def learns(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Raises RedLine if the optimizer lacks something that is meant to learn."""
        learning = ((n, w) for n, w in model.named_parameters() if w.requires_grad)
        lacks = [name for name, weight in learning if not optimizer.has(name, weight)]
        if lacks:
            raise RedLine(
                f"never updated: before the first step: the optimizer does not have {_some(lacks)}"
            )

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
        first, self.begun = not self.begun, True
        chance = math.log(self.vocab_size)
        if first and self.scratch and abs(mean - chance) > START_TOLERANCE * chance:
            raise RedLine(
                f"start loss far from ln V: step {step}, {name}: {mean:.3f} where a fresh model of "
                f"{self.vocab_size} ids must be near {chance:.3f}"
            )
        if first and not self.scratch and mean > SPOILED * chance:
            raise RedLine(
                f"start loss far above ln V: step {step}, {name}: {mean:.3f} > "
                f"{SPOILED * chance:.3f}: far worse than chance, so the weights or the tokenizer "
                "are not the parent's"
            )

    def gradients(self, step: int, name: str, norms: Mapping[str, float]) -> None:
        """Raises RedLine if a parameter's gradient was zero several steps in a row."""
        self.silent = {n: self.silent.get(n, 0) + 1 for n, norm in norms.items() if norm == 0}
        cut_off = [n for n, steps in self.silent.items() if steps >= SILENT_STEPS]
        if cut_off:
            raise RedLine(
                f"zero gradient: step {step}, {name}: {SILENT_STEPS} steps in a row nothing "
                f"reached {_some(cut_off)}; is it cut off from the loss?"
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
        return {"still": self.still, "begun": self.begun, "silent": dict(self.silent)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state."""
        self.still, self.begun = int(state["still"]), bool(state["begun"])
        self.silent = {str(name): int(steps) for name, steps in state["silent"].items()}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Raises RedLine naming the tensor that holds a NaN or an infinity: such a state is never
    saved."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RedLine(f"non-finite values: {name} after step {step}; nothing was saved")
