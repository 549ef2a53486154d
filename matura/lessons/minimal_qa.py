"""Answer from what was just told, as long as asked for; where nothing told supports an answer, say
so.

`Anna's puppy is called Blimo. The van is teal.` is followed by a question that is put in several
lengths: in one word, in one sentence, in two, in at most so many words, or without a limit. The
same question over other facts is answered by `I don't know.`, whatever its limit: only what is told
decides, never the wording. Half of the facts are near misses (the same owner or the same kind of
fact), so that a name that occurs is not yet an answer.

There are more than a million wordings of 58 questions, lengths included; names and places are made
up afresh (10^5 and more of each), which comes to over 10^15 distinct items with a single fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import ClassVar, Literal

from pydantic import Field

from matura.core.rng import Rng
from matura.core.types import Conversation, Given
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import Grammar, is_for_exam
from matura.lessons.relations import MOST_TELLINGS, NAMED, RELATIONS, UNKNOWN
from matura.lessons.telling import Question, Statement, Teller
from matura.lessons.words import Language

LengthKey = Literal["one word", "one sentence", "two sentences", "at most", "free"]

LIMITS: tuple[tuple[int, ...], ...] = ((2, 3), (4, 5, 6), (8, 9, 10, 12))
"""Words allowed: for the value alone, for its four-word frame, for the whole sentence."""

_PATTERNS: dict[bool, tuple[str, ...]] = {
    True: (  # with a length
        "{X} <opening><ask>, <length>?",
        "{X} <length>, <ask>?",
        "{X} <length>: <ask>?",
        "{X} <opening><ask>? <answer> <length>.",
        "{X}\n<opening><ask>? <answer> <length>.",
        "<heading>: {X}\n<opening><ask>? <answer> <length>.",
        "<opening><ask>? <answer> <length>. {X}",
        "<length>, <ask>? {X}",
    ),
    False: (
        "{X} <opening><ask>?",
        "{X}\n<opening><ask>?",
        "<heading>: {X}\n<opening><ask>?",
        "{X} <opening><ask>? <answer>.",
        "<heading>: {X} <opening><ask>? <answer>.",
        "<opening><ask>? {X}",
        "<opening><ask>? <heading>: {X}",
    ),
}
_SLOTS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "opening": ("", "", "", "so, ", "now, ", "tell me: ", "question: ", "please tell me: "),
        "answer": ("answer", "reply", "respond", "please answer", "please reply", "answer me"),
        "heading": ("text", "facts", "given", "notes", "context", "known"),
    },
    "de": {
        "opening": ("", "", "", "also, ", "nun, ", "sag mir: ", "Frage: ", "bitte sag mir: "),
        "answer": ("antworte", "bitte antworte", "antworte mir", "antworte nun", "antworte bitte"),
        "heading": ("Text", "Fakten", "bekannt", "gegeben", "Notizen"),
    },
}
_LENGTHS: dict[Language, dict[LengthKey, tuple[str, ...]]] = {
    "en": {
        "one word": (
            *("in one word", "with one word", "in a single word", "with a single word"),
            *("in just one word", "using only one word"),
        ),
        "one sentence": (
            *("in one sentence", "with one sentence", "in a single sentence"),
            *("with a single sentence", "in just one sentence", "using only one sentence"),
        ),
        "two sentences": (
            *("in two sentences", "with two sentences", "in exactly two sentences"),
            *("with exactly two sentences", "in just two sentences", "using two sentences"),
        ),
        "at most": (
            *("in at most {L} words", "with at most {L} words", "in no more than {L} words"),
            *("using at most {L} words", "in up to {L} words", "with a limit of {L} words"),
        ),
    },
    "de": {
        "one word": (
            *("in einem Wort", "mit einem Wort", "in einem einzigen Wort"),
            *("mit nur einem Wort", "in nur einem Wort"),
        ),
        "one sentence": (
            *("in einem Satz", "mit einem Satz", "in einem einzigen Satz"),
            *("mit nur einem Satz", "in nur einem Satz"),
        ),
        "two sentences": (
            *("in zwei Sätzen", "mit zwei Sätzen", "in genau zwei Sätzen"),
            *("mit genau zwei Sätzen", "in nur zwei Sätzen"),
        ),
        "at most": (
            *("in höchstens {L} Worten", "mit höchstens {L} Worten", "in maximal {L} Worten"),
            *("mit maximal {L} Worten", "in nicht mehr als {L} Worten"),
        ),
    },
}
_Kind = tuple[LengthKey, tuple[int, ...]]
_BARE: _Kind = ("one word", (0,))
_KINDS: tuple[_Kind, ...] = (
    _BARE,
    ("one sentence", (0,)),
    ("two sentences", (0,)),
    ("free", (0,)),
    *(("at most", limits) for limits in LIMITS),
)
_NEXT_SENTENCE = re.compile(r"(\{X\}\s|[.?]\s|\n)([a-zäöü])")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def keeps(length: LengthKey, limit: int, reply: str) -> bool:
    """Whether a reply has the length that was asked for, right or wrong. Words are what spaces
    part; a single word is no sentence."""
    words = len(reply.split())
    sentences = len(_SENTENCE_END.findall(reply)) if reply[-1:] in (".", "!", "?") else 0
    match length:
        case "one word":
            return words == 1
        case "one sentence":
            return sentences == 1 and words > 1
        case "two sentences":
            return sentences == 2
        case "at most":
            return 1 <= words <= limit
    return words > 1 and sentences in (1, 2)


def accepted(question: Question, length: LengthKey, limit: int) -> list[str]:
    """Every right answer of that length, the one that is taught first."""
    word, frame, sentence = question.forms()
    both = [f"{sentence} {frame}", f"{frame} {sentence}"]
    match length:
        case "one word":
            return [word]
        case "one sentence":
            return [sentence, frame]
        case "two sentences":
            return both
        case "free":
            return [sentence, frame, *both]
    allowed = [form for form in (sentence, frame, word) if keeps(length, limit, form)]
    taught = word if limit in LIMITS[0] else frame if limit in LIMITS[1] else sentence
    return sorted(allowed, key=lambda form: form != taught)


@cache
def grammar(language: Language, ask: str, length: LengthKey, limit: int) -> Grammar:
    """All wordings of one question at one length; `{X}` is where the facts go."""
    slots: dict[str, Sequence[str]] = {**_SLOTS[language], "ask": (ask,)}
    limited = length != "free"
    if limited:
        fillers = _LENGTHS[language][length]
        slots["length"] = [filler.replace("{L}", str(limit)) for filler in fillers]
    # with the question first, both it and the length are far from where the answer starts
    drilled = [pattern for pattern in _PATTERNS[limited] if pattern.endswith("{X}")]
    return Grammar(language, _PATTERNS[limited], slots, drilled=drilled)


@cache
def instructing_words() -> frozenset[str]:
    """Every word of every wording and sentence frame, in lower case: none may be made up."""
    slots = [filler for one in _SLOTS.values() for fillers in one.values() for filler in fillers]
    slots += [filler for one in _LENGTHS.values() for fillers in one.values() for filler in fillers]
    for relations in RELATIONS.values():
        for one in relations:
            slots += [*one.nouns, *one.links, *one.asks, *one.who, one.label]
    slots += [*NAMED.values(), *UNKNOWN.values()]
    # `at most 4 words` over a van with the number 4
    slots += [str(limit) for limits in LIMITS for limit in limits]
    return frozenset(re.findall(r"\w+", re.sub(r"\{\w\}", " ", " ".join(slots)).casefold()))


class MinimalQa(Lesson):
    """Short answers from given facts, at the length asked for, or that they are not known."""

    presets: ClassVar[Mapping[str, int]] = {"run2": 1_000}

    kind: Literal["minimal_qa"] = "minimal_qa"
    german: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of facts and questions in German."""
    max_facts: int = Field(default=3, ge=1, le=8)
    """1 to this many facts are told, each count equally often."""
    lengths: int = Field(default=2, ge=1, le=5)
    """At how many lengths each question is put."""
    unknown: float = Field(default=1 / 3, ge=0.0, le=0.5)
    """Share of items whose facts do not hold the answer: each is the twin of one that has it, with
    the same wording and all other facts the same."""
    near: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the facts not asked for that are chosen to be mistaken for the one asked for."""
    who: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of questions about persons that ask for the person: `Who lives in Blimo?`"""
    tellings: int = Field(default=MOST_TELLINGS, ge=1, le=MOST_TELLINGS)
    """In how many ways a fact is told."""
    bare: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of questions that are put for one word besides those that are so by chance: a sentence
    is a copy of what was told, the bare word has to be found."""
    turns: int = Field(default=1, ge=1, le=8)
    """Questions in a conversation: all after the first are about the facts told before it, so that
    more is learnt from each telling. Exams ask one."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """Questions without end, numbers of facts in turn, each question at some lengths and then
        without its fact."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        rng = given.rng
        tellers = {
            language: Teller(given, language, instructing_words(), self.tellings)
            for language in RELATIONS
        }
        owed = 0.0
        for group in count():
            teller = tellers["de" if rng.random() < self.german else "en"]
            told = self._told(teller, 1 + group % self.max_facts)
            asks = told.question.about.relation.who if told.question.asks_who else ()
            ask = rng.choice(asks or told.question.about.relation.asks)
            answered: list[Conversation] = []
            twins: list[Conversation] = []
            for length, limits in self._kinds(rng, self.lengths):
                limit = rng.choice(limits)
                wording = grammar(teller.language, ask, length, limit).draw(rng, given.split).text
                asked = _Asked(_sentence_case(wording), length, limit, told)
                answered.append(self._item(teller, asked, told.facts, given))
                # the running account of twins keeps every stretch at the share asked for
                owed += self.unknown / (1 - self.unknown)
                if owed > 1 - 1e-9:
                    owed -= 1
                    facts, bare = _instead(asked, given)
                    twins.append(self._item(teller, asked, facts, given, wording=bare))
            yield (*answered, *twins)

    def _item(
        self,
        teller: Teller,
        asked: _Asked,
        facts: Sequence[Statement],
        given: Given,
        *,
        wording: str = "",
    ) -> Conversation:
        """The question over these facts and, if any are told, further ones."""
        first = _item(asked, facts, wording=wording)
        further = [self._more(teller, facts, given) for _ in range(self.turns - 1) if facts]
        if not further:
            return first
        said = (message for item in further for message in item.messages)
        words = (word for item in (first, *further) for word in item.meta["payload"].split(" "))
        payload = " ".join(dict.fromkeys(words))
        return replace(
            first, messages=(*first.messages, *said), meta={**first.meta, "payload": payload}
        )

    def _more(self, teller: Teller, facts: Sequence[Statement], given: Given) -> Conversation:
        """A further question about facts that were told before, and its answer."""
        rng = teller.rng
        about = rng.choice(facts)
        if rng.random() < self.unknown:
            near = rng.random() < self.near
            taken = {word.casefold() for fact in facts for word in fact.words}
            about = teller.other(Question(about, False), facts, taken, near=near)
        who = bool(about.relation.who) and rng.random() < self.who
        if who and any(Question(about, True).answered_by(o) for o in facts if o is not about):
            who = False  # two are right, or one of whom another thing was asked
        ask = rng.choice(about.relation.who if who else about.relation.asks)
        ((length, limits),) = self._kinds(rng, 1)
        limit = rng.choice(limits)
        wordings = grammar(teller.language, ask, length, limit).going_on
        wording = _sentence_case(wordings.draw(rng, given.split).text)
        told = _Told(Question(about, who), tuple(facts), about)
        return _item(_Asked(wording, length, limit, told), facts)

    def _kinds(self, rng: Rng, count: int) -> list[_Kind]:
        """So many different lengths, the bare word the first of them as often as asked."""
        kinds = rng.sample(_KINDS, count)
        if self.bare and rng.random() < self.bare:
            kinds = [_BARE, *(kind for kind in kinds if kind is not _BARE)][:count]
        return kinds

    def _told(self, teller: Teller, facts: int) -> _Told:
        rng = teller.rng
        taken: set[str] = set()
        about = teller.statement(taken)
        question = Question(about, bool(about.relation.who) and rng.random() < self.who)
        told = [about]
        # the last one is told only where the fact asked for is not
        for _ in range(facts):
            near = rng.random() < self.near
            told.append(teller.other(question, told, taken, near=near))
        order = told[:-1]
        rng.shuffle(order)
        return _Told(question, tuple(order), told[-1])


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told, what is asked about it, and what is told instead of the fact asked for."""

    question: Question
    facts: tuple[Statement, ...]
    instead: Statement


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as it is put."""

    wording: str
    length: LengthKey
    limit: int
    told: _Told


def _item(asked: _Asked, facts: Sequence[Statement], *, wording: str = "") -> Conversation:
    """The question over these facts, answered if the fact asked for is among them."""
    question = asked.told.question
    about, template = question.about, wording or asked.wording
    known = about in facts
    answers = accepted(question, asked.length, asked.limit) if known else [UNKNOWN[about.language]]
    context = " ".join(fact.text for fact in facts)
    told = [word for fact in facts for word in fact.words]
    cue = about.value if question.asks_who else about.owner
    mentioned = cue in told if cue else any(fact.subject == about.subject for fact in facts)
    text = template.replace("{S}", about.subject).replace("{V}", about.value)
    operator = "ANSWER" if known else "UNKNOWN"
    return conversation(
        text.replace("{X}", context),
        operator=operator,
        # what is asked for without being told is payload too
        payload=" ".join(dict.fromkeys([*told, cue] if cue else told)),
        template=template,
        language=about.language,
        bucket=f"{operator} x {len(facts)}",
        expected=answers[0],
        extra={
            "accepted": "\n".join(answers),
            "length": asked.length,
            "limit": str(asked.limit),
            "mentioned": "yes" if mentioned else "no",
        },
    )


def _instead(asked: _Asked, given: Given) -> tuple[Sequence[Statement], str]:
    """What a twin is told, and its wording if nothing is told at all, as at times."""
    about = asked.told.question.about
    if len(asked.told.facts) == 1 and about.owner and given.rng.random() < 0.3:
        bare = re.sub(r"(\b\w+:\s)?\{X\}\s?", "", asked.wording).strip()
        if is_for_exam(bare) == (given.split == "exam"):
            return (), bare
    return [asked.told.instead if fact is about else fact for fact in asked.told.facts], ""


def _sentence_case(wording: str) -> str:
    """A capital letter after the facts, and at the start of each further sentence."""
    return _NEXT_SENTENCE.sub(lambda hit: hit[1] + hit[2].upper(), wording)
