"""Saving in the background: training waits only while its state is copied.

The copy goes into buffers that are made once; a thread then checks, writes, hashes and publishes
it. One save is in flight at most, so the buffers are never written to while they are read. What
goes wrong in the thread is raised by whatever the training asks of the saver next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import Tensor

from matura.core.memory import bytes_left
from matura.learn.checkpoint import State

MOST_SHARE = 0.02
"""Of the time between two saves that the clock asked for, at most this much waits for the first: a
model whose copy takes longer is saved more rarely."""
RARER = 10
"""Times the interval that was asked for: more is never made of it."""
SPARE = 2.0
"""Times the copy's size that must be free before buffers for it are made."""


class Saver:
    """Runs one save after another in a thread, and remembers how long the training waited."""

    def __init__(self, available: Callable[[], int | None] = bytes_left) -> None:
        self._available = available
        self.waited_s = 0.0
        """Seconds that training waited for saves, all together."""
        self.last_s = 0.0
        """The same for the last save."""
        self._before_s = 0.0
        """Waited for the save before, since the last one began."""
        self._flying: Future[object] | None = None
        self._held: dict[str, Tensor] = {}

    def save(self, state: State, publish: Callable[[State], object]) -> None:
        """`publish` is given a copy of the state as it is now, in a thread; where there is no
        memory for a copy, the state itself, at once.

        Raises:
            RedLine, StoreError: what the save before failed with.
        """
        self.wait()
        began = time.monotonic()
        try:
            copied = self._copied(state)
            if copied is None:
                publish(state)
            else:
                self._begin(lambda: publish(copied))
        finally:
            took_s = time.monotonic() - began
            self.last_s, self._before_s = self._before_s + took_s, 0.0
            self.waited_s += took_s

    def pause_s(self, every_s: float) -> float:
        """How long after a save the next one is due that nothing but the clock asks for."""
        return max(every_s, min(self.last_s / MOST_SHARE, RARER * every_s))

    @property
    def over(self) -> bool:
        """Whether no save is in flight."""
        return self._flying is None or self._flying.done()

    @property
    def failed(self) -> bool:
        """Whether the last save is over, and went wrong."""
        flying = self._flying
        return flying is not None and flying.done() and flying.exception() is not None

    def check(self) -> None:
        """Raises what the last save failed with, if it is over."""
        if self.over:
            self.wait()

    def wait(self) -> None:
        """Returns once no save is in flight; raises what it failed with."""
        flying = self._flying
        if flying is not None:
            began = time.monotonic()
            wait([flying])
            self._flying = None
            self._before_s += time.monotonic() - began
            self.waited_s += time.monotonic() - began
            flying.result()

    def rest(self) -> None:
        """The same, and raises nothing."""
        if self._flying is not None:
            wait([self._flying])
            self._flying = None

    def _begin(self, job: Callable[[], object]) -> None:
        thread = ThreadPoolExecutor(1, "saving")
        self._flying = thread.submit(job)
        thread.shutdown(wait=False)  # it ends with its only job

    def _copied(self, state: State) -> State | None:
        """The state in this saver's buffers; None where memory has no room for them."""
        tensors = [
            (f"{file}/{name}", one)
            for file, inside in state.files.items()
            for name, one in inside.items()
        ]
        missing = [(name, one) for name, one in tensors if not _fits(self._held.get(name), one)]
        there = self._available()
        if there is not None and SPARE * sum(one.nbytes for _, one in missing) > there:
            self._held.clear()
            return None
        for name, one in missing:
            self._held[name] = torch.empty(one.shape, dtype=one.dtype, pin_memory=one.is_cuda)
        with torch.no_grad():
            for name, one in tensors:
                self._held[name].copy_(one, non_blocking=one.is_cuda)
        if any(one.is_cuda for _, one in tensors):
            torch.cuda.synchronize()
        files = {
            file: {name: self._held[f"{file}/{name}"] for name in inside}
            for file, inside in state.files.items()
        }
        return State(files, state.rest, state.step)


def _fits(held: Tensor | None, tensor: Tensor) -> bool:
    return held is not None and (held.shape, held.dtype) == (tensor.shape, tensor.dtype)
