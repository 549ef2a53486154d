"""What is to be known: facts, sums by heart, and what a line of Python gives.

Facts and sums test memory, so exams ask about the same ones as training does, in wordings that
training never composed: what is disjoint is the wording, and in validation the pair of fact and
wording. A model that knew nothing beforehand and scores here has remembered, and understood what it
was asked. Programs are worked out instead of remembered: there the words are disjoint as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from matura.core.rng import Rng
from matura.core.types import Conversation, Given
from matura.lessons import lands
from matura.lessons.arithmetic import Sum
from matura.lessons.facts import EVERYDAY, GENERAL
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import Grammar, Phrasing
from matura.lessons.words import Gibberish, Language, Words, split_of, word_split

Area = Literal["facts", "invented", "maths", "programming"]
AREAS: tuple[Area, ...] = ("facts", "invented", "maths", "programming")

# no verb of the copying lessons: `give me Paris` and `give me the capital` would be answered alike
_ASKS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "opening": (
            *("", "", "", "question: ", "quick: ", "a question: ", "next: ", "so, ", "well, "),
            *("please: ", "quiz: ", "and "),
        ),
        "ask": (
            *("what is", "what is", "what's", "do you know", "can you recall", "can you name"),
            *("which is", "do you remember", "who knows"),
        ),
        "tell": ("name", "recall", "state", "I want to know", "let me know", "remind me of"),
        "end": (".", ".", "!", "", ", please.", " for me.", " at once."),
        "tail": ("what is it?", "which is it?", "do you know it?", "name it.", "can you name it?"),
    },
    "de": {
        "opening": ("", "", "", "Frage: ", "bitte: ", "also, ", "nun, ", "Quiz: ", "und "),
        "ask": ("was ist", "was ist", "was ist noch mal", "wie lautet"),
        "tail": ("was ist das?", "weißt du es?", "wie lautet das?", "kennst du das?", "bitte."),
    },
}
_PATTERNS: dict[Language, tuple[str, ...]] = {
    "en": (
        "<opening><ask> <name>?",
        "<opening><tell> <name><end>",
        "<opening><name> - <tail>",
        "<opening><name>: <tail>",
    ),
    "de": ("<opening><ask> <name>?", "<opening><name> - <tail>", "<opening><name>: <tail>"),
}
# without these a sum is for the calculator, and the lesson on it says so
_BY_HEART: dict[Language, tuple[str, ...]] = {
    "en": (
        *("by heart: ", "by heart, ", "from memory: ", "from memory, ", "in your head: "),
        *("in your head, ", "off by heart: ", "mental sum: "),
    ),
    "de": ("auswendig: ", "aus dem Kopf: ", "im Kopf: ", "Kopfrechnen: ", "auswendig, "),
}
_SUMS: dict[Language, tuple[str, ...]] = {
    "en": ("{X}", "the sum {X}", "the answer to {X}"),
    "de": ("{X}", "die Summe {X}"),
}
_WRITTEN: dict[Language, tuple[str, ...]] = {
    "en": ("{a}+{b}", "{a} + {b}", "{a} plus {b}"),
    "de": ("{a}+{b}", "{a} + {b}", "{a} plus {b}"),
}


class Line(NamedTuple):
    """A line of Python about some words, and what it is called."""

    names: Mapping[Language, tuple[str, ...]]
    holds: Literal["list", "digits", "text"]


_LINES: dict[str, Line] = {
    "COUNT": Line(
        {
            "en": ("the result of len({X})", "the length of {X}", "the number of items in {X}"),
            "de": ("das Ergebnis von len({X})", "die Anzahl der Teile in {X}"),
        },
        "list",
    ),
    "FIRST": Line(
        {
            "en": ("the result of {X}[0]", "item 0 of {X}", "the item at the start of {X}"),
            "de": ("das Ergebnis von {X}[0]", "das erste Element in {X}"),
        },
        "list",
    ),
    "LAST": Line(
        {
            "en": ("the result of {X}[-1]", "item -1 of {X}", "the item at the end of {X}"),
            "de": ("das Ergebnis von {X}[-1]", "das letzte Element in {X}"),
        },
        "list",
    ),
    "LENGTH": Line(
        {
            "en": ("the result of len({X})", "the number of digits in {X}"),
            "de": ("das Ergebnis von len({X})", "die Anzahl der Ziffern in {X}"),
        },
        "digits",
    ),
    "PRINT": Line(
        {
            "en": ("the output of print({X})", "the line that print({X}) shows"),
            "de": ("die Ausgabe von print({X})", "die Zeile aus print({X})"),
        },
        "text",
    ),
}


class Knowledge(Lesson):
    """Questions with one right answer each. About 180 known facts, five for each invented land and
    190 sums, in 500 to 1,000 wordings each (German: 150): 400,000 items. Programs: over 10^12."""

    presets: ClassVar[Mapping[str, int]] = {"3a2": 11_000}
    by_heart: ClassVar[bool] = True

    kind: Literal["knowledge"] = "knowledge"
    math: Literal["include", "exclude"] = "include"
    """Whether sums are known by heart; each is asked for as such (`from memory, what is 3+4?`), so
    that a lesson with a calculator does not contradict it."""
    programming: Literal["include", "exclude"] = "include"
    lands: int = Field(default=16, ge=1, le=lands.MOST)
    """Invented lands: how much there is to remember that no text ever told."""
    largest_sum: int = Field(default=20, ge=1, le=99)
    max_items: int = Field(default=4, ge=1, le=8)
    """Lists and texts in programs have 1 to this many words."""
    gibberish: Gibberish = "exclude"
    """Whether the words in programs are made up."""

    @property
    def areas(self) -> tuple[Area, ...]:
        """What is taught and examined."""
        left_out = {"maths": self.math, "programming": self.programming}
        return tuple(area for area in AREAS if left_out.get(area) != "exclude")

    def items(self, given: Given) -> Iterator[Conversation]:
        """Questions of every area in turn, until an area has nothing new left."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        words = Words.of(given.split, self.gibberish, given.tokenizer)
        rng = given.rng
        turn = 0
        while True:
            language: Language = "de" if rng.random() < self.german else "en"
            match self.areas[turn % len(self.areas)]:
                case "facts":
                    yield (_known(given, "facts", known(0), language),)
                case "invented":
                    yield (_known(given, "invented", known(self.lands), language),)
                case "maths":
                    yield (_sum(given, self.largest_sum, language),)
                case "programming":
                    yield (self._program(given, words, turn // len(self.areas), language),)
            turn += 1

    def _program(self, given: Given, words: Words, number: int, language: Language) -> Conversation:
        rng = given.rng
        operator = rng.choice(tuple(_LINES))
        line = _LINES[operator]
        count = 1 + number % self.max_items
        if line.holds == "digits":
            payload = _digits(given, count)
        else:
            payload = words.payload(rng, count, language)
        parts = payload.split(" ")
        spelled = ", ".join(f'"{part}"' for part in parts)
        phrasing = wordings(line.names[language], language).draw(rng, given.split)
        answers = {
            "COUNT": str(len(parts)),
            "FIRST": parts[0],
            "LAST": parts[-1],
            "LENGTH": str(len(payload)),
            "PRINT": payload,
        }
        return conversation(
            phrasing.about(f"[{spelled}]" if line.holds == "list" else f'"{payload}"'),
            operator=operator,
            payload=payload,
            template=phrasing.text,
            language=language,
            bucket="programming",
            expected=answers[operator],
        )


class Known(NamedTuple):
    """One fact with all its wordings."""

    key: str
    answer: str
    wordings: Grammar


@cache
def known(invented: int) -> Mapping[Language, tuple[Known, ...]]:
    """What there is to know by language: of the world, or of so many invented lands."""
    found: dict[Language, list[Known]] = {"en": [], "de": []}
    for relation in lands.relations(invented) if invented else EVERYDAY + GENERAL:
        grammar = wordings(relation.names, relation.language)
        found[relation.language] += (
            Known(key, f"{value}.", grammar) for key, value in relation.pairs.items()
        )
    return {language: tuple(facts) for language, facts in found.items()}


@cache
def wordings(
    names: tuple[str, ...], language: Language, *, cue: Literal["none", "heart"] = "none"
) -> Grammar:
    """All ways to ask for what is called by one of these names."""
    slots: dict[str, tuple[str, ...]] = {**_ASKS[language], "name": names}
    if cue == "heart":
        slots["opening"] = _BY_HEART[language]
    return Grammar(language, _PATTERNS[language], slots)


def _asked(given: Given, grammar: Grammar, payload: str) -> Phrasing:
    """A wording of that split; validation's pairs of payload and wording are not in training."""
    while True:
        phrasing = grammar.draw(given.rng, given.split)
        pair = split_of(f"{payload}\0{phrasing.text.casefold()}", "pair")
        if given.split == "exam" or (pair == "validation") == (given.split == "validation"):
            return phrasing


def _known(
    given: Given, bucket: Area, facts: Mapping[Language, tuple[Known, ...]], language: Language
) -> Conversation:
    fact = given.rng.choice(facts[language])
    phrasing = _asked(given, fact.wordings, fact.key)
    return conversation(
        phrasing.about(fact.key),
        operator="FACT",
        payload=fact.key,
        template=phrasing.text,
        language=language,
        bucket=bucket,
        expected=fact.answer,
    )


def _sum(given: Given, largest: int, language: Language) -> Conversation:
    rng = given.rng
    while True:
        a, b = rng.randint(0, largest), rng.randint(0, largest)
        # those that the calculator's exams ask for are never learnt by heart
        if a + b <= largest and Sum(a, "+", b).split == "train":
            break
    grammar = wordings(_SUMS[language], language, cue="heart")
    payload = f"{a}+{b}"
    phrasing = _asked(given, grammar, payload)
    written = rng.choice(_WRITTEN[language]).format(a=a, b=b)
    return conversation(
        phrasing.about(written),
        operator="SUM",
        payload=payload,
        template=phrasing.text,
        language=language,
        bucket="maths",
        expected=f"{a + b}.",
    )


def _digits(given: Given, count: int) -> str:
    """So many digits: a tokenizer keeps them apart, so their number can be told."""
    rng: Rng = given.rng
    # there are few short ones, and each belongs to one split
    for longer in range(100):
        for _ in range(20):
            digits = "".join(rng.choice("0123456789") for _ in range(count + longer))
            if word_split(digits) == given.split:
                return digits
    raise AssertionError("every length over two has digits of every split")
