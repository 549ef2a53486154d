"""Intervals against known values, and verdicts at their edges."""

from __future__ import annotations

import math
from random import Random

import pytest

from matura.exams.interval import Interval, at_least, at_most, ratio, share, wilson, worst


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # R: prop.test(correct = FALSE)
        (381, 381, 0.99002, 1.0),
        (300, 300, 0.98736, 1.0),
        (0, 10, 0.0, 0.27753),
        (5, 10, 0.23659, 0.76341),
        (81, 263, 0.25525, 0.36618),
    ],
)
def test_wilson_is_wilson_s(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=1e-4)
    assert wilson(1 - right / n, n) == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_wilson_knows_nothing_from_nothing() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)
    assert share([], 0.5).outcome == "inconclusive"


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    rng = Random(0)
    hits = 0
    for _ in range(2000):
        right = sum(rng.random() < 0.93 for _ in range(200))
        low, high = wilson(right / 200, 200)
        hits += low <= 0.93 <= high
    assert 0.93 < hits / 2000 < 0.975


def test_three_outcomes_and_their_edges() -> None:
    assert at_least(Interval(0.9, 0.95), 0.9) == "pass"
    assert at_least(Interval(0.8, 0.95), 0.9) == "inconclusive"
    assert at_least(Interval(0.8, 0.9), 0.9) == "inconclusive"
    assert at_least(Interval(0.8, 0.89), 0.9) == "fail"
    assert at_least(Interval(0.0, 0.0), None) == "pass"
    assert at_most(Interval(1.0, 2.0), 2.0) == "pass"
    assert at_most(Interval(1.0, 2.1), 2.0) == "inconclusive"
    assert at_most(Interval(2.1, 2.2), 2.0) == "fail"
    assert worst(["pass", "inconclusive"]) == "inconclusive"
    assert worst(["inconclusive", "fail", "pass"]) == "fail"
    assert worst([]) == "pass"


def test_a_ratio_is_summed_before_it_is_divided() -> None:
    cell = ratio([1.0, 30.0], [1.0, 10.0], 5, 3.0)
    assert cell.score == pytest.approx(31 / 11)
    assert cell.n == 5
    assert cell.outcome == "inconclusive"
    same = ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0], 3, 2.0)
    assert (same.low, same.high, same.outcome) == (2.0, 2.0, "pass")
    assert math.isinf(ratio([1.0], [1.0], 1, 2.0).high)
