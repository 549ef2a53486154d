"""A feed is a pure function of parts and seed; shares are kept; nothing is lost or invented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError, RecipeError
from matura.data.draw import Draw
from matura.data.mixture import Feed, Part, interleaved, once, spans
from matura.text.shards import Shard, ShardWriter

PAD = 999
ROW = 33


def shard_of(folder: Path, name: str, lengths: list[int], base: int = 0, prompt: int = 1) -> Shard:
    """Example i is the ids base + i, base + i, …; the first `prompt` weights are 0."""
    path = folder / f"{name}.shard"
    with ShardWriter(path, vocab_size=1000, tokenizer_sha256="t") as writer:
        for number, length in enumerate(lengths):
            weights = np.ones(length)
            weights[:prompt] = 0
            writer.add(np.full(length, base + number % 100), weights)
    return Shard.open(path)


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    draw = Draw(0)
    chats = shard_of(tmp_path, "chats", (draw.below(20, 300) + 4).tolist(), 0, prompt=3)
    books = shard_of(tmp_path, "books", (draw.below(900, 20) + 100).tolist(), 100)
    runs = shard_of(tmp_path, "runs", (draw.below(40, 60) + 2).tolist(), 200)
    return [
        Part("chats", chats, 0.5, policy="drop"),
        Part("books", books, 0.3),
        Part("runs", runs, 0.2, policy="truncate_left"),
    ]


def feed(parts: list[Part], *, tokens: int = 8000, seed: int = 0, stage: str = "s") -> Feed:
    return Feed(parts, tokens=tokens, row_length=ROW, pad_id=PAD, seed=seed, stage=stage)


def test_rows_are_a_pure_function_of_seed_and_number(parts: list[Part]) -> None:
    first, again = feed(parts), feed(parts)
    assert first.sha256 == again.sha256
    everything = first.at(np.arange(first.rows))
    for row in (first.rows - 1, 0, 7):
        alone = again.at([row])
        np.testing.assert_array_equal(alone.ids_NL[0], everything.ids_NL[row])
        np.testing.assert_array_equal(alone.weights_NL[0], everything.weights_NL[row])
        np.testing.assert_array_equal(alone.segments_NL[0], everything.segments_NL[row])
    some = first.at([5, 2, 5])
    np.testing.assert_array_equal(some.ids_NL, everything.ids_NL[[5, 2, 5]])
    others = {feed(parts, seed=1).sha256, feed(parts, stage="t").sha256, first.sha256}
    assert len(others) == 3


def test_rows_hold_whole_pieces_and_padding(parts: list[Part]) -> None:
    fed = feed(parts)
    rows = fed.at(np.arange(fed.rows))
    assert rows.ids_NL.dtype == np.int32
    assert rows.weights_NL.dtype == np.float32
    assert rows.ids_NL.shape == (fed.rows, ROW)
    assert ((rows.ids_NL == PAD) == (rows.segments_NL == 0)).all()
    assert (rows.weights_NL[rows.segments_NL == 0] == 0).all()
    for ids, weights, segments in zip(rows.ids_NL, rows.weights_NL, rows.segments_NL, strict=True):
        real = segments[segments > 0]
        assert (np.diff(real) >= 0).all()
        assert (segments[len(real) :] == 0).all()  # padding is at the end
        assert set(real) == set(range(1, real.max() + 1))
        for number in range(1, real.max() + 1):
            mine = segments == number
            assert len(set(ids[mine])) == 1  # one piece of one example
            assert weights[mine][0] == 0  # nothing before it predicts it
            assert weights[mine][1:].any()  # and there is something to learn
    assert int((rows.segments_NL > 0).sum()) == fed.report()["tokens"]
    assert int(np.count_nonzero(rows.weights_NL)) == fed.report()["trained_tokens"]


def test_shares_are_of_tokens_and_hold_on_every_stretch(parts: list[Part]) -> None:
    fed = feed(parts, tokens=9000)
    report = fed.report()
    assert abs(report["tokens"] - 9000) < 3 * ROW
    for part in parts:
        said = report["parts"][part.name]
        assert said["share_asked"] == part.share
        assert abs(said["share_got"] - part.share) < 0.01
        assert said["exposures"] == said["tokens"] / said["tokens_available"]
        assert said["most_seen"] <= np.ceil(said["exposures"])
    by_part = fed.parts_at(np.arange(fed.rows))
    assert by_part == {name: said["tokens"] for name, said in report["parts"].items()}


def test_interleaving_keeps_shares_to_within_a_piece() -> None:
    draw = Draw(0)
    lengths = [draw.below(30, 500) + 1, draw.below(200, 40) + 50, draw.below(5, 900) + 1]
    which, place = interleaved(lengths)
    totals = np.array([mine.sum() for mine in lengths])
    for p, mine in enumerate(lengths):
        assert (place[which == p] == np.arange(len(mine))).all()
    size = np.concatenate([mine for mine in lengths])
    base = np.cumsum([0, *map(len, lengths[:-1])])
    taken = size[base[which] + place]
    for at in range(0, len(which), 50):
        so_far = np.bincount(which[:at], taken[:at], minlength=3) / totals
        assert so_far.max() - so_far.min() < 2 * 250 / totals.min()


def test_each_pass_sees_every_piece_once(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, "a", [10] * 100)
    fed = feed([Part("a", shard, 1.0)], tokens=3000)
    seen = fed.at(np.arange(fed.rows))
    counts = np.bincount(seen.ids_NL[seen.segments_NL > 0], minlength=100)[:100]
    assert (counts == 30).all()
    assert fed.report()["parts"]["a"]["most_seen"] == 3
    fed = feed([Part("a", shard, 1.0)], tokens=2500)
    seen = fed.at(np.arange(fed.rows))
    counts = np.bincount(seen.ids_NL[seen.segments_NL > 0], minlength=100)[:100]
    assert set(counts) == {20, 30}


def test_pieces_of_one_document_are_spread(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, "a", [ROW * 40] * 25)
    fed = feed([Part("a", shard, 1.0)], tokens=ROW * 1000)
    batches = [set(fed.at(range(at, at + 10)).ids_NL[:, 0]) for at in range(0, fed.rows, 10)]
    assert np.mean([len(batch) for batch in batches]) > 7


def test_everything_once_for_validation(parts: list[Part]) -> None:
    fed = once(parts[1].shard, name="books", row_length=ROW, pad_id=PAD)
    rows = fed.at(np.arange(fed.rows))
    counts = np.bincount(rows.ids_NL[rows.segments_NL > 0], minlength=120)[100:120]
    lost = sum(fed.report()["parts"]["books"]["tokens_lost"].values())
    assert counts.sum() + lost == parts[1].shard.tokens
    assert fed.report()["parts"]["books"]["most_seen"] == 1


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, "a", [5, 6, 90, 3, 1], prompt=4)
    dropped = feed([Part("a", shard, 1.0, policy="drop")], tokens=11).report()["parts"]["a"]
    assert dropped["dropped"] == {"too long": 1, "nothing to learn": 2}
    assert dropped["tokens_available"] + sum(dropped["tokens_lost"].values()) == shard.tokens
    with pytest.raises(DataError, match="'a' has nothing to train on \\(2 nothing to learn\\)"):
        feed([Part("a", shard_of(tmp_path, "b", [3, 4], prompt=4), 1.0)], tokens=5)


def test_a_share_out_of_reach_is_an_error_that_names_the_shortfall(parts: list[Part]) -> None:
    short = [Part("chats", parts[0].shard, 0.9, max_repeats=2.0), Part("b", parts[1].shard, 0.1)]
    reach = 2 * parts[0].shard.tokens
    with pytest.raises(DataError) as caught:
        feed(short, tokens=20_000)
    assert "'chats' is asked for 18,000 tokens (a share of 0.9)" in str(caught.value)
    assert f"{18_000 - reach:,} short" in str(caught.value)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.5, 0.4), "shares sum to 0.9, expected 1"),
        ((1.5, -0.5), "expected 0 to 1"),
        ((), "one part"),
    ],
)
def test_wrong_shares_are_recipe_errors(
    parts: list[Part], shares: tuple[float, ...], said: str
) -> None:
    wrong = [Part(p.name, p.shard, s) for p, s in zip(parts, shares, strict=False)]
    with pytest.raises(RecipeError, match=said):
        feed(wrong)
    with pytest.raises(RecipeError, match="two parts of the mixture are called 'a'"):
        feed([Part("a", parts[0].shard, 0.5)] * 2)


def test_rows_beyond_the_end_are_an_error(parts: list[Part]) -> None:
    fed = feed(parts)
    with pytest.raises(IndexError):
        fed.at([fed.rows])
    with pytest.raises(IndexError):
        fed.at([-1])
    assert fed.at([]).ids_NL.shape == (0, ROW)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9))))
def test_spans_are_the_ranges_end_to_end(pairs: list[tuple[int, int]]) -> None:
    starts, lengths = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    expected = [n for start, length in pairs for n in range(start, start + length)]
    assert spans(starts, lengths).tolist() == expected


def test_draws_are_the_same_for_ever() -> None:
    draw = Draw(12345)
    assert draw.permutation(6).tolist() == [0, 1, 5, 4, 3, 2]
    assert draw.below(1000, 3).tolist() == [598, 186, 672]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(2, 120), min_size=1, max_size=30), min_size=1, max_size=3),
    st.integers(100, 2000),
    st.integers(0, 5),
)
def test_any_mixture_loses_and_invents_nothing(
    tmp_path_factory: pytest.TempPathFactory, many: list[list[int]], tokens: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    parts = [
        Part(f"p{n}", shard_of(folder, f"p{n}", lengths, n * 100), 1 / len(many), max_repeats=1e4)
        for n, lengths in enumerate(many)
    ]
    fed = feed(parts, tokens=tokens, seed=seed)
    rows = fed.at(np.arange(fed.rows))
    assert rows.weights_NL.any(axis=1).all()  # never a row with nothing to learn
    found = np.bincount(rows.ids_NL[rows.segments_NL > 0] // 100, minlength=len(parts))
    report = fed.report()["parts"]
    assert found.tolist() == [report[part.name]["tokens"] for part in parts]
    assert all(abs(said["tokens"] - tokens / len(parts)) <= ROW for said in report.values())


def test_drawn_at_random_some_come_twice_before_others_come(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, "a", [10] * 100)
    fed = feed([Part("a", shard, 1.0, order="random")], tokens=1000)
    seen = fed.at(np.arange(fed.rows))
    counts = np.bincount(seen.ids_NL[seen.segments_NL > 0], minlength=100)[:100] // 10
    assert counts.sum() == 100
    assert 50 < (counts > 0).sum() < 75  # 1 - 1/e of them
    assert fed.report()["parts"]["a"]["most_seen"] == counts.max() > 1
    again = feed([Part("a", shard, 1.0, order="random")], tokens=1000)
    assert fed.sha256 == again.sha256
    assert fed.sha256 != feed([Part("a", shard, 1.0)], tokens=1000).sha256
    with pytest.raises(DataError, match="give it more data"):  # however drawn, C-09 holds
        feed([Part("a", shard, 1.0, order="random")], tokens=6000)


def test_shares_hold_however_pieces_are_drawn(parts: list[Part]) -> None:
    fed = feed([replace(part, order="random") for part in parts], tokens=9000)
    report = fed.report()
    assert abs(report["tokens"] - 9000) < 3 * ROW
    for part in parts:
        assert abs(report["parts"][part.name]["share_got"] - part.share) < 0.01


def test_short_examples_are_dropped_and_counted(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, "a", [5, 6, 20, 30, 4])
    said = feed([Part("a", shard, 1.0, min_tokens=6)], tokens=56).report()["parts"]["a"]
    assert said["dropped"] == {"too short": 2}
    assert said["tokens_lost"] == {"too short": 9}
    assert said["tokens_available"] == 56
    with pytest.raises(DataError, match="nothing to train on \\(5 too short\\)"):
        feed([Part("a", shard, 1.0, min_tokens=31)], tokens=5)


def test_a_report_of_the_first_rows(parts: list[Part]) -> None:
    fed = feed(parts)
    assert fed.report(fed.rows) == fed.report(fed.rows + 9) == fed.report()
    some = fed.report(10)
    assert {n: part["tokens"] for n, part in some["parts"].items()} == fed.parts_at(range(10))
    assert (some["rows"], some["tokens_asked"]) == (10, fed.report()["tokens_asked"])
    rows = fed.at(range(10))
    assert some["tokens"] == int((rows.segments_NL > 0).sum())
    assert some["trained_tokens"] == int(np.count_nonzero(rows.weights_NL))
