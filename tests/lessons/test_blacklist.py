"""What a user's own test set holds is never made; what was held back is counted."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.lessons.blacklist import Blacklist, words_of
from matura.lessons.echo import Echo
from matura.lessons.lesson import Lesson, conversation, kinds
from matura.lessons.operators import Operators


def written(folder: Path, text: str) -> Path:
    path = folder / "never.txt"
    path.write_text(text, encoding="utf-8")
    return path


def payloads(lesson: Lesson, split: str = "train") -> list[str]:
    return [item.meta["payload"] for item in lesson.read(Given(rng(0, "n"), None, split))]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", kinds().values(), ids=kinds())
def test_what_is_listed_is_never_made(kind: type[Lesson], tmp_path: Path) -> None:
    lesson = kind(max_examples=150)  # type: ignore[call-arg]
    before = payloads(lesson)
    listed = sorted(set(before))[::5]
    never = lesson.model_copy(update={"never": written(tmp_path, "\n".join(listed))})
    after = payloads(never)
    assert len(after) == 150
    assert not set(map(words_of, listed)) & set(map(words_of, after))
    assert never.diversity(Given(rng(0, "n"))).held_back >= len(listed)
    assert lesson.diversity(Given(rng(0, "n"))).held_back == 0


def test_case_spaces_and_marks_hide_nothing(tmp_path: Path) -> None:
    never = Blacklist.load(written(tmp_path, "Hello  World.\n12+5\n\nZANTHOR\n"))

    def blocks(payload: str) -> bool:
        item = conversation(
            f"Echo {payload}", operator="E", payload=payload, template="Echo {X}", language="en",
            expected=payload,
        )  # fmt: skip
        return never.blocks(item)

    for payload in ("hello world", "HELLO WORLD", "say hello world now", "12 + 5", "a zanthor"):
        assert blocks(payload), payload
    for payload in ("hello", "world hello", "hello, world", "12-5", "zanthors", "2+5"):
        assert not blocks(payload), payload


def test_another_lesson_s_exam_is_a_blacklist(tmp_path: Path) -> None:
    """Rows of JSON lines, and the whole document that `matura lesson KIND --json` prints."""
    exam = list(islice(Echo().items(Given(rng(0, "n"), None, "exam")), 200))
    rows = [{"messages": [{"role": "user", "content": i.messages[0].content}]} for i in exam]
    lines = Blacklist.load(written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows)))
    whole = Blacklist.load(written(tmp_path, json.dumps({"kind": "echo", "examples": rows})))
    prompts = Blacklist.load(
        written(
            tmp_path, "".join(json.dumps({"prompt": i.messages[0].content}) + "\n" for i in exam)
        )
    )
    for found in (lines, whole, prompts):
        assert all(found.blocks(item) for item in exam)
        assert not any(
            found.blocks(item) for item in islice(Operators().items(Given(rng(0, "n"))), 200)
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no payload in it"),
        ("\n \n", "no payload in it"),
        ('hello\n{"payload": 3}\n', "never.txt:2: no payload, prompt or messages"),
        ('hello\n{"payload" "a"}\n', "never.txt:2: no JSON"),
        ('{"payload": "a"\n', "never.txt:1: no JSON"),
        ('{"examples": [{"text": "a"}]}', "example 1: no payload"),
        ("hello\n...\n", "never.txt:2: no payload"),
    ],
)
def test_a_file_that_lists_nothing_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=message):
        Blacklist.load(path)


def test_a_payload_in_braces_is_no_row(tmp_path: Path) -> None:
    found = Blacklist.load(written(tmp_path, "{hello there}\n"))
    assert found.payloads == {("hello", "there")}


def test_a_missing_or_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(Echo(never=tmp_path / "none").read(Given(rng(0, "n"))))
    path = tmp_path / "never.txt"
    path.write_bytes("hällo".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read"):
        Blacklist.load(path)


def test_a_lesson_with_nothing_left_says_so_and_does_not_hang(tmp_path: Path) -> None:
    digits = written(tmp_path, "\n".join("0123456789"))
    never = Blacklist.load(digits)
    same = conversation(
        "q 1", operator="A", payload="1", template="q {X}", language="en", expected="a"
    )
    with pytest.raises(DataError, match="nothing to make"):
        list(never.kept(same for _ in range(100_000)))
