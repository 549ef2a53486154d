"""Several processes that train one model: `torchrun`, `srun`, or `matura run --processes`.

Each has all weights and the whole optimizer; a step's rows are shared out and the gradients summed,
so the update is the same everywhere (docs/decisions/0009). Rank 0 alone speaks, sits exams, makes
data and publishes; what it decides goes through the store. Whoever fails says why in the store, and
all stop with that one cause (`matura.learn.pulse`).
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore

from matura.core.errors import GateClosed, MaturaError, RankError
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.gathering import block, put, summed_shards, taken
from matura.learn.joint import Joint, unlike
from matura.learn.pulse import Lost, Pulse
from matura.learn.rendezvous import Meeting
from matura.learn.saving import Saver
from matura.learn.step import Stepper
from matura.learn.team import Team

FOREVER = timedelta(days=30)
"""How long a sum may wait for the others: the pulse decides who is lost, with a name."""
POLL_S = 0.05
PART_S = 10.0
"""How long the leader waits for the others to have heard that all is done."""


class Ranks(Team):
    """One of several processes that train together; a context manager around all their work."""

    def __init__(
        self,
        meeting: Meeting,
        *,
        exact: bool | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.rank, self.size, self._meeting = meeting.rank, meeting.size, meeting
        self._store, self._told = meeting.store, 0
        self._stopping = False
        self.pulse = Pulse(meeting, tell)
        self._joint = Joint(meeting.third, self.rank, self.size, self.pulse)
        self.pulse.start()
        super().__init__(exact=exact)
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(meeting.local_rank % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        with self._waiting("joining"):
            dist.init_process_group(
                backend,
                store=PrefixStore("sums", meeting.store),
                rank=self.rank,
                world_size=self.size,
                timeout=FOREVER,
            )
        self.at("starting", bounded=False)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The end of a rank's work: said to the others, and why if it did not go well."""
        if problem is None or isinstance(problem, GateClosed):
            self._part()
            return
        said = str(problem) if isinstance(problem, MaturaError) else ""
        if not isinstance(problem, Lost):
            self.pulse.fail(said or f"{type(problem).__name__}: {problem}".strip(": "), problem)
        self.pulse.end()

    def _part(self) -> None:
        """All went well: the leader, who holds the store, leaves last."""
        if self.leads:
            self.tell({"end": True})
        self.pulse.end()
        self._store.set(f"ended/{self.rank}", "")
        until_s = time.monotonic() + PART_S
        keys = [f"ended/{rank}" for rank in range(self.size)]
        while self.leads and not self._store.check(keys) and time.monotonic() < until_s:
            time.sleep(POLL_S)
        dist.destroy_process_group()

    # What the loop asks

    def at(self, section: str, step: int | None = None, *, bounded: bool = True) -> None:
        """Notes what this process does now; whoever stays in a bounded section too long hangs."""
        self.pulse.at(section, step, bounded=bounded)

    @property
    def together(self) -> bool:
        """Whether all are in a step, at whose end they stop together."""
        return self.pulse.in_step

    def gradients(
        self, stepper: Stepper, batch: Batch, weight: float, *, micro_rows: int | None, step: int
    ) -> float:
        """Leaves the whole batch's gradient in `.grad` of every rank; the total.

        Raises:
            RankError: the batch has too few rows for so many processes.
        """
        rows = len(batch.ids_BL)
        if rows < self.size:
            raise RankError(f"a step has {rows} rows: too few for {self.size} processes")
        self.at("gradients", step)
        if self.exact:
            total = summed_shards(
                stepper,
                batch,
                weight,
                micro_rows=micro_rows,
                step=step,
                rank=self.rank,
                size=self.size,
            )
        else:
            own = block(rows, self.rank, self.size)
            total = stepper.gradients(
                batch.rows(own), weight, micro_rows=micro_rows, step=step, first_row=own.start
            )
        grads = taken(stepper)
        flat = torch.cat([grad.flatten() for grad in grads])
        totals = torch.tensor([total], dtype=torch.float64, device=flat.device)
        with self._waiting("sum of gradients", step):
            self._sum(flat)
            self._sum(totals)
        pieces = torch.split(flat, [grad.numel() for grad in grads])
        put(stepper, (piece.view_as(grad) for piece, grad in zip(pieces, grads, strict=True)))
        self.at("update", step)
        return float(totals)

    def due(self, wanted: bool, saver: Saver, step: int) -> bool:
        """Whether the leader wants to save now.

        Raises:
            KeyboardInterrupt: a rank was asked to stop; all raise it after the same step.
            MaturaError: the save in flight failed; all raise after the same step, too.
        """
        own = (wanted and self.leads, self._stopping, saver.failed)
        asked = torch.tensor([float(one) for one in own])
        with self._waiting("end of the step"):
            dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        if asked[2]:
            self.settled(saver, step)
        if asked[1]:
            raise KeyboardInterrupt
        return bool(asked[0])

    def share(self, make: Callable[[], Any]) -> Any:
        """What the leader makes, a JSON value; the others wait for it."""
        if not self.leads:
            return self.hear()
        self.at("evaluation", bounded=False)
        made = make()
        self.tell(made)
        return made

    def save(
        self,
        checkpoints: Checkpoints,
        step: int,
        write: Callable[[Path], None],
        spare: Collection[int],
        bits: Mapping[str, str],
    ) -> None:
        """A checkpoint: each rank writes its part, then the leader the record.

        Raises:
            RankError: the ranks have drifted apart; a few of what differs is named.
            Lost: another rank failed.
        """
        self._joint.save(checkpoints, step, write, spare, bits)

    def settled(self, saver: Saver, step: int) -> None:
        """Waits until no save is in flight; all raise what it failed with."""
        before = self.pulse.section
        self.pulse.waits("the checkpoint before", step)
        try:
            saver.wait()
        except Lost as problem:
            self.pulse.lost("saving", str(problem))
            raise
        finally:
            self.pulse.section = before

    def same(self, what: str, value: str) -> None:
        """Compares a value among all ranks.

        Raises:
            RankError: they differ; all of them say so.
        """
        self.compare({what: value})

    # What the ladder asks

    def compare(self, facts: Mapping[str, str]) -> None:
        """Compares what each rank is made of, by name.

        Raises:
            RankError: they differ; each difference is named, with who has what.
        """
        self._told += 1
        self._store.set(f"facts/{self._told}/{self.rank}", json.dumps(dict(facts)))
        found = [json.loads(self._get(f"facts/{self._told}/{rank}")) for rank in range(self.size)]
        if said := unlike(found):
            raise RankError(said)

    def ready(self, order: Mapping[str, Any], make: Callable[[], object]) -> None:
        """The others are told to train a stage too, and wait until the leader has made what it
        reads; they are here because they heard that."""
        if not self.leads:
            self.hear()
            return
        self.tell({"train": dict(order)})
        self.at("data", bounded=False)
        make()
        self.tell(True)

    def done(self) -> bool:
        """A stage is trained; whether this process goes on with it."""
        self.at("exams", bounded=False)
        return self.leads

    def tell(self, value: Any) -> None:
        """Says a JSON value to all others."""
        self._told += 1
        self._store.set(f"told/{self._told}", json.dumps(value))

    def hear(self) -> Any:
        """What the leader tells next."""
        self._told += 1
        return json.loads(self._get(f"told/{self._told}"))

    def stop(self) -> None:
        """Asks all ranks to stop after the step; at once where no step is being made."""
        if self._stopping or not self.pulse.in_step:
            raise KeyboardInterrupt
        self._stopping = True

    def listens(self) -> None:
        """SIGTERM and Ctrl-C from now on ask for a stop that all make together."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    def _get(self, key: str) -> bytes:
        with self._waiting("for the others"):
            while not self._store.check([key]):
                time.sleep(POLL_S)
            return bytes(self._store.get(key))

    def _sum(self, flat: Tensor) -> None:
        """Sums in place over all ranks; in exact mode along the rest of the tree."""
        if not self.exact:
            dist.all_reduce(flat)
            return
        reach = 1
        while reach < self.size:
            other = self.rank ^ reach
            theirs = torch.empty_like(flat)
            sends = dist.P2POp(dist.isend, flat, other)
            receives = dist.P2POp(dist.irecv, theirs, other)
            for request in dist.batch_isend_irecv([sends, receives]):
                request.wait()
            flat.add_(theirs)  # the same either way round: adding two floats has no order
            reach *= 2

    @contextlib.contextmanager
    def _waiting(self, what: str, step: int | None = None) -> Iterator[None]:
        """A stretch in which nobody but the others can be late.

        Raises:
            Lost: they are gone.
        """
        before = self.pulse.section
        self.pulse.waits(what, step)
        try:
            yield
        except RuntimeError as problem:  # all that gloo, NCCL and the store raise
            self.pulse.lost(what, str(problem))
            raise Lost(f"lost the others in {what}") from problem
        finally:
            self.pulse.section = before
