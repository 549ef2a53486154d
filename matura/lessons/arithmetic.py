"""When to call the calculator, what to hand it, and to say its result and nothing else.

In a contrast group one sum is asked for both ways: `Work out 12+5` goes through the calculator,
`Copy 12+5` is answered directly. A sum and not its numbers decides the split: an exam's sums never
occur in training in any form.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, NamedTuple

from pydantic import Field

from matura.core.numbers import spell
from matura.core.rng import Rng
from matura.core.types import Conversation, Given, Message, Split, ToolCall
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import BARE, DELIMITERS, Grammar
from matura.lessons.words import Language, split_of

TOOL = "calculator"
Sign = Literal["+", "-", "*", "/"]
SIGNS: tuple[Sign, ...] = ("+", "-", "*", "/")

_QUOTED = (BARE, BARE, BARE, *DELIMITERS)
_POLITE = ("", "", "", "", "please ", "now ", "just ", "you must ")
_OPENING = ("", "", "please, ", "now, ", "so, ", "quick: ", "question: ", "tell me, ")
_POLITE_DE = ("", "", "bitte ", "nun ", "jetzt ", "also ")

WORK_OUT: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><verb> {X}",
            "<polite><verb><colon> <quoted>",
            "<polite><verb> <object>: <quoted>",
            "<opening><ask> {X}?",
            "<opening>{X} <is>?",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": _POLITE,
            "verb": ["work out", "calculate", "compute", "solve", "evaluate", "figure out"],
            "object": ["this", "the sum", "the following", "this sum", "the answer to"],
            "pointer": ["this", "that", "it", "this sum"],
            "opening": _OPENING,
            "ask": ["what is", "how much is", "what do you get for", "what's", "what comes of"],
            "is": ["is what", "is how much", "gives what", "equals what", "makes what"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
    ),
    "de": Grammar(
        "de",
        [
            "<polite><verb> {X}",
            "<polite><verb><colon> <quoted>",
            "<opening><ask> {X}?",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": _POLITE_DE,
            "verb": ["berechne", "rechne", "löse", "ermittle"],
            "pointer": ["das", "es", "diese Summe"],
            "opening": ["", "", "bitte, ", "nun, ", "also, ", "Frage: "],
            "ask": ["was ist", "wie viel ist", "was ergibt", "wie viel macht"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
    ),
}

LEAVE: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><verb> <quoted>",
            "<polite><verb>: <quoted>",
            "<polite><verb> <object>: <quoted>",
            "<polite><verb> <quoted> <without>",
            "<without>, <polite><verb>: <quoted>",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": _POLITE,
            "verb": ["copy", "write", "repeat", "type", "print", "echo", "copy out", "say"],
            "object": ["this", "the sum", "the following", "this sum", "this text"],
            "pointer": ["this", "that", "it", "this sum"],
            "without": [
                "without working it out",
                "without solving it",
                "without the answer",
                "without a calculator",
                "but do not work it out",
                "as it is",
                "unchanged",
            ],
            "quoted": _QUOTED,
        },
    ),
    "de": Grammar(
        "de",
        [
            "<polite><verb> <quoted>",
            "<polite><verb>: <quoted>",
            "<polite><verb> <quoted> <without>",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": _POLITE_DE,
            "verb": ["kopiere", "schreib", "schreibe", "wiederhole", "tippe", "sag"],
            "pointer": ["das", "es", "diese Summe"],
            "without": ["ohne es zu lösen", "ohne zu rechnen", "ohne Ergebnis", "unverändert"],
            "quoted": _QUOTED,
        },
    ),
}

_WORDED: dict[Language, dict[Sign, tuple[str, ...]]] = {
    "en": {
        "+": ("{a} plus {b}", "{a} and {b} together", "the sum of {a} and {b}"),
        "-": ("{a} minus {b}", "{a} less {b}", "the difference of {a} and {b}"),
        "*": ("{a} times {b}", "{a} multiplied by {b}", "the product of {a} and {b}"),
        "/": ("{a} divided by {b}", "{a} over {b}", "the quotient of {a} and {b}"),
    },
    "de": {
        "+": ("{a} plus {b}", "die Summe aus {a} und {b}"),
        "-": ("{a} minus {b}", "die Differenz aus {a} und {b}"),
        "*": ("{a} mal {b}", "das Produkt aus {a} und {b}"),
        "/": ("{a} durch {b}", "{a} geteilt durch {b}"),
    },
}

# "add 12 to 5" is 12+5 and "subtract 5 from 12" is 12-5: the sum is written before it is said
_TOLD: dict[Sign, Grammar] = {
    "+": Grammar(
        "en",
        ["<polite><verb> {a} <to> {b}", "<opening><verb> {a} <to> {b} <end>"],
        {
            "polite": _POLITE,
            "opening": _OPENING,
            "verb": ["add", "add up"],
            "to": ["to", "and", "with"],
            "end": ["for me", "at once", "please", "quickly", "and tell me"],
        },
    ),
    "-": Grammar(
        "en",
        ["<polite><verb> {b} from {a}", "<opening><verb> {b} from {a} <end>"],
        {
            "polite": _POLITE,
            "opening": _OPENING,
            "verb": ["subtract", "take", "take away", "deduct"],
            "end": ["for me", "at once", "please", "quickly", "and tell me"],
        },
    ),
    "*": Grammar(
        "en",
        ["<polite>multiply {a} <by> {b}", "<opening>multiply {a} <by> {b} <end>"],
        {
            "polite": _POLITE,
            "opening": _OPENING,
            "by": ["by", "with", "and"],
            "end": ["for me", "at once", "please", "quickly", "and tell me"],
        },
    ),
    "/": Grammar(
        "en",
        ["<polite><verb> {a} by {b}", "<opening><verb> {a} by {b} <end>"],
        {
            "polite": _POLITE,
            "opening": _OPENING,
            "verb": ["divide", "split"],
            "end": ["for me", "at once", "please", "quickly", "and tell me"],
        },
    ),
}


class Sum(NamedTuple):
    """Two numbers and what is done to them."""

    a: int
    sign: Sign
    b: int

    @property
    def expression(self) -> str:
        """As the calculator takes it."""
        return f"{self.a}{self.sign}{self.b}"

    @property
    def value(self) -> Fraction:
        """What it comes to, exactly."""
        match self.sign:
            case "+":
                return Fraction(self.a + self.b)
            case "-":
                return Fraction(self.a - self.b)
            case "*":
                return Fraction(self.a * self.b)
        return Fraction(self.a, self.b)

    @property
    def split(self) -> Split:
        """Decided by the sum alone, whatever order or words it is asked in."""
        ordered = sorted((self.a, self.b)) if self.sign in "+*" else [self.a, self.b]
        return split_of(f"{ordered[0]}{self.sign}{ordered[1]}", "sum")


class Arithmetic(Lesson):
    """Sums for the calculator, and sums that are to be left alone."""

    kind: Literal["arithmetic"] = "arithmetic"
    direct: float = Field(default=0.4, ge=0.0, le=1.0)
    """Share of items to be answered without the calculator; each takes up the sum of the item
    before."""
    contrast: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of training's sums whose two numbers come under all four signs, so that only the sign
    tells what to do: else its size is a hint that a small model prefers to the word."""
    largest: int = Field(default=999, ge=20)
    """Numbers go up to this in + and -; products and divisions have one number up to 12."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """Sums without end, the four signs in turn."""
        return unrepeated(self._groups(given))

    def _sums(self, given: Given) -> Iterator[Sum]:
        rng = given.rng
        while True:
            if given.split == "train" and rng.random() < self.contrast:
                a, _, b = self._sum(rng, "/", "train")
                yield from (sum_ for sign in SIGNS if (sum_ := Sum(a, sign, b)).split == "train")
            else:
                yield from (self._sum(rng, sign, given.split) for sign in SIGNS)

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        owed = 0.0
        for sum_ in self._sums(given):
            if self.direct == 1.0:
                yield (_left(given, sum_, self.german),)
                continue
            # the running account of direct items keeps every stretch at the share asked for
            owed += self.direct / (1 - self.direct)
            lefts = tuple(_left(given, sum_, self.german) for _ in range(int(owed)))
            owed -= len(lefts)
            if len({item.id for item in lefts}) == len(lefts):
                yield (_worked_out(given, sum_, self.german), *lefts)

    def _sum(self, rng: Rng, sign: Sign, split: Split) -> Sum:
        while True:
            big = 10 ** rng.randint(1, len(str(self.largest)))
            a = rng.randint(0, min(big - 1, self.largest))
            match sign:
                case "+":
                    sum_ = Sum(a, sign, rng.randint(0, self.largest if a < 10 else max(a, 9)))
                case "-":
                    sum_ = Sum(a, sign, rng.randint(0, a if rng.random() < 0.9 else self.largest))
                case "*":
                    sum_ = Sum(a, sign, rng.randint(2, 12))
                case "/":
                    b = rng.randint(2, 12)
                    sum_ = Sum(a * b, sign, b)
            if sum_.split == split:
                return sum_


def _language(rng: Rng, german: float) -> Language:
    return "de" if rng.random() < german else "en"


def _written(given: Given, sum_: Sum, language: Language) -> str:
    """A pattern of the sum in signs or words, with `{a}` and `{b}`.

    Words and spaces are drilled: `7*8` is only to be copied, `7 * 8` and `7 times 8` are not.
    """
    rng = given.rng
    tight, spaced = (0.2, 0.5) if given.split == "train" else (0.45, 0.65)
    style = rng.random()
    if style < tight:
        return f"{{a}}{sum_.sign}{{b}}"
    if style < spaced:
        return f"{{a}} {sum_.sign} {{b}}"
    return rng.choice(_WORDED[language][sum_.sign])


def _fill(pattern: str, sum_: Sum) -> str:
    return pattern.replace("{a}", str(sum_.a)).replace("{b}", str(sum_.b))


def _worked_out(given: Given, sum_: Sum, german: float) -> Conversation:
    rng = given.rng
    language = _language(rng, german)
    if language == "en" and rng.random() < 0.2:
        template = _TOLD[sum_.sign].draw(rng, given.split).text
    else:
        written = _written(given, sum_, language)
        template = WORK_OUT[language].draw(rng, given.split).about(written)
    result = spell(sum_.value)
    return conversation(
        _fill(template, sum_),
        Message("assistant", calls=(ToolCall(TOOL, {"expression": sum_.expression}),)),
        Message("tool", result),
        Message("assistant", result),
        operator="TOOL",
        payload=sum_.expression,
        template=template,
        language=language,
        bucket="tool",
        expected=result,
        extra={"expression": sum_.expression},
    )


def _left(given: Given, sum_: Sum, german: float) -> Conversation:
    language = _language(given.rng, german)
    written = _written(given, sum_, language)
    phrasing = LEAVE[language].draw(given.rng, given.split)
    return conversation(
        _fill(phrasing.about(written), sum_),
        operator="DIRECT",
        payload=sum_.expression,
        template=phrasing.about(written),
        language=language,
        bucket="direct",
        expected=_fill(written, sum_),
    )
