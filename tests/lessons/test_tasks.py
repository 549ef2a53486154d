"""Tasks of several steps: what is asked is what is answered, item by item."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice, pairwise
from typing import get_args

import pytest

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split, TextCodec
from matura.lessons import passages, steps
from matura.lessons.passages import THINGS, compose, read_report, read_sentence, report, sentence
from matura.lessons.phrasing import Grammar, is_for_exam
from matura.lessons.steps import SLOTS
from matura.lessons.tasks import FOCUS, OPERATORS, STRUCTURE, Tasks
from matura.lessons.words import ENGLISH, GERMAN, MAX_PIECES, Language, Words, word_split
from matura.text.tokenizer import Tokenizer

SPLITS: tuple[Split, ...] = get_args(Split)
LANGUAGES: tuple[Language, ...] = ("en", "de")
KNOWN = {word.casefold() for word in (*ENGLISH, *GERMAN)}


def taken(
    count: int,
    lesson: Tasks | None = None,
    split: Split = "train",
    tokenizer: TextCodec | None = None,
) -> list[Conversation]:
    given = Given(rng(0, "tasks", split), tokenizer, split)
    return list(islice((lesson or Tasks()).items(given), count))


def of(items: list[Conversation], operator: str) -> list[Conversation]:
    return [item for item in items if item.meta["operator"] == operator]


def key(item: Conversation) -> tuple[str, str]:
    return item.meta["payload"].casefold(), item.meta["template"].casefold()


def test_content_alone_decides_the_split() -> None:
    """PITFALLS C-06, C-60: no exam item is a training item, in no word of its payload."""
    train = taken(2_000)
    exam = taken(2_000, split="exam")
    assert not {key(item) for item in train} & {key(item) for item in exam}
    templates = {item.meta["template"].casefold() for item in train}
    assert not templates & {item.meta["template"].casefold() for item in exam}
    assert all(is_for_exam(item.meta["template"]) for item in exam)
    assert len({item.messages[0].content for item in train}) == len(train)
    for items, split in ((train, "train"), (exam, "exam")):
        words = {word for item in items for word in item.meta["payload"].split()}
        assert {word_split(word) for word in words} == {split}


def test_the_three_kinds_and_their_sizes_come_equally_often_without_contrast() -> None:
    counts = Counter(item.meta["bucket"] for item in taken(1_800, Tasks(contrast=0)))
    assert counts == {
        "STEPS x 2": 300,
        "STEPS x 3": 300,
        **{f"{kind} x {n}": 200 for kind in ("STRUCTURE", "FOCUS") for n in (1, 2, 3)},
    }
    larger = {i.meta["bucket"] for i in taken(900, Tasks(max_facts=6, max_steps=4, contrast=0))}
    assert {"STEPS x 4", "STRUCTURE x 6", "FOCUS x 6"} <= larger


def carried_out(item: Conversation) -> str:
    """The answer to an order, read from its words alone and in another way than it was made."""
    asked, template = item.messages[0].content, item.meta["template"]
    pattern = re.escape(template)
    pattern = pattern.replace(re.escape("{X}"), r"(?P<text>[\s\S]+)", 1)
    pattern = pattern.replace(re.escape("{Y}"), r"(?P<extra>\S+?)")
    for place in range(template.count("{K}")):
        pattern = pattern.replace(re.escape("{K}"), rf"(?P<line{place}>\d)", 1)
    found = re.fullmatch(pattern, asked)
    assert found, (template, asked)
    said = found.groupdict()
    lines = [said["text"].split("\n")[int(said[name]) - 1] for name in said if "line" in name]
    have = "\n".join(lines) or said["text"]
    # the words between the text and the rest are the steps, in their order
    marks = r"\[ \]|brackets|Klammern|twice|two times|zweimal|doppelt|\{Y\}"
    done: list[str] = []
    for mark in re.findall(marks, template.replace("{X}", "")):
        step = "add" if mark == "{Y}" else "twice" if mark[0] in "tzd" else "wrap"
        if step not in done:
            done.append(step)
            changed = {"add": f"{have} {said.get('extra')}", "twice": f"{have} {have}"}
            have = changed.get(step, f"[{have}]")
    return have


def test_steps_are_carried_out_in_their_order() -> None:
    items = of(taken(2_500, Tasks(german=0.3, max_steps=4)), "STEPS")
    assert len(items) > 600
    for item in items:
        assert carried_out(item) == item.meta["expected"], item.messages[0].content
    answers = [item.meta["expected"] for item in items]
    assert any(re.fullmatch(r"\[\S+\] \S+", answer) for answer in answers)
    assert any(re.fullmatch(r"\[\S+ \S+\]", answer) for answer in answers)
    assert any(answer.count("\n") == 2 for answer in answers)


def test_lines_are_asked_for_in_any_order() -> None:
    """Whoever copies the first lines as they stand is wrong: `copy line 2, then line 1`."""
    orders = Counter(
        tuple(re.findall(r"(?:line|Zeile) (\d)", item.messages[0].content))
        for item in of(taken(3_000), "STEPS")
    )
    assert orders["2", "1"] > 15
    assert orders["1", "2"] > 15
    assert len([order for order in orders if len(order) == 3]) >= 6


def test_further_orders_are_about_what_was_shown_first() -> None:
    """S003: the text is told once; each order about it has its own right answer."""
    draw = rng(0, "again")
    for number in range(400):
        pool = steps.material(draw, Words.of("train", "include", None), "en")
        first = steps.draw(draw, "train", pool, 2 + number % 2, "en", numbered=True)
        extra = next(word for word in pool if word not in first.shown)
        again = steps.again(draw, "train", first, extra, "en")
        assert again.shown == first.shown
        assert again.marked == first.marked
        assert not is_for_exam(again.template)
        assert "{" not in again.text
        assert not set(first.shown) & set(again.text.split())
        asked = [int(digit) for digit in re.findall(r"line (\d)", again.text)]
        if again.program[-1] == "NEXT":
            assert again.answer == "\n".join(first.shown[line - 1] for line in asked)
        elif not again.marked:
            assert first.shown[asked[0] - 1] in again.answer
        else:
            assert " ".join(first.shown) in again.answer
        if not first.marked:
            for place, line in enumerate(first.shown, start=1):
                assert f"{place}. {line}" in first.text.splitlines()


def test_further_summaries_are_of_the_owner_asked_about() -> None:
    items = taken(1_500, Tasks(turns=3, german=0))
    for item in of(items, "FOCUS"):
        assert len(item.messages) == 6
        text = item.messages[0].content
        for question, answer in zip(item.messages[2::2], item.messages[3::2], strict=True):
            summary = read_sentence(answer.content)
            if summary is None:
                assert read_report(answer.content) is not None
                continue
            assert summary.owner in question.content
            for part in summary.parts:
                (told,) = re.findall(rf"[^.?:\n]*\b{re.escape(part.split()[-1])}\b[^.]*", text)
                assert summary.owner in told
    alone = {item.id: item.messages[:2] for item in items if item.meta["operator"] != "STEPS"}
    assert len(alone) > 900


def test_focus_can_be_on_fewer_facts_than_are_told() -> None:
    items = taken(2_000, Tasks(max_facts=2, max_focus=1, turns=2))
    assert {item.meta["bucket"] for item in of(items, "FOCUS")} == {"FOCUS x 1"}
    assert {item.meta["bucket"] for item in of(items, "STRUCTURE")} == {
        "STRUCTURE x 1",
        "STRUCTURE x 2",
    }
    for item in items:
        told = read_sentence(item.messages[-1].content)
        assert told is None or item.meta["operator"] == "STEPS" or len(told.parts) == 1


def test_small_settings_make_passages_plainer() -> None:
    small = of(taken(1_500, Tasks(tellings=3, asides=0, mixed=False, german=0)), "FOCUS")
    for item in small:
        owners = [w for w in item.meta["payload"].split() if w.istitle()]
        told = [s.split()[0] for s in re.split(r"(?<=[.?:])\s", item.messages[0].content)]
        order = [word for word in told if word in owners and word in item.meta["payload"]]
        assert len([a for a, b in pairwise(order) if a != b]) <= 2, item.messages[0].content
    assert not any(" is the " in item.messages[0].content for item in small)


def test_facts_of_a_passage_are_the_facts_of_its_report() -> None:
    """Read back from the passage itself: a name stands behind or before its thing, in one
    sentence."""
    for item in of(taken(1_500, Tasks(german=0.3)), "STRUCTURE"):
        found = read_report(item.meta["expected"])
        assert found is not None
        summary = read_sentence(found.summary)
        assert summary is not None
        assert item.meta["bucket"] == f"STRUCTURE x {len(found.facts)}"
        assert len(summary.parts) == len(found.facts)
        passage = re.split(r"(?<=\.)\s", item.messages[0].content)
        for fact in found.facts:
            noun, name = fact.split(": ")
            (told,) = [text for text in passage if re.search(rf"\b{re.escape(name)}\b", text)]
            assert noun in told
            assert summary.owner in told
            assert any(part.endswith(noun) for part in summary.parts)


def test_a_summary_tells_the_facts_of_the_one_asked_about_and_no_other() -> None:
    items = of(taken(1_500, Tasks(german=0.3, contrast=0)), "FOCUS")
    for item in items:
        told = read_sentence(item.meta["expected"])
        assert told is not None
        asked, *others = dict.fromkeys(w for w in item.meta["payload"].split() if w.istitle())
        assert told.owner == asked
        assert item.meta["bucket"] == f"FOCUS x {len(told.parts)}"
        text = item.messages[0].content
        sentences = [part for part in re.split(r"(?<=[.?:])\s", text) if asked in part]
        names = {part.split()[-1] for part in told.parts}
        assert all(any(name in part for part in sentences) for name in names)
        assert others
    # either owner may come first, and the same thing under two names is told apart
    assert len({item.meta["expected"] for item in items}) == len(items)


def test_half_of_the_passages_are_used_again_under_another_instruction() -> None:
    """Only the instruction tells a report from a summary, and one owner from another."""
    items = [item for item in taken(3_000) if item.meta["operator"] != "STEPS"]
    again = Counter(
        (first.meta["operator"], second.meta["operator"])
        for first, second in pairwise(items)
        if set(second.meta["payload"].split()) == set(first.meta["payload"].split())
    )
    assert again["STRUCTURE", "FOCUS"] > 0.4 * len(of(items, "STRUCTURE"))
    assert again["FOCUS", "FOCUS"] > 150
    assert set(again) == {("STRUCTURE", "FOCUS"), ("FOCUS", "FOCUS")}


def test_a_sentence_that_tells_no_fact_is_in_no_answer() -> None:
    whos = "|".join(who for part in passages.ASIDES.values() for who in part[0])
    aside = re.compile(rf"(?:^|\s)(?:{whos}) (?:met|asked|know|greeted|trafen|fragten|kennen)")
    told = [
        item for item in of(taken(2_000), "STRUCTURE") if aside.search(item.messages[0].content)
    ]
    assert 0.2 < len(told) / len(of(taken(2_000), "STRUCTURE")) < 0.4
    assert not any(aside.search(item.meta["expected"]) for item in told)
    assert not any(aside.search(i.messages[0].content) for i in taken(500, Tasks(asides=0)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_read_back_into_the_facts_they_were_made_from(language: Language) -> None:
    words = Words.of("train", "include", None)
    for number in range(200):
        stream = rng(0, "passage", number)
        passage = compose(stream, words, [1 + number % 5, 2], language, asides=0.5)
        owners = list(dict.fromkeys(fact.owner for fact in passage.facts))
        assert len(owners) == 2
        spoken = [word.casefold() for word in passage.words.split()]
        assert len(set(spoken)) == len(spoken)
        for owner in owners:
            facts = passage.about(owner)
            told = read_sentence(sentence(facts, language))
            assert told is not None
            assert told.owner == owner
            assert told.parts == tuple(sorted(f"{f.thing.object} {f.name}" for f in facts))
            found = read_report(report(facts, language))
            assert found is not None
            assert found.facts == tuple(sorted(f"{f.thing.noun}: {f.name}" for f in facts))
            assert len({f.thing for f in facts}) == len(facts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "KEY_FACTS:\n- car: tulip",
        "KEY_FACTS:\nSUMMARY: Led has a car.",
        "KEY_FACTS:\n- car tulip\nSUMMARY: Led has a car.",
        "KEY_FACTS:\n* car: tulip\nSUMMARY: Led has a car.",
        "KEY_FACTS:\n- car: tulip\n\nSUMMARY: Led has a car.",
        "KEY_FACTS:\n- car: tulip \nSUMMARY: Led has a car.",
        "KEY_FACTS:\n- car: tulip\nSUMMARY: Led has a car",
        "KEY_FACTS:\n- car: tulip\nSUMMARY: Led has a car. Led has a van.",
        "KEY_FACTS:\n- car: tulip\nSUMMARY:\nLed has a car.",
        "SUMMARY: Led has a car.\nKEY_FACTS:\n- car: tulip",
        "Key_Facts:\n- car: tulip\nSummary: Led has a car.",
        "Here: KEY_FACTS:\n- car: tulip\nSUMMARY: Led has a car.",
        "KEY_FACTS:\n- car: tulip\nSUMMARY: Led has a car.\n",
    ],
)
def test_what_is_no_report(text: str) -> None:
    assert read_report(text) is None
    assert read_report("KEY_FACTS:\n- car: tulip\nSUMMARY: Led has a car.") is not None


@pytest.mark.parametrize("split", SPLITS)
def test_words_keep_their_pieces_with_three_tokenizers(split: Split, tokenizer: Tokenizer) -> None:
    """PITFALLS C-08: longer spellings made a small model collapse."""
    texts = [message.content for item in taken(200) for message in item.messages]
    coarse = Tokenizer.train(texts, vocab_size=400, dialect="matura", split="atoms")
    for codec in (tokenizer, coarse, Tokenizer.bytes_only("matura")):
        for item in taken(150, Tasks(gibberish="only"), split, codec):
            for word in item.meta["payload"].split():
                assert len(codec.encode(word)) <= MAX_PIECES, word


def test_conversations_fit_a_small_context(tokenizer: Tokenizer) -> None:
    """By a tokenizer of 700 ids, a third of the smallest model's: its figures are the worst."""
    for item in taken(1_200, tokenizer=tokenizer):
        asked, answered = (len(tokenizer.encode(message.content)) for message in item.messages)
        assert answered <= 80, item.meta["expected"]
        assert asked + answered <= 220, item.messages[0].content


def instructing(grammars: list[Grammar]) -> set[str]:
    texts = [
        text
        for grammar in grammars
        for text in (*grammar.patterns, *(f for slot in grammar.slots.values() for f in slot))
    ]
    return set(re.findall(r"\w+", re.sub(r"<\w+>|\{\w\}", " ", " ".join(texts)).casefold()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_payload_word_instructs_or_tells(language: Language) -> None:
    """`Parrot never no` could be read two ways; nor may a name be a thing that others have."""
    payloads = {word.casefold() for word in {"en": ENGLISH, "de": GERMAN}[language]}
    steps_words = Grammar(language, ["x"], SLOTS[language])
    assert not instructing([STRUCTURE[language], FOCUS[language], steps_words]) & payloads
    told = " ".join(
        [
            *(" ".join(thing) for thing in THINGS[language]),
            *passages.TOLD[language],
            *(word for part in passages.ASIDES[language] for word in part),
        ]
    )
    assert not set(re.findall(r"\w+", re.sub(r"\{\w+\}", " ", told).casefold())) & payloads


def test_owners_are_made_up_and_names_as_asked() -> None:
    for item in of(taken(900, Tasks(gibberish="exclude", german=0)), "STRUCTURE"):
        owner, *names = item.meta["payload"].split()
        assert owner.istitle()
        assert owner.casefold() not in KNOWN
        assert all(name.casefold() in KNOWN or name.isdigit() for name in names)


def test_its_documented_size_is_a_preset() -> None:
    """S003-03: task execution, about 1,500 episodes."""
    small = Tasks(size="run3")
    assert len(list(small.read(Given(rng(0, "a"))))) == 1_500


def test_it_is_as_varied_as_understanding_needs(tokenizer: Tokenizer) -> None:
    """PITFALLS C-08, S003-29: one house style must not be all there is."""
    found = Tasks(max_examples=3_000).diversity(Given(rng(0, "diversity"), tokenizer))
    assert found.unique_payloads > 2_500
    assert found.unique_templates > 2_000
    assert found.answer_entropy > 11
    assert 0.2 < found.with_colon < 0.8
    assert found.by_language["de"] > 200
    assert set(found.by_operator) == set(OPERATORS)
    assert min(found.by_operator.values()) > 500
    assert all(STRUCTURE[language].size > 4_000 for language in LANGUAGES)
    assert all(FOCUS[language].size > 4_000 for language in LANGUAGES)
    assert steps.STARTS[0] in SLOTS["en"]
