"""How sure a share or a ratio is, and what that says about a floor.

Intervals are two-sided, 95 %. An exam that asks on while it is inconclusive looks at its interval
several times, so the chance of a wrong verdict is somewhat above 2.5 %; at most a few looks are
taken, because each round asks as many items again as were asked before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matura.core.types import Cell, Outcome

Z = 1.959963984540054
"""The normal quantile of 0.975."""


class Interval(NamedTuple):
    """The ends of a 95 % interval."""

    low: float
    high: float


def wilson(score: float, n: int) -> Interval:
    """Wilson's interval of a share of n items; of a mean of grades in [0, 1] it is a wide one.

    All of 0 items were right and wrong alike: [0, 1].
    """
    if n == 0:
        return Interval(0.0, 1.0)
    spread = Z * Z / n
    middle = (score + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(score * (1 - score) / n + spread / (4 * n))
    # rounding may leave 1e-17 where 0 or 1 is exact
    low = 0.0 if score == 0 else max(0.0, middle - half)
    return Interval(low, 1.0 if score == 1 else min(1.0, middle + half))


def at_least(interval: Interval, floor: float | None) -> Outcome:
    """Pass if the whole interval is at or above the floor, fail if all of it is below."""
    if floor is None or interval.low >= floor:
        return "pass"
    return "fail" if interval.high < floor else "inconclusive"


def at_most(interval: Interval, ceiling: float | None) -> Outcome:
    """Pass if the whole interval is at or below the ceiling, fail if all of it is above."""
    if ceiling is None or interval.high <= ceiling:
        return "pass"
    return "fail" if interval.low > ceiling else "inconclusive"


def share(grades: Sequence[float], floor: float | None) -> Cell:
    """The cell of these grades, each in [0, 1]. Of no grades it is inconclusive if gated."""
    n = len(grades)
    score = math.fsum(grades) / n if n else 0.0
    interval = wilson(score, n)
    outcome = at_least(interval, floor)
    return Cell(score, interval.low, interval.high, n, outcome, floor)


def ratio(tops: Sequence[float], bottoms: Sequence[float], n: int, ceiling: float | None) -> Cell:
    """The cell of sum(tops) / sum(bottoms), as bits per byte over documents.

    The interval takes each pair as one independent draw (linearised ratio, normal): pairs must be
    whole documents, not pieces of one. With fewer than two it is unbounded.
    """
    whole = math.fsum(bottoms)
    score = math.fsum(tops) / whole
    pairs = len(tops)
    if pairs < 2:
        half = math.inf
    else:
        off = math.fsum((t - score * b) ** 2 for t, b in zip(tops, bottoms, strict=True))
        half = Z * math.sqrt(off * pairs / (pairs - 1)) / whole
    interval = Interval(max(0.0, score - half), score + half)
    return Cell(score, interval.low, interval.high, n, at_most(interval, ceiling), ceiling)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Fail if any fails, else inconclusive if any is, else pass."""
    if "fail" in outcomes:
        return "fail"
    return "inconclusive" if "inconclusive" in outcomes else "pass"
