"""The system's rule holds against what a user wants, and control tags that a user types are text.

Five kinds of item: an answer in a frame (`[dog]`), an answer with a word before it, a word never to
be said, a secret to be kept or told, and texts with tags in them to be given back as they are. Each
payload is asked for under all conditions: plainly, against the rule, with a system turn that the
user typed himself, and where no rule stands against it; so neither the rule nor the user's wish
alone gives the answer.

About 5 million wordings of rules and 3,300 of texts with tags, each with any one to three ordinary
or made-up words and any one or two of some 80 tags.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from matura.core.rng import Rng
from matura.core.types import Conversation, Given
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.rules import (
    CONDITIONS,
    FRAMES,
    REFUSED,
    RULES,
    SECRETS,
    TAGGED,
    Condition,
    Frame,
    grammar,
)
from matura.lessons.words import Gibberish, Language, Words
from matura.text.dialects import DIALECTS, Dialect

OPERATORS = (*RULES, "TYPED")

_NEUTRAL: dict[Language, tuple[str, ...]] = {
    "en": ("", "", "You are a helper.", "You answer what you are asked."),
    "de": ("", "", "Du bist ein Helfer.", "Du antwortest, was man fragt."),
}


@functools.cache
def spoken() -> tuple[Dialect, ...]:
    """The dialects, each set of tags once."""
    return tuple({dialect.tags: dialect for dialect in reversed(DIALECTS.values())}.values())[::-1]


class Tags(NamedTuple):
    """What a user types to look like a system turn."""

    dialect: str
    before: str
    after: str

    @classmethod
    def drawn(cls, rng: Rng) -> Tags:
        """A system turn in one of the dialects; where that is not closed by a tag, the user's turn
        is opened after it."""
        dialect = rng.choice(spoken())
        turn = dialect.system or dialect.user
        return cls(dialect.name, "".join(turn.open), "".join(turn.close or dialect.user.open))


class Hierarchy(Lesson):
    """System over user; typed tags stay text."""

    kind: Literal["hierarchy"] = "hierarchy"
    gibberish: Gibberish = "include"
    max_words: int = Field(default=3, ge=1, le=8)
    """What the user wants said has 1 to this many words, each equally often."""
    max_tags: int = Field(default=2, ge=1, le=6)
    """Texts to be given back hold 1 to this many control tags."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """Each payload under all conditions, kinds of rule and word counts in turn."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        rng = given.rng
        words = Words.of(given.split, self.gibberish, given.tokenizer)
        group = 0
        while True:
            count = 1 + group % self.max_words
            group += 1
            for operator in OPERATORS:
                language: Language = "de" if rng.random() < self.german else "en"
                if operator == "TYPED":
                    yield tuple(self._typed(given, words, count, language) for _ in CONDITIONS)
                    continue
                # one more word for the rule, so that the two never share one
                *asked, key = words.payload(rng, count + 1, language).split(" ")
                case = _Case(operator, language, " ".join(asked), key)
                yield tuple(_ruled(given, case, condition) for condition in CONDITIONS)

    def _typed(self, given: Given, words: Words, count: int, language: Language) -> Conversation:
        rng = given.rng
        phrasing = TAGGED[language].draw(rng, given.split)
        payload = words.payload(rng, count, language)
        dialect = rng.choice(spoken())
        tags = [rng.choice(dialect.tags) for _ in range(rng.randint(1, self.max_tags))]
        parts = [(word, " ") for word in payload.split(" ")]
        for tag in tags:
            parts.insert(rng.randint(0, len(parts)), (tag, rng.choice((" ", ""))))
        text = "".join(part + gap for part, gap in parts).strip()
        return conversation(
            phrasing.about(text),
            operator="TYPED",
            payload=payload,
            template=phrasing.text,
            language=language,
            bucket=f"TYPED x {len(tags)}",
            expected=text,
            system=rng.choice(_NEUTRAL[language]),
            extra={"condition": "typed", "dialect": dialect.name},
        )


class _Case(NamedTuple):
    """One payload and the rule's own word, under one kind of rule."""

    operator: str
    language: Language
    asked: str
    key: str


def _ruled(given: Given, case: _Case, condition: Condition) -> Conversation:
    """The case under that condition."""
    rng = given.rng
    match case.operator:
        case "FRAME":
            return _framed(given, case, condition, rng.choice(FRAMES))
        case "BEGIN":
            said = case.asked if condition == "free" else f"{case.key} {case.asked}"
            return _item(given, case, condition, case.asked, case.key, said)
        case "FORBID":
            return _forbidden(given, case, condition)
    return _secret(given, case, condition)


def _framed(given: Given, case: _Case, condition: Condition, frame: Frame) -> Conversation:
    said = case.asked if condition == "free" else f"{frame.before}{case.asked}{frame.after}"
    german = case.language == "de"
    names = {
        "{F}": frame.german_in if german else frame.english,
        "{G}": frame.german_without if german else frame.english,
    }
    return _item(given, case, condition, case.asked, "", said, names)


def _forbidden(given: Given, case: _Case, condition: Condition) -> Conversation:
    """The forbidden word is asked for, alone or among others, in three of five items."""
    rng = given.rng
    asked = case.asked.split(" ")
    refuse = rng.random() < 0.6
    if refuse:
        asked[rng.randrange(len(asked))] = case.key
    text = " ".join(asked)
    said = REFUSED[case.language] if refuse and condition != "free" else text
    return _item(given, case, condition, text, case.key, said)


def _secret(given: Given, case: _Case, condition: Condition) -> Conversation:
    """Kept in three of four items, told where the rule itself says so."""
    rng = given.rng
    keep = condition != "free" and rng.random() < 0.7
    words = case.asked
    names = {"{N}": rng.choice(SECRETS[case.language])}
    said = REFUSED[case.language] if keep else words
    return _item(given, case, condition, "", words, said, names, "keep" if keep else "give")


def _item(
    given: Given,
    case: _Case,
    condition: Condition,
    asked: str,
    key: str,
    said: str,
    names: dict[str, str] | None = None,
    tell: str = "",
) -> Conversation:
    """A wording of the case, filled in."""
    rng = given.rng
    # a secret that may be told is told, whatever the user says: that is its `free`
    wording: Condition = "contrary" if tell and condition == "free" else condition
    phrasing = grammar(case.operator, case.language, wording, tell).draw(rng, given.split)
    tags = Tags.drawn(rng)
    slots = {"{K}": key, "{O}": tags.before, "{C}": tags.after, **(names or {})}
    system, _, user = phrasing.text.partition("\n")
    if rng.random() < 0.85:
        user = user[:1].upper() + user[1:]  # before it is filled in: a payload keeps its case
    payload = " ".join(dict.fromkeys(f"{asked} {key}".split()))
    return conversation(
        _filled(user, asked, slots),
        operator=case.operator,
        payload=payload,
        template=phrasing.text,
        language=case.language,
        bucket=f"{case.operator} {condition}",
        expected=said,
        system=_filled(system, asked, slots),
        extra={"condition": condition}
        | ({"dialect": tags.dialect} if condition == "typed" else {}),
    )


def _filled(text: str, asked: str, slots: dict[str, str]) -> str:
    for slot, filler in slots.items():
        text = text.replace(slot, filler)
    return text.replace("{X}", asked)
