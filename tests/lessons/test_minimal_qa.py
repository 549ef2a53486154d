"""Minimal Q&A: the facts alone decide the answer, its length, and whether there is one."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest
from pydantic import ValidationError

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split, TextCodec
from matura.lessons.minimal_qa import (
    LIMITS,
    LengthKey,
    MinimalQa,
    grammar,
    instructing_words,
    keeps,
)
from matura.lessons.phrasing import is_for_exam
from matura.lessons.relations import LISTED, NAMES, RELATIONS, UNKNOWN
from matura.lessons.words import ENGLISH, GERMAN, MAX_PIECES, word_split
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

SPLITS: tuple[Split, ...] = ("train", "validation", "exam")


def taken(
    lesson: MinimalQa,
    count: int = 3000,
    split: Split = "train",
    tokenizer: TextCodec | None = None,
    seed: int = 0,
) -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(seed, "qa", split), tokenizer, split)), count))


def trained(vocab_size: int) -> Tokenizer:
    texts = (message.content for item in taken(MinimalQa(), 900) for message in item.messages)
    return Tokenizer.train(texts, vocab_size=vocab_size, dialect="matura", split="atoms")


def open_(pattern: str) -> re.Pattern[str]:
    """A frame of the tables as something to match text with."""
    text = re.escape(pattern).replace(r"\{S\}", "(?P<S>.+)").replace(r"\{V\}", r"(?P<V>\w+)")
    return re.compile(text, re.IGNORECASE)


LINKS = {
    language: [(one, open_(link)) for one in relations for link in one.links]
    for language, relations in RELATIONS.items()
}
ASKS = {
    language: [(one, ask, open_(ask)) for one in relations for ask in one.asks]
    for language, relations in RELATIONS.items()
}
WHO = {
    language: [(one, ask, open_(ask)) for one in relations for ask in one.who]
    for language, relations in RELATIONS.items()
}


def told(item: Conversation) -> list[tuple[str, str, str, str]]:
    """Relation, subject, value and sentence of all that the user tells, read back from the text."""
    found = []
    text = item.messages[0].content
    for sentence in re.split(r"(?<=[.?:])\s", text):
        for relation, pattern in LINKS[item.meta["language"]]:  # type: ignore[index]
            hit = pattern.fullmatch(sentence.removesuffix("."))
            if hit is None or not sentence.endswith("."):
                continue
            if is_person(hit["S"]) != bool(relation.nouns):
                found.append((relation.key, hit["S"].casefold(), hit["V"], sentence))
    return found


def is_person(subject: str) -> bool:
    return re.fullmatch(r"\w+", subject) is not None


def asked(item: Conversation) -> tuple[str, str, bool]:
    """Relation, what is asked about, and whether it is the person that is wanted."""
    language = item.meta["language"]
    frame = item.meta["template"].replace("{X}", "").casefold()
    for table, who in ((WHO, True), (ASKS, False)):
        for relation, ask, pattern in table[language]:  # type: ignore[index]
            if ask.casefold() not in frame:
                continue
            short = pattern.pattern.replace(".+", r"[\w' ]+?") + r"[?,]"
            hit = re.search(short, item.messages[0].content, re.IGNORECASE)
            assert hit is not None
            if who or is_person(hit["S"]) != bool(relation.nouns):
                return relation.key, hit["V" if who else "S"].casefold(), who
    raise AssertionError(item.meta["template"])


@pytest.mark.parametrize("split", ["train", "exam"])
def test_the_answer_is_what_the_facts_say_and_only_that(split: Split) -> None:
    """Read back from the text alone: one fact answers, or none."""
    for item in taken(MinimalQa(max_facts=4), 1500, split):
        facts = told(item)
        assert len(facts) == int(item.meta["bucket"].split()[-1]), item.messages[0].content
        relation, about, who = asked(item)
        answers = [
            (subject if who else value, sentence)
            for key, subject, value, sentence in facts
            if key == relation and (value.casefold() if who else subject) == about
        ]
        expected = item.meta["expected"]
        if item.meta["operator"] == "UNKNOWN":
            assert answers == []
            assert expected == UNKNOWN[item.meta["language"]]  # type: ignore[index]
            continue
        ((answer, sentence),) = answers
        for form in item.meta["accepted"].split("\n"):
            assert answer.casefold() in form.casefold()
            assert form.endswith(".")
        if item.meta["length"] == "one word":
            assert expected.casefold() == f"{answer}.".casefold()
        if item.meta["length"] in ("one sentence", "free"):
            assert expected == sentence


def asked_in(text: str) -> tuple[str, str, bool]:
    """As `asked`, of an English question whose wording is not known."""
    for table, who in ((WHO, True), (ASKS, False)):
        for relation, _, pattern in table["en"]:
            short = pattern.pattern.replace(".+", r"[\w' ]+?") + r"[?,]"
            hit = re.search(short, text, re.IGNORECASE)
            if hit and (who or is_person(hit["S"]) != bool(relation.nouns)):
                return relation.key, hit["V" if who else "S"].casefold(), who
    raise AssertionError(text)


def test_further_questions_are_answered_by_the_same_facts() -> None:
    counts = Counter[bool]()
    for item in taken(MinimalQa(turns=3, german=0), 900):
        facts = told(item)
        later = item.messages[2:]
        assert len(later) == (4 if facts else 0)
        for question, answer in zip(later[::2], later[1::2], strict=True):
            relation, about, who = asked_in(question.content)
            right = [
                subject if who else value
                for key, subject, value, _ in facts
                if key == relation and (value.casefold() if who else subject) == about
            ]
            counts[bool(right)] += 1
            if right:
                (one,) = right
                assert one.casefold() in answer.content.casefold(), (item, question)
            else:
                assert answer.content == UNKNOWN["en"]
    assert 0.25 < counts[False] / counts.total() < 0.42


def test_bare_words_can_be_asked_for_more_often() -> None:
    def bare(share: float) -> float:
        items = taken(MinimalQa(bare=share, turns=3, german=0), 900)
        answers = [m.content for i in items for m in i.messages if m.role == "assistant"]
        known = [said for said in answers if said != UNKNOWN["en"]]
        return sum(" " not in said for said in known) / len(known)

    assert bare(0.0) < 0.4
    assert bare(0.6) > 0.6
    assert bare(1.0) > 0.7


def test_a_fact_is_told_in_as_many_ways_as_asked() -> None:
    def links(tellings: int) -> set[str]:
        sentences = [
            sentence.removesuffix(".")
            for item in taken(MinimalQa(tellings=tellings, german=0), 600)
            for *_, sentence in told(item)
        ]
        every = [link for relation, _ in LINKS["en"] for link in relation.links]
        return {next(one for one in every if open_(one).fullmatch(said)) for said in sentences}

    assert links(1) < links(2)
    assert links(1) <= {relation.links[0] for relation in RELATIONS["en"]}


def test_an_answer_has_the_length_that_was_asked_for() -> None:
    """S003-08, S003-20."""
    for item in taken(MinimalQa(max_facts=8, german=0.5), 3000):
        if item.meta["operator"] == "UNKNOWN":
            continue
        length, limit = item.meta["length"], int(item.meta["limit"])
        forms = item.meta["accepted"].split("\n")
        assert forms[0] == item.messages[-1].content
        assert len(set(forms)) == len(forms)
        assert all(keeps(length, limit, form) for form in forms)  # type: ignore[arg-type]
        if length == "at most":
            words = len(forms[0].split())
            assert words == (1 if limit in LIMITS[0] else 4 if limit in LIMITS[1] else words)
            assert f" {limit} " in item.messages[0].content
    assert max(LIMITS[0]) < 4 <= min(LIMITS[1])


@pytest.mark.parametrize(
    ("length", "limit", "right", "wrong"),
    [
        ("one word", 0, ("Blimo.", "Blimo"), ("", "It is Blimo.", "Blimo. Blimo.")),
        ("one sentence", 0, ("It is Blimo.",), ("", "Blimo.", "It is Blimo", "A b. C d.")),
        ("two sentences", 0, ("A b. C d.",), ("", "A b.", "A b. C d. E f.", "A b. C d")),
        ("at most", 3, ("Blimo.", "It is Blimo."), ("", "The name is Blimo.")),
        ("free", 0, ("It is Blimo.", "A b. C d."), ("", "Blimo.", "A b. C d. E f.")),
    ],
)
def test_lengths_are_counted_in_words_and_sentences(
    length: LengthKey, limit: int, right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    assert all(keeps(length, limit, reply) for reply in right)
    assert not any(keeps(length, limit, reply) for reply in wrong)


def test_one_question_at_several_lengths_and_then_without_its_fact() -> None:
    """S003-29: the same question at different lengths; and a twin that only lacks the fact."""
    items = taken(MinimalQa(), 3000)
    for place in range(0, len(items), 3):
        first, second, twin = items[place : place + 3]
        assert [i.meta["operator"] for i in (first, second, twin)] == [
            "ANSWER",
            "ANSWER",
            "UNKNOWN",
        ]
        lengths = [(i.meta["length"], i.meta["limit"]) for i in (first, second)]
        assert lengths[0] != lengths[1]
        assert told(first) == told(second)
        assert asked(first) == asked(second) == asked(twin)
        before, after = told(second), told(twin)
        if twin.meta["bucket"] == "UNKNOWN x 0":
            assert (len(before), after) == (1, [])
            continue
        assert second.meta["template"] == twin.meta["template"]
        assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
    counts = Counter(item.meta["bucket"] for item in items)
    assert set(counts) == {f"ANSWER x {n}" for n in (1, 2, 3)} | {
        f"UNKNOWN x {n}" for n in range(4)
    }
    assert all(abs(counts[f"ANSWER x {n}"] - 667) <= 2 for n in (1, 2, 3))


def test_half_of_what_else_is_told_could_be_mistaken() -> None:
    def mentioned(near: float) -> float:
        items = [i for i in taken(MinimalQa(near=near)) if i.meta["operator"] == "UNKNOWN"]
        return sum(item.meta["mentioned"] == "yes" for item in items) / len(items)

    assert mentioned(0) < 0.05 < 0.3 < mentioned(0.5) < mentioned(1)


def test_shares_are_as_asked() -> None:
    for unknown in (0.0, 0.2, 0.5):
        items = taken(MinimalQa(unknown=unknown), 2000)
        share = sum(item.meta["operator"] == "UNKNOWN" for item in items) / len(items)
        assert share == pytest.approx(unknown, abs=0.02)
    german = [item.meta["language"] == "de" for item in taken(MinimalQa(german=0.5), 2000)]
    assert 0.4 < sum(german) / len(german) < 0.6
    assert not any(asked(item)[2] for item in taken(MinimalQa(who=0), 600))
    assert MinimalQa(size="run2").max_examples == 1_000
    for fields in ({"unknown": 0.6}, {"lengths": 6}, {"max_facts": 0}):
        with pytest.raises(ValidationError):
            MinimalQa(**fields)  # type: ignore[arg-type]


def test_ten_thousand_items_twice_and_nothing_of_the_exam_among_them() -> None:
    """PITFALLS C-06: disjoint by payload word and by wording, by construction."""
    train = taken(MinimalQa(), 10_000)
    assert train == taken(MinimalQa(), 10_000)
    exam = taken(MinimalQa(), 3000, "exam")

    def keys(items: list[Conversation]) -> tuple[set[str], set[str]]:
        words = {word.casefold() for item in items for word in item.meta["payload"].split()}
        return words, {item.meta["template"].casefold() for item in items}

    (words, wordings), (exam_words, exam_wordings) = keys(train), keys(exam)
    assert not words & exam_words
    assert not wordings & exam_wordings
    assert {is_for_exam(wording) for wording in exam_wordings} == {True}
    assert len({item.id for item in train}) == len(train)
    for item in train[:200] + exam[:200]:
        assert {value for _, _, value, _ in told(item)} <= set(item.meta["payload"].split())


@pytest.mark.parametrize("split", SPLITS)
def test_payload_words_are_at_most_four_pieces_for_any_tokenizer(split: Split) -> None:
    """PITFALLS C-08."""
    for codec in (trained(400), trained(1200), Tokenizer.bytes_only("matura")):
        for item in taken(MinimalQa(max_facts=4), 150, split, codec):
            for word in item.meta["payload"].split():
                assert len(codec.encode(word)) <= MAX_PIECES
                assert word_split(word) == split


def test_no_wording_is_a_payload_and_no_payload_instructs() -> None:
    instructing = instructing_words()
    for language, payloads in (("en", ENGLISH), ("de", GERMAN)):
        words = {w.casefold() for one in LISTED[language].values() for w in one}  # type: ignore[index]
        assert not (words | {name.casefold() for name in NAMES}) & instructing
        texts = [
            text
            for one in RELATIONS[language]  # type: ignore[index]
            for text in (*one.nouns, *one.links, *one.asks, *one.who, one.label)
        ]
        framing = set(re.findall(r"\w+", re.sub(r"\{\w\}", "", " ".join(texts)).casefold()))
        assert not framing & set(payloads)
    for item in taken(MinimalQa(german=0.5), 3000):
        assert not {word.casefold() for word in item.meta["payload"].split()} & (instructing)


def test_every_list_has_words_for_every_split() -> None:
    for words in (NAMES, *LISTED["en"].values(), *LISTED["de"].values()):
        assert {word_split(word) for word in words} == set(SPLITS)
        assert len(set(words)) == len(words)


def test_there_are_a_million_wordings() -> None:
    lengths: list[tuple[LengthKey, int]] = [("one word", 0), ("one sentence", 0), ("free", 0)]
    lengths += [("two sentences", 0), *(("at most", n) for limits in LIMITS for n in limits)]
    sizes = [
        grammar(language, ask, length, limit).size
        for language, relations in RELATIONS.items()
        for relation in relations
        for ask in (*relation.asks, *relation.who)
        for length, limit in lengths
    ]
    assert sum(sizes) > 1_000_000


def test_a_conversation_fits_a_small_model() -> None:
    """Sequence 256; the whole within 200 tokens, the answer within 60."""
    template = Template(trained(2048))
    lengths = []
    for item in taken(MinimalQa(max_facts=4), 1500, "train", template.tokenizer):
        lengths.append(len(template.render(item).ids))
        assert len(template.tokenizer.encode(item.messages[-1].content)) <= 60
    assert max(lengths) <= 200
    assert sum(lengths) / len(lengths) < 110
