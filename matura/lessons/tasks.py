"""Tasks of several steps: orders to be carried out one after the other, key facts and a summary in
a fixed structure, and a summary of only what was asked about.

    STEPS      first take line 2, then put it in brackets  ->  [kleb]
    STRUCTURE  a passage  ->  KEY_FACTS:, one `- thing: name` a line, SUMMARY: one sentence
    FOCUS      a passage about two owners  ->  one sentence with all facts of the owner asked about

Every answer is made of words of the question in a fixed frame. Distinct items: 20 programs of two
or three steps with 4,000 wordings or more of each in English and 2,000 in German; 88,900 wordings
of STRUCTURE and 6,888 of FOCUS (11,100 and 4,770 in German). A passage of two facts can be told in
over 10,000 ways with each pair of some hundred ordinary names and made-up ones without end, so that
no passage is met twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from matura.core.rng import Rng
from matura.core.types import Conversation, Given, Message
from matura.lessons import passages, steps
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.passages import Passage
from matura.lessons.phrasing import Grammar
from matura.lessons.words import Gibberish, Language, Words

OPERATORS = ("STEPS", "STRUCTURE", "FOCUS")

_GAP = (": ", ": ", ":\n", "\n", " - ", " here: ")
_GAP_DE = (": ", ":\n", "\n", " - ", " hier: ")
_POLITE = ("", "", "", "", "please ", "now ", "just ", "you must ")
_POLITE_DE = ("", "", "bitte ", "nun ", "jetzt ", "also ")
_OPENING = ("", "", "", "please: ", "now, ", "so, ", "question: ", "tell me: ", "in short: ")
_OPENING_DE = ("", "", "bitte: ", "nun, ", "also, ", "Frage: ", "knapp: ")


STRUCTURE: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><list> the <key>, <then> <sum><gap>{X}",
            "<polite>first <list> the <key>, <then> <sum><gap>{X}",
            "<polite><give> <labels><gap>{X}",
            "{X}\n<polite>first <list> the <key>, <then> <sum>",
            "{X}\n<polite><give> <labels>",
        ],
        {
            "polite": _POLITE,
            "list": [
                *("list", "extract", "collect", "find", "write down", "note down"),
                *("pick out", "name", "give", "copy out"),
            ],
            "key": ["key facts", "facts", "main facts", "important facts", "bare facts"],
            "then": ["then", "and then", "after that", "next"],
            "sum": [
                *("summarise", "sum up", "summarise it", "sum it up", "write a summary"),
                *("add a summary", "give a summary", "summarise it in one sentence"),
            ],
            "give": ["give", "write", "make", "fill in", "give me", "set out"],
            "labels": [
                *("KEY_FACTS and SUMMARY", "KEY_FACTS, then SUMMARY", "KEY_FACTS and a SUMMARY"),
                *("the KEY_FACTS and the SUMMARY", "KEY_FACTS with a SUMMARY"),
            ],
            "gap": _GAP,
        },
    ),
    "de": Grammar(
        "de",
        [
            "<polite><list> die <key>, <then> <sum><gap>{X}",
            "<polite><give> <labels><gap>{X}",
            "{X}\n<polite><list> die <key>, <then> <sum>",
        ],
        {
            "polite": _POLITE_DE,
            "list": ["nenne", "finde", "sammle", "notiere", "liste", "schreibe"],
            "key": ["Fakten", "wichtigsten Fakten", "wichtigen Fakten", "reinen Fakten"],
            "then": ["dann", "und dann", "danach"],
            "sum": [
                *("fasse zusammen", "fasse es zusammen", "schreibe eine Zusammenfassung"),
                *("gib eine Zusammenfassung", "fasse es in einem Satz zusammen"),
            ],
            "give": ["gib", "schreibe", "nenne", "liefere"],
            "labels": ["KEY_FACTS und SUMMARY", "KEY_FACTS, dann SUMMARY", "KEY_FACTS mit SUMMARY"],
            "gap": _GAP_DE,
        },
    ),
}

FOCUS: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<polite><sum> <only><what> {S}<gap>{X}",
            "<opening>what <is> about {S}?<space>{X}",
            "{X}\n<polite><sum> <only><what> {S}",
            "{X}\n<opening>what <is> about {S}?",
        ],
        {
            "polite": _POLITE,
            "opening": _OPENING,
            "sum": [
                *("sum up", "summarise", "say in one sentence", "tell me", "give me", "write"),
                *("write down", "put in one sentence"),
            ],
            "only": ["", "", "only ", "just ", "no more than "],
            "what": [
                *("what concerns", "what is said about", "what is told about", "what belongs to"),
                *("what we hear about", "what is known about", "what it says about"),
            ],
            "is": [
                *("is said", "is told", "do we hear", "do we know", "does it say", "is known"),
                *("does the text say", "do they say"),
            ],
            "space": [" ", "\n"],
            "gap": _GAP,
        },
    ),
    "de": Grammar(
        "de",
        [
            "<polite><sum> <only>was <told> über {S} <is><gap>{X}",
            "<opening>was <verb> über {S} <told>?<space>{X}",
            "{X}\n<opening>was <verb> über {S} <told>?",
        ],
        {
            "polite": _POLITE_DE,
            "opening": _OPENING_DE,
            "sum": ["fasse zusammen,", "sag in einem Satz,", "schreibe,", "gib an,", "nenne,"],
            "only": ["", "", "nur das, ", "alles, "],
            "told": ["hier", "im Text", "da"],
            "is": ["gesagt wird", "steht", "erzählt wird", "bekannt ist"],
            "verb": ["steht", "erfahren wir", "hören wir", "lernen wir", "erzählt man"],
            "space": [" ", "\n"],
            "gap": _GAP_DE,
        },
    ),
}


class Tasks(Lesson):
    """Steps in order, reports in a fixed structure, and summaries of what was asked about."""

    presets: ClassVar[Mapping[str, int]] = {"run3": 1_500}

    kind: Literal["tasks"] = "tasks"
    gibberish: Gibberish = "include"
    """Whether names and lines are made-up words; owners always are."""
    max_facts: int = Field(default=3, ge=1, le=12)
    """Answers of STRUCTURE and FOCUS have 1 to this many facts, each equally often; a passage has
    one more at most. Conversations of 3 have up to 180 tokens, of 4 up to 220."""
    max_focus: int | None = Field(default=None, ge=1, le=12)
    """FOCUS asks about owners of at most so many facts; as many as `max_facts` if left out."""
    max_steps: int = Field(default=3, ge=2, le=4)
    """STEPS have 2 to this many, each equally often."""
    contrast: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of items whose text is used again under another instruction, right after."""
    asides: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of passages with one sentence more that tells no fact."""
    numbered: bool = False
    """Whether lines are shown with their numbers: then `line 2` is found by reading, and not by
    counting, which a very small model is slow to learn."""
    tellings: int = Field(default=passages.MOST_TELLINGS, ge=1, le=passages.MOST_TELLINGS)
    """In how many ways a fact is told, the plainest first: with 3 the owner always comes before
    the name."""
    mixed: bool = True
    """Whether facts of two owners stand in any order, or else those of one after the other's."""
    turns: int = Field(default=1, ge=1, le=6)
    """Orders in a conversation: all after the first are about the text of the first, so that more
    is learnt from each text. Exams give one."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """The three kinds without end, in turn, and in turn the numbers of steps or facts."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        words = Words.of(given.split, self.gibberish, given.tokenizer)
        rng = given.rng
        turn = 0
        while True:
            count = 1 + turn % self.max_facts
            number = 2 + turn % (self.max_steps - 1)
            turn += 1
            yield self._steps(given, words, number, self._language(rng))
            yield self._report(given, words, count, self._language(rng))
            yield self._focus(given, words, count, self._language(rng))

    def _language(self, rng: Rng) -> Language:
        return "de" if rng.random() < self.german else "en"

    def _steps(
        self, given: Given, words: Words, count: int, language: Language
    ) -> tuple[Conversation, ...]:
        pool = steps.material(given.rng, words, language)
        again = given.rng.random() < self.contrast
        made = [self._stepped(given, pool, count, language) for _ in range(1 + again)]
        return tuple({item.id: item for item in made}.values())

    def _stepped(
        self, given: Given, pool: tuple[str, ...], count: int, language: Language
    ) -> Conversation:
        order = steps.draw(given.rng, given.split, pool, count, language, numbered=self.numbered)
        more: list[Message] = []
        for _ in range(self.turns - 1):
            extra = next(word for word in pool if word not in order.shown)
            further = steps.again(given.rng, given.split, order, extra, language)
            more += [Message("user", further.text), Message("assistant", further.answer)]
        return conversation(
            order.text,
            Message("assistant", order.answer),
            *more,
            operator="STEPS",
            payload=order.words if not more else " ".join(pool),
            template=order.template,
            language=language,
            bucket=f"STEPS x {count}",
            expected=order.answer,
        )

    def _report(
        self, given: Given, words: Words, count: int, language: Language
    ) -> tuple[Conversation, ...]:
        passage = self._passage(given, words, [count], language)
        phrasing = STRUCTURE[language].draw(given.rng, given.split)
        report = passages.report(passage.facts, language)
        item = conversation(
            phrasing.about(passage.text),
            Message("assistant", report),
            *self._more(given, passage, language),
            operator="STRUCTURE",
            payload=passage.words,
            template=phrasing.text,
            language=language,
            bucket=f"STRUCTURE x {len(passage.facts)}",
            expected=report,
        )
        if given.rng.random() >= self.contrast or not self._owners(passage):
            return (item,)
        return (item, self._focused(given, passage, passage.facts[0].owner, language))

    def _focus(
        self, given: Given, words: Words, count: int, language: Language
    ) -> tuple[Conversation, ...]:
        rng = given.rng
        count = min(count, self._most)
        # one fact more than an answer may have is as long as a passage gets
        others = rng.randint(1, max(1, min(2, self.max_facts + 1 - count)))
        passage = self._passage(given, words, [count, others], language)
        owners = self._owners(passage)
        owners.sort(key=lambda owner: len(passage.about(owner)) != count)
        if rng.random() >= self.contrast:
            del owners[1:]
        return tuple(self._focused(given, passage, owner, language) for owner in owners)

    def _focused(
        self, given: Given, passage: Passage, owner: str, language: Language
    ) -> Conversation:
        phrasing = FOCUS[language].draw(given.rng, given.split)
        facts = passage.about(owner)
        told = passages.sentence(facts, language)
        return conversation(
            phrasing.text.replace("{S}", owner).replace("{X}", passage.text),
            Message("assistant", told),
            *self._more(given, passage, language),
            operator="FOCUS",
            payload=f"{owner} {passage.words}",
            template=phrasing.text,
            language=language,
            bucket=f"FOCUS x {len(facts)}",
            expected=told,
        )

    @property
    def _most(self) -> int:
        return self.max_focus or self.max_facts

    def _owners(self, passage: Passage) -> list[str]:
        """Those that FOCUS may ask about."""
        owners = dict.fromkeys(fact.owner for fact in passage.facts)
        return [owner for owner in owners if len(passage.about(owner)) <= self._most]

    def _passage(
        self, given: Given, words: Words, counts: Sequence[int], language: Language
    ) -> Passage:
        return passages.compose(
            given.rng,
            words,
            counts,
            language,
            asides=self.asides,
            tellings=self.tellings,
            mixed=self.mixed,
        )

    def _more(self, given: Given, passage: Passage, language: Language) -> list[Message]:
        """Further orders about the passage: a summary of one owner, a report if there is one."""
        rng, said = given.rng, list[Message]()
        owners = self._owners(passage)
        alone = len({fact.owner for fact in passage.facts}) == 1
        for _ in range(self.turns - 1):
            if alone and (not owners or rng.random() < 0.5):
                asked = STRUCTURE[language].going_on.draw(rng, given.split).text
                told = passages.report(passage.facts, language)
            else:
                owner = rng.choice(owners)
                asked = FOCUS[language].going_on.draw(rng, given.split).text
                asked = asked.replace("{S}", owner)
                told = passages.sentence(passage.about(owner), language)
            said += [Message("user", asked), Message("assistant", told)]
        return said
