"""Warm-up and decay in tokens: what a batch holds does not move them."""

from __future__ import annotations

import itertools

import pytest

from matura.learn.schedule import Schedule

LONG = Schedule(tokens=10_000, warmup_tokens=1_000, decay_tokens=4_000)


def test_it_rises_stays_and_falls() -> None:
    assert LONG.factor(0) == pytest.approx(0, abs=0.001)
    assert LONG.factor(0) > 0
    assert LONG.factor(499) == pytest.approx(0.5, abs=0.001)
    assert [LONG.factor(seen) for seen in (1_000, 4_000, 6_000)] == [1.0, 1.0, 1.0]
    assert LONG.factor(8_000) == pytest.approx(0.5)
    assert LONG.factor(9_999) == pytest.approx(1 / 4_000)
    assert LONG.factor(10_000) == LONG.factor(20_000) == 0.0


def test_no_step_before_the_end_is_wasted() -> None:
    for schedule in (LONG, Schedule(64, 0, 64), Schedule(64, 64, 0), Schedule(1, 0, 1)):
        assert all(0 < schedule.factor(seen) <= 1 for seen in range(schedule.tokens))


def test_it_never_jumps_where_warmup_and_decay_overlap() -> None:
    short = Schedule(100, warmup_tokens=80, decay_tokens=60)
    factors = [short.factor(seen) for seen in range(101)]
    assert max(abs(a - b) for a, b in itertools.pairwise(factors)) < 0.02
    assert max(factors) == pytest.approx(55 / 81, abs=0.05)
    assert factors[-1] == 0.0


def test_it_falls_to_the_final_factor() -> None:
    schedule = Schedule(100, 0, 50, final=0.1)
    assert schedule.factor(75) == pytest.approx(0.55)
    assert schedule.factor(100) == pytest.approx(0.1)


def test_without_warmup_or_decay_it_is_constant() -> None:
    assert {Schedule(100, 0, 0).factor(seen) for seen in range(100)} == {1.0}


def test_batches_of_any_size_meet_the_same_factors() -> None:
    for tokens in (100, 200, 500):
        small = [LONG.factor(step * 100) for step in range(0, 100, tokens // 100)]
        assert [LONG.factor(step * tokens) for step in range(10_000 // tokens)] == small
