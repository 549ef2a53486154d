"""From a source to shards: every item is accounted for, and splits never share content."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from matura.core.errors import DataError
from matura.core.record import plain
from matura.core.types import Conversation, Document, Given, Message
from matura.data.build import Built, Readable, build, training_texts
from matura.data.held import held_out
from matura.data.source import Source
from matura.data.sources.folder import Folder
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.repetition import Repetition
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

TEMPLATE = Template(Tokenizer.bytes_only("matura"))


class Listed(Source):
    """Documents by number, some twice and some empty."""

    kind: Literal["listed"] = "listed"
    count: int = 300

    def read(self, given: Given) -> Iterator[Document]:
        for number in range(self.count):
            yield Document(text=f"document {number}\n" * 3, id=f"{number}")
            if number % 10 == 0:
                yield Document(text=f"document {number}\n" * 3, id=f"{number} again")
            if number % 50 == 0:
                yield Document(text=" \n", id=f"{number} empty")


class Lesson:
    """What a lesson looks like from here: it is asked for each split."""

    kind = "lesson"

    def read(self, given: Given) -> Iterator[Conversation]:
        for number in range(40 if given.split == "train" else 4):
            said = f"{given.split} {number} {given.rng.random()}"
            turns = (Message("user", said), Message("assistant", said))
            yield Conversation(turns, id=f"{given.split}/{number}")


def made(source: Readable, folder: Path, name: str = "it") -> Built:
    return build(source, name=name, template=TEMPLATE, folder=folder, seed=0, stage="base")


def texts_of(path: Path) -> list[str]:
    shard = Shard.open(path, TEMPLATE.tokenizer.sha256)
    decode = TEMPLATE.tokenizer.decode
    return [decode([int(i) for i in shard.example(n)[0]]) for n in range(len(shard))]


def test_every_item_is_kept_or_dropped_for_a_reason(tmp_path: Path) -> None:
    built = made(Listed(), tmp_path)
    assert built.read == 300 + 30 + 6
    assert built.dropped == {"duplicate": 30, "empty": 6}
    assert built.read == sum(built.kept.values()) + sum(built.dropped.values())
    assert built.shards["train"].examples == built.kept["train"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "it.heldout.jsonl",
        "it.train.shard",
        "it.validation.shard",
    ]
    told = built.as_dict()
    assert plain(told) == told  # fit for a record
    assert json.dumps(told)
    assert told["first"].startswith("<|begin|>document ")
    assert told["lengths"]["least"] <= told["lengths"]["half"] <= told["lengths"]["most"]


def test_splits_share_nothing_and_lose_nothing(tmp_path: Path) -> None:
    built = made(Listed(), tmp_path)
    assert built.held_out is not None
    exam = [document.text for document in held_out(built.held_out)]
    train, validation = texts_of(built.train), texts_of(built.validation)
    assert len(exam) == built.kept["exam"]
    together = [*train, *validation, *exam]
    assert sorted(together) == sorted({f"document {n}\n" * 3 for n in range(300)})
    told = training_texts(Listed(), name="it", seed=0, stage="base")
    assert set(told) == set(train)  # a tokenizer never sees held-out text


def test_building_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for source in (Listed(), Repetition(tokens=8000), Lesson()):
        first, again = made(source, tmp_path / "a"), made(source, tmp_path / "b")
        assert first.train.read_bytes() == again.train.read_bytes()
        assert first.validation.read_bytes() == again.validation.read_bytes()
        assert first.as_dict() == again.as_dict()


def test_lessons_and_repetition_are_asked_for_their_splits(tmp_path: Path) -> None:
    built = made(Lesson(), tmp_path)
    assert built.kept == {"train": 40, "validation": 4}
    assert built.held_out is None
    assert all("validation" in text for text in texts_of(built.validation))
    assert 0 < built.trained_share < 1
    built = made(Repetition(tokens=10_000), tmp_path, "rep")
    assert built.held_out is None
    assert built.kept["train"] > built.kept["validation"] > 0


def test_chats_are_split_into_training_and_validation(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    rows = [json.dumps({"prompt": f"q{n}", "completion": f"a{n}"}) for n in range(200)]
    path.write_text("\n".join(rows))
    built = made(Jsonl(path=path), tmp_path / "out")
    assert set(built.kept) == {"train", "validation"}
    assert built.held_out is None
    shard = Shard.open(built.train)
    ids, weights = shard.example(0)
    assert TEMPLATE.end_of_turn_id in ids[weights > 0]  # stopping is learnt


def test_a_single_book_is_cut_so_that_nothing_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    book = "\n\n".join(f"Paragraph {n}. " + "words and words " * 40 for n in range(300))
    path.write_text(book)
    built = made(Folder(path=path), tmp_path / "out")
    assert set(built.kept) == {"train", "validation", "exam"}
    assert built.notes == ["too few documents for all splits: cut into sections first"]
    assert built.held_out is not None
    exam = [document.text for document in held_out(built.held_out)]
    parts = [*texts_of(built.train), *texts_of(built.validation), *exam]
    assert sum(map(len, parts)) == len(book)


def test_nothing_and_too_little_are_errors_that_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="yielded nothing"):
        made(Listed(count=0), tmp_path)
    path = tmp_path / "one.jsonl"
    path.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="too little to split"):
        made(Jsonl(path=path), tmp_path / "out")
    path.write_text('{"text": "a"}\n' * 3 + "{\n")
    with pytest.raises(DataError, match=r"one\.jsonl:4: bad JSON"):
        made(Jsonl(path=path), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(2000)) + "oops\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2001: "):
        made(Jsonl(path=path), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_held_out_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "it.heldout.jsonl"
    with pytest.raises(DataError, match="no such file"):
        held_out(path)
    path.write_text('{"id": "a", "text": "b"}\n{"id": "a"}\n')
    with pytest.raises(DataError, match=r"heldout\.jsonl:2: no 'text'"):
        held_out(path)
