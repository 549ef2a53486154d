"""docs/chats.md states how much each lesson can make, and its sizes: the code agrees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from matura.lessons import arithmetic, echo, format_lock, knowledge, operators
from matura.lessons.lesson import kinds
from matura.lessons.phrasing import Grammar
from matura.lessons.words import ENGLISH, GERMAN, Language

PAGE = (Path(__file__).parents[2] / "docs/chats.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## What the lessons make")[2]
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", TABLE, re.MULTILINE))


def both(grammars: Mapping[Language, Grammar]) -> int:
    """Wordings in English and German."""
    return sum(grammar.size for grammar in grammars.values())


def facts(lands: int) -> list[knowledge.Known]:
    return [fact for of in knowledge.known(lands).values() for fact in of]


def asked(invented: int) -> int:
    return sum(fact.wordings.size for fact in facts(invented))


STATED = {
    "format_lock": {
        "wordings": both(format_lock.GRAMMARS),
        "words": len(ENGLISH) + len(GERMAN),
        "fixed": len(format_lock.MINIMAL + format_lock.FULL),
    },
    "echo": {"asks": both(echo.ECHO), "looks so": both(echo.ASKED) + both(echo.FORBIDDEN)},
    "operators": {name: both(grammars) for name, grammars in operators.GRAMMARS.items()},
    "arithmetic": {"do": both(arithmetic.WORK_OUT), "leave": both(arithmetic.LEAVE)},
    "knowledge": {
        "facts": len(facts(0)),
        "invented": len(facts(knowledge.Knowledge().lands)),
        "pairs": asked(0) + asked(knowledge.Knowledge().lands),
    },
}


def test_every_lesson_has_a_row() -> None:
    assert ROWS.keys() == kinds().keys()


@pytest.mark.parametrize("kind", STATED)
def test_the_numbers_are_those_of_the_code(kind: str) -> None:
    for what, number in STATED[kind].items():
        assert re.search(rf"\b{number:,}\b", ROWS[kind]), (what, number)


def test_sizes_are_the_presets() -> None:
    text = " ".join(PAGE.rpartition("Sizes with a name")[2].split())
    for kind, lesson in kinds().items():
        said = re.search(rf"`{kind}` ([^;]*)", text)
        assert (said is not None) == bool(lesson.presets)
        if said is not None:
            for size, count in lesson.presets.items():
                assert f"`{size}`" in said[1]
                assert f"{count:,}" in said[1]
