"""Every lesson in the folder is tested by existing: splits, meta, determinism, diversity."""

from __future__ import annotations

import re
from functools import cache
from itertools import islice, takewhile
from pathlib import Path

import pytest

from matura import lessons
from matura.core.rng import rng
from matura.core.types import Conversation, Given, Message, Split, TextCodec
from matura.lessons.arithmetic import Arithmetic
from matura.lessons.echo import Echo
from matura.lessons.format_lock import FormatLock
from matura.lessons.lesson import Lesson, conversation, kinds, unrepeated
from matura.lessons.operators import Operators
from matura.lessons.phrasing import is_for_exam
from matura.lessons.words import MAX_PIECES, word_split
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

LESSONS: list[Lesson] = [kind() for kind in kinds().values()]  # type: ignore[call-arg]
VARIANTS = [
    *LESSONS,
    Echo(gibberish="only"),
    Echo(gibberish="include", anti=0.5, contrast=1.0),
    FormatLock(mode="full", math="include"),
    FormatLock(gibberish="only"),
    Operators(max_words=8),
]
COPYING = ("arithmetic", "echo", "format_lock", "operators")
"""Lessons whose payload is one text or sum: its words alone keep the splits apart."""
IN_PARTS = ("identity",)
"""Lessons whose template is more than one wording, each with its own hash."""
META = {"operator", "payload", "template", "language", "bucket", "expected"}


def fresh(lesson: Lesson, split: Split, count: int, seed: int = 0) -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(seed, "test", split), None, split)), count))


class Made:
    """A lesson's items, made as they are needed and no further."""

    def __init__(self, lesson: Lesson, split: Split) -> None:
        self.items: list[Conversation] = []
        self.more = lesson.items(Given(rng(0, "test", split), None, split))

    def first(self, count: int) -> list[Conversation]:
        self.items += islice(self.more, max(0, count - len(self.items)))
        return self.items[:count]


once = cache(Made)
twice = cache(lambda lesson, split: Made(lesson, split))
"""What is made again: nothing of it comes from `once`."""


@cache
def some(lesson: Lesson, split: Split) -> list[Conversation]:
    return once(lesson, split).first(1000)


def taken(lesson: Lesson, split: Split, count: int = 1000) -> list[Conversation]:
    """Made once for all tests, which only look at them."""
    return some(lesson, split)[:count]


def keys(items: list[Conversation], lesson: Lesson) -> set[str]:
    """What an exam's payload may not share: whole payloads, of copying lessons single words."""
    learnt = [item for item in items if item.meta["operator"] not in ("FACT", "SUM")]
    if isinstance(lesson, Arithmetic) or lesson.kind not in COPYING:
        return {item.meta["payload"].casefold() for item in learnt}
    return {word.casefold() for item in learnt for word in item.meta["payload"].split()}


def asked(item: Conversation) -> tuple[Message, ...]:
    """All that is said before the first answer."""
    return tuple(takewhile(lambda turn: turn.role != "assistant", item.messages))


def questions(items: list[Conversation]) -> set[str]:
    return {" ".join(turn.content for turn in asked(item)).casefold() for item in items}


def pairs(items: list[Conversation]) -> set[tuple[str, str]]:
    """Content keys: what about, and in which words."""
    return {(i.meta["payload"].casefold(), i.meta["template"].casefold()) for i in items}


def apart_and_repeatable(kind: str, count: int) -> None:
    """Made twice the same; nothing of one split is in another."""
    lesson = next(lesson for lesson in LESSONS if lesson.kind == kind)
    splits: tuple[Split, ...] = ("train", "exam")
    made = {split: once(lesson, split).first(count) for split in splits}
    for split, items in made.items():
        assert len(items) == count
        assert twice(lesson, split).first(count) == items
    assert not pairs(made["train"]) & pairs(made["exam"])
    assert not questions(made["train"]) & questions(made["exam"])
    seen = {item.meta["template"].casefold() for item in made["train"]}
    assert not seen & {item.meta["template"].casefold() for item in made["exam"]}
    if not lesson.by_heart:
        assert not keys(made["train"], lesson) & keys(made["exam"], lesson)


ALONE = [pytest.param(kind, marks=pytest.mark.xdist_group(f"lesson {kind}")) for kind in kinds()]
"""Each lesson in one worker: its first thousands are made there."""


@pytest.mark.parametrize("kind", ALONE)
def test_thousands_of_items_are_repeatable_and_apart_from_the_exam(kind: str) -> None:
    apart_and_repeatable(kind, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALONE)
def test_10_000_items_are_repeatable_and_apart_from_the_exam(kind: str) -> None:
    """PITFALLS C-06, C-60: by construction, so no number of items may show one in both."""
    apart_and_repeatable(kind, 10_000)
    # tens of thousands are kept no longer than needed
    once.cache_clear()
    twice.cache_clear()


@cache
def written_words() -> frozenset[str]:
    """Every word that stands in the lessons' own tables: ordinary words, names, months."""
    room = Path(lessons.__file__).parent
    text = " ".join(file.read_text(encoding="utf-8") for file in room.glob("*.py"))
    return frozenset(re.findall(r"[^\W\d_]+", text.casefold()))


@pytest.fixture(scope="module")
def codecs(tokenizer: Tokenizer) -> list[TextCodec]:
    """Three that cut words in different ways."""
    texts = [
        turn.content
        for lesson in LESSONS
        for i in taken(lesson, "train", 60)
        for turn in i.messages
    ]
    words = Tokenizer.train(texts, vocab_size=1_500, dialect="chatml", split="words")
    return [tokenizer, words, Tokenizer.bytes_only("matura")]


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_made_up_payload_words_are_short_for_three_tokenizers(
    lesson: Lesson, codecs: list[TextCodec]
) -> None:
    """PITFALLS C-08: longer spellings made a small model collapse."""
    for codec in codecs:
        found = 0
        for split in ("train", "exam"):
            for item in islice(lesson.items(Given(rng(0, "cut"), codec, split)), 150):  # type: ignore[arg-type]
                for word in re.findall(r"[^\W\d_]+", item.meta["payload"]):
                    if word.casefold() not in written_words():
                        found += 1
                        assert len(codec.encode(word)) <= MAX_PIECES, (word, item.meta["payload"])
        assert found or lesson.kind == "arithmetic" or "exclude" in repr(lesson)


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_an_exam_shares_no_payload_and_no_wording_with_training(lesson: Lesson) -> None:
    """PITFALLS C-06: the split is by content, before anything is drawn or repeated."""
    train, validation, exam = (taken(lesson, s) for s in ("train", "validation", "exam"))
    seen = {item.meta["template"].casefold() for item in train + validation}
    assert not seen & {item.meta["template"].casefold() for item in exam}
    for one, other in ((train, validation), (train, exam), (validation, exam)):
        again = [i for i in one if i.meta["operator"] not in ("FACT", "SUM")]
        assert not pairs(again) & pairs(other)
        if not lesson.by_heart:
            assert keys(one, lesson)
            assert not keys(one, lesson) & keys(other, lesson)
    assert not questions(train + validation) & questions(exam)


def test_no_lesson_trains_on_what_another_lesson_examines() -> None:
    train = [item for lesson in VARIANTS for item in taken(lesson, "train")]
    exam = [item for lesson in VARIANTS for item in taken(lesson, "exam")]
    templates = {item.meta["template"].casefold() for item in train}
    both = templates & {item.meta["template"].casefold() for item in exam}
    assert not both
    worded_once = [
        item for lesson in VARIANTS if lesson.kind not in IN_PARTS for item in taken(lesson, "exam")
    ]
    assert all(
        is_for_exam(i.meta["template"]) for i in worded_once if "{a}" not in i.meta["template"]
    )
    sums = {item.meta["payload"] for item in train if item.meta["operator"] in ("SUM", "TOOL")}
    assert not sums & {item.meta["payload"] for item in exam if item.meta["operator"] == "TOOL"}
    worded = [item for item in exam if item.meta["operator"] in ("SAY", "ECHO", "COPY")]
    assert {word_split(w) for item in worded for w in item.meta["payload"].split()} == {"exam"}


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_the_same_seed_gives_the_same_items_and_another_seed_others(lesson: Lesson) -> None:
    assert fresh(lesson, "train", 50) == fresh(lesson, "train", 50)
    assert fresh(lesson, "train", 50) != fresh(lesson, "train", 50, seed=1)


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_items_say_what_they_are_and_end_with_what_is_expected(lesson: Lesson) -> None:
    for split in ("train", "validation", "exam"):
        for item in taken(lesson, split, 300):
            assert item.meta.keys() >= META
            assert item.messages[0].role in ("user", "system")
            assert item.messages[-1].role == "assistant"
            assert item.messages[-1].content == item.meta["expected"] != ""
            assert not re.search(r"\{[A-Za-z]\}", item.messages[0].content), item.messages[0]


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_read_gives_as_many_as_asked_and_a_twentieth_for_validation(lesson: Lesson) -> None:
    small = lesson.model_copy(update={"max_examples": 2000})
    assert len(list(small.read(Given(rng(0, "a"))))) == 2000
    assert len(list(small.read(Given(rng(0, "a"), None, "validation")))) == 100


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.kind)
def test_diversity_is_what_understanding_needs(lesson: Lesson, tokenizer: Tokenizer) -> None:
    """PITFALLS C-08: unique payloads, hundreds of wordings, no one answer or delimiter rules."""
    small = lesson.model_copy(update={"max_examples": 1500})
    found = small.diversity(Given(rng(0, "diversity"), tokenizer))
    old = lesson.kind in COPYING
    assert found.examples == 1500
    assert found.unique_payloads > (100 if lesson.by_heart else 400)
    assert found.unique_templates > 500
    assert found.answer_entropy > (5 if lesson.by_heart else 7)
    assert 0.2 < found.with_colon < (0.8 if old else 0.9)
    assert found.by_language["de"] > 50
    assert found.longest_answer <= (40 if old else 80)
    assert found.longest_conversation <= (110 if old else 220)
    assert sum(found.by_operator.values()) == 1500
    assert sum(found.by_bucket.values()) == 1500


@pytest.mark.parametrize("lesson", VARIANTS, ids=lambda lesson: lesson.kind)
def test_a_training_item_starts_with_exactly_the_exam_s_prompt(
    lesson: Lesson, tokenizer: Tokenizer
) -> None:
    """PITFALLS C-10: one renderer; nothing but the question stands before the answer."""
    template = Template(tokenizer)
    given = Given(rng(0, "render"), tokenizer)
    for item in islice(lesson.items(given), 100):
        example = template.render(item)
        prompt = template.prompt(asked(item))
        assert example.ids[: len(prompt)] == prompt
        assert not any(example.weights[: len(prompt)])
        # 700 ids cut finer than the 2,048 of the CPU model, whose context is 256
        assert len(example.ids) < (150 if lesson.kind in COPYING else 300)


def test_nothing_is_asked_twice_and_a_used_up_lesson_ends() -> None:
    for lesson in LESSONS:
        made = taken(lesson, "train")
        if lesson.kind == "format_lock":  # which repeats its few facts
            made = [item for item in made if item.meta["operator"] != "FACT"]
        said = [(i.meta["operator"], asked(i)) for i in made]
        assert len(set(said)) == len(said), lesson.kind
    same = conversation("q", operator="A", payload="q", template="{X}", language="en", expected="a")
    assert list(unrepeated((same,) for _ in range(10_000))) == [same]
