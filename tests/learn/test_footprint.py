"""What each of several processes holds, with replicas or its share of the weights."""

from __future__ import annotations

import pytest
from tiny import shape

from matura.learn.footprint import footprint, held, standing

WIDE = shape(vocab_size=8192, hidden_size=256, layers=12, heads=8, kv_heads=8,
             intermediate_size=704)  # fmt: skip


def test_alone_a_process_holds_what_a_step_takes() -> None:
    learning = WIDE.parameters
    step = footprint(WIDE, 4, 64, learning=learning)
    alone = held(WIDE, 4, 64, learning=learning)
    assert alone.first == alone.others == standing(WIDE, learning=learning) + step.peak
    again = held(WIDE, 4, 64, learning=learning, recompute=True)
    assert again.first < alone.first


@pytest.mark.parametrize("learning", [WIDE.parameters, 50_000])
def test_what_is_shared_out_gets_less_with_each_process(learning: int) -> None:
    """But never less than what computes a layer, and rank 0 has all weights to look at."""
    many = [
        held(WIDE, 1, 64, learning=learning, processes=n, shard=True) for n in (2, 4, 8, 64, 10**9)
    ]
    trained = [one.training for one in many]
    assert trained == sorted(trained, reverse=True)
    replica = held(WIDE, 1, 64, learning=learning, processes=8)
    assert many[2].training < replica.training
    weights = 4 * WIDE.parameters
    assert all(one.first >= one.looking > weights for one in many)
    assert all(weights <= one.starting <= 1.6 * weights for one in many)
    tables = 4 * 2 * WIDE.vocab_size * WIDE.hidden_size
    layer = (weights - tables) / WIDE.layers
    step = footprint(WIDE, 1, 64, learning=learning)
    computes = trained[-1] - step.kept - step.passing
    assert tables + 2 * layer <= computes <= 2 * tables + 3.1 * layer


def test_replicas_hold_their_gradients_once_more_to_sum_them() -> None:
    """Where a step keeps little, this is the most."""
    few = shape(vocab_size=64, hidden_size=512, layers=2, intermediate_size=2048)
    one, two = (held(few, 1, 8, learning=few.parameters, processes=n) for n in (1, 2))
    assert two.training >= one.training
    assert two.training >= standing(few, learning=few.parameters) + 8 * few.parameters


@pytest.mark.parametrize(("processes", "measured"), [(2, 11.81e6), (4, 5.91e6)])
def test_what_lies_there_shared_out_is_what_was_measured(processes: int, measured: float) -> None:
    """Weights and optimizer of the fullest process, `bench/sharded.py`, docs/LOG.md 2026-11-28."""
    tiny = shape(vocab_size=2048, hidden_size=192, layers=4, heads=6, kv_heads=6,
                 intermediate_size=None)  # fmt: skip
    told = standing(tiny, learning=tiny.parameters, copies=0, shared_by=processes)
    assert told == pytest.approx(measured, rel=0.01)
