"""The contract of every cleaner, each reason to drop a text, and what none of them may touch."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from matura.core.errors import DataError
from matura.core.leaves import leaves
from matura.core.record import plain
from matura.core.types import Document
from matura.data import clean
from matura.data.clean.code import Code, without_licence
from matura.data.clean.dialogue import Dialogue, spoken_lines, without_urls
from matura.data.clean.prose import Prose, repaired, unwrapped, without_page_numbers
from matura.data.clean.qa import Qa, without_html
from matura.data.cleaner import Cleaner, Counts, Dropped, cleaned, outcome

KINDS = leaves(clean, Cleaner)  # type: ignore[type-abstract]  # only concrete ones are found
OTHERS: list[Cleaner] = [
    Dialogue(format="opensub"),
    Dialogue(format="opensub", window_lines=4, overlap_lines=2),
    Dialogue(format="reddit", min_words=0),
    Qa(urls="remove", min_words=0),
    Code(licence="keep", min_bytes=0, min_lines=0),
    Code(min_bytes=0, min_lines=0),
    Prose(encoding="repair", page_numbers="drop", wraps="unwrap"),
]
NEEDED: dict[str, dict[str, object]] = {"decontaminate": {"against": (Path(__file__),)}}
"""Settings without which a kind cannot be."""


def made(kind: str) -> Cleaner:
    """A cleaner of that kind with as few settings as it takes."""
    return KINDS[kind](**NEEDED.get(kind, {}))


CLEANERS = [*map(made, KINDS), *OTHERS]
SPELLED = (
    "\n~\r\n~    ~# ~// ~/* ~ */~Copyright 2001 A~SPDX-License-Identifier~<p>~</pre>~<pre>~<li>"
    "~<!--~-->~<script>~&lt;~&#0;~<a href=x>~<b~00:00:01,000 --> 00:00:02,000~{1}{2}~[00:01]~<i>~1"
    "~12~|~[Pg 3]~- 4 -~http://a.b/(c)~[x](http://y)~> "
    "~*** START OF THIS PROJECT GUTENBERG EBOOK A ***\n"
    "~*** END OF THIS PROJECT GUTENBERG EBOOK A ***\n~Ã©~â€™~word and another ~\x0c~\ud800~\0"
    "~a line that is as long as most of the lines of a book that was wrapped are,\n~WEBVTT\n"
)
PIECES = SPELLED.split("~")
TEXTS = st.one_of(st.text(st.characters()), st.lists(st.sampled_from(PIECES)).map("".join))

CODE = "def area(width, height):\n    if width < 0:\n        raise ValueError\n\n"
CODE += "    return width * height\n\n\nclass Square:\n\tside = 1  # a tab\n"
HASHES = "# Copyright 2001 Someone\n#\n# Licensed under the Apache License.\n"
WORDS = "these are quite a few words that a person could have said to another person today"


def document(text: str) -> Document:
    return Document(text=text, id="it")


def reason(cleaner: Cleaner, text: str) -> str | None:
    """Why a text is dropped; None if it is kept."""
    first = next(iter(cleaner.clean(document(text))))
    return first.reason if isinstance(first, Dropped) else None


def kept(cleaner: Cleaner, text: str) -> list[str]:
    found = list(cleaner.clean(document(text)))
    return [thing.text for thing in found if isinstance(thing, Document)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_part_of_a_recipe(kind: str) -> None:
    cleaner = made(kind)
    assert cleaner.kind == kind
    assert KINDS[kind].model_validate(plain(cleaner)) == cleaner
    assert KINDS[kind].__doc__
    with pytest.raises(ValidationError):
        KINDS[kind].model_validate({"unknown": 1})
    with pytest.raises(DataError, match="token ids"):
        list(cleaner.clean(Document(text="", id="it", ids=(1, 2))))


@pytest.mark.parametrize("cleaner", CLEANERS, ids=lambda cleaner: cleaner.kind)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_any_text_is_kept_or_dropped_once(cleaner: Cleaner, text: str) -> None:
    found = list(cleaner.clean(document(text)))
    assert found == list(cleaner.clean(document(text)))
    drops = [thing for thing in found if isinstance(thing, Dropped)]
    assert len(found) == 1 if drops else found
    assert all(thing.text.strip() for thing in found if isinstance(thing, Document))
    assert len({thing.id for thing in found}) == len(found)
    if len(found) == 1:
        assert found[0].id == "it"


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5), chain=st.lists(st.sampled_from(CLEANERS), max_size=3))
def test_counts_add_up(texts: list[str], chain: list[Cleaner]) -> None:
    counts = Counts()
    made = list(cleaned(chain, map(document, texts), counts))
    assert counts.read == len(texts) == counts.kept + sum(counts.dropped.values())
    assert counts.made == len(made) >= counts.kept >= counts.changed
    assert counts.as_dict()["read"] == len(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_text_is_dropped(kind: str) -> None:
    cleaner = made(kind)
    assert reason(cleaner, " \n") == "empty"
    assert reason(cleaner, f"{CODE}\0") == "NUL character"
    assert reason(cleaner, f"{CODE}\ud800") == "lone surrogate"


IDEMPOTENT: list[tuple[Cleaner, str]] = [
    (Code(), f"#!/bin/sh\n{HASHES}\n{CODE}"),
    (Dialogue(format="opensub"), "".join(f"<i>line {i}</i>\n" for i in range(61))),
    (
        Dialogue(format="reddit"),
        f"&gt; {WORDS}\nsee [this](http://x.y) or http://z.a.\n{WORDS}",
    ),
    (Dialogue(), f"a: {WORDS}\nb: {WORDS}\n"),
    (Qa(urls="remove"), f"<p>{WORDS} www.x.y</p><pre>  a\n\n    b</pre><p>{WORDS}</p>"),
    (Prose(wraps="unwrap", encoding="repair"), (f"{WORDS[:70]}\n" * 5 + "\n") * 4),
]


@pytest.mark.parametrize(("cleaner", "text"), IDEMPOTENT, ids=lambda it: getattr(it, "kind", ""))
def test_cleaning_again_changes_nothing(cleaner: Cleaner, text: str) -> None:
    once = kept(cleaner, text)
    assert once
    assert once != [text] or cleaner == Dialogue()
    assert [again for piece in once for again in kept(cleaner, piece)] == once


def test_windows_of_one_document_count_once_and_their_drops_apart() -> None:
    text = "".join(f"{'one two three four' if i < 20 else 'x'}\n" for i in range(40))
    counts = Counts()
    chain = [Dialogue(format="opensub"), Dialogue(min_words=50)]
    made = list(cleaned(chain, [document(text), document("a\nb\n")], counts))
    assert [one.id for one in made] == ["it#0"]
    assert (counts.read, counts.kept, counts.made, counts.changed) == (2, 1, 1, 1)
    assert counts.dropped == counts.pieces_dropped == {"dialogue: too few words": 1}
    assert outcome(chain, document("a\nb\n")).made == ()
    assert "it:21" in counts.samples[0]


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (None, CODE),
        ("too small", "a = 1\n" * 6),
        ("too small", f"{HASHES}\n" + "a = 1\n" * 6),
        ("too large", "value = 12345\n" * 8000),
        ("too few lines", "value = 'long enough to be no junk by its size alone'\n" * 4),
        ("generated", f"# Generated by tools/make.py\n{CODE}"),
        ("generated", f"/*\n * DO NOT EDIT.\n */\n{CODE}"),
        ("generated", f'"""This file is automatically generated by make."""\n{CODE}'),
        ("generated", f"// Code generated by protoc-gen-go. Copyright 2001 A.\n{CODE}"),
        ("generated", HASHES + "# Copyright 2001\n" * 150 + f"\n# Auto-generated.\n{CODE}"),
        (
            None,
            f'"""Edits files. Do not edit the table; help is automatically generated."""\n{CODE}',
        ),
        (None, CODE + "\n" * 12 + "# generated by hand\n"),
        ("too many long lines", f"{CODE}x = '{'y' * 1001}'\nz = '{'y' * 1001}'\n"),
        ("lines too long on average", f"x = '{'y' * 900}'\n" * 6),
        ("too many blank lines", CODE + "\n" * 30),
    ],
)
def test_code_is_dropped_for(expected: str | None, text: str) -> None:
    assert reason(Code(), text) == expected


def test_limits_of_code_are_settings() -> None:
    assert kept(Code(min_bytes=1, min_lines=1), "a = 1") == ["a = 1"]
    assert reason(Code(max_bytes=150), CODE * 2) == "too large"
    assert reason(Code(generated=("wid.h",)), CODE) == "generated"
    assert kept(Code(licence="keep"), HASHES + CODE) == [HASHES + CODE]
    with pytest.raises(ValidationError, match="no regular expression"):
        Code(generated=("(",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HASHES}\n\nimport a\n", "import a\n"),
        (f"#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n{HASHES}x\n", None),
        (f"# Copyright 2001 A\n# coding: utf-8\n\n{HASHES}x\n", "# coding: utf-8\n\nx\n"),
        ("/* Copyright (c) 2001 A\n   all rights reserved */\r\n\r\n  int x;\r\n", "  int x;\r\n"),
        ("// Copyright 2001 A\n// MIT License\npackage a\n", "package a\n"),
        ("# Sorts things.\n#\n# Copyright 2001 A\n#\nx\n", "# Sorts things.\nx\n"),
        ("# Copyright 2001 A\n#\n# Sorts things.\nx\n", "# Sorts things.\nx\n"),
        ("/* sorts */\n\n/* Copyright 2001 */\nx\n", "/* sorts */\n\nx\n"),
        ("# This file is part of A.\n#\n# Copyright 2001 A\nx\n", "x\n"),
        ("# Copyright 2001\n#include <a.h>\n", "#include <a.h>\n"),
        ("# Copyright 2001", ""),
    ],
)
def test_licence_comments_go(text: str, expected: str | None) -> None:
    assert without_licence(text) == (text.replace(HASHES, "") if expected is None else expected)


@pytest.mark.parametrize(
    "text",
    [
        "# Checks the licence and the copyright flags.\nx\n",
        "/* Copyright 2001 */ int x; /* MIT license */\n",
        "x = 1\n# Copyright 2001 A\n",
        "/* Copyright 2001, never closed\nx\n",
        "#!/bin/sh Copyright 2001\nx\n",
        "#define COPYRIGHT 2001\n#define A (c) 2001\n",
        '"""Copyright 2001 A."""\n',
    ],
)
def test_other_comments_stay(text: str) -> None:
    assert without_licence(text) == text


@given(body=st.text(), header=st.sampled_from(["", HASHES, "/* Copyright 2001 A */\n"]))
def test_code_is_kept_byte_for_byte(body: str, header: str) -> None:
    body = f"x = 1\n{body}"
    assert without_licence(header + body) == body
    any_size = Code(min_bytes=0, min_lines=0, max_long_lines=1, min_filled_lines=0, generated=())
    if "\0" not in body:
        assert kept(any_size, header + body) == [body]


SUBRIP = (
    "1\r\n00:00:01,000 --> 00:00:03,500\r\n<i>Where were you?</i>\r\n- {\\an8}Out at 10:30.\r\n\r\n"
    "2\r\n00:00:04,000 --> 00:00:05,000\r\n♪ ♪\r\n\r\n3\r\n00:00:06,000 --> 00:00:09,000\r\n"
    "Subtitles by Joe\r\n\r\n4\r\n00:00:10,000 --> 00:00:11,000\r\n42\r\n"
)
WEBVTT = (
    "WEBVTT\n\nNOTE not said\n\nfirst\n00:01.000 --> 00:02.000 align:start\n<v Bob>Hello "
    "<00:01.500>there\n\n00:03.000 --> 00:04.000\n[00:12] Bye.\n"
)


def test_subtitles_of_every_format_become_what_was_said() -> None:
    assert list(spoken_lines(SUBRIP)) == ["Where were you?", "- Out at 10:30.", "42"]
    assert list(spoken_lines(WEBVTT)) == ["Hello there", "Bye."]
    assert list(spoken_lines("{1}{50}{y:i}Hello|World\n{51}{99}Again\n")) == [
        *("Hello", "World", "Again")
    ]
    assert reason(Dialogue(format="opensub"), "00:01.000 --> 00:02.000\nHello\n") == "too few lines"


@given(
    lines=st.integers(2, 200),
    window=st.integers(1, 30),
    share=st.floats(0, 0.9),
    least=st.integers(1, 4),
)
def test_windows_lose_no_line_and_repeat_no_more_than_said(
    lines: int, window: int, share: float, least: int
) -> None:
    overlap = int(window * share)
    cleaner = Dialogue(
        format="opensub", window_lines=window, overlap_lines=overlap, min_lines=least
    )
    numbers = list(map(str, range(lines)))
    windows = list(cleaner.windows(numbers))
    assert [n for i, w in enumerate(windows) for n in w[overlap if i else 0 :]] == numbers
    assert lines / sum(map(len, windows)) >= cleaner.unique_share - 1e-9
    assert Dialogue(format="opensub").unique_share == 1.0
    assert Dialogue(format="opensub", overlap_lines=10).unique_share == 0.5


def test_overlap_is_refused_where_it_means_nothing() -> None:
    for wrong in ({"overlap_lines": 3}, {"format": "opensub", "overlap_lines": 20}):
        with pytest.raises(ValidationError, match="overlap_lines"):
            Dialogue.model_validate(wrong)


@pytest.mark.parametrize(
    ("cleaner", "expected", "text"),
    [
        (Dialogue(format="reddit"), "deleted", "[removed]\n"),
        (Dialogue(format="reddit"), "by a bot", f"*I am a bot, and {WORDS}*"),
        (Dialogue(format="reddit"), "too few words", "one http://a.b two"),
        (Dialogue(format="reddit"), "too many words", "word " * 2001),
        (Dialogue(), "too few lines", f"{WORDS}\n\n"),
        (Dialogue(), "too few words", "a: hello\nb: hello\n"),
        (Dialogue(), "too many words", f"{WORDS}\n" * 200),
        (Qa(), "too few words", f"<p>{WORDS[:60]}</p>"),
        (Qa(), "too many words", "word " * 3001),
        (Qa(min_words=0), "nothing left", "<p></p>"),
        (Prose(), "nothing left", "*** START OF THIS PROJECT GUTENBERG EBOOK A ***\n\n"),
    ],
)
def test_talk_is_dropped_for(cleaner: Cleaner, expected: str, text: str) -> None:
    assert reason(cleaner, text) == expected


def test_comments_keep_their_quotes() -> None:
    text = f"&gt; I love cats &amp; dogs\n>> deeper\nhttp://only.this\n\n  {WORDS}\r\n"
    assert kept(Dialogue(format="reddit"), text) == [
        f"> I love cats & dogs\n>> deeper\n\n  {WORDS}\r\n"
    ]
    assert without_urls("see [it](https://x.org/a_(b)), (http://z.com) and www.a.b/c(d).") == (
        "see it, and."
    )
    assert without_urls("no  address ( ) here  ") == "no  address ( ) here  "


def test_html_becomes_text_and_code_keeps_its_shape() -> None:
    page = (
        "<p>Sort a <code>List&lt;T&gt;</code>?<br/>Tried &copy;&nbsp;x:</p>\n\n"
        "<pre class='a'><code>\n  for (;;) {\n\n      a &lt; b;\n  }\n</code></pre>\n"
        "<ul>\n<li><p>one</p></li>\n<li>two</li><li>three</li></ul>"
        "<table><tr><td>1</td><td>2</td></tr></table><script>var x = '<p>';</script><!-- no -->end"
    )
    assert without_html(page) == (
        "Sort a List<T>?\nTried © x:\n\n  for (;;) {\n\n      a < b;\n  }\n\n"
        "- one\n\n- two\n- three\n\n1 2\n\nend"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a<b and c>d  \n\n  List<String> <<48/2=24>>\n",
        "?a=1&copy=2 <!-- <scripts> <bold>",
        " \n x \n ",
    ],
)
def test_what_is_no_html_stays(text: str) -> None:
    assert without_html(text) == text


def test_addresses_stay_in_answers_unless_they_are_to_go() -> None:
    assert kept(Qa(), f"{WORDS} http://a.b") == [f"{WORDS} http://a.b"]
    assert kept(Qa(urls="remove"), f"{WORDS} http://a.b") == [WORDS]


BOOK = "   A Title\r\n\r\nIt was *a* dark  night\r\n12\r\n\r\nThe end.\r\n"
BOILERPLATE = (
    "The Project Gutenberg EBook of A\r\n\r\n*** START OF THIS PROJECT GUTENBERG EBOOK A\r\nLONG "
    "NAME ***\r\n\r\nProduced by B and\r\nC\r\n\r\n\r\n{}\r\n\r\nEnd of Project Gutenberg's A\r\n"
    "\r\n*** END OF THIS PROJECT GUTENBERG EBOOK A LONG NAME ***\r\nlicence\r\n"
)


def test_prose_without_its_licence_is_the_book() -> None:
    assert kept(Prose(), BOILERPLATE.format(BOOK)) == [BOOK]
    assert kept(Prose(boilerplate="keep"), BOILERPLATE.format(BOOK)) == [BOILERPLATE.format(BOOK)]


@given(text=st.text().filter(lambda text: "gutenberg" not in text.lower()))
def test_prose_is_kept_byte_for_byte(text: str) -> None:
    assert kept(Prose(), f"a{text}".replace("\0", "")) == [f"a{text}".replace("\0", "")]


@given(text=st.text("áéüñ’“”—€ßçaeo é", max_size=30))
def test_wrong_decoding_is_undone(text: str) -> None:
    wrong = "".join(bytes([b]).decode("cp1252", errors="ignore") or chr(b) for b in text.encode())
    assert repaired(wrong) == text
    assert repaired(text) == text


VERSE = "Shall I compare thee to a summer's day, and will it\nrhyme\nAnd rough winds\n"


def test_only_paragraphs_are_unwrapped() -> None:
    prose = "it goes on and on until the line is full and then it goes on below and\n" * 4
    rest = f"\n    indented by hand\n    and so on\n\n{VERSE}\n- a list\n- of things\n"
    once = prose.replace("\n", " ").rstrip() + "\n"
    assert unwrapped(f"{prose}{rest}") == once + rest
    crlf = f"{prose}{rest}".replace("\n", "\r\n")
    assert unwrapped(crlf) == f"{once}{rest}".replace("\n", "\r\n")
    assert unwrapped(VERSE) == VERSE
    sonnet = "When I consider how my light is spent across a page of verse\n" * 14
    assert unwrapped(sonnet) == sonnet


@given(st.lists(st.sampled_from([*PIECES, VERSE, "so it goes on and on -- well-\n"])).map("".join))
def test_unwrapping_loses_no_word(text: str) -> None:
    assert "".join(unwrapped(text).split()) == "".join(text.split())


def test_page_numbers_go_and_chapters_stay() -> None:
    pages = "".join(f"the page goes on and\n\n{n}\n\non over " for n in range(11, 17))
    assert without_page_numbers(pages + "it.\n") == (
        "".join("the page goes on and\non over " for _ in range(6)) + "it.\n"
    )
    chapters = "".join(f"{n}\n\nIt ends.\n\n" for n in range(1, 9))
    assert without_page_numbers(chapters) == chapters
    assert without_page_numbers("One.\n\n- 12 -\n\nTwo.[Pg 13] Three.\n\nPage 14\n") == (
        "One.\n\nTwo.Three.\n\n"
    )
