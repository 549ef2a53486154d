"""One batch: forward and backward, compiled once per process and shared by every stage of the same
shape."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from matura.learn.batch import Batch
from matura.learn.compute import Compute, keep_compiled
from matura.learn.noise import Noise
from matura.learn.objective import Loss, Objective
from matura.learn.room import Room
from matura.models.attending import Attend, attend_spans, best_way, starts
from matura.models.decoder import Decoder, unseen
from matura.models.pieces import is_sharded


def _trunk(
    model: Decoder, attend: Attend, x_BTC: Tensor, cos: Tensor, sin: Tensor, bias_B1TT: Tensor
) -> Tensor:
    """A function of its own, so that what is compiled once serves every model of the shape."""
    return model.trunk(x_BTC, cos, sin, bias_B1TT, attend)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_trunk, dynamic=False, options=keep_compiled())


def yet_to_compile(compute: Compute) -> bool:
    """Whether the first step of this process is still to come, and will be compiled."""
    return compute.compiled and not _compiled.cache_info().currsize


class Stepper:
    """Computes losses and gradients of one model the way `compute` says."""

    def __init__(
        self, model: Decoder, objective: Objective, compute: Compute, noise: Noise | None = None
    ) -> None:
        self.model, self.objective, self.compute = model, objective, compute
        self.noise = noise
        # where layers are gathered from others in mid-step, nobody can begin it anew alone
        self.room = Room(alone=not is_sharded(model))
        model.compute_dtype = compute.dtype
        # sharded layers gather their weights first, which is not compiled
        self._trunk = _compiled() if compute.compiled and not is_sharded(model) else _trunk
        self._attend = best_way(compute.device, compute.dtype, compiled=compute.compiled)

    def gradients(
        self,
        batch: Batch,
        divisor: float,
        *,
        micro_rows: int | None = None,
        step: int = 0,
        first_row: int = 0,
    ) -> float:
        """Adds the gradient of total / `divisor` to `.grad`; returns the total.

        `divisor` is the step's whole weight, so any cut into micro-batches gives the same gradient.
        `step` names the noise, if there is any, and `first_row` says where in the step's batch
        these rows stand. Fewer rows at once if memory wants it so (`matura.learn.room`).

        Raises:
            ShortOfMemory: it is not enough for one row.
        """
        rows = self.room.cut.of(len(batch.ids_BL), micro_rows)

        def summed(at_once: int) -> float:
            return self._summed(batch, divisor, at_once, step, first_row)

        return self.room.within(self.model, summed, rows)

    def settle(self, batch: Batch, *, micro_rows: int | None = None, sharing: int = 1) -> str:
        """Chooses how batches like this one, of which each of so many computes a share, are cut
        to fit into memory; in words.

        Raises:
            ShortOfMemory: there is no way.
        """
        rows = -(-len(batch.ids_BL) // sharing)
        share = batch.rows(slice(0, rows))
        weight = max(1.0, float(share.target_weights_BT.abs().sum()))

        def probe(at_once: int) -> float:
            return self._summed(share, weight, at_once, 0, 0)

        return self.room.settle(
            self.model,
            rows,
            batch.inputs_BT.shape[1],
            size=self.compute.dtype.itemsize,
            compiled=self.compute.compiled,
            asked=micro_rows,
            probe=probe if self.room.alone else None,
        )

    def _summed(
        self, batch: Batch, divisor: float, at_once: int, step: int, first_row: int
    ) -> float:
        totals, rows = 0.0, first_row
        for part in batch.split(at_once):
            total = self.model.within(functools.partial(self._total, part, step, rows))
            (total / divisor).backward()  # type: ignore[no-untyped-call]
            totals += float(total.detach())
            rows += len(part.ids_BL)
        return totals

    def _total(self, batch: Batch, step: int, first_row: int) -> Tensor:
        model = self.model
        x = model.model.embed_tokens(batch.inputs_BT).to(model.compute_dtype)
        if self.noise is not None:
            x = self.noise.added(x, step, first_row)
        hidden = self._trunk(
            model,
            self._attend,
            x,
            *model.angles(batch.positions_BT),
            self._reach(batch.segments_BT, x),
        )
        return self.objective.fused(
            hidden.flatten(0, 1),
            model.lm_head.weight,
            batch.targets_BT.flatten(),
            batch.target_weights_BT.flatten(),
            compiled=self.compute.compiled,
        )

    def _reach(self, segments_BT: Tensor, like: Tensor) -> Tensor:
        """What each position may see, as the attention wants it told."""
        if self._attend is attend_spans:
            return starts(segments_BT)
        return unseen(segments_BT.shape[1], segments_BT, like)

    def measure(self, batch: Batch) -> Loss:
        """The loss without gradients or noise, never compiled: evaluating must not change what
        training runs."""
        with torch.no_grad():
            logits = self.model(
                batch.inputs_BT, positions_BT=batch.positions_BT, segments_BT=batch.segments_BT
            )
            return self.objective(logits, batch)
