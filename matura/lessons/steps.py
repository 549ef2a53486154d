"""Orders of several steps, worded and carried out: what `tasks` asks in its first kind.

A program starts by taking something out of a text (its marked words, or a line) and then changes
what it has so far, or it copies lines in an order of its own. Its steps are carried out here, so
the answer to any program is known; the wording is composed step by step, and belongs to training or
to exams as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from matura.core.rng import Rng
from matura.core.types import Split
from matura.lessons.operators import GRAMMARS
from matura.lessons.phrasing import Grammar
from matura.lessons.words import Language, Words

Step = Literal["MARKED", "LINE", "NEXT", "WRAP", "TWICE", "ADD"]
STARTS: tuple[Step, ...] = ("MARKED", "LINE", "NEXT")
"""How a program starts; `NEXT` is one that copies lines and nothing else."""
CHANGES: tuple[Step, ...] = ("WRAP", "TWICE", "ADD")
_POOL = 6
"""Words that one program is made of: four lines and one to spare, and one to add."""

_GAP = (": ", ": ", ":\n", "\n", " - ", " here: ")
_GAP_DE = (": ", ":\n", "\n", " - ", " hier: ")
_POLITE = ("", "", "", "", "please ", "now ", "just ", "you must ")
_POLITE_DE = ("", "", "bitte ", "nun ", "jetzt ", "also ")


def _pairs(firsts: str, seconds: str) -> tuple[str, ...]:
    """Every first with every second; each is given as one text with `|` between."""
    return tuple(f"{a} {b}" for a in firsts.split("|") for b in seconds.split("|"))


SLOTS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "polite": _POLITE,
        "first": ("first ", "first ", "first of all ", "", "to begin with, "),
        "then": ("then", "then", "and then", "after that", "next"),
        "gap": _GAP,
        "break": (":\n", "\n"),
        "MARKED": _pairs(
            "find|take|pick out|get|extract|take out",
            "the marked words|the marked part|the marked text|what is marked",
        ),
        "LINE": _pairs("take|copy|find|get|pick|pick out", "line {K}"),
        "NEXT": ("line {K}", "line {K}", "copy line {K}", "take line {K}"),
        "WRAP": (
            *_pairs("put it in|wrap it in|set it in", "brackets|square brackets|[ ]"),
            *_pairs("put", "brackets around it|[ ] around it|square brackets around it"),
        ),
        "TWICE": _pairs("write it|say it|type it|print it|give it", "twice|two times"),
        "ADD": (
            *("add {Y}", "add {Y} at the end", "add {Y} to it", "add the word {Y}"),
            *("put {Y} after it", "write {Y} after it", "put {Y} at the end"),
        ),
    },
    "de": {
        "polite": _POLITE_DE,
        "first": ("zuerst: ", "erst: ", "", "als Erstes: "),
        "then": ("dann", "und dann", "danach"),
        "gap": _GAP_DE,
        "break": (":\n", "\n"),
        "MARKED": _pairs(
            "finde|nimm|hole|entnimm",
            "den markierten Teil|den markierten Text|die markierten Worte",
        ),
        "LINE": _pairs("nimm|kopiere|finde|hole", "Zeile {K}"),
        "NEXT": ("Zeile {K}", "kopiere Zeile {K}", "nimm Zeile {K}"),
        "WRAP": _pairs("setze das in|setze alles in", "Klammern|eckige Klammern|[ ]"),
        "TWICE": _pairs("schreibe das|schreib das|gib das|tippe das", "zweimal|doppelt"),
        "ADD": (
            "setze {Y} dahinter",
            "schreibe {Y} dahinter",
            "ergänze {Y}",
            "ergänze das Wort {Y}",
        ),
    },
}


NUMBERED: dict[Language, tuple[str, str]] = {"en": ("step", "task"), "de": ("Schritt", "Aufgabe")}
"""What steps are called that have a number: one word in the whole of a wording."""


@dataclass(frozen=True, slots=True)
class Order:
    """A program over its words: what is asked, and what comes of it."""

    text: str
    template: str
    """The wording with `{X}` for what is worked on, `{K}` for lines and `{Y}` for a word."""
    words: str
    answer: str
    program: tuple[Step, ...]
    shown: tuple[str, ...]
    """The lines, or the marked words."""

    @property
    def marked(self) -> bool:
        """Whether it takes what is marked, and not lines."""
        return self.program[0] == "MARKED"


def material(rng: Rng, words: Words, language: Language) -> tuple[str, ...]:
    """Different words, enough for any program: those a contrast is made of."""
    made: dict[str, str] = {}
    while len(made) < _POOL:
        for word in words.payload(rng, 3, language).split(" "):
            made.setdefault(word.casefold(), word)
    return tuple(made.values())[:_POOL]


def draw(
    rng: Rng,
    split: Split,
    pool: tuple[str, ...],
    count: int,
    language: Language,
    *,
    numbered: bool = False,
) -> Order:
    """A program of `count` steps over words of the pool, in a wording of that split; `numbered` are
    its lines."""
    start = rng.choice(STARTS)
    program = _program(rng, start, count)
    template = _grammar(program, language).draw(rng, split).text
    extra, *rest = rng.sample(pool, len(pool))
    asked = program.count("LINE") + program.count("NEXT")
    fewest, most = (1, 3) if start == "MARKED" else (max(2, asked), max(3, asked))
    shown = tuple(rest[: rng.randint(fewest, most)])
    return _carried_out(rng, program, template, shown, extra, numbered=numbered)


def again(rng: Rng, split: Split, before: Order, extra: str, language: Language) -> Order:
    """Another program, of at most as many steps, over what an earlier turn has shown."""
    starts: tuple[Step, ...] = ("MARKED",) if before.marked else ("LINE", "NEXT")
    start = rng.choice(starts)
    most = len(before.program)
    program = _program(rng, start, min(most, len(before.shown)) if start == "NEXT" else most)
    template = _grammar(program, language, shown=True).draw(rng, split).text
    return _carried_out(rng, program, template, before.shown, extra)


def _program(rng: Rng, start: Step, count: int) -> tuple[Step, ...]:
    if start == "NEXT":
        rest: list[Step] = ["NEXT"] * (count - 1)
        return ("LINE", *rest)
    return (start, *rng.sample(CHANGES, count - 1))


def _carried_out(
    rng: Rng,
    program: tuple[Step, ...],
    template: str,
    shown: tuple[str, ...],
    extra: str,
    *,
    numbered: bool = False,
) -> Order:
    marked = program[0] == "MARKED"
    asked = program.count("LINE") + program.count("NEXT")
    numbers = [] if marked else rng.sample(range(1, len(shown) + 1), asked)
    have = " ".join(shown) if marked else "\n".join(shown[number - 1] for number in numbers)
    for step in program:
        have = _changed(have, step, extra)
    used = [*shown, *([extra] if "ADD" in program else [])]
    asks = template.replace("{Y}", extra)
    for number in numbers:
        asks = asks.replace("{K}", str(number), 1)
    lines = [f"{place}. {line}" for place, line in enumerate(shown, 1)] if numbered else shown
    text = " ".join(shown) if marked else "\n".join(lines)
    return Order(asks.replace("{X}", text), template, " ".join(used), have, program, shown)


def _changed(have: str, step: Step, extra: str) -> str:
    match step:
        case "WRAP":
            return f"[{have}]"
        case "TWICE":
            return f"{have} {have}"
        case "ADD":
            return f"{have} {extra}"
    return have


@cache
def _grammar(program: tuple[Step, ...], language: Language, *, shown: bool = False) -> Grammar:
    """All wordings of a program: its steps in a row, numbered or not, before or after the text, or
    without a text that an earlier turn has shown."""
    steps = [f"<{step}>" for step in program]
    row = steps[0] + "".join(f", <then> {step}" for step in steps[1:])
    numbered = [
        "; ".join(f"{word} {place}: {step}" for place, step in enumerate(steps, start=1))
        for word in NUMBERED[language]
    ]
    slots = SLOTS[language] | {
        name: GRAMMARS["EXTRACT"][language].slots[name]
        for name in ("who", "does", "tail", "marked")
    }
    if shown:
        return Grammar(language, [f"<polite><first>{row}", *numbered], slots)
    marked = program[0] == "MARKED"
    text, gap = ("<who> <does> <marked> <tail>", "<gap>") if marked else ("{X}", "<break>")
    after = f"{text}\n<polite><first>{row}"
    return Grammar(
        language,
        [
            *(f"<polite><first>{row}{gap}{text}",) * 3,
            *(f"{order}{gap}{text}" for order in numbered),
            after,
        ],
        slots,
        drilled=[after, after],
    )
