"""Packing invents and loses no token, and no row silently teaches nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError, RecipeError
from matura.text.pack import Pieces, lay_out, pack, pieces

lengths_of = st.lists(st.integers(0, 40), max_size=60)
POLICIES = ("drop", "split", "truncate_left")
quick = settings(max_examples=60, deadline=None)


@quick
@given(lengths_of, st.integers(2, 16), st.sampled_from(POLICIES))
def test_pieces_fit_and_every_token_is_counted(
    lengths: list[int], row_length: int, policy: str
) -> None:
    table, counted = pieces(np.array(lengths, dtype=np.int64), row_length, policy)  # type: ignore[arg-type]
    assert (table.lengths > 0).all()
    assert (table.lengths <= row_length).all()
    assert counted.tokens_in == sum(lengths)
    assert counted.tokens_in == counted.tokens_kept + sum(counted.tokens_lost.values())
    assert counted.tokens_kept == table.lengths.sum()
    assert counted.pieces == len(table.example)
    for example, length in enumerate(lengths):
        mine = table.example == example
        stretches = zip(table.start[mine], table.stop[mine], strict=True)
        covered = [token for start, stop in stretches for token in range(start, stop)]
        if policy == "split":
            assert covered == list(range(length))
        elif policy == "truncate_left":
            assert covered == list(range(max(0, length - row_length), length))
        else:
            assert covered == (list(range(length)) if length <= row_length else [])


def test_what_was_left_out_is_said() -> None:
    _, counted = pieces(np.array([0, 3, 9, 20]), 8, "drop")
    assert counted.dropped == {"empty": 1, "too long": 2}
    assert counted.tokens_lost == {"too long": 29}
    assert counted.cut == 0
    _, counted = pieces(np.array([0, 3, 9, 20]), 8, "truncate_left")
    assert counted.dropped == {"empty": 1}
    assert counted.tokens_lost == {"truncated": 13}
    assert counted.cut == 2


@quick
@given(lengths_of, st.integers(2, 16), st.sampled_from(POLICIES), st.integers(0, 20))
def test_short_examples_are_left_out_whole(
    lengths: list[int], row_length: int, policy: str, least: int
) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    table, counted = pieces(sizes, row_length, policy, min_tokens=least)  # type: ignore[arg-type]
    assert counted.tokens_in == counted.tokens_kept + sum(counted.tokens_lost.values())
    short = [length for length in lengths if 0 < length < least]
    assert counted.dropped.get("too short", 0) == len(short)
    assert counted.tokens_lost.get("too short", 0) == sum(short)
    enough = [length if length >= least else 0 for length in lengths]
    alone, _ = pieces(np.array(enough, dtype=np.int64), row_length, policy)  # type: ignore[arg-type]
    for column, expected in zip(table, alone, strict=True):
        assert column.tolist() == expected.tolist()


def test_pieces_that_teach_nothing_are_left_out_and_counted() -> None:
    lengths = np.array([4, 2, 1, 3])
    # the second example's only weight is on its first token, which nothing before it predicts
    weights = np.array([0, 0, 0, 1, 1, 0, 1, 0, 0, 0], dtype=np.float32)
    table, counted = pieces(lengths, 4, "split", weights=weights)
    assert table.example.tolist() == [0]
    assert counted.dropped == {"nothing to learn": 3}
    assert counted.tokens_lost == {"nothing to learn": 6}
    with pytest.raises(DataError, match="9 weights for 10 tokens"):
        pieces(lengths, 4, "split", weights=weights[1:])


@quick
@given(st.lists(st.integers(1, 17), max_size=80))
def test_every_piece_is_in_exactly_one_row(lengths: list[int]) -> None:
    groups = pack(np.array(lengths, dtype=np.int64), 17)
    assert sorted(i for group in groups for i in group.tolist()) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in group) for group in groups]
    assert all(0 < total <= 17 for total in sums)
    # best fit: at most one row is half empty
    assert sum(total * 2 <= 17 for total in sums) <= 1


def test_packing_is_full_fast_and_repeatable() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 20_000)
    groups = pack(lengths, 256)
    assert lengths.sum() / 256 / len(groups) > 0.995
    again = pack(lengths, 256)
    assert all((a == b).all() for a, b in zip(groups, again, strict=True))


@quick
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_rows_hold_every_token_once(lengths: list[int], random) -> None:
    examples = []
    at = 1
    for length in lengths:
        weights = np.array([random.choice([0.0, 1.0, -0.5]) for _ in range(length)])
        examples.append((np.arange(at, at + length), weights))
        at += length
    groups = pack(np.array(lengths), 12)
    rows = lay_out(examples, groups, 12, pad_id=0)
    taught = [g for g in groups if any(examples[i][1][1:].any() for i in g)]
    assert len(rows.ids_NL) == len(taught)
    assert rows.dropped == len(groups) - len(taught)
    assert rows.weights_NL.any(axis=1).all()
    found = np.sort(rows.ids_NL[rows.segments_NL > 0])
    expected = sorted(int(n) for g in taught for i in g for n in examples[i][0])
    assert found.tolist() == expected
    assert (rows.ids_NL[rows.segments_NL == 0] == 0).all()
    assert (rows.weights_NL[rows.segments_NL == 0] == 0).all()
    for row, group in enumerate(taught):
        for segment, index in enumerate(group, start=1):
            mine = rows.segments_NL[row] == segment
            ids, weights = examples[index]
            assert rows.ids_NL[row][mine].tolist() == ids.tolist()
            assert rows.weights_NL[row][mine][1:].tolist() == weights[1:].tolist()
            assert rows.weights_NL[row][mine][0] == 0.0
    assert rows.trained == sum(np.count_nonzero(examples[i][1][1:]) for g in taught for i in g)


def test_types_and_nothing_at_all() -> None:
    rows = lay_out([], [], 8, pad_id=3)
    assert rows.ids_NL.shape == (0, 8)
    assert rows.fill == 0.0
    assert pack(np.array([], dtype=np.int64), 8) == []
    table, counted = pieces(np.array([]), 8, "drop")
    assert counted.tokens_in == 0
    assert isinstance(table, Pieces)
    rows = lay_out([(np.array([5, 6]), np.array([0.0, 1.0]))], [np.array([0])], 4, pad_id=3)
    assert rows.ids_NL.tolist() == [[5, 6, 3, 3]]
    assert (rows.ids_NL.dtype, rows.weights_NL.dtype, rows.segments_NL.dtype) == (
        np.int32, np.float32, np.int32,
    )  # fmt: skip
    assert rows.fill == 0.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="piece 1 has 9 tokens"):
        pack(np.array([3, 9]), 8)
    with pytest.raises(DataError, match="piece 0 has 0 tokens"):
        pack(np.array([0]), 8)
    with pytest.raises(RecipeError, match="no policy 'cut'"):
        pieces(np.array([1]), 8, "cut")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="2 or more"):
        pieces(np.array([1]), 1, "drop")
    pair = (np.array([1, 2, 3]), np.array([0.0, 1.0, 1.0]))
    with pytest.raises(DataError, match="do not fit"):
        lay_out([pair], [np.array([0, 0])], 4, pad_id=0)
    with pytest.raises(DataError, match="3 ids but 1 weights"):
        lay_out([(pair[0], pair[1][:1])], [np.array([0])], 4, pad_id=0)
