"""Content decides the split; copies never part; small sources still get all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Message, ToolCall
from matura.data.split import content_key, division, sections, split_of


def document(text: str, id: str = "x") -> Document:
    return Document(text=text, id=id)


def test_shares_are_as_said_and_ids_do_not_matter() -> None:
    splits = Counter(split_of(document(f"text {n}")) for n in range(20_000))
    assert 0.036 < splits["validation"] / 20_000 < 0.044
    assert 0.036 < splits["exam"] / 20_000 < 0.044
    assert all(
        split_of(document(f"text {n}", "a")) == split_of(document(f" TEXT\n{n} ", "b"))
        for n in range(300)
    )


def test_split_of_known_content_never_changes() -> None:
    # A change here would move held-out text into training between two versions.
    found = [split_of(document(text)) for text in ("text 0", "text 36", "text 39")]
    assert found == ["train", "exam", "validation"]


def test_equal_words_have_equal_keys_and_others_not() -> None:
    def chat(*arguments: int) -> Conversation:
        calls = tuple(ToolCall("f", {"a": a}) for a in arguments)
        return Conversation((Message("user", "q"), Message("assistant", "", calls)), id="x")

    assert content_key(chat(1)) == content_key(chat(1))
    assert len({content_key(chat(*a)) for a in ((), (1,), (2,), (1, 2))}) == 4
    assert content_key(document("A")) != content_key(document("a"))
    ids = Document(text="", id="x", ids=(1, 2))
    assert content_key(ids) != content_key(Document(text="", id="x", ids=(12,)))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \n", max_size=400), st.integers(4, 50))
def test_sections_join_to_the_document(text: str, chars: int) -> None:
    parts = list(sections(document(text), chars))
    assert "".join(part.text for part in parts) == text
    assert all(len(part.text) <= chars for part in parts)
    assert len({part.id for part in parts}) == len(parts)


def test_one_long_document_is_cut_and_three_short_ones_are_spread() -> None:
    book = document("\n\n".join(f"Paragraph {n}. " + "words " * 100 for n in range(400)))
    found = division(lambda: iter([book]), "book")
    assert found.cut
    assert not found.moved
    assert {found.split(part) for part in found.items([book])} == {"train", "validation", "exam"}
    three = [document(f"text {n}") for n in range(3)]
    found = division(lambda: iter(three), "three")
    assert {found.split(part) for part in found.items(three)} == {"train", "validation", "exam"}


def test_reading_stops_as_soon_as_all_splits_are_there() -> None:
    read = Counter[str]()

    def many() -> Iterator[Document]:
        for n in range(1_000_000):
            read["documents"] += 1
            yield document(f"text {n}")

    assert not division(many, "many").cut
    assert read["documents"] < 1000


def test_chats_have_no_exam_split_and_too_little_is_an_error() -> None:
    chats = [Conversation((Message("user", f"{n}"),), id=f"{n}") for n in range(300)]
    found = division(lambda: iter(chats), "chats")
    assert {found.split(chat) for chat in chats} == {"train", "validation"}
    with pytest.raises(DataError, match="too little to split: 1 different items"):
        division(lambda: iter([document("a"), document("a")]), "x")
    with pytest.raises(DataError, match="yielded nothing"):
        division(lambda: iter([]), "x")
