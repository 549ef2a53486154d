"""How an instruction is worded: composed from slots, so that there are hundreds to millions of
wordings of one task.

A wording belongs to training or to exams by a hash of the whole wording with its payload slot
`{X}`. So an exam's wording never occurs in training, while each of its parts (verb, object,
delimiter, order) does, in other company. What an exam on such wordings shows is that the parts were
understood, not that foreign words were guessed; with 4 to 6 fixed wordings for each operator a
model of this size learned the wordings and scored 0.00 on an unseen one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from matura.core.rng import Rng, fraction
from matura.core.types import Split
from matura.lessons.words import Language

PAYLOAD = "{X}"
_EXAM_FROM = 0.80
_LOWER_START = 0.15
_SLOT = re.compile(r"<(\w+)>")
_SHOWN = re.compile(r"\{X\}(\s|<gap>)")

DELIMITERS = ('"{X}"', "'{X}'", "`{X}`", "|{X}|", "{{X}}", "<{X}>", "({X})", "*{X}*")
BARE = "{X}"
BARE_FIRST = "{X} - <polite><verb> <pointer>"
"""A pattern to drill: where nothing marks the payload's first word, a small model long guesses."""


@dataclass(frozen=True, slots=True)
class Phrasing:
    """One wording, with `{X}` where the payload goes."""

    text: str
    language: Language

    def about(self, payload: str) -> str:
        """The wording with that payload in it."""
        return self.text.replace(PAYLOAD, payload)


def is_for_exam(wording: str) -> bool:
    """Whether a wording is kept out of training and validation, in every lesson and case: a fifth
    are."""
    return fraction(wording.casefold(), "phrasing") >= _EXAM_FROM


class Grammar:
    """All wordings of one task in one language: patterns whose `<slot>` parts are filled
    independently."""

    def __init__(
        self,
        language: Language,
        patterns: Sequence[str],
        slots: Mapping[str, Sequence[str]],
        *,
        drilled: Sequence[str] = (),
    ) -> None:
        """`drilled` are patterns, or special cases of them, that training draws as well: those
        that are learnt last."""
        self.language = language
        self.patterns = tuple(patterns)
        self.slots = {name: tuple(fillers) for name, fillers in slots.items()}
        # odd places are slot names, even places literal text
        self._parts = tuple(tuple(_SLOT.split(pattern)) for pattern in self.patterns)
        self._drilled = self._parts + tuple(tuple(_SLOT.split(pattern)) for pattern in drilled)

    @property
    def size(self) -> int:
        """How many different wordings there are. A filler listed twice is only drawn more often."""
        return sum(
            math.prod(len(set(self.slots[name])) for name in parts[1::2])
            for parts in set(self._parts)
        )

    @cached_property
    def going_on(self) -> Grammar:
        """The wordings that come after the payload, without it: for a payload of an earlier
        turn."""
        after = (_SHOWN.sub("", pattern) for pattern in self.patterns if _SHOWN.match(pattern))
        return Grammar(self.language, tuple(dict.fromkeys(after)), self.slots)

    def draw(self, rng: Rng, split: Split) -> Phrasing:
        """A wording of that split; validation shares training's wordings."""
        while True:
            parts = rng.choice(self._drilled if split == "train" else self._parts)
            text = "".join(
                rng.choice(self.slots[part]) if place % 2 else part
                for place, part in enumerate(parts)
            )
            if rng.random() >= _LOWER_START:
                text = text[:1].upper() + text[1:]
            if is_for_exam(text) == (split == "exam"):
                return Phrasing(text, self.language)


def draw(grammars: Mapping[Language, Grammar], rng: Rng, split: Split, german: float) -> Phrasing:
    """A wording of that split, in German with probability `german`."""
    language: Language = "de" if "de" in grammars and rng.random() < german else "en"
    return grammars[language].draw(rng, split)
