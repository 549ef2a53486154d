"""Every lesson in the folder is tested by existing: splits, meta, determinism, diversity."""

from __future__ import annotations

from itertools import islice

import pytest

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split
from matura.lessons.arithmetic import Arithmetic
from matura.lessons.echo import Echo
from matura.lessons.format_lock import FormatLock
from matura.lessons.lesson import Lesson, conversation, kinds, unrepeated
from matura.lessons.phrasing import is_for_exam
from matura.lessons.words import word_split
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

LESSONS: list[Lesson] = [kind() for kind in kinds().values()]  # type: ignore[call-arg]
VARIANTS = [
    *LESSONS,
    Echo(gibberish="only"),
    Echo(gibberish="include", anti=0.5, contrast=1.0),
    FormatLock(size="full", math="include"),
    FormatLock(gibberish="only"),
]
META = {"operator", "payload", "template", "language", "bucket", "expected"}


def taken(lesson: Lesson, split: Split, count: int = 1500, seed: int = 0) -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(seed, "test", split), None, split)), count))


def keys(items: list[Conversation], lesson: Lesson) -> set[str]:
    """What an exam's payload may not share: whole sums, else single words."""
    learnt = [item for item in items if item.meta["operator"] not in ("FACT", "SUM")]
    if isinstance(lesson, Arithmetic):
        return {item.meta["payload"] for item in learnt}
    return {word.casefold() for item in learnt for word in item.meta["payload"].split()}


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_an_exam_shares_no_payload_and_no_wording_with_training(lesson: Lesson) -> None:
    """PITFALLS C-06: the split is by content, before anything is drawn or repeated."""
    train, validation, exam = (taken(lesson, s) for s in ("train", "validation", "exam"))
    seen = {item.meta["template"].casefold() for item in train + validation}
    assert not seen & {item.meta["template"].casefold() for item in exam}
    words = [keys(items, lesson) for items in (train, validation, exam)]
    assert all(words)
    assert not words[0] & words[1]
    assert not words[0] & words[2]
    assert not words[1] & words[2]
    asked = {item.messages[0].content.casefold() for item in train + validation}
    assert not asked & {item.messages[0].content.casefold() for item in exam}


def test_no_lesson_trains_on_what_another_lesson_examines() -> None:
    train = [item for lesson in VARIANTS for item in taken(lesson, "train", 1500)]
    exam = [item for lesson in VARIANTS for item in taken(lesson, "exam", 1500)]
    templates = {item.meta["template"].casefold() for item in train}
    both = templates & {item.meta["template"].casefold() for item in exam}
    assert not both
    assert all(is_for_exam(t) for t in {item.meta["template"] for item in exam} if "{a}" not in t)
    sums = {item.meta["payload"] for item in train if item.meta["operator"] in ("SUM", "TOOL")}
    assert not sums & {item.meta["payload"] for item in exam if item.meta["operator"] == "TOOL"}
    worded = [item for item in exam if item.meta["operator"] in ("SAY", "ECHO", "COPY")]
    assert {word_split(w) for item in worded for w in item.meta["payload"].split()} == {"exam"}


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_the_same_seed_gives_the_same_items_and_another_seed_others(lesson: Lesson) -> None:
    assert taken(lesson, "train", 50) == taken(lesson, "train", 50)
    assert taken(lesson, "train", 50) != taken(lesson, "train", 50, seed=1)


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_items_say_what_they_are_and_end_with_what_is_expected(lesson: Lesson) -> None:
    for split in ("train", "validation", "exam"):
        for item in taken(lesson, split, 300):
            assert item.meta.keys() >= META
            assert item.messages[0].role == "user"
            assert item.messages[-1].role == "assistant"
            assert item.messages[-1].content == item.meta["expected"] != ""
            assert "{X}" not in item.messages[0].content
            assert "{a}" not in item.messages[0].content


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_read_gives_as_many_as_asked_and_a_twentieth_for_validation(lesson: Lesson) -> None:
    small = lesson.model_copy(update={"max_examples": 2000})
    assert len(list(small.read(Given(rng(0, "a"))))) == 2000
    assert len(list(small.read(Given(rng(0, "a"), None, "validation")))) == 100


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.kind)
def test_diversity_is_what_understanding_needs(lesson: Lesson, tokenizer: Tokenizer) -> None:
    """PITFALLS C-08: unique payloads, hundreds of wordings, no one answer or delimiter rules."""
    small = lesson.model_copy(update={"max_examples": 3000})
    found = small.diversity(Given(rng(0, "diversity"), tokenizer))
    assert found.examples == 3000
    assert found.unique_payloads > 700
    assert found.unique_templates > 800
    assert found.answer_entropy > 8
    assert 0.2 < found.with_colon < 0.8
    assert found.by_language["de"] > 100
    assert found.longest_answer <= 40
    assert found.longest_conversation <= 110
    assert sum(found.by_operator.values()) == 3000


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_a_training_item_starts_with_exactly_the_exam_s_prompt(
    lesson: Lesson, tokenizer: Tokenizer
) -> None:
    """PITFALLS C-10: one renderer; nothing but the question stands before the answer."""
    template = Template(tokenizer)
    given = Given(rng(0, "render"), tokenizer)
    for item in islice(lesson.items(given), 100):
        example = template.render(item)
        prompt = template.prompt(item.messages[:1])
        assert example.ids[: len(prompt)] == prompt
        assert not any(example.weights[: len(prompt)])
        assert len(example.ids) < 150


def test_nothing_is_asked_twice_and_a_used_up_lesson_ends() -> None:
    for lesson in LESSONS:
        made = [item for item in taken(lesson, "train") if item.meta["operator"] != "FACT"]
        questions = [item.messages[0].content for item in made]
        assert len(set(questions)) == len(questions)
    same = conversation("q", operator="A", payload="q", template="{X}", language="en", expected="a")
    assert list(unrepeated((same,) for _ in range(10_000))) == [same]
