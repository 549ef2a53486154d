"""Exact short answers that stop: `Say hello.` -> `hello.`, with the case kept, in English and
German.

One rule carries over to words never seen: what follows is said exactly as it stands, its full stop
included. Only that rule is examined. The questions with fixed answers (greetings, days, opposites
...) are learnt by heart; they are training only, and there to show that not every short request is
to be copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from matura.core.rng import Rng
from matura.core.types import Conversation, Given
from matura.lessons.arithmetic import Sum
from matura.lessons.facts import FULL, MINIMAL, Fact
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import Grammar, draw
from matura.lessons.words import Gibberish, Language, Words

GRAMMARS: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><verb><object><colon> {X}.",
            "<polite><verb><object>, <manner>: {X}.",
            "<polite><verb><object><colon> {X}.",
            "<opening>: <verb><object><colon> {X}.",
        ],
        {
            # plain wordings are what people type, so the empty filler is drawn more often
            "polite": [
                *("", "", "", "please ", "now ", "just ", "please just ", "only "),
                *("simply ", "kindly ", "then ", "okay, ", "so, ", "next, ", "now please "),
            ],
            "opening": ["your task", "task", "now", "quick", "next", "one more"],
            "verb": [
                "say",
                "answer",
                "answer with",
                "reply",
                "reply with",
                "respond with",
                "write",
                "tell me",
                "give me",
                "output",
            ],
            "object": [
                *("", "", "", "", " this", " exactly", " exactly this", " only", " only this"),
                *(" the following", " these words", " just this"),
            ],
            "manner": ["nothing else", "no more", "exactly so", "and stop", "then stop"],
            "colon": ["", ":"],
        },
    ),
    "de": Grammar(
        "de",
        [
            "<polite><verb><object><colon> {X}.",
            "<opening>: <verb><object><colon> {X}.",
        ],
        {
            "polite": ["", "", "bitte ", "nun ", "jetzt ", "also ", "los, ", "dann ", "nun bitte "],
            "opening": ["deine Aufgabe", "Aufgabe", "nun", "weiter", "noch etwas"],
            "verb": ["sag", "sage", "antworte", "antworte mit", "schreib", "schreibe", "gib"],
            "object": ["", "", " nur", " genau", " einfach", " genau das", " nur das"],
            "colon": ["", ":"],
        },
    ),
}

_OPENINGS: dict[Language, tuple[str, ...]] = {
    "en": ("", "Question: ", "Please answer: ", "Tell me: ", "Quick: ", "So, "),
    "de": ("", "Frage: ", "Bitte antworte: ", "Sag mir: ", "Schnell: ", "Also, "),
}
# worded and split like the sums of `arithmetic`, whose exams must not have been seen here
_SUMS = Grammar(
    "en",
    ["<opening><ask> {X}?", "<opening>{X} = ?", "<opening><add> {X}."],
    {
        "opening": ["", "question: ", "please answer: ", "tell me: ", "quick: ", "so, "],
        "ask": ["what is", "how much is"],
        "add": ["give me", "answer"],
    },
)
_WRITTEN = ("{a}+{b}", "{a} + {b}", "{a} plus {b}", "the sum of {a} and {b}")
_SUMS_UP_TO: dict[str, int] = {"include": 50, "only": 50, "minimal": 10}
_SUMS_SHARE: dict[str, float] = {"include": 0.15, "exclude": 0.0, "only": 1.0, "minimal": 0.05}


class FormatLock(Lesson):
    """Say exactly what is asked for and stop."""

    presets: ClassVar[Mapping[str, int]] = {"run1": 500, "alpha": 1_000, "3a2": 11_000}
    """Run1 and alpha are meant with `mode: minimal` and `math: exclude`, 3a2 with `mode: full` and
    `math: include`."""

    kind: Literal["format_lock"] = "format_lock"
    mode: Literal["minimal", "full"] = "minimal"
    """`minimal`: greetings, yes and no, days, numbers to 20, opposites, colours. `full` adds
    general knowledge."""
    math: Literal["include", "exclude", "only", "minimal"] = "exclude"
    """Whether sums of numbers up to 50 are answered by heart (`minimal`: a few, up to 10); a lesson
    with a calculator contradicts that."""
    gibberish: Gibberish = "include"
    facts: float = Field(default=0.1, ge=0.0, le=0.9)
    """Share of questions with fixed answers in training."""
    max_words: int = Field(default=3, ge=1, le=8)

    def items(self, given: Given) -> Iterator[Conversation]:
        """Sayings without end; in training, questions with fixed answers among them."""
        known = MINIMAL + (FULL if self.mode == "full" else ())
        sayings = unrepeated((item,) for item in self._sayings(given))
        while True:
            if given.split == "train":
                share = _SUMS_SHARE[self.math]
                # nothing is drawn at 0, nor at 1: the items of earlier runs stay as they were
                if share == 1 or (share > 0 and given.rng.random() < share):
                    yield _sum(given.rng, _SUMS_UP_TO[self.math])
                    continue
                if given.rng.random() < self.facts:
                    yield _fact(given.rng.choice(known), given.rng)
                    continue
            saying = next(sayings, None)
            if saying is None:
                return
            yield saying

    def _sayings(self, given: Given) -> Iterator[Conversation]:
        words = Words.of(given.split, self.gibberish, given.tokenizer)
        while True:
            phrasing = draw(GRAMMARS, given.rng, given.split, self.german)
            count = given.rng.randint(1, self.max_words)
            payload = words.payload(given.rng, count, phrasing.language)
            yield conversation(
                phrasing.about(payload),
                operator="SAY",
                payload=payload,
                template=phrasing.text,
                language=phrasing.language,
                expected=f"{payload}.",
            )


def _fact(fact: Fact, rng: Rng) -> Conversation:
    opening = rng.choice(_OPENINGS[fact.language])
    return conversation(
        opening + fact.question,
        operator="FACT",
        payload=fact.question,
        template=opening + "{X}",
        language=fact.language,
        expected=fact.answer,
    )


def _sum(rng: Rng, up_to: int) -> Conversation:
    a, b = rng.randint(0, up_to), rng.randint(0, up_to)
    while Sum(a, "+", b).split != "train":
        a, b = rng.randint(0, up_to), rng.randint(0, up_to)
    template = _SUMS.draw(rng, "train").about(rng.choice(_WRITTEN))
    return conversation(
        template.format(a=a, b=b),
        operator="SUM",
        payload=f"{a}+{b}",
        template=template,
        language="en",
        expected=f"{a + b}.",
    )
