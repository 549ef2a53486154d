"""Token folders are mixed by shares of the result, to the token; what cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matura.core.errors import DataError, MaturaError, RecipeError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.mixing import Wanted, mix
from matura.data.sources.prepared import Prepared
from matura.data.tokens import TokenFolder
from matura.text.tokenizer import Tokenizer

CODEC = Tokenizer.bytes_only("mypt")


def folder(path: Path, count: int, low: int, *, files: int = 3, **about: Any) -> Path:
    """`count` training ids from `low` on, 50 for validation, in the width that `about` says."""
    width = "<u2" if about.get("dtype") == "uint16" else "<u4"
    ids = np.arange(count) % 50 + low
    for split, some in (("train", np.array_split(ids, files)), ("val", [ids[:50]])):
        (path / split).mkdir(parents=True)
        for number, piece in enumerate(some):
            piece.astype(width).tofile(path / split / f"{number}.bin")
    (path / "dataset_metadata.json").write_text(json.dumps(about))
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [
        folder(tmp_path / "new", 8_700, 0),
        folder(tmp_path / "wiki", 5_000, 50, dtype="uint16"),
        folder(tmp_path / "domain", 200, 100),
    ]


def ids_of(path: Path) -> Any:
    found = TokenFolder.open(path)
    return np.concatenate([found.tokens(file) for file in found.files("train")])


def test_what_has_no_share_is_taken_whole_and_the_rest_fits_it(
    three: list[Path], tmp_path: Path
) -> None:
    new, wiki, domain = three
    wanted = [Wanted(new), Wanted(wiki, share=0.10), Wanted(domain, share=0.03)]
    found = mix(wanted, tmp_path / "out", max_repeats=2)
    assert [part.train for part in found] == [8_700, 1_000, 300]
    assert [part.got for part in found] == pytest.approx([0.87, 0.10, 0.03])
    assert [part.asked for part in found] == pytest.approx([0.87, 0.10, 0.03])
    assert found[2].repeats == pytest.approx(1.5)
    assert [part.val for part in found] == [50, 50, 50]
    ids = ids_of(tmp_path / "out")
    assert [int(((ids >= low) & (ids < low + 50)).sum()) for low in (0, 50, 100)] == [
        8_700,
        1_000,
        300,
    ]
    again = mix(wanted, tmp_path / "again", max_repeats=2)
    assert [part.train for part in again] == [part.train for part in found]
    assert np.array_equal(ids, ids_of(tmp_path / "again"))


def test_a_share_out_of_reach_names_the_shortfall(three: list[Path], tmp_path: Path) -> None:
    new, wiki, domain = three
    wanted = [Wanted(new), Wanted(wiki, share=0.10), Wanted(domain, share=0.03)]
    with pytest.raises(DataError, match=r"domain: has 200 tokens, 300 are asked for .*100 short"):
        mix(wanted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.work"))


def test_tokens_of_one_and_tokens_of_all(three: list[Path], tmp_path: Path) -> None:
    new, wiki, domain = three
    found = mix([Wanted(new), Wanted(wiki, tokens=800)], tmp_path / "a")
    assert [part.train for part in found] == [8_700, 800]
    whole = [Wanted(new, share=0.5), Wanted(wiki, share=0.4), Wanted(domain, share=0.1)]
    found = mix(whole, tmp_path / "b", tokens=1_000)
    assert [part.train for part in found] == [500, 400, 100]
    longest = mix(whole, tmp_path / "c")
    assert [part.train for part in longest] == [1_000, 800, 200]
    found = mix(
        [Wanted(new), Wanted(wiki), Wanted(domain, share=0.1)], tmp_path / "d", tokens=1_000
    )
    assert [part.train for part in found] == [round(900 * n / 13_700) for n in (8_700, 5_000)] + [
        100
    ]


@pytest.mark.parametrize(
    ("shares", "error", "said"),
    [
        ((None, 1.0), RecipeError, "a share of 1; expected 0 to 1"),
        ((0.6, 0.6), RecipeError, "the shares sum to 1.2"),
        ((0.2, 0.3), RecipeError, "the shares sum to 0.5, not to 1"),
    ],
)
def test_shares_that_make_no_whole(
    three: list[Path],
    tmp_path: Path,
    shares: tuple[float | None, float],
    error: type[MaturaError],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        mix([Wanted(path, s) for path, s in zip(three, shares, strict=False)], tmp_path / "out")


def test_what_does_not_belong_together_is_refused(three: list[Path], tmp_path: Path) -> None:
    new, wiki, _ = three
    (new / "tokenizer_state.json").write_text('{"is": "one", "vocab_size": 40}')
    with pytest.raises(DataError, match=r"new: holds the id 49, its tokenizer has 40"):
        mix([Wanted(new), Wanted(wiki, 0.1)], tmp_path / "out")
    (wiki / "tokenizer_state.json").write_text('{"is": "another"}')
    with pytest.raises(DataError, match="another tokenizer"):
        mix([Wanted(new), Wanted(wiki, 0.1)], tmp_path / "out")
    with pytest.raises(RecipeError, match="nowhere: no such folder"):
        mix([Wanted(new), Wanted(tmp_path / "nowhere", 0.1)], tmp_path / "out")
    (tmp_path / "mine").mkdir()
    with pytest.raises(RecipeError, match="is no token folder; nothing done"):
        mix([Wanted(new)], tmp_path / "mine")


def test_where_it_came_from_is_known_through_every_mix(three: list[Path], tmp_path: Path) -> None:
    new, wiki, domain = three
    mix([Wanted(wiki, 0.75), Wanted(domain, 0.25)], tmp_path / "base", tokens=400)
    mix([Wanted(new), Wanted(tmp_path / "base", 0.02)], tmp_path / "out")
    source = Prepared(path=tmp_path / "out")
    assert source.origins() == pytest.approx(
        {"new": 0.98, "base/wiki": 0.015, "base/domain": 0.005}, abs=1e-3
    )
    assert source.licence() == "own"
    assert TokenFolder.open(tmp_path / "out").about["licences"]["base/wiki"] == "own"
    assert Prepared(path=new).origins() == {}


def test_documents_end_where_the_files_say_so(tmp_path: Path) -> None:
    made = folder(tmp_path / "a", 0, 0, separator=300)
    np.array([1, 2, 300, 300, 3, 300, 4], "<u4").tofile(made / "train/0.bin")
    read = list(Prepared(path=made).read(Given(rng=rng(0), tokenizer=CODEC)))
    assert [d.ids for d in read if isinstance(d, Document)] == [(1, 2), (3,), (4,)]
    mix([Wanted(made)], tmp_path / "b")
    read = list(Prepared(path=tmp_path / "b").read(Given(rng=rng(0), tokenizer=CODEC)))
    assert [d.ids for d in read if isinstance(d, Document)] == [(1, 2), (3,), (4,)]


def test_a_budget_ends_the_training_data_alone(three: list[Path]) -> None:
    given = Given(rng=rng(0), tokenizer=CODEC)
    source = Prepared(path=three[0], token_budget=2_000)
    assert source.tokens() == 2_000
    read = [d for d in source.read(given) if isinstance(d, Document)]
    assert 2_000 <= sum(len(d.ids or ()) for d in read) < 8_700
    held = Given(rng=rng(0), tokenizer=CODEC, split="validation")
    assert sum(len(d.ids or ()) for d in source.read(held) if isinstance(d, Document)) == 50
