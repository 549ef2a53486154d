"""COPY X -> X; WRAP X -> [X]; EXTRACT: a text with one marked part -> that part.

One payload goes through all three operators in turn, so that only the instruction decides what
becomes of it. Payloads have 1 to 4 words, each count equally often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from matura.core.errors import RecipeError
from matura.core.types import Conversation, Given
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import BARE, BARE_FIRST, DELIMITERS, Grammar
from matura.lessons.words import Gibberish, Language, Words

OPERATORS = ("COPY", "WRAP", "EXTRACT")

_QUOTED = (BARE, BARE, BARE, *DELIMITERS)
_POLITE = ("", "", "", "", "please ", "now ", "just ", "you must ")
_POLITE_DE = ("", "", "bitte ", "nun ", "jetzt ", "also ")
_GAP = (": ", ": ", ":\n", " - ", "\n", " ")

_COPY_EN = Grammar(
    "en",
    [
        "<polite><verb>: <quoted>",
        "<polite><verb> <quoted>",
        "<polite><verb> <object><gap><quoted>",
        "<polite><verb> <object>, <manner>: <quoted>",
        "<quoted> - <polite><verb> <pointer>",
    ],
    {
        "polite": _POLITE,
        "verb": ["copy", "copy out", "copy all of", "copy down", "write out", "clone"],
        "object": ["this", "the following", "this text", "these words", "the text", "the words"],
        "manner": ["exactly", "unchanged", "as it is", "nothing else", "word for word"],
        "pointer": ["this", "that", "it", "this text", "these words"],
        "gap": _GAP,
        "quoted": _QUOTED,
    },
    drilled=[BARE_FIRST],
)
_COPY_DE = Grammar(
    "de",
    [
        "<polite><verb>: <quoted>",
        "<polite><verb> <object><gap><quoted>",
        "<quoted> - <polite><verb> <pointer>",
    ],
    {
        "polite": _POLITE_DE,
        "verb": ["kopiere", "übernimm", "dupliziere", "kopier"],
        "object": ["das", "dies", "diesen Text", "diese Worte", "den Text"],
        "pointer": ["das", "es", "diesen Text", "diese Worte"],
        "gap": _GAP,
        "quoted": _QUOTED,
    },
    drilled=[BARE_FIRST],
)
_WRAP_EN = Grammar(
    "en",
    [
        "<polite><verb>: <quoted>",
        "<polite><verb> <quoted>",
        "<polite><verb> <object><gap><quoted>",
        "<polite><verb> <object> in <brackets><gap><quoted>",
        "<polite>put <brackets> around <object><gap><quoted>",
        "<polite>put <object> in <brackets>: <quoted>",
        "<quoted> - <polite><verb> <pointer>",
        "<quoted> - <polite>put <brackets> around <pointer>",
    ],
    {
        "polite": _POLITE,
        "verb": ["wrap", "bracket", "enclose", "box", "wrap up", "surround"],
        "object": ["this", "the following", "this text", "these words", "the text", "the words"],
        "brackets": ["brackets", "square brackets", "two brackets", "[ ]"],
        "pointer": ["this", "that", "it", "this text", "these words"],
        "gap": _GAP,
        "quoted": _QUOTED,
    },
    drilled=[BARE_FIRST, "{X} - <polite>put <brackets> around <pointer>"],
)
_WRAP_DE = Grammar(
    "de",
    [
        "<polite><verb>: <quoted>",
        "<polite><verb> <object><gap><quoted>",
        "<polite>setze <object> in <brackets>: <quoted>",
        "<quoted> - <polite><verb> <pointer>",
    ],
    {
        "polite": _POLITE_DE,
        "verb": ["klammere", "umrahme", "umschließe"],
        "object": ["das", "dies", "diesen Text", "diese Worte", "den Text"],
        "brackets": ["Klammern", "eckige Klammern", "[ ]"],
        "pointer": ["das", "es", "diesen Text", "diese Worte"],
        "gap": _GAP,
        "quoted": _QUOTED,
    },
    drilled=[BARE_FIRST],
)
_EXTRACT_EN = Grammar(
    "en",
    [
        "<polite><verb> <part><from><who> <does> <marked> <tail>",
        "<polite><verb> <part><from><marked> <is> <tail>",
        "<polite><verb> <part><from><who> <does> <marked>",
        "<who> <does> <marked> <tail> - <polite><verb> <part>",
        "<marked> <is> <tail> - <polite><verb> <part>",
    ],
    {
        "polite": _POLITE,
        "verb": ["extract", "find", "pull out", "pick out", "take out", "take", "get"],
        "part": [
            "the marked part",
            "the marked text",
            "the marked words",
            "what is marked",
            "the part in marks",
            "the marked bit",
            "the text in marks",
        ],
        "from": [": ", ": ", ":\n", " from: ", " in: ", " of: ", " here: ", "\n"],
        "who": [
            "the sign",
            "my aunt",
            "the old book",
            "this label",
            "her list",
            "a voice",
            "the page",
            "the note",
            "our son",
            "he",
            "she",
            "they",
        ],
        "does": ["says", "shows", "has", "holds", "reads", "calls", "used", "put", "needs"],
        "is": ["was", "is", "stood", "came", "belongs", "stays"],
        "tail": [
            "on the box",
            "at noon",
            "for us",
            "in use",
            "in the hall",
            "again",
            "for me",
            "as text",
            "at the end",
            "as a name",
        ],
        "marked": DELIMITERS,
    },
)
_EXTRACT_DE = Grammar(
    "de",
    [
        "<polite><verb> <part><from><who> <does> <marked> <tail>",
        "<who> <does> <marked> <tail> - <polite><verb> <part>",
    ],
    {
        "polite": _POLITE_DE,
        "verb": ["finde", "entnimm", "hole", "extrahiere"],
        "part": ["den markierten Teil", "den markierten Text", "die markierten Worte"],
        "from": [": ", ":\n", " aus: ", " hier: "],
        "who": ["das Schild", "der Brief", "mein Onkel", "das Buch", "sie", "er"],
        "does": ["sagt", "zeigt", "hat", "nennt", "braucht"],
        "tail": ["im Haus", "am Ende", "für uns", "auf der Seite", "noch einmal"],
        "marked": DELIMITERS,
    },
)

GRAMMARS: dict[str, dict[Language, Grammar]] = {
    "COPY": {"en": _COPY_EN, "de": _COPY_DE},
    "WRAP": {"en": _WRAP_EN, "de": _WRAP_DE},
    "EXTRACT": {"en": _EXTRACT_EN, "de": _EXTRACT_DE},
}


def _rearranged(grammar: Grammar, patterns: Sequence[str]) -> Grammar:
    """Training's own parts in other patterns, payloads marked where nothing else ends them."""
    return Grammar(grammar.language, patterns, {"marked": DELIMITERS, **grammar.slots})


NOVEL: dict[str, dict[Language, Grammar]] = {
    "COPY": {
        "en": _rearranged(
            _COPY_EN,
            [
                "<manner>, <polite><verb> <object>: <quoted>",
                "<quoted>\n\n<polite><verb> <object>, <manner>",
                "<object>: <quoted> - <polite><verb> <pointer>",
                "<polite><verb> <marked>, <manner>",
                "<polite><verb> <pointer>, <manner>:\n\n<quoted>",
            ],
        ),
        "de": _rearranged(
            _COPY_DE,
            [
                "<quoted>\n\n<polite><verb> <object>",
                "<object>: <quoted> - <polite><verb> <pointer>",
                "<polite><verb> <pointer>:\n\n<quoted>",
            ],
        ),
    },
    "WRAP": {
        "en": _rearranged(
            _WRAP_EN,
            [
                "in <brackets>, <polite>put <object>: <quoted>",
                "<quoted>\n\n<polite>put <pointer> in <brackets>",
                "<object>: <quoted> - <polite>put <pointer> in <brackets>",
                "around <object><gap><quoted> - <polite>put <brackets>",
                "<polite><verb> <marked> in <brackets>",
            ],
        ),
        "de": _rearranged(
            _WRAP_DE,
            [
                "<quoted>\n\n<polite><verb> <object>",
                "in <brackets> <polite>setze <object>: <quoted>",
                "<object>: <quoted> - <polite><verb> <pointer>",
            ],
        ),
    },
    "EXTRACT": {
        "en": _rearranged(
            _EXTRACT_EN,
            [
                "<who> <does> <marked> <tail>\n\n<polite><verb> <part>",
                "<part><from><who> <does> <marked> <tail> - <polite><verb> it",
                "<polite><verb> <part><from><tail>, <who> <does> <marked>",
                "<tail>, <who> <does> <marked> - <polite><verb> <part>",
            ],
        ),
        "de": _rearranged(
            _EXTRACT_DE,
            [
                "<who> <does> <marked> <tail>\n\n<polite><verb> <part>",
                "<part><from><who> <does> <marked> - <polite><verb> das",
            ],
        ),
    },
}
"""Patterns that training never composes, of parts that it does: whoever learnt the patterns by
heart fails here."""


class Operators(Lesson):
    """Three things to do with a text, told apart by the instruction alone."""

    presets: ClassVar[Mapping[str, int]] = {"least": 5_000, "usual": 9_000, "most": 16_500}
    """The three sizes that MyPT tried."""

    kind: Literal["operators"] = "operators"
    gibberish: Gibberish = "include"
    max_words: int = Field(default=4, ge=1, le=8)
    """Payloads have 1 to this many words, each equally often."""
    patterns: Literal["usual", "novel"] = "usual"
    """`novel` words an exam in patterns that training never has; it is refused in training."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """One payload after the other, each under all three operators; word counts in turn.

        Raises:
            RecipeError: novel patterns are asked for in training.
        """
        if self.patterns == "novel" and given.split == "train":
            raise RecipeError("operators: patterns that are trained on are not novel any more")
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        words = Words.of(given.split, self.gibberish, given.tokenizer)
        # validation, by which checkpoints are chosen, keeps to training's wordings
        novel = self.patterns == "novel" and given.split == "exam"
        grammars = NOVEL if novel else GRAMMARS
        group = 0
        while True:
            count = 1 + group % self.max_words
            group += 1
            language: Language = "de" if given.rng.random() < self.german else "en"
            payload = words.payload(given.rng, count, language)
            yield tuple(
                _item(given, operator, grammars[operator], payload, count, language)
                for operator in OPERATORS
            )


def _item(
    given: Given,
    operator: str,
    grammars: Mapping[Language, Grammar],
    payload: str,
    count: int,
    language: Language,
) -> Conversation:
    phrasing = grammars[language].draw(given.rng, given.split)
    return conversation(
        phrasing.about(payload),
        operator=operator,
        payload=payload,
        template=phrasing.text,
        language=language,
        bucket=f"{operator} x {count}",
        expected=f"[{payload}]" if operator == "WRAP" else payload,
    )
