"""Who trains together: one process, unless somebody joined others (`matura.learn.parallel`).

Everything the loop asks of many processes stands here for one. In `exact` mode a batch is always
cut into the same shards, whose gradients are summed along the same tree (`matura.learn.gathering`),
so the weights do not depend on how many processes there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matura.core.errors import RecipeError
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.gathering import summed_shards
from matura.learn.optim import Optimizer
from matura.learn.saving import Saver
from matura.learn.step import Stepper
from matura.models.decoder import Decoder

EXACT = "MATURA_EXACT"


def exact_asked() -> bool:
    """Whether `MATURA_EXACT=1` asks for sums that do not depend on how many processes train.

    Raises:
        RecipeError: it is neither 0 nor 1.
    """
    asked = os.environ.get(EXACT, "0")
    if asked not in ("0", "1"):
        raise RecipeError(f"{EXACT}={asked}: expected 0 or 1")
    return asked == "1"


class Team:
    """One process that trains alone."""

    rank, size = 0, 1
    shares = False
    """Whether each process has some rows only of the weights."""

    def __init__(self, *, exact: bool | None = None) -> None:
        self.exact = exact_asked() if exact is None else exact
        if self.exact:
            # a sum that several threads share out depends on how many there are
            torch.set_num_threads(1)

    @property
    def leads(self) -> bool:
        """Whether this process speaks, sits exams, makes data and publishes folders."""
        return self.rank == 0

    @property
    def together(self) -> bool:
        """Whether all are in a step: who is interrupted elsewhere is alone, and cannot save."""
        return True

    def at(self, section: str, step: int | None = None, *, bounded: bool = True) -> None:
        """Notes what this process does now, for the others; `bounded` if it should end soon."""

    def ready(self, order: Mapping[str, Any], make: Callable[[], object]) -> None:
        """The others are told to train a stage too, and wait until the leader has made what it
        reads."""
        make()

    def done(self) -> bool:
        """A stage is trained; whether this process goes on with it: saves it and sits exams."""
        return True

    def place(self, model: Decoder, device: str) -> None:
        """Puts the model where it is trained."""
        model.to(device)

    def optimizer(self, model: Decoder, **rates: Any) -> Optimizer:
        """The optimizer of what this process has of the model."""
        return Optimizer.of(model, **rates)

    def onlooker(self, stepper: Stepper) -> Stepper:
        """The stepper for evaluations, which only the leader makes and only within `look`."""
        return stepper

    def look(self, make: Callable[[], Any]) -> Any:
        """What the leader makes of the model as it is now, a JSON value; the others wait for it."""
        return self.share(make)

    def whole(self, model: Decoder) -> Decoder:
        """The trained model, for the leader, who writes it down."""
        return model

    def alike(self, stepper: Stepper) -> None:
        """Where processes wait for each other in the midst of a step, all cut their batches as
        does who has the least memory."""

    def added(self, numbers: Tensor) -> Tensor:
        """The sum of what each process makes of its own rows; of what all have, the thing
        itself."""
        return numbers

    def gradients(
        self, stepper: Stepper, batch: Batch, weight: float, *, micro_rows: int | None, step: int
    ) -> float:
        """Leaves the gradient of the whole batch's total / `weight` in `.grad`; the total.

        Everything is the same on every rank.
        """
        if not self.exact:
            return stepper.gradients(batch, weight, micro_rows=micro_rows, step=step)
        return summed_shards(stepper, batch, weight, micro_rows=micro_rows, step=step)

    def due(self, wanted: bool, saver: Saver, step: int) -> bool:
        """Whether the leader wants to save now: its clock decides for all.

        Raises:
            KeyboardInterrupt: somebody was asked to stop; all ranks stop here.
            MaturaError: the save before is over, and failed.
        """
        saver.check()
        return wanted

    def share(self, make: Callable[[], Any]) -> Any:
        """What the leader makes, a JSON value; the others wait for it."""
        return make()

    def save(
        self,
        checkpoints: Checkpoints,
        step: int,
        write: Callable[[Path], None],
        spare: Collection[int],
        bits: Mapping[str, str],
    ) -> None:
        """A checkpoint that every rank writes its part of, with one record. Raises RankError if
        the ranks do not have the same `bits`: it is put together from all of them."""
        checkpoints.save(step, write, spare=spare)

    def settled(self, saver: Saver, step: int) -> None:
        """Waits until no save is in flight; raises what it failed with."""
        saver.wait()

    def same(self, what: str, value: str) -> None:
        """Raises RankError if the ranks do not all have this value: those that differ are named."""
