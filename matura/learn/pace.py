"""Whether a run gets what it needs, looked at once, after its first 50 steps: it is then that
something can still be done about a training that takes ten times as long as it must.

Two things are seen from inside: how long steps wait for their batches, and how much of a core the
process gets, however many it wants.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from matura.core.ledger import Ledger
from matura.learn.batch import Batch

SETTLED, LOOKED = 5, 50
"""Steps that are not counted, for what is compiled or read first comes once; and until when."""
WAITS = 0.2
"""Share of the time that may be spent reading batches."""
OF_A_CORE = 0.7
"""A step computes in one thread at least: with less than this of a core, others have the rest."""


@dataclass
class Pace:
    """The clocks of one process's steps; nothing of it is kept in checkpoints."""

    on_cpu: bool = True
    wall: Callable[[], float] = time.monotonic
    spent: Callable[[], float] = time.process_time
    steps: int = 0
    waited_s: float = 0.0
    began_s: float = 0.0
    spent_s: float = 0.0

    def reading(self, batches: Callable[[int], Batch]) -> Callable[[int], Batch]:
        """The same batches, and how long they take."""

        def read(step: int) -> Batch:
            before_s = self.wall()
            try:
                return batches(step)
            finally:
                self.waited_s += self.wall() - before_s

        return read

    def step(self, ledger: Ledger) -> None:
        """One more step is done; says what is wrong, in the one step in which that is looked at."""
        if why := self.look():
            ledger.say(f"{ledger.stage}: slow: {why}")

    def look(self) -> str | None:
        """What is wrong, after one more step; None in all steps but one."""
        self.steps += 1
        if self.steps == SETTLED:
            self.began_s, self.spent_s, self.waited_s = self.wall(), self.spent(), 0.0
        if self.steps != LOOKED:
            return None
        took_s = max(self.wall() - self.began_s, 1e-9)
        waits, core = self.waited_s / took_s, (self.spent() - self.spent_s) / took_s
        found = []
        if waits > WAITS:
            found.append(
                f"{waits:.0%} of the time is spent reading batches: larger batch_tokens, a shorter "
                "sequence_length or a faster disk would help"
            )
        if self.on_cpu and core < OF_A_CORE:
            found.append(
                f"this process gets {core:.2f} of a core: other programs run here, or it may use "
                "no more; end them, or start it elsewhere (taskset, container limits)"
            )
        return "; ".join(found) or None
