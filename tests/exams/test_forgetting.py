"""A drop is judged on the same items, and only when it is real."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from matura.core.errors import DriftError
from matura.core.types import Cell, Item, Score
from matura.exams.forgetting import forgotten


def score(
    grades: Sequence[float], *, exam: str = "echo", version: int = 1, better: str = "higher"
) -> Score:
    items = tuple(
        Item(f"{exam}/{n}", "", grade, "p", "g", "o", "stop") for n, grade in enumerate(grades)
    )
    cell = Cell(sum(grades) / len(grades), 0, 1, len(grades), "pass", None)
    return Score(exam, version, cell, {}, "pass", 0, items, "p", "w", {"better": better})


def test_nothing_changed_is_nothing_forgotten() -> None:
    same = score([1.0] * 190 + [0.0] * 10)
    found = forgotten(same, same, 0.0)
    assert (found.drop, found.outcome, found.n, found.chance) == (0.0, "pass", 200, 1.0)
    assert found.low < 0 < found.high


def test_a_real_drop_beyond_the_limit_fails() -> None:
    found = forgotten(score([1.0] * 200), score([0.0] * 20 + [1.0] * 180), 0.05)
    assert found.drop == pytest.approx(0.10)
    assert found.outcome == "fail"
    assert found.chance == pytest.approx(2**-20)
    assert found.low > 0.05
    assert forgotten(score([1.0] * 200), score([0.0] * 10 + [1.0] * 190), 0.05).outcome == "pass"


def test_a_drop_that_may_be_chance_is_inconclusive() -> None:
    before = score([1.0] * 12 + [0.0] * 9 + [1.0] * 29)
    after = score([0.0] * 12 + [1.0] * 9 + [1.0] * 29)
    found = forgotten(before, after, 0.05)
    assert found.drop == pytest.approx(0.06)
    assert found.chance == pytest.approx(0.3318, abs=1e-3)  # binomial: at least 12 of 21
    assert found.outcome == "inconclusive"


def test_gains_do_not_fail() -> None:
    found = forgotten(score([0.0] * 100), score([1.0] * 100), 0.0)
    assert (found.drop, found.outcome) == (-1.0, "pass")


def test_where_lower_is_better_a_rise_is_a_drop() -> None:
    before = score([1.50 + n / 1000 for n in range(100)], exam="bpb", better="lower")
    after = score([1.60 + n / 900 for n in range(100)], exam="bpb", better="lower")
    found = forgotten(before, after, 0.05)
    assert found.drop > 0.10
    assert found.outcome == "fail"
    assert forgotten(after, before, 0.05).outcome == "pass"


def test_only_items_both_were_asked_and_that_did_not_break_count() -> None:
    before = score([1.0] * 300)
    assert forgotten(before, score([1.0] * 200), 0.05).n == 200
    broken = score([1.0] * 200)
    items = [
        Item(i.task, "", 0.0, "p", "g", "", "error", error="x") if n < 2 else i
        for n, i in enumerate(broken.items)
    ]
    broken = Score(**{**{f: getattr(broken, f) for f in Score.__slots__}, "items": tuple(items)})
    found = forgotten(before, broken, 0.0)
    assert (found.n, found.drop, found.outcome) == (198, 0.0, "pass")


@pytest.mark.parametrize("other", [score([1.0], exam="operators"), score([1.0], version=2)])
def test_different_exams_are_not_compared(other: Score) -> None:
    with pytest.raises(DriftError):
        forgotten(score([1.0]), other, 0.05)
