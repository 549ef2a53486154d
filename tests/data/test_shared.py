"""What sources of one mixture have in common is counted, to the document and the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from matura.data.shared import minded, shared
from matura.text.shards import ShardWriter
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

TEMPLATE = Template(Tokenizer.bytes_only("matura"))


def shard(folder: Path, name: str, texts: list[str]) -> Path:
    path = folder / f"{name}.train.shard"
    codec = TEMPLATE.tokenizer
    with ShardWriter(path, vocab_size=codec.vocab_size, tokenizer_sha256=codec.sha256) as writer:
        for text in texts:
            ids = (TEMPLATE.bos_id, *codec.encode(text), TEMPLATE.eos_id)
            writer.add(ids, [1.0] * len(ids))
    return path


def test_what_two_sources_share_is_counted(tmp_path: Path) -> None:
    pages = [f"page {n} of the book" for n in range(40)]
    books = shard(tmp_path, "books", pages)
    web = shard(tmp_path, "web", [*(f"a site, page {n}" for n in range(20)), *pages[5:15]])
    code = shard(tmp_path, "code", ["x = 1", "x = 10", pages[7], pages[7]])
    found = shared({"books": books, "web": web, "code": code})
    told = [(one.first, one.second, one.documents) for one in found]
    assert told == [("books", "web", 10), ("books", "code", 2), ("web", "code", 2)]
    tokens = sum(len(page) + 2 for page in pages[5:15])
    assert found[0].tokens == tokens
    whole = tokens + sum(len(f"a site, page {n}") + 2 for n in range(20))
    assert found[0].share == pytest.approx(tokens / whole)
    said = list(minded(found))
    assert len(said) == 3
    assert said[0].startswith("web has 10 documents (")
    assert "that books has too" in said[0]


def test_what_differs_by_one_byte_or_stands_alone_is_not_shared(tmp_path: Path) -> None:
    books = shard(tmp_path, "books", ["one page", "another page"])
    web = shard(tmp_path, "web", ["one page.", "nother page", "one pag"])
    assert shared({"books": books, "web": web}) == []
    assert shared({"books": books}) == []
