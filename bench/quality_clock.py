"""How far a run of `quality.py` has got: by the wall clock, from the start of its process.

Rates follow the clock, for both sides alike: up over the first steps, level, down in a straight
line to nothing when the time is up. So no speed has to be known before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

WARM_UP = 0.02
"""Share of the time."""


def wall_s() -> float:
    """Seconds since this process was started; only its parent can know when that was."""
    return time.time() - float(os.environ["BENCH_BEGAN"])


def busy_s() -> float:
    """Processor seconds of this process by its threads: for trials beside other work."""
    return time.process_time() / int(os.environ.get("OMP_NUM_THREADS", "1"))


@dataclass
class Clock:
    """A run's time. It has begun when the process has, and rates rise from the first step on."""

    seconds: float
    decay: float
    """Share of the time, at the end, in which rates fall."""
    now: Callable[[], float] = wall_s
    first_s: float | None = None
    """When the first step began."""
    steps: list[float] = field(default_factory=list)
    """When each step began."""

    def begins(self) -> bool:
        """Whether there is time for another step, as long as most were; it begins then."""
        now = self.now()
        took = [later - earlier for earlier, later in pairwise([*self.steps, now])]
        if now + (median(took) if took else 0.0) > self.seconds:
            return False
        self.first_s = now if self.first_s is None else self.first_s
        self.steps.append(now)
        return True

    def factor(self) -> float:
        """On every rate, now; never 0."""
        now = self.now()
        first = now if self.first_s is None else self.first_s
        rising = (now - first) / (WARM_UP * self.seconds)
        falling = (self.seconds - now) / (self.decay * self.seconds)
        return min(1.0, max(rising, 0.02), max(falling, 0.001))
