"""Facts that are made up: who tells what of whom, told so that each question has one answer or
none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from matura.core.rng import Rng
from matura.core.types import Given
from matura.lessons.relations import (
    LISTED,
    MOST_TELLINGS,
    NAMED,
    NAMES,
    OWNED,
    PLAIN,
    RELATIONS,
    Relation,
    ValueKind,
)
from matura.lessons.words import MAX_PIECES, Language, Words, word_split


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing told: all of it is in one sentence."""

    language: Language
    relation: Relation
    noun: str
    owner: str
    value: str
    link: str

    @property
    def subject(self) -> str:
        """A person, a person's thing, or the only thing of its kind."""
        if not self.noun:
            return self.owner
        frame = (OWNED if self.owner else PLAIN)[self.language]
        return frame.replace("{N}", self.noun).replace("{O}", self.owner)

    @property
    def text(self) -> str:
        """The sentence."""
        told = self.link.replace("{S}", self.subject).replace("{V}", self.value)
        return f"{told[:1].upper()}{told[1:]}."

    @property
    def words(self) -> list[str]:
        """What is payload in it."""
        return [word for word in (self.owner, self.value) if word]

    def clashes(self, other: Statement) -> bool:
        """Whether it says the same of the same subject, or makes unclear which thing is meant."""
        if self.relation is other.relation and self.subject == other.subject:
            return True
        alike = bool(self.noun) and self.noun == other.noun
        return alike and self.owner != other.owner and not (self.owner and other.owner)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one statement, and all that may be said to it."""

    about: Statement
    asks_who: bool

    @property
    def answer(self) -> str:
        """The word that is asked for."""
        return self.about.owner if self.asks_who else self.about.value

    def answered_by(self, other: Statement) -> bool:
        """Whether another statement would answer it too."""
        mine = self.about
        if mine.relation is not other.relation:
            return False
        if self.asks_who:
            return mine.value == other.value
        return mine.subject == other.subject

    def forms(self) -> tuple[str, str, str]:
        """The answer as one word, in a frame of four words and as the whole sentence."""
        frame = NAMED[self.about.language] if self.asks_who else self.about.relation.label
        return f"{self.answer}.", f"{frame.replace('{V}', self.answer)}.", self.about.text


class Teller:
    """Makes statements of one language out of one split's words."""

    def __init__(
        self, given: Given, language: Language, avoid: frozenset[str], tellings: int = MOST_TELLINGS
    ) -> None:
        """`avoid` are words in lower case that no name or value may be; of the ways to tell a fact
        the first `tellings` are used."""
        self._tellings = tellings
        self.rng: Rng = given.rng
        self.language: Language = language
        self._avoid = avoid
        self._tokenizer = given.tokenizer
        self._made_up = Words.of(given.split, "only", given.tokenizer)
        self._ordinary = Words.of(given.split, "exclude", given.tokenizer)
        lists = LISTED[language] | {"name": NAMES}
        self._listed = {
            kind: [word for word in words if word_split(word) == given.split and self._fits(word)]
            for kind, words in lists.items()
        }

    def _fits(self, word: str) -> bool:
        return self._tokenizer is None or len(self._tokenizer.encode(word)) <= MAX_PIECES

    def _word(self, draw: Callable[[], str], taken: set[str]) -> str | None:
        """A drawn word that is new and short enough, if one comes soon."""
        for _ in range(20):
            word = draw()
            known = word.casefold() in taken or word.casefold() in self._avoid
            if not known and self._fits(word):
                taken.add(word.casefold())
                return word
        return None

    def value(self, kind: ValueKind, taken: set[str]) -> str:
        """A value of that kind; a made-up word where the lists hold none for this split."""
        rng, listed = self.rng, self._listed.get(kind, [])
        word: str | None = None
        if kind == "word":
            word = self._word(lambda: self._ordinary.payload(rng, 1, self.language), taken)
        elif kind == "number":
            numbers = (str(rng.randrange(10 ** rng.randint(1, 4))) for _ in count())
            mine = (number for number in numbers if word_split(number) == self._made_up.split)
            word = self._word(lambda: next(mine), taken)
        elif listed and (kind != "name" or rng.random() < 0.3):
            word = self._word(lambda: rng.choice(listed), taken)
        while word is None:
            word = self._word(lambda: self._made_up.payload(rng, 1).capitalize(), taken)
        return word

    def statement(
        self,
        taken: set[str],
        *,
        relation: Relation | None = None,
        noun: str | None = None,
        owner: str | None = None,
        value: str | None = None,
    ) -> Statement:
        """Something told; what is not given is drawn."""
        rng = self.rng
        relation = relation or rng.choice(RELATIONS[self.language])
        if noun is None:
            noun = rng.choice(relation.nouns) if relation.nouns else ""
        if owner is None:
            owner = self.value("name", taken) if not noun or rng.random() < 0.75 else ""
        value = value or self.value(relation.value, taken)
        link = rng.choice(relation.links[: self._tellings])
        return Statement(self.language, relation, noun, owner, value, link)

    def other(
        self, question: Question, told: Sequence[Statement], taken: set[str], *, near: bool
    ) -> Statement:
        """A statement that leaves the question as open as it is."""
        for attempt in count():
            fresh = set(taken)
            # a near miss may be impossible among many facts; something else never is
            one = self._near(question, fresh) if near and attempt < 10 else self.statement(fresh)
            if not question.answered_by(one) and not any(one.clashes(other) for other in told):
                taken.update(fresh)
                return one
        raise AssertionError("names are made up without end")

    def _near(self, question: Question, taken: set[str]) -> Statement:
        """Another thing told of the same owner, the same told of another, or the same value."""
        about, rng = question.about, self.rng
        relations = RELATIONS[self.language]
        if question.asks_who and rng.random() < 0.5:
            alike = [one for one in relations if one.who and one.value == about.relation.value]
            return self.statement(taken, relation=rng.choice(alike), value=about.value)
        if about.owner and rng.random() < 0.5:
            return self.statement(taken, owner=about.owner)
        if about.owner:
            owner = self.value("name", taken)
            return self.statement(taken, relation=about.relation, noun=about.noun, owner=owner)
        alike = [one for one in relations if about.noun in one.nouns]
        return self.statement(taken, relation=rng.choice(alike), noun=about.noun, owner="")
