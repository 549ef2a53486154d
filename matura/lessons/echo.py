"""Repeat what the user says, in many wordings; a fifth of the items only look like it and must not
be echoed.

In a contrast group one payload is asked for both ways, so that only the instruction decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from matura.core.types import Conversation, Given
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import BARE, BARE_FIRST, DELIMITERS, Grammar, draw
from matura.lessons.words import Gibberish, Language, Words

_QUOTED = (BARE, BARE, *DELIMITERS)
"""Bare twice: eight delimiters would otherwise drown the plain wordings that people type."""

ECHO: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><verb>: {X}",
            "<polite><verb> <quoted>",
            "<polite><verb> <object><colon> <quoted>",
            "<polite><verb> <object>, <manner>: <quoted>",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": ["", "", "", "", "please ", "now ", "just ", "you must "],
            "verb": [
                "repeat",
                "echo",
                "say",
                "say back",
                "repeat back",
                "parrot",
                "write",
                "type",
                "print",
                "recite",
                "give back",
                "send back",
            ],
            "object": [
                "this",
                "the following",
                "after me",
                "this text",
                "this phrase",
                "these words",
                "the text",
                "the phrase",
                "what I say",
            ],
            "manner": ["exactly", "word for word", "nothing else", "as it is", "unchanged"],
            "pointer": ["this", "that", "it", "this text", "that phrase", "these words"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
        drilled=[BARE_FIRST],
    ),
    "de": Grammar(
        "de",
        [
            "<polite><verb>: {X}",
            "<polite><verb> <quoted>",
            "<polite><verb> <object><colon> <quoted>",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": ["", "", "bitte ", "nun ", "jetzt ", "also "],
            "verb": ["wiederhole", "sag", "sage", "sprich nach", "schreib", "schreibe", "tippe"],
            "object": ["das", "dies", "diesen Text", "diese Worte", "den Satz", "genau das"],
            "pointer": ["das", "es", "dies", "diesen Text", "diese Worte"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
        drilled=[BARE_FIRST],
    ),
}

ASKED: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<opening><who> is <quoted>?",
            "<opening><who> is <quoted>, <tail>?",
            "<opening>what does <quoted> <mean>?",
            "<opening>do you <know> <quoted>?",
            "<opening>tell me <about> <quoted>",
            "<quoted> - <opening><who> is <pointer>?",
        ],
        {
            "opening": ["", "", "please, ", "now, ", "so, ", "say, ", "quick: ", "question: "],
            "who": [
                "what",
                "who",
                "where",
                "which thing",
                "what kind of thing",
                "how big",
                "how old",
            ],
            "tail": ["really", "please", "in short", "do you think", "exactly"],
            "mean": ["mean", "stand for", "do", "say", "look like", "cost"],
            "know": ["know", "like", "understand", "remember", "have", "believe in"],
            "about": ["about", "more about", "all about", "something about", "the meaning of"],
            "pointer": ["this", "that", "it"],
            "quoted": _QUOTED,
        },
    ),
    "de": Grammar(
        "de",
        [
            "<opening><who> ist <quoted>?",
            "<opening>was <mean> <quoted>?",
            "<opening><know> du <quoted>?",
        ],
        {
            "opening": ["", "", "bitte, ", "nun, ", "also, ", "sag, ", "Frage: "],
            "who": ["was", "wer", "wo", "wie alt", "wie groß", "was genau"],
            "mean": ["bedeutet", "heißt", "kostet", "macht"],
            "know": ["kennst", "magst", "verstehst", "hast"],
            "quoted": _QUOTED,
        },
    ),
}

FORBIDDEN: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><not> <verb>: {X}",
            "<polite><not> <verb> <quoted>",
            "<polite><not> <verb> <object><colon> <quoted>",
            "<quoted> - <polite><not> <verb> <pointer>",
        ],
        {
            "polite": ["", "", "please ", "now ", "just "],
            "not": ["do not", "don't", "never", "you must not"],
            "verb": ECHO["en"].slots["verb"],
            "object": ECHO["en"].slots["object"],
            "pointer": ECHO["en"].slots["pointer"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
    ),
    "de": Grammar(
        "de",
        [
            "<polite><verb> nicht: {X}",
            "<polite><verb> nicht <quoted>",
            "<polite><verb> <object> nicht<colon> <quoted>",
        ],
        {
            "polite": ["", "", "bitte ", "nun ", "jetzt ", "also "],
            "verb": ["wiederhole", "sag", "sage", "schreib", "schreibe", "tippe"],
            "object": ["das", "dies", "diesen Text", "diese Worte", "den Satz"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
    ),
}

UNKNOWN: dict[Language, str] = {"en": "Unknown.", "de": "Unbekannt."}
REFUSED: dict[Language, str] = {"en": "Okay.", "de": "Gut."}


class Echo(Lesson):
    """Repeat what the user says; do not, when it is only asked about or forbidden."""

    presets: ClassVar[Mapping[str, int]] = {"beta": 2_500, "gamma": 3_500}
    """Beta is meant with `gibberish: exclude`, gamma with `only`."""

    kind: Literal["echo"] = "echo"
    gibberish: Gibberish = "exclude"
    """Whether payloads are made of made-up words; a payload never mixes the two kinds."""
    anti: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of items that must not be echoed."""
    contrast: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of those whose payload is also asked to be echoed, right before."""
    max_words: int = Field(default=4, ge=1, le=8)
    """Payloads have 1 to this many words, each equally often."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.anti * (1 + self.contrast) > 1:
            raise ValueError("anti x (1 + contrast) is over 1: not enough echoes to contrast with")
        return self

    def items(self, given: Given) -> Iterator[Conversation]:
        """Echo items and anti-echo items without end, word counts in turn."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        words = Words.of(given.split, self.gibberish, given.tokenizer)
        # groups hold 1 + with_anti x contrast items, of which with_anti are not to be echoed
        with_anti = self.anti / (1 - self.anti * self.contrast) if self.anti < 1 else 1.0
        rng = given.rng
        group = 0
        while True:
            count = 1 + group % self.max_words
            group += 1
            language: Language = "de" if rng.random() < self.german else "en"
            payload = words.payload(rng, count, language)
            if rng.random() >= with_anti:
                yield (_echo(given, payload, count, language),)
            elif rng.random() < self.contrast:
                yield (
                    _echo(given, payload, count, language),
                    _anti(given, payload, count, language),
                )
            else:
                yield (_anti(given, payload, count, language),)


def _echo(given: Given, payload: str, count: int, language: Language) -> Conversation:
    phrasing = ECHO[language].draw(given.rng, given.split)
    return conversation(
        phrasing.about(payload),
        operator="ECHO",
        payload=payload,
        template=phrasing.text,
        language=language,
        bucket=f"ECHO x {count}",
        expected=payload,
    )


def _anti(given: Given, payload: str, count: int, language: Language) -> Conversation:
    grammars, answers = (ASKED, UNKNOWN) if given.rng.random() < 0.6 else (FORBIDDEN, REFUSED)
    phrasing = draw(grammars, given.rng, given.split, float(language == "de"))
    return conversation(
        phrasing.about(payload),
        operator="ANTI",
        payload=payload,
        template=phrasing.text,
        language=language,
        bucket=f"ANTI x {count}",
        expected=answers[language],
    )
