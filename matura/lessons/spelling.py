"""Spell a word letter by letter, and count one letter in it by spelling it: `bee` -> `b-e-e`, and
for its e `b-e1-e2: 2`.

A model never sees letters, only pieces of words. So in training words are also put together from
the tokenizer's own pieces: each piece is spelled in the company of many others, and a word of an
exam, which occurs in no training item, is made of pieces whose letters could be learnt. A count
comes after its letters because a small model can number hits as it goes, but cannot count at once.

About 16,000 wordings, 850 ordinary words of 3 to 6 letters and hundreds of thousands made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field

from matura.core.rng import Rng
from matura.core.types import Conversation, Given, Split, TextCodec
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import BARE, BARE_FIRST, Grammar
from matura.lessons.words import (
    ENGLISH,
    GERMAN,
    MAX_PIECES,
    Gibberish,
    Language,
    invent,
    word_split,
)

SHORTEST = 3
"""Letters of the shortest word that is asked for."""
LETTER = "{L}"
"""Where a wording has the letter to count."""

_COMMON_LETTERS = 3
"""A piece of at most so many letters is part of many short words, so that training spells it over
and over; a longer one is nearly a word of its own, and what it spells could only be guessed."""
_REPEATED, _REDRAWN = 0.6, 8
"""Share of words to count in that get so many chances of a letter that comes twice: in most short
words none does, and the answer would nearly always be 1."""
_TRIES = 400
"""Made-up words of one length tried before that length counts as impossible for the tokenizer."""
_QUOTED = (BARE, BARE, '"{X}"', "'{X}'", "({X})", "*{X}*")
_POLITE = ("", "", "", "please ", "now ", "just ", "you must ", "next, ", "okay, ", "so, ")
_POLITE_DE = ("", "", "", "bitte ", "nun ", "jetzt ", "also ", "los, ", "dann ")
_OPENING = ("", "", "", "quick: ", "question: ", "please tell me, ", "so, ", "now, ", "say, ")
_OPENING_DE = ("", "", "", "Frage: ", "bitte, ", "nun, ", "also, ", "sag mir, ")
_LETTERS = ("{L}", '"{L}"', "'{L}'")

SPELL: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><verb><colon> <quoted>",
            "<polite><verb> <object><colon> <quoted>",
            "<polite><verb> <object><colon> <quoted><manner>",
            "<opening><how> <quoted>?",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": _POLITE,
            "opening": _OPENING,
            "verb": ["spell", "spell out", "give the letters of", "name the letters of"],
            "object": ["this", "the word", "this word", "the following", "the following word"],
            "manner": [", letter by letter", ", one letter at a time", ", with dashes", ", slowly"],
            "how": ["how do you spell", "how is it spelled:", "what are the letters of"],
            "pointer": ["this", "that", "it", "this word", "that word"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
        drilled=[BARE_FIRST],
    ),
    "de": Grammar(
        "de",
        [
            "<polite><verb><colon> <quoted>",
            "<polite><verb> <object><colon> <quoted>",
            "<opening><how> <quoted>?",
            "<quoted> - <polite><verb> <pointer>",
        ],
        {
            "polite": _POLITE_DE,
            "opening": _OPENING_DE,
            "verb": ["buchstabiere", "buchstabier"],
            "object": ["das", "das Wort", "dieses Wort", "dies"],
            "how": ["wie buchstabiert man", "wie schreibt man", "welche Buchstaben hat"],
            "pointer": ["das", "es", "dieses Wort"],
            "colon": ["", ":"],
            "quoted": _QUOTED,
        },
        drilled=[BARE_FIRST],
    ),
}

COUNT: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<opening>how many <letter> are <in> <quoted>?",
            "<opening>how many times does <letter> stand <in> <quoted>?",
            "<polite><verb> the <letter> <in> <quoted>",
            "<polite><verb> the letter <letter><colon> <quoted>",
            "<quoted> - <polite><verb> the <letter>",
            "<quoted> - <opening>how many <letter>?",
        ],
        {
            "polite": _POLITE,
            "opening": _OPENING,
            "letter": _LETTERS,
            "verb": ["count", "count up", "number", "tell me the number of"],
            "in": ["in", "in the word", "in this word:", "within"],
            "colon": [" here:", ":", " in this:"],
            "quoted": _QUOTED,
        },
        drilled=["{X} - <polite><verb> the <letter>"],
    ),
    "de": Grammar(
        "de",
        [
            "<opening>wie viele <letter> sind in <quoted>?",
            "<opening>wie viele <letter> hat <quoted>?",
            "<opening>wie viele Buchstaben <letter> hat <quoted>?",
            "<polite><verb> die <letter> in <quoted>",
            "<quoted> - <polite><verb> die <letter>",
        ],
        {
            "polite": _POLITE_DE,
            "opening": _OPENING_DE,
            "letter": _LETTERS,
            "verb": ["zähle", "zähl", "nenne mir die Zahl für"],
            "quoted": _QUOTED,
        },
        drilled=["{X} - <polite><verb> die <letter>"],
    ),
}


def spelled(word: str) -> str:
    """The word's letters with dashes between."""
    return "-".join(word)


def counted(word: str, letter: str) -> str:
    """The word's letters, the hits numbered, and how many there were."""
    hits = 0
    said: list[str] = []
    for one in word:
        hits += one == letter
        said.append(f"{one}{hits}" if one == letter else one)
    return f"{'-'.join(said)}: {hits}"


@dataclass(frozen=True, slots=True)
class Spellable:
    """One split's words by length, each short enough in tokens as well."""

    split: Split
    tokenizer: TextCodec | None
    fair: bool
    """Whether words outside training are made of pieces that training spells over and over."""
    ordinary: Mapping[Language, Mapping[int, tuple[str, ...]]]
    pieces: Mapping[int, tuple[str, ...]]
    """The tokenizer's own pieces of words, all of at most so many letters; empty if there is no
    tokenizer yet."""

    @classmethod
    def of(
        cls, split: Split, longest: int, tokenizer: TextCodec | None, *, fair: bool = True
    ) -> Spellable:
        """The words of that split with up to `longest` letters."""
        pieces = _pieces(tokenizer, longest) if tokenizer else {}
        made = cls(split, tokenizer, fair, {}, pieces)
        lists: dict[Language, tuple[str, ...]] = {"en": ENGLISH, "de": GERMAN}
        ordinary = {
            language: {
                length: tuple(w for w in words if len(w) == length and made.takes(w))
                for length in range(SHORTEST, longest + 1)
            }
            for language, words in lists.items()
        }
        return replace(made, ordinary=ordinary)

    def takes(self, word: str) -> bool:
        """Whether the word is of this split, at most `MAX_PIECES` tokens, capitalised too, and
        outside training made of pieces whose letters could be learnt."""
        if word_split(word) != self.split:
            return False
        if self.tokenizer is None:
            return True
        for form in (word, word[:1].upper() + word[1:]):
            ids = self.tokenizer.encode(form)
            if len(ids) > MAX_PIECES:
                return False
            longest = max(len(self.tokenizer.decode([id])) for id in ids)
            if self.fair and self.split != "train" and longest > _COMMON_LETTERS:
                return False
        return True

    def listed(self, rng: Rng, length: int, language: Language) -> str | None:
        """An ordinary word of that many letters; of another language if that has none."""
        words = self.ordinary[language][length] or self.ordinary["en"][length]
        return rng.choice(words) if words else None

    def made_up(self, rng: Rng, length: int) -> str | None:
        """A word of that many letters that most likely means nothing, if the tokenizer can have
        one. Most are made of the tokenizer's own pieces, the others of syllables."""
        for _ in range(_TRIES):
            if self.pieces and rng.random() < 0.7:
                word = self._pieced(rng, length)
            else:
                word = invent(rng, rng.choice((1, 2, 2)))[:length]
            if len(word) == length and word not in _LISTED and self.takes(word):
                return word
        return None

    def _pieced(self, rng: Rng, length: int) -> str:
        """Pieces put together until there are so many letters; the first to be chosen may stand
        anywhere."""
        parts: list[str] = []
        while (left := length - sum(map(len, parts))) > 0:
            if not self.pieces[left]:
                return ""
            parts.insert(rng.randint(0, len(parts)), rng.choice(self.pieces[left]))
        return "".join(parts)


_LISTED = frozenset(ENGLISH) | frozenset(GERMAN)
_LETTERS_KNOWN = frozenset("abcdefghijklmnopqrstuvwxyzäöüß")


def _pieces(tokenizer: TextCodec, longest: int) -> dict[int, tuple[str, ...]]:
    """What the tokenizer's ids spell, where that is a stretch of small letters."""
    texts = (tokenizer.decode([number]) for number in range(tokenizer.text_vocab_size))
    known = dict.fromkeys(text.removeprefix(" ") for text in texts)
    letters = [text for text in known if text and {*text} <= _LETTERS_KNOWN]
    return {
        size: tuple(text for text in letters if len(text) <= size) for size in range(1, longest + 1)
    }


class Spelling(Lesson):
    """The letters of a word, and how many of one letter there are."""

    presets: ClassVar[Mapping[str, int]] = {"simple": 200_000, "bee": 80_000, "chat": 300}
    """Simple is meant with `count: 0`, bee with `count: 1`."""

    kind: Literal["spelling"] = "spelling"
    gibberish: Gibberish = "include"
    """Whether words are made up; included, they are two of three, since there are few short
    ordinary words."""
    count: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of items that count a letter."""
    max_letters: int = Field(default=6, ge=SHORTEST, le=16)
    """Words have 3 to this many letters, each length equally often."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """Words to be spelled and letters to be counted without end, lengths in turn."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        # few ordinary words are made of short pieces in a large vocabulary: then ask them all
        fair = self.gibberish != "exclude"
        words = Spellable.of(given.split, self.max_letters, given.tokenizer, fair=fair)
        owed = dict.fromkeys(range(SHORTEST, self.max_letters + 1), 0.0)
        while owed:
            for length in list(owed):
                language: Language = "de" if given.rng.random() < self.german else "en"
                # a running account for each length, so that both tasks have words of all lengths
                owed[length] += self.count
                counting = owed[length] >= 1
                owed[length] -= counting
                word = self._word(words, given.rng, length, language)
                if counting and given.rng.random() < _REPEATED:
                    for _ in range(_REDRAWN):
                        if word is not None and len({*word}) == length:
                            word = self._word(words, given.rng, length, language)
                if word is None:
                    del owed[length]  # this tokenizer cuts such words into too many pieces
                    continue
                yield ((_count if counting else _spell)(given, word, language),)

    def _word(self, words: Spellable, rng: Rng, length: int, language: Language) -> str | None:
        share = {"exclude": 0.0, "include": 2 / 3, "only": 1.0}[self.gibberish]
        if rng.random() >= share:
            word = words.listed(rng, length, language)
            if word is not None or self.gibberish == "exclude":
                return word
        return words.made_up(rng, length)


def _spell(given: Given, word: str, language: Language) -> Conversation:
    phrasing = SPELL[language].draw(given.rng, given.split)
    if given.rng.random() < 0.25:
        word = word[:1].upper() + word[1:]
    return conversation(
        phrasing.about(word),
        operator="SPELL",
        payload=word,
        template=phrasing.text,
        language=language,
        bucket=f"SPELL x {len(word)}",
        expected=spelled(word),
    )


def _count(given: Given, word: str, language: Language) -> Conversation:
    phrasing = COUNT[language].draw(given.rng, given.split)
    letter = _letter(given.rng, word)
    return conversation(
        phrasing.about(word).replace(LETTER, letter),
        operator="COUNT",
        payload=word,
        template=phrasing.text,
        language=language,
        bucket=f"COUNT x {len(word)}",
        expected=counted(word, letter),
        extra={"letter": letter},
    )


def _letter(rng: Rng, word: str) -> str:
    """A letter to count: of those that come most often twice as likely as of others, and a sixth of
    the letters are not in the word."""
    if rng.random() < 1 / 6:
        return rng.choice([one for one in "abcdefghijklmnoprstuwz" if one not in word])
    counts = sorted({word.count(one) for one in word})
    wanted = rng.choice((*counts, counts[-1]))
    return rng.choice(sorted({one for one in word if word.count(one) == wanted}))
