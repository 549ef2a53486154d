"""Cleaners that look for something in a text: evaluation items, private data, a language."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matura.core.errors import DataError
from matura.core.types import Document
from matura.data.clean.decontaminate import Decontaminate, items_of
from matura.data.clean.language import OneLanguage
from matura.data.clean.pii import Pii
from matura.data.cleaner import Cleaner, Counts, cleaned

QUESTION = "A farmer has twelve grey geese and sells five of them; how many geese are left then?"
CLEAN = "The harbour was quiet in the morning, and the boats lay side by side without a sound."


def left(cleaner: Cleaner, *texts: str) -> tuple[list[str], dict[str, int]]:
    counts = Counts()
    documents = (Document(text=text, id=str(n)) for n, text in enumerate(texts))
    found = [document.text for document in cleaned([cleaner], documents, counts)]
    assert counts.read == counts.kept + sum(counts.dropped.values()) == len(texts)
    return found, counts.dropped


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    path = tmp_path / "bench.jsonl"
    rows = [{"question": QUESTION, "answer": "7", "source": CLEAN}, {"question": "Why?"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_text_with_an_evaluation_item_is_left_out(benchmark: Path) -> None:
    changed = QUESTION.upper().replace("GREY ", "").replace(";", ",\n# ")
    cleaner = Decontaminate(against=(benchmark,), fields=("question",))
    found, dropped = left(cleaner, f"x = 1\n# {QUESTION}\n", CLEAN, f"Look: {changed}", "Why not?")
    assert found == [CLEAN, "Why not?"]
    assert sum(dropped.values()) == 2
    assert dropped["decontaminate: evaluation item, exact"] == 1
    # without `fields`, every text of a row is an item
    assert left(Decontaminate(against=(benchmark,)), CLEAN, "Nothing of it.")[0] == [
        "Nothing of it."
    ]


def test_items_are_named_by_their_place(benchmark: Path, tmp_path: Path) -> None:
    assert [name for name, _ in items_of(benchmark)] == [
        *(f"bench.jsonl:1 {field}" for field in ("question", "answer", "source")),
        "bench.jsonl:2 question",
    ]
    nested = tmp_path / "n.jsonl"
    nested.write_text('{"messages": [{"role": "user", "content": "how many geese"}]}\n')
    assert ("n.jsonl:1 messages[0].content", "how many geese") in items_of(nested)
    (tmp_path / "lines.txt").write_text("one item\n\nanother item\n")
    assert list(items_of(tmp_path / "lines.txt")) == [
        ("lines.txt:1", "one item"),
        ("lines.txt:3", "another item"),
    ]


def test_bad_files_of_items_are_named(benchmark: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bench\.jsonl:2: no text in 'answer'"):
        list(items_of(benchmark, ["question", "answer"]))
    (tmp_path / "bad.jsonl").write_text("{]\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:1: "):
        list(items_of(tmp_path / "bad.jsonl"))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match="no items"):
        left(Decontaminate(against=(tmp_path / "empty.txt",)), CLEAN)
    with pytest.raises(DataError, match="no such file"):
        left(Decontaminate(against=(tmp_path / "missing.txt",)), CLEAN)


def test_private_data_is_masked() -> None:
    found, dropped = left(Pii(), "Write to ann.lee@example.org today.", CLEAN)
    assert found == ["Write to <email> today.", CLEAN]
    assert not dropped
    assert left(Pii(kinds=("phone",)), "ann.lee@example.org")[0] == ["ann.lee@example.org"]


def test_languages_are_chosen() -> None:
    german = "Der Hafen war am Morgen still, und die Boote lagen ohne ein Geräusch nebeneinander."
    assert left(OneLanguage(), CLEAN, german) == ([CLEAN], {"language: language de": 1})
    assert left(OneLanguage(only=("de",)), CLEAN, german)[0] == [german]
