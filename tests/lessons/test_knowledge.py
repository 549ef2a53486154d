"""Facts that stay what they are, asked by the exam in wordings that were never taught."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from itertools import islice

import pytest

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split
from matura.lessons import arithmetic, echo, format_lock, operators
from matura.lessons.arithmetic import Arithmetic, Sum
from matura.lessons.facts import FULL, MINIMAL
from matura.lessons.knowledge import _ASKS, _BY_HEART, AREAS, Knowledge
from matura.lessons.lands import MOST, relations
from matura.lessons.phrasing import Grammar
from matura.lessons.words import ENGLISH, GERMAN, MAX_PIECES, word_split
from matura.text.tokenizer import Tokenizer

LESSON = Knowledge()


@cache
def taken(lesson: Knowledge, split: Split, count: int = 3000) -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(0, "knowledge", split), None, split)), count))


def of(items: list[Conversation], *buckets: str) -> list[Conversation]:
    return [item for item in items if item.meta["bucket"] in buckets]


def told(items: list[Conversation]) -> set[tuple[str, str]]:
    """Each fact with what tells it from others about the same thing: its answer."""
    return {(item.meta["payload"], item.meta["expected"]) for item in items}


def test_the_four_areas_take_turns() -> None:
    buckets = [item.meta["bucket"] for item in taken(LESSON, "train")]
    counts = Counter(buckets)
    assert set(counts) == set(AREAS)
    assert max(counts.values()) - min(counts.values()) < 40
    left = taken(Knowledge(math="exclude", programming="exclude"), "train", 400)
    assert {item.meta["bucket"] for item in left} == {"facts", "invented"}


def test_an_exam_asks_for_what_was_taught_in_wordings_that_were_not() -> None:
    """It is memory that is examined: the facts are shared, and nothing else is."""
    train, exam = taken(LESSON, "train", 8000), taken(LESSON, "exam", 2000)
    for area in ("facts", "invented", "maths"):
        assert told(of(exam, area)) <= told(of(train, area))
    wordings = {item.meta["template"].casefold() for item in train}
    assert not wordings & {item.meta["template"].casefold() for item in exam}
    programs = [
        {word for i in of(items, "programming") for word in i.meta["payload"].casefold().split()}
        for items in (train, exam)
    ]
    assert not programs[0] & programs[1]


def test_validation_has_pairs_of_fact_and_wording_that_training_has_not() -> None:
    keys = [
        {(i.meta["payload"], i.meta["template"].casefold()) for i in taken(LESSON, split)}
        for split in ("train", "validation")
    ]
    assert not keys[0] & keys[1]
    shared = [{template for _, template in one} for one in keys]
    assert len(shared[0] & shared[1]) > 300  # training's wordings, about other facts


def test_invented_facts_never_change_and_more_lands_change_none() -> None:
    few, many = relations(4), relations(40)
    for one, other in zip(few, many, strict=True):
        assert len(one.pairs) == 4
        assert list(one.pairs.items()) == list(other.pairs.items())[:4]
        assert len(other.pairs) == 40
    assert next(iter(few[0].pairs.items())) == ("Nida", "Vosi")
    assert {tuple(r.pairs.items())[1] for r in few if r.language == "en"} == {
        *(("Disi", value) for value in ("Susi", "Tipu", "Blue", "Swan", "Soup")),
    }


def test_invented_names_are_short_new_and_no_exam_s_word() -> None:
    found = relations(MOST)
    names = [*found[0].pairs, *found[0].pairs.values(), *found[2].pairs.values()]
    assert len(names) == len(set(names)) == 3 * MOST
    known = {word.casefold() for word in (*ENGLISH, *GERMAN)}
    codec = Tokenizer.bytes_only("matura")
    for name in names:
        assert len(codec.encode(name)) <= MAX_PIECES
        assert word_split(name) == "train"
        assert name.casefold() not in known


def test_one_thing_has_one_answer() -> None:
    """Whatever the wording: the same phrase about the same payload is answered alike."""
    answers: dict[tuple[str, str, str], set[str]] = {}
    for item in of(taken(LESSON, "train", 8000), "facts", "invented"):
        called = re.search(r"(the|die|der) .*\{X\}[^-:,.!?]*", item.meta["template"], re.I)
        assert called, item.meta["template"]
        key = (
            item.meta["language"],
            called[0].casefold().split(" for me")[0],
            item.meta["payload"],
        )
        answers.setdefault(key, set()).add(item.meta["expected"])
    assert all(len(found) == 1 for found in answers.values())
    plain = {fact.answer for fact in MINIMAL + FULL}
    assert {i.meta["expected"] for i in of(taken(LESSON, "train"), "facts")} <= plain


def test_sums_are_small_right_and_asked_for_by_heart() -> None:
    """Without the cue a sum is for the calculator; its exams' sums are never learnt by heart."""
    cues = [cue.strip(" :,") for cues in _BY_HEART.values() for cue in cues]
    for split in ("train", "validation", "exam"):
        for item in of(taken(LESSON, split), "maths"):  # type: ignore[arg-type]
            a, b = map(int, item.meta["payload"].split("+"))
            assert item.meta["expected"] == f"{a + b}."
            assert a + b <= 20
            assert Sum(a, "+", b).split == "train"
            assert any(item.meta["template"].casefold().startswith(cue.casefold()) for cue in cues)
    asked = {i.meta["payload"] for i in taken(LESSON, "train", 8000) if i.meta["operator"] == "SUM"}
    assert 180 < len(asked) < 200
    exam = islice(Arithmetic().items(Given(rng(0, "n"), None, "exam")), 2000)
    assert not asked & {item.meta["payload"] for item in exam}


@pytest.mark.parametrize("split", ["train", "exam"])
def test_programs_give_what_python_gives(split: Split) -> None:
    longer = Knowledge(max_items=8)
    counts = Counter[int]()
    for item in of(taken(longer, split), "programming"):
        literal = re.search(r'\[".*"\]|".*"', item.messages[0].content)
        assert literal
        held = json.loads(literal[0])
        answers = {
            "COUNT": str(len(held)),
            "FIRST": held[0],
            "LAST": held[-1],
            "LENGTH": str(len(held)),
            "PRINT": held,
        }
        assert item.meta["expected"] == answers[item.meta["operator"]]
        if item.meta["operator"] == "COUNT":
            counts[len(held)] += 1
        if item.meta["operator"] == "LENGTH":
            assert held.isdigit()  # digits are a token each; letters would hide their number
    assert set(counts) == set(range(1, 9))


def test_no_wording_tells_to_copy() -> None:
    """`give me Paris` is to be copied, so no question here begins with a copying lesson's verb."""
    verbs = set()
    for module in (arithmetic, echo, format_lock, operators):
        for value in vars(module).values():
            found = value.values() if isinstance(value, dict) else [value]
            for grammar in (one for one in found if isinstance(one, Grammar)):
                verbs |= set(grammar.slots.get("verb", ()))
    assert len(verbs) > 40
    for slots in _ASKS.values():
        told = {*slots["ask"], *slots.get("tell", ()), *slots["tail"]}
        first = {words.removeprefix("please ").rstrip(".?!") for words in told}
        assert not first & verbs
        assert not {words.split()[0] for words in first} & {v for v in verbs if " " not in v}
