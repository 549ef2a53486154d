"""Kinds of text are told by what lines look like: made-up texts of each kind, and the standard
library, where the answer is known."""

from __future__ import annotations

import json

import pytest

from matura.core.rng import rng
from matura.core.types import Given
from matura.data.composition import KINDS, TextKind, kind_of_text, make_of
from matura.data.oddities import odd_characters
from matura.data.repeats import Repeats, overlap_chars
from matura.data.sources.stdlib import Stdlib

TEXTS: dict[str, tuple[TextKind, str]] = {
    "python": ("code", "import os\n\n\ndef f(x):\n    # twice\n    return 2 * x\n"),
    "javascript": ("code", "const a = 1;\nfunction f() {\n  return a + 1;\n}\n"),
    "C with comments": ("code", "/* Adds.\n * Twice.\n */\nint f(int a) {\n  return a;\n}\n"),
    "named turns": (
        "dialogue",
        "user: one Chai Latte please\nassistant: is that all?\nuser: yes, to go\n",
    ),
    "chat": (
        "dialogue",
        "<anna> did you see it?\n<ben> no, when was that\n<anna> last night\n" * 3,
    ),
    "subtitles": (
        "dialogue",
        "Where were you?\nI told you.\nYou did not!\nAll right, I was out.\nWith whom?\n",
    ),
    "dashes": ("dialogue", "- Who's there?\n- It's me.\n- Come in, then.\n- Thank you.\n"),
    "quoted mail": (
        "dialogue",
        "> I would not do it.\nWhy not?\n> Because it rains.\n> And you?\n",
    ),
    "json": ("structured", json.dumps({"name": "a", "list": [1, 2], "to": {"x": "y"}}, indent=1)),
    "table": (
        "structured",
        "name,born,died,place\nAda,1815,1852,London\nAlan,1912,1954,Wilmslow\n",
    ),
    "figures": ("structured", "0, 0x7ab4\n1, 0x9b56\n2, 0x4957\n"),
    "settings": ("structured", "[server]\nhost = 'a.example'\nport = 80\ndebug = false\n"),
    "markup": ("structured", "<ul>\n<li>One</li>\n<li>Two</li>\n</ul>\n"),
    "readme": (
        "structured",
        "# Tool\n\nIt does a thing that is of use to many people.\n\n## Install\n\n- first this\n"
        "- then that\n\n```\npip install tool\n```\n",
    ),
    "novel": (
        "prose",
        "It was late in the year, and the road to the mill was deep in mud. Nobody had passed\n"
        "since the morning. “I shall not go,” she said, and closed the door behind her, for the\n"
        "wind had risen again and the lamp was nearly out.\n",
    ),
    "one paragraph": ("prose", "A box holds nine eggs and half of them are sold on Monday."),
}


@pytest.mark.parametrize("name", TEXTS)
def test_made_up_texts_are_what_they_are(name: str) -> None:
    kind, text = TEXTS[name]
    assert kind_of_text(text) == kind
    assert kind_of_text(text.replace("\n", "\r\n")) == kind


def test_the_standard_library_is_code() -> None:
    given = Given(rng=rng(0))
    code = [t.text for t in Stdlib(parts=("code",), max_bytes=1_500_000).read(given)]
    right = sum(kind_of_text(text) == "code" for text in code)
    assert right >= 0.95 * len(code)
    prose = [t.text for t in Stdlib(parts=("prose",), max_bytes=300_000).read(given)]
    kinds = [kind_of_text(text) for text in prose]
    # a reference: sentences with grammar and examples between them
    assert kinds.count("prose") + kinds.count("structured") >= 0.7 * len(prose)


def test_shares_are_of_what_was_looked_at_and_nothing_is_prose() -> None:
    made = make_of("import os\n\nprint(1)\n" + "x = 1\n" * 5000)
    assert made.kind == "code"
    assert made.lines == 200
    assert made.code == 1.0
    assert make_of("").kind == "prose"
    assert {kind_of_text("\n"), kind_of_text("\0" * 50), *KINDS} == set(KINDS)


def test_what_is_said_again_is_counted() -> None:
    repeats = Repeats()
    once = "one two three four five six seven"
    assert repeats.add(once, [once]) == 0.0
    twice = f"{once}\n{once}"
    share = repeats.add(twice, twice.split("\n"))
    assert share == pytest.approx(3 / 10)  # 10 runs, of which those inside the second line
    assert repeats.lines == 3
    assert repeats.lines_again == 1
    assert repeats.shares()["runs"] == pytest.approx(3 / 13)
    boring = Repeats()
    boring.add("ab " * 5000, ["ab " * 5000])
    assert boring.shares()["packed"] < 0.02
    assert boring.shares()["runs"] > 0.99
    assert Repeats().shares() == {"runs": 0, "lines": 0, "packed": 0}


@pytest.mark.parametrize(
    ("before", "after", "chars"),
    [
        ("a\nb\nc\nd\n", "c\nd\ne\nf\n", 4),
        ("a\nb\n", "c\nd\n", 0),
        ("a\na\na\n", "a\na\nb\n", 4),
        ("long line\n", "long line\nmore\n", 10),
        ("", "", 0),
    ],
)
def test_windows_that_overlap(before: str, after: str, chars: int) -> None:
    assert overlap_chars(before, after) == chars


def test_odd_characters_are_named_and_usual_ones_are_not() -> None:
    assert odd_characters("plain\ttext\nwith “quotes” — and ümlauts, 日本") == {}
    found = odd_characters(
        "a\0b\x07c\r\nd\re\ufffdf\u200bg\u202eh\u2028i\ue000j\ufeffk\x85l\xadm\f"
    )
    assert found == {
        "NUL": 1,
        "control": 1,
        "CRLF line end": 1,
        "bare CR": 1,
        "replacement character": 1,
        "zero width": 1,
        "direction override": 1,
        "line separator": 1,
        "private use": 1,
        "byte-order mark inside": 1,
        "C1 control": 1,
        "soft hyphen": 1,
        "form feed": 1,
    }
    assert odd_characters("cafÃ© donâ€™t")["wrongly decoded"] == 2
    assert odd_characters("half \ud800")["half a character"] == 1
