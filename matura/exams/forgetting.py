"""Whether a stage forgot what an earlier one knew: a paired test on the very same items.

Two separate intervals would hide a drop of several points; on the same items only those count that
one model got right and the other wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matura.core.errors import DriftError
from matura.core.types import Outcome, Score
from matura.exams.interval import Z

SURE = 0.05
"""One-sided chance below which a drop is taken as real."""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """How much worse an exam went than before, on the items both models were asked."""

    exam: str
    drop: float
    """In the exam's own unit; positive is worse, for bits per byte too."""
    low: float
    high: float
    """95 % interval of the drop."""
    n: int
    chance: float
    """Of a drop this large or larger if nothing was forgotten (one-sided)."""
    at_most: float
    outcome: Outcome
    """`fail`: the drop is over `at_most` and real. `inconclusive`: over it, but may be chance."""


def forgotten(before: Score, after: Score, at_most: float) -> Forgetting:
    """The change between two sittings of one exam; items only one of them was asked are left out.

    Items that broke in either sitting are left out too: they are neither right nor wrong.

    Raises:
        DriftError: the two are different exams or versions, or have no item in common.
    """
    if (before.exam, before.version) != (after.exam, after.version):
        raise DriftError(
            f"cannot compare {before.exam} version {before.version} with {after.exam} version"
            f" {after.version}: sit the earlier exam again"
        )
    earlier = {item.task: item for item in before.items}
    pairs = [
        (earlier[item.task], item)
        for item in after.items
        if item.task in earlier and item.error is None and earlier[item.task].error is None
    ]
    if not pairs:
        raise DriftError(f"{before.exam}: the two sittings have no item in common")
    sign = -1.0 if before.settings.get("better") == "lower" else 1.0
    drops = [sign * (old.grade - new.grade) for old, new in pairs]
    mean = math.fsum(drops) / len(drops)
    binary = all(item.grade in (0.0, 1.0) for pair in pairs for item in pair)
    half = _half_width(drops, mean, 1.0 if binary else max(map(abs, drops)))
    chance = _mcnemar(drops) if binary else _normal(mean, half)
    outcome: Outcome = "pass"
    if mean > at_most:
        outcome = "fail" if chance < SURE else "inconclusive"
    return Forgetting(
        before.exam, mean, mean - half, mean + half, len(drops), chance, at_most, outcome
    )


def _half_width(drops: Sequence[float], mean: float, largest: float) -> float:
    """Half the 95 % interval of a paired mean; one made-up pair as far off as `largest` keeps it
    from being 0 where nothing changed."""
    n = len(drops)
    off = math.fsum((drop - mean) ** 2 for drop in drops)
    return Z * math.sqrt(off + largest * largest) / n


def _mcnemar(drops: Sequence[float]) -> float:
    """The chance of at least as many losses among the items that changed (exact)."""
    lost = sum(drop > 0 for drop in drops)
    changed = lost + sum(drop < 0 for drop in drops)
    return sum(math.comb(changed, k) for k in range(lost, changed + 1)) / (1 << changed)


def _normal(mean: float, half: float) -> float:
    """The chance of a mean drop this large if the true one is 0."""
    if half == 0:
        return 1.0 if mean <= 0 else 0.0
    return 0.5 * math.erfc(mean * Z / half / math.sqrt(2))
