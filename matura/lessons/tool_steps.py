"""What a call gives, computed without the tool: a lesson never runs what it teaches to use.

Each step is a call and its result, byte for byte as the tool would say it; a test holds the two
together. Numbers and units are computed by the code that the tools use as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matura.core.leaves import did_you_mean
from matura.core.numbers import spell
from matura.core.rng import Rng
from matura.core.types import Message, ToolCall
from matura.core.units import UnitError, convert, nearest_name
from matura.lessons.arithmetic import TOOL as CALCULATOR
from matura.lessons.arithmetic import Sum

CONVERT, NOTES, SEARCH = "convert", "notes", "search"
TOOLS = (CALCULATOR, CONVERT, NOTES, SEARCH)

SHRINKING = (
    *(("km", "m"), ("m", "cm"), ("m", "mm"), ("cm", "mm"), ("kg", "g"), ("g", "mg"), ("t", "kg")),
    *(("h", "min"), ("min", "s"), ("h", "s"), ("d", "h"), ("wk", "d"), ("l", "ml"), ("cl", "ml")),
    *(("kB", "B"), ("MB", "kB"), ("feet", "inches"), ("yards", "feet"), ("km", "metres")),
    *(("hours", "minutes"), ("minutes", "seconds"), ("days", "hours"), ("weeks", "days")),
    *(("metres", "cm"), ("kilograms", "grams"), ("litres", "ml"), ("kilometres", "metres")),
)
"""Pairs of units of which the second is a whole part of the first: results stay whole numbers."""
OTHERS = (
    *((small, large) for large, small in SHRINKING[:5]),
    *(("g", "kg"), ("ml", "l"), ("B", "kB"), ("kg", "t"), ("inches", "cm"), ("feet", "cm")),
    *(("C", "F"), ("C", "K"), ("miles", "km"), ("ounces", "g"), ("pounds", "g"), ("yards", "m")),
    *(("metres", "km"), ("grams", "kg")),
)
"""Pairs whose results are decimals that end, for any whole number."""
CLASHING = (
    *(("km", "kg"), ("m", "s"), ("h", "km"), ("kg", "l"), ("C", "m"), ("ml", "min"), ("g", "cm")),
    *(("days", "metres"), ("litres", "hours"), ("kB", "kg"), ("feet", "grams"), ("cm", "F")),
)
"""Pairs that measure different things."""
MISSPELT = (
    *(("metres", "cm"), ("hours", "min"), ("minutes", "s"), ("grams", "mg"), ("litres", "ml")),
    *(("weeks", "d"), ("kilograms", "g"), ("yards", "feet"), ("miles", "m"), ("inches", "cm")),
    *(("pounds", "g"), ("ounces", "g"), ("seconds", "ms"), ("kilometres", "m"), ("bytes", "kB")),
)
"""Pairs of which the first has a name long enough to be misspelt."""

_PLACE = re.compile(r"\{([a-z])\}")


@dataclass(frozen=True, slots=True)
class Step:
    """One call with its result."""

    call: ToolCall
    result: str
    ok: bool = True

    @property
    def said(self) -> tuple[Message, Message]:
        """As it stands in a conversation."""
        return Message("assistant", calls=(self.call,)), Message("tool", self.result)


def _failed(call: ToolCall, why: str) -> Step:
    return Step(call, f"error: {why}", ok=False)


def calculate(sum_: Sum) -> Step:
    """The calculator's answer to a sum."""
    call = ToolCall(CALCULATOR, {"expression": sum_.expression})
    if sum_.sign == "/" and not sum_.b:
        return _failed(call, "division by zero")
    return Step(call, spell(sum_.value))


def conversion(amount: str, to: str) -> Step:
    """An amount in another unit."""
    call = ToolCall(CONVERT, {"amount": amount, "to": to})
    try:
        return Step(call, convert(amount, to))
    except UnitError as problem:
        return _failed(call, str(problem))


def search(lines: Sequence[str], word: str) -> Step:
    """The one line that begins with the word, or none."""
    call = ToolCall(SEARCH, {"query": word})
    for line in lines:
        if line.partition(":")[0].casefold() == word.casefold():
            return Step(call, line)
    return _failed(call, f"no line has {word!r}")


@dataclass(slots=True)
class Notebook:
    """The notes of one conversation."""

    kept: dict[str, str] = field(default_factory=dict)

    def set(self, name: str, text: str) -> Step:
        """Write a text under a name."""
        self.kept[name] = text
        return Step(ToolCall(NOTES, {"set": name, "to": text}), "ok")

    def get(self, name: str) -> Step:
        """The text under a name, if there is one."""
        call = ToolCall(NOTES, {"get": name})
        if name in self.kept:
            return Step(call, self.kept[name])
        if not self.kept:
            return _failed(call, f"no note {name!r}: there are no notes")
        return _failed(call, f"no note {name!r}{did_you_mean(name, self.kept)}")

    def list(self) -> Step:
        """The names there are."""
        return Step(ToolCall(NOTES, {"list": "all"}), ", ".join(self.kept) or "no notes")


def misspelt(rng: Rng, word: str) -> str:
    """The word with one letter left out, doubled or put before its neighbour, its first letter and
    its end kept."""
    while True:
        at = rng.randrange(1, len(word) - 1)
        left, right = word[:at], word[at + 1 :]
        wrong = rng.choice(
            (left + right, left + word[at] * 2 + right, left + right[:1] + word[at] + right[1:])
        )
        if wrong != word:
            return wrong


def misspelt_unit(rng: Rng, name: str) -> str:
    """A misspelling of a unit's name after which the tool's own guess is the name."""
    while True:
        wrong = misspelt(rng, name)
        if nearest_name(wrong) == name and f"{name!r}?" in conversion(f"1 {wrong}", "m").result:
            return wrong


def filled(template: str, values: Mapping[str, str | tuple[str, ...]]) -> str:
    """A wording with its values in place, several of one name in their order; a value is never
    filled in again."""
    left = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}

    def fill(found: re.Match[str]) -> str:
        value = values[found[1]]
        return value if isinstance(value, str) else left[found[1]].pop(0)

    return _PLACE.sub(fill, template)
