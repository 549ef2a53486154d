"""What requests for tools are about: names, numbers and a text of one split, and what is made of
them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from matura.core.types import Given, Message
from matura.lessons.arithmetic import Sign, Sum
from matura.lessons.tool_requests import DRILLED, RULES, SINGLE
from matura.lessons.tool_steps import Step
from matura.lessons.words import Gibberish, Language, Words, word_split

_LARGEST_FACTOR = 99
_TRIES = 100
_LEAST_NUMBERS = 8
SHORTEST = 3
"""Letters of a name, so that it can be misspelt and still be told from others."""


@dataclass(slots=True)
class Scene:
    """What one contrast group is about: a number, names, and a text in which each name has one."""

    language: Language
    names: list[str]
    numbers: list[int]
    lines: list[str]

    @property
    def name(self) -> str:
        """The name that is asked about."""
        return self.names[0]


@dataclass(slots=True)
class Request:
    """A conversation while it is put together."""

    operator: str
    bucket: str
    template: str
    values: Mapping[str, str | tuple[str, ...]]
    """Of each open place, those of a name that occurs several times in their order."""
    steps: list[Step]
    expected: str
    payload: list[str]
    reads: bool = False
    """Whether it needs the scene's text."""
    before: list[Message] = field(default_factory=list)
    """What was said in earlier turns."""


class Drawn:
    """Draws scenes, sums and wordings of one split."""

    def __init__(
        self, given: Given, *, gibberish: Gibberish, german: float, largest: int, max_lines: int
    ) -> None:
        self.split = given.split
        self.rng = given.rng
        self.german = german
        self.largest = largest
        self.max_lines = max_lines
        self.numbers = [n for n in range(2, largest + 1) if word_split(str(n)) == given.split]
        self.tokenizer = given.tokenizer
        self.words = Words.of(given.split, gibberish, given.tokenizer)

    def scene(self, *, longest: int = 0) -> Scene:
        """Names, numbers and a text, all of this split; with `longest`, a short text of numbers up
        to that, which leaves room for many calls."""
        language: Language = "de" if self.rng.random() < self.german else "en"
        size = 2 if longest else self.rng.randint(2, self.max_lines)
        names = self.some_words(size + 2, language)
        numbers = [self.number(longest) for _ in range(size)]
        # the first two can be asked for together
        numbers[1] = self._partner(numbers[0], ("+",), longest).b
        lines = [f"{name}: {number}" for name, number in zip(names, numbers, strict=False)]
        self.rng.shuffle(lines)
        return Scene(language, names, numbers, lines)

    def some_words(self, count: int, language: Language) -> list[str]:
        """Words that differ in more than case, none of them a number."""
        found: dict[str, str] = {}
        while len(found) < count:
            word = self.words.payload(self.rng, 1, language)
            if len(word) >= SHORTEST and not word.isdigit():
                found.setdefault(word.casefold(), word)
        return list(found.values())

    def number(self, most: int = 0) -> int:
        """A number from 2 whose digits are a word of this split; of one to three digits about
        equally often where nothing is said."""
        most = most or min(self.largest, 10 ** self.rng.randint(1, 4))
        below = bisect_right(self.numbers, most)
        # single digits are few, and in some splits there are none
        return self.rng.choice(self.numbers[: max(below, _LEAST_NUMBERS)])

    def sum_of(self, a: int, *, longest: int = 0) -> Sum:
        """A sum that starts with this number and belongs to this split, among all lessons'."""
        signs: tuple[Sign, ...] = ("+", "-") if longest and a > longest else ("+", "-", "*")
        return self._partner(a, signs, longest)

    def under_other_signs(self, sum_: Sum) -> list[Sum]:
        """Sums of the same two numbers that belong to this split too, in any order."""
        signs: tuple[Sign, ...] = ("+", "-", "*")
        others = [Sum(sum_.a, sign, sum_.b) for sign in signs if sign != sum_.sign]
        fitting = [one for one in others if one.split == self.split and one.value >= 0]
        return self.rng.sample(fitting, len(fitting))

    def _partner(self, a: int, signs: Sequence[Sign], longest: int) -> Sum:
        """What can be done to a number; with little to choose from, larger numbers are tried."""
        for tried in count():
            sign = self.rng.choice(signs)
            b = self.number(_LARGEST_FACTOR if sign == "*" else longest)
            if tried >= _TRIES:
                b = self.rng.randint(2, self.largest * (tried // _TRIES))
            sum_ = Sum(a, sign, b)
            if word_split(str(b)) == self.split == sum_.split and sum_.value >= 0:
                return sum_
        raise AssertionError("numbers do not end")

    def single(self, scene: Scene, kind: str) -> str:
        """A wording of a request that is no chain; in training, drilled ones as well."""
        drilled = DRILLED.get(kind, ()) if self.split == "train" else ()
        return self.wording(scene, (*SINGLE[kind], *drilled))

    def wording(self, scene: Scene, patterns: Sequence[str]) -> str:
        """A wording of this split."""
        return RULES[scene.language].draw(self.rng, self.split, patterns)


def payload_of(values: Mapping[str, str | tuple[str, ...]], names: str = "knmvxj") -> list[str]:
    """The values that are content and not a unit, each belonging to one split."""
    found: list[str] = []
    for name in names:
        value = values.get(name, ())
        found += [value] if isinstance(value, str) else value
    return found
