"""Corpora of `data prepare` are mixed as token folders are, document by document, with their
tokenizer; what another tokenizer encoded is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Document, Given, Split
from matura.data.encoded import opened
from matura.data.mixing import Wanted as Share
from matura.data.mixing import mix
from matura.data.preparation import Found, NewTokenizer, Wanted, prepare
from matura.data.sources.corpus import Corpus
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.prepared import Prepared
from matura.data.tokens import TokenFolder
from matura.text.tokenizer import Tokenizer


def rows(path: Path, first: int) -> Jsonl:
    texts = (" ".join(f"word{n * 20 + k}" for k in range(20)) for n in range(first, first + 60))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Jsonl(path=path)


@pytest.fixture
def two(ram: Path) -> list[Path]:
    """Corpora of one tokenizer."""
    sources = [rows(ram / f"{name}.jsonl", n * 100) for n, name in enumerate(("new", "old"))]
    new, old = ram / "new", ram / "old"
    prepare(new, Wanted((Found("web", sources[0]),), NewTokenizer(vocab_size=350)))
    prepare(old, Wanted((Found("books", sources[1]),), new / "tokenizer"))
    return [new, old]


def texts(source: Corpus | Prepared, folder: Path, split: Split) -> list[str]:
    tokenizer = Tokenizer.load(folder / "tokenizer")
    read = source.read(Given(rng=rng(0), tokenizer=tokenizer, split=split))
    return [
        tokenizer.decode(thing.ids)
        for thing in read
        if isinstance(thing, Document) and thing.ids is not None
    ]


def test_a_mix_of_corpora_holds_their_documents(two: list[Path], ram: Path) -> None:
    new, old = two
    (one, other) = mix([Share(new), Share(old)], ram / "mixed")
    for split in ("train", "validation"):
        wanted = [text for path in two for text in texts(Corpus(path=path), path, split)]
        assert texts(Prepared(path=ram / "mixed"), ram / "mixed", split) == wanted
    shards = [shard for path in two for shard in Corpus(path=path).shards("train")]
    assert one.train + other.train == sum(shard.tokens - len(shard) for shard in shards)
    assert Prepared(path=ram / "mixed").origins() == pytest.approx(
        {"new/web": one.got, "old/books": other.got}
    )
    found = mix([Share(new), Share(old, share=0.1)], ram / "shared")
    assert [part.got for part in found] == pytest.approx([0.9, 0.1], abs=1e-3)
    again = mix([Share(ram / "mixed"), Share(old, share=0.1)], ram / "twice")  # a mix knows its own
    assert again[0].train == one.train + other.train


def test_tokens_of_another_tokenizer_are_refused(two: list[Path], ram: Path) -> None:
    new, old = two
    source = rows(ram / "third.jsonl", 300)
    prepare(
        ram / "third",
        Wanted((Found("third", source),), NewTokenizer(vocab_size=350, dialect="chatml")),
    )
    with pytest.raises(
        DataError, match=r"third: encoded with another tokenizer than .*--tokenizer"
    ):
        mix([Share(new), Share(ram / "third")], ram / "out")
    (ram / "bare" / "train").mkdir(parents=True)
    np.zeros(50, "<u4").tofile(ram / "bare/train/a.bin")
    (ram / "bare/dataset_metadata.json").write_text("{}")
    with pytest.raises(DataError, match=r"bare: does not say which tokenizer"):
        mix([Share(new), Share(ram / "bare")], ram / "out")
    (ram / "nothing").mkdir()
    with pytest.raises(DataError, match=r"nothing: no token folder .* prepare its text first"):
        mix([Share(new), Share(ram / "nothing")], ram / "out")
    assert not list(ram.glob("out*"))
    mix([Share(new), Share(old)], ram / "mixed")
    other = Given(rng=rng(0), tokenizer=Tokenizer.load(ram / "third/tokenizer"))
    with pytest.raises(DataError, match=r"another tokenizer than the model's; .*path: "):
        list(Prepared(path=ram / "mixed").read(other))
    assert isinstance(opened(ram / "mixed"), TokenFolder)
