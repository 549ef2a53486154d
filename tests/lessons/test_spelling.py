"""Words letter by letter, and letters counted on the way."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import Literal

import pytest
from pydantic import ValidationError

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split, TextCodec
from matura.lessons.spelling import COUNT, SPELL, Spelling, counted, spelled
from matura.lessons.words import ENGLISH, GERMAN, MAX_PIECES, word_split
from matura.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def atoms() -> Tokenizer:
    """Cuts a word the same wherever it stands, as the small recipes do."""
    return _trained("atoms", 900)


def _trained(cut: Literal["words", "atoms"], size: int) -> Tokenizer:
    texts = [f"{word} {word.title()}" for word in (*ENGLISH, *GERMAN)]
    return Tokenizer.train(texts, vocab_size=size, dialect="matura", split=cut)


def taken(
    lesson: Spelling, split: Split = "train", tokenizer: TextCodec | None = None, count: int = 1200
) -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(0, "spelling"), tokenizer, split)), count))


def of(items: list[Conversation], operator: str) -> list[Conversation]:
    return [item for item in items if item.meta["operator"] == operator]


def test_letters_and_hits() -> None:
    assert spelled("Bee") == "B-e-e"
    assert counted("cheese", "e") == "c-h-e1-e2-s-e3: 3"
    assert counted("dog", "x") == "d-o-g: 0"
    assert counted("süß", "ü") == "s-ü1-ß: 1"


def test_every_answer_is_what_a_program_finds() -> None:
    items = taken(Spelling())
    for item in of(items, "SPELL"):
        assert item.meta["expected"].replace("-", "") == item.meta["payload"]
    for item in of(items, "COUNT"):
        letters, _, hits = item.meta["expected"].partition(": ")
        assert re.sub(r"[-\d]", "", letters) == item.meta["payload"]
        assert int(hits) == item.meta["payload"].count(item.meta["letter"])
        assert item.meta["letter"] in item.messages[0].content
    assert all(item.meta["payload"] in item.messages[0].content for item in items)


def test_lengths_and_tasks_come_equally_often() -> None:
    buckets = Counter(item.meta["bucket"] for item in taken(Spelling(max_letters=8)))
    assert set(buckets) == {f"{task} x {n}" for task in ("SPELL", "COUNT") for n in range(3, 9)}
    assert max(buckets.values()) - min(buckets.values()) <= 12
    assert len(of(taken(Spelling(count=1), count=60), "COUNT")) == 60
    assert len(of(taken(Spelling(count=0), count=60), "SPELL")) == 60
    quarter = of(taken(Spelling(count=0.25), count=800), "COUNT")
    assert len(quarter) == pytest.approx(200, abs=8)


def test_no_count_is_a_good_guess() -> None:
    counts = Counter(item.meta["expected"][-1] for item in of(taken(Spelling()), "COUNT"))
    assert counts["1"] < 0.6 * sum(counts.values())
    assert counts["0"] > 60
    assert counts["2"] > 120


@pytest.mark.parametrize("split", ["train", "validation", "exam"])
def test_words_are_of_their_split_and_short_in_tokens(split: Split, atoms: Tokenizer) -> None:
    """PITFALLS C-08, C-06."""
    for codec in (atoms, _trained("words", 600), Tokenizer.bytes_only("matura")):
        for item in taken(Spelling(), split, codec, 400):
            assert word_split(item.meta["payload"]) == split
            assert len(codec.encode(item.meta["payload"])) <= MAX_PIECES


def test_an_exam_s_words_are_made_of_pieces_that_training_spells(atoms: Tokenizer) -> None:
    """Else the letters of a whole-word token could only be guessed."""
    learnt = Counter(
        piece
        for item in taken(Spelling(), "train", atoms, 8000)
        for piece in set(atoms.encode(item.meta["payload"]))
    )
    asked = taken(Spelling(), "exam", atoms, 400)
    strange = [
        item.meta["payload"]
        for item in asked
        if any(learnt[piece] < 2 for piece in atoms.encode(item.meta["payload"]))
    ]
    assert len(strange) <= 4, strange


def test_gibberish_is_in_or_out_as_asked(atoms: Tokenizer) -> None:
    known = {*ENGLISH, *GERMAN}
    for gibberish, low, high in (("exclude", 1.0, 1.0), ("include", 0.2, 0.5), ("only", 0.0, 0.0)):
        items = taken(Spelling(gibberish=gibberish), "train", atoms, 600)  # type: ignore[arg-type]
        share = sum(item.meta["payload"].lower() in known for item in items) / len(items)
        assert low <= share <= high


def test_a_tokenizer_that_cuts_everything_leaves_long_words_out() -> None:
    items = taken(Spelling(max_letters=9), "train", Tokenizer.bytes_only("matura"), 300)
    assert {len(item.meta["payload"]) for item in items} == {3, 4}


def test_both_tasks_have_thousands_of_wordings() -> None:
    assert sum(grammar.size for grammar in SPELL.values()) > 9_000
    assert sum(grammar.size for grammar in COUNT.values()) > 5_000


def test_presets_are_the_documented_sizes() -> None:
    """S004-06: 200,000 words to spell, 80,000 letters to count; S004-10: 300."""
    assert [Spelling(size=name).max_examples for name in ("simple", "bee", "chat")] == [
        200_000,
        80_000,
        300,
    ]
    with pytest.raises(ValidationError, match="greater than or equal to 3"):
        Spelling(max_letters=2)
