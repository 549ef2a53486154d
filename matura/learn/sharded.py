"""Several processes of which each has its rows of every weight, gradient and momentum (FSDP2).

While a layer computes, its weights are whole in every process, and no longer than that; what stands
outside of the layers - embeddings, last norm, head - is whole during a micro-batch. So a model that
is too large for one process can be trained (docs/decisions/0010). Rank 0 alone looks at the model
from outside: for an evaluation all weights, and nothing else, are gathered there.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from matura.core.errors import RankError, RecipeError
from matura.learn.batch import Batch
from matura.learn.gathering import block
from matura.learn.optim import Optimizer
from matura.learn.parallel import Ranks
from matura.learn.rendezvous import Meeting
from matura.learn.room import Cut
from matura.learn.sharded_optim import ShardedOptimizer
from matura.learn.step import Stepper
from matura.models.decoder import Decoder
from matura.models.pieces import whole

_share: Callable[..., object] = fully_shard
SHARD = "MATURA_SHARD"
ALL_ROWS = 2**31


def shard_asked() -> bool:
    """Whether `MATURA_SHARD=1` asks for weights that are shared out.

    Raises:
        RecipeError: it is neither 0 nor 1.
    """
    asked = os.environ.get(SHARD, "0")
    if asked not in ("0", "1"):
        raise RecipeError(f"{SHARD}={asked}: expected 0 or 1")
    return asked == "1"


class Sharded(Ranks):
    """One of several processes that share one model out among them."""

    shares = True

    def __init__(self, meeting: Meeting, *, tell: Callable[[str], None] | None = None) -> None:
        self._mesh: DeviceMesh | None = None
        self._model: Decoder | None = None
        self._seen: Decoder | None = None
        super().__init__(meeting, exact=False, tell=tell)

    # Where the model is

    def place(self, model: Decoder, device: str) -> None:
        """Shares the weights out, on that device; every process gives the same ones."""
        kind = torch.device(device).type
        if self._mesh is None or self._mesh.device_type != kind:
            self._mesh = init_device_mesh(kind, (self.size,))
        self._model, self._seen = model, _hollow(model)
        for part in (*model.model.layers, model):
            _share(part, mesh=self._mesh)
        register_fsdp_forward_method(model, "within")
        for part in model.modules():
            if isinstance(part, FSDPModule):
                # sums over all ranks: the loss is divided by the whole batch's weight already
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)
                part.set_custom_all_gather(_Gathers(self))  # type: ignore[arg-type]
                part.set_custom_reduce_scatter(_Adds(self))  # type: ignore[arg-type]
        model.to(device)  # the buffers

    def optimizer(self, model: Decoder, **rates: Any) -> Optimizer:
        """The optimizer of this process's rows."""
        return ShardedOptimizer.shared(model, self, **rates)

    def onlooker(self, stepper: Stepper) -> Stepper:
        """A stepper over the weights as the leader has them during `look`; elsewhere and at any
        other time they are not there."""
        seen = self._known(stepper.model)
        return Stepper(seen, stepper.objective, stepper.compute)

    def look(self, make: Callable[[], Any]) -> Any:
        """What the leader makes of the model, a JSON value; it has all weights meanwhile."""
        with self._gathered():
            return self.share(make)

    def whole(self, model: Decoder) -> Decoder:
        """The model with all weights, for the leader; what the others get has none."""
        seen = self._known(model)
        self._fill()
        return seen

    # What a step asks

    def gradients(
        self, stepper: Stepper, batch: Batch, weight: float, *, micro_rows: int | None, step: int
    ) -> float:
        """Leaves this process's rows of the whole batch's gradient in `.grad`; the total.

        All go through the same number of micro-batches, for each gathers the weights anew: a
        process that has fewer rows reads one of them once more, with a weight of nothing.

        Raises:
            RankError: the batch has too few rows for so many processes.
        """
        rows = len(batch.ids_BL)
        if rows < self.size:
            raise RankError(f"a step has {rows} rows: too few for {self.size} processes")
        self.at("gradients", step)
        own, most = block(rows, self.rank, self.size), -(-rows // self.size)
        micro = stepper.room.cut.of(most, micro_rows)
        mine = batch.rows(own)
        total = stepper.gradients(mine, weight, micro_rows=micro, step=step, first_row=own.start)
        for _ in range(-(-(own.stop - own.start) // micro), -(-most // micro)):
            stepper.gradients(_weightless(mine), weight, step=step, first_row=own.start)
        totals = torch.tensor([total], dtype=torch.float64, device=batch.ids_BL.device)
        total = float(self.added(totals))
        self.at("update", step)
        return total

    def alike(self, stepper: Stepper) -> None:
        """All cut their batches as does who has the least memory."""
        cut = stepper.room.cut
        least = torch.tensor([-(cut.rows or ALL_ROWS), int(cut.recompute)])
        with self._waiting("how batches are cut"):
            dist.all_reduce(least, op=dist.ReduceOp.MAX)
        rows, recompute = -int(least[0]), bool(least[1])
        stepper.room.use(stepper.model, Cut(None if rows == ALL_ROWS else rows, recompute))

    def added(self, numbers: Tensor) -> Tensor:
        """The sum of each number over all processes."""
        with self._waiting("sum of numbers"):
            dist.all_reduce(numbers)
        return numbers

    def exchanged(self, parts: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """What each process sends to this one; `parts` go to each, `counts` numbers come."""
        sent = torch.cat([*parts])
        came = sent.new_empty(sum(counts))
        with self._waiting("exchange of matrices"):
            dist.all_to_all_single(came, sent, [*counts], [len(part) for part in parts])
        return list(torch.split(came, [*counts]))

    # All weights at once

    def _known(self, model: Decoder) -> Decoder:
        if model is not self._model or self._seen is None:
            raise RankError("this model's weights were not shared out by this team")
        return self._seen

    def _fill(self) -> None:
        """Gathers one weight after the other; only the leader keeps them."""
        assert self._model is not None
        assert self._seen is not None
        self.at("gathering the weights", bounded=False)
        kept = dict(self._seen.named_parameters())
        for name, weight in self._model.named_parameters():
            with self._waiting("weights"):
                gathered = whole(weight)
            if self.leads:
                kept[name].data = gathered
        self._seen.train(self._model.training)

    @contextlib.contextmanager
    def _gathered(self) -> Iterator[None]:
        self._fill()
        try:
            yield
        finally:
            assert self._seen is not None
            for weight in self._seen.parameters():
                weight.data = weight.data.new_empty(0)


def _hollow(model: Decoder) -> Decoder:
    """A copy without the weights."""
    empty: dict[int, Any] = {
        id(w): nn.Parameter(w.data.new_empty(0), requires_grad=w.requires_grad)
        for w in model.parameters()
    }
    return copy.deepcopy(model, empty)


def _weightless(batch: Batch) -> Batch:
    """One of the rows, of which nothing is learnt."""
    row = batch.rows(slice(0, 1))
    return dataclasses.replace(row, weights_BL=torch.zeros_like(row.weights_BL))


class _Waits:
    """How FSDP talks to the other processes, said to the pulse: who waits is not late."""

    def __init__(self, team: Sharded) -> None:
        self._team = team

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for what comes."""
        return torch.empty(*size, dtype=dtype, device=device)


class _Gathers(_Waits):
    """The weights of a layer, from all."""

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> Any:
        with self._team._waiting("weights"):
            return _gather(output_tensor, input_tensor, group=group, async_op=async_op)


class _Adds(_Waits):
    """The gradients of a layer: each process gets the sum of its rows."""

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        with self._team._waiting("sum of gradients"):
            return _scatter(output_tensor, input_tensor, op=op, group=group, async_op=async_op)


# torch 2.13 renamed both
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
