"""Short passages whose facts are known because they were made first, and answers that can be read
back into facts.

A fact is a name that somebody's thing has: `Blurpix has a robot called tulip.` Names are payload
words, so each split has its own; things and ways to say a fact are few and shared, because a small
model cannot read a word it never saw used. A sentence of another kind (`We met Blurpix at noon.`)
is no fact and belongs in no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matura.core.rng import Rng
from matura.lessons.words import Language, Words


class Thing(NamedTuple):
    """What somebody may have, with its articles, which German changes."""

    noun: str
    one: str
    """As the object of `has`: `a robot`, `einen Roboter`."""
    the: str
    """As a subject: `the robot`, `der Roboter`."""
    object: str
    """As the object of `has`, where it is known which: `the robot`, `den Roboter`."""


class Fact(NamedTuple):
    """The owner's thing has that name."""

    owner: str
    thing: Thing
    name: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and all that it tells, in its order."""

    text: str
    facts: tuple[Fact, ...]

    @property
    def words(self) -> str:
        """The payload: every owner once, then every name."""
        owners = dict.fromkeys(fact.owner for fact in self.facts)
        return " ".join([*owners, *(fact.name for fact in self.facts)])

    def about(self, owner: str) -> tuple[Fact, ...]:
        """What it tells of one of them."""
        return tuple(fact for fact in self.facts if fact.owner == owner)


def _things_en(nouns: str) -> tuple[Thing, ...]:
    return tuple(Thing(noun, f"a {noun}", f"the {noun}", f"the {noun}") for noun in nouns.split())


def _things_de(nouns: str) -> tuple[Thing, ...]:
    articles = {
        "m": ("einen", "der", "den"),
        "f": ("eine", "die", "die"),
        "n": ("ein", "das", "das"),
    }
    pairs = (entry.split("/") for entry in nouns.split())
    return tuple(
        Thing(noun, *(f"{article} {noun}" for article in articles[gender]))
        for noun, gender in pairs
    )


# no word that is a payload word: what is named must never look like a name
THINGS: dict[Language, tuple[Thing, ...]] = {
    "en": _things_en(
        "car robot doll shop team club band pony van truck bike yacht raft tent hotel game blog"
        " farm puppy kitten calf tractor sledge scooter"
    ),
    "de": _things_de(
        "Auto/n Roboter/m Puppe/f Laden/m Team/n Verein/m Pony/n Jacht/f Floß/n Zelt/n"
        " Hotel/n Spiel/n Hof/m Kalb/n Bus/m Foto/n Klub/m Roller/m Haus/n"
    ),
}
"""German nouns are those whose object has no ending of its own, unlike `den Welpen`."""

TOLD: dict[Language, tuple[str, ...]] = {
    "en": (
        "{owner} has {one} called {name}.",
        "{owner} has {one} named {name}.",
        "{owner} calls {object} {name}.",
        "The {noun} of {owner} is called {name}.",
        "{name} is the {noun} of {owner}.",
    ),
    "de": (
        "{owner} hat {one} namens {name}.",
        "{owner} hat {one}, genannt {name}.",
        "{owner} nennt {object} {name}.",
        "{name} heißt {the} von {owner}.",
    ),
}
"""The plainest first: owner, thing and name in that order."""
MOST_TELLINGS = max(map(len, TOLD.values()))

ASIDES: dict[Language, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        ("We", "They", "Some guests", "Both of us"),
        ("met", "asked", "know", "greeted"),
        ("at noon", "in May", "by chance", "again", "at work", "on Monday"),
    ),
    "de": (
        ("Wir", "Sie", "Gäste", "Alle"),
        ("trafen", "fragten", "kennen", "suchten"),
        ("am Mittag", "im Mai", "zufällig", "wieder", "am Montag"),
    ),
}
"""Who, did what, and when; the owner stands between the last two."""

_LONGEST = {"owner": 6, "name": 6}
"""Letters: an owner is written in every sentence, and a small model's context is soon full."""

_HAS: dict[Language, str] = {"en": "has", "de": "hat"}
_AND: dict[Language, str] = {"en": "and", "de": "und"}


def owner_name(rng: Rng, names: Words, taken: Sequence[str] = ()) -> str:
    """A made-up, capitalised name that is none of `taken`; `names` must make words up."""
    while True:
        name = names.payload(rng, 1)
        if name.istitle() and len(name) <= _LONGEST["owner"] and name.casefold() not in taken:
            return name


def compose(
    rng: Rng,
    words: Words,
    counts: Sequence[int],
    language: Language,
    *,
    asides: float,
    tellings: int = MOST_TELLINGS,
    mixed: bool = True,
) -> Passage:
    """A passage about as many owners as `counts` has, with as many facts of each, all mixed, or one
    owner after the other in any order.

    With probability `asides` one sentence more tells no fact. Two owners may have the same thing
    under two names, and no word stands for two of them. Of the ways to tell a fact, the first
    `tellings` are used.
    """
    maker = Words(words.split, "only", words.tokenizer, (), ())
    names = _names(rng, words, sum(counts), language)
    taken = [name.casefold() for name in names]
    facts: list[Fact] = []
    for count in counts:
        owner = owner_name(rng, maker, taken)
        taken.append(owner.casefold())
        things = rng.sample(THINGS[language], count)
        facts += [Fact(owner, thing, names.pop()) for thing in things]
    if mixed:
        rng.shuffle(facts)
    elif rng.random() < 0.5:
        facts.sort(key=lambda fact: fact.owner != owner)  # the last one first
    told = TOLD[language][:tellings]
    sentences = [_told(rng, fact, told) for fact in facts]
    if rng.random() < asides:
        who, did, when = (rng.choice(part) for part in ASIDES[language])
        aside = f"{who} {did} {rng.choice(facts).owner} {when}."
        sentences.insert(rng.randint(0, len(sentences)), aside)
    return Passage(" ".join(sentences), tuple(facts))


def _names(rng: Rng, words: Words, count: int, language: Language) -> list[str]:
    """Different words, none in capitals, which cost a token a letter; many mix several payloads."""
    names: dict[str, str] = {}
    while len(names) < count:
        for name in words.payload(rng, min(count, 4), language).split(" "):
            if len(name) <= _LONGEST["name"] and not (len(name) > 1 and name.isupper()):
                names.setdefault(name.casefold(), name)
    return list(names.values())[:count]


def _told(rng: Rng, fact: Fact, patterns: Sequence[str]) -> str:
    pattern = rng.choice(patterns)
    return pattern.format(owner=fact.owner, name=fact.name, **fact.thing._asdict())


def sentence(facts: Sequence[Fact], language: Language) -> str:
    """One sentence that tells these facts of one owner whole: `Blurpix has the robot tulip.`"""
    return _sentence(facts, [f"{fact.thing.object} {fact.name}" for fact in facts], language)


def report(facts: Sequence[Fact], language: Language) -> str:
    """KEY_FACTS, one a line, and a SUMMARY that leaves the names out."""
    lines = [f"- {fact.thing.noun}: {fact.name}" for fact in facts]
    summary = _sentence(facts, [fact.thing.one for fact in facts], language)
    return "\n".join(["KEY_FACTS:", *lines, f"SUMMARY: {summary}"])


def _sentence(facts: Sequence[Fact], parts: Sequence[str], language: Language) -> str:
    listed = ", ".join(parts[:-1])
    whole = f"{listed} {_AND[language]} {parts[-1]}" if listed else parts[-1]
    return f"{facts[0].owner} {_HAS[language]} {whole}."


class Told(NamedTuple):
    """What a sentence says: of whom, and which parts, in the order of the alphabet."""

    owner: str
    parts: tuple[str, ...]


class Report(NamedTuple):
    """A well-formed report: its key facts in the order of the alphabet, and its summary."""

    facts: tuple[str, ...]
    summary: str


_SENTENCE = re.compile(r"(\S+) (?:has|hat) ([^.!?\n]*[^.!?\s])\.")
_LINKS = re.compile(r", | and | und ")
_REPORT = re.compile(
    r"KEY_FACTS:\n((?:- [^:\s][^:\n]*: [^\s][^\n]*(?<!\s)\n)+)SUMMARY: (\S[^.!?\n]*[^.!?\s][.!?])"
)


def read_sentence(text: str) -> Told | None:
    """What one whole sentence of that shape says; None if the text is anything else."""
    found = _SENTENCE.fullmatch(text)
    return found and Told(found[1], tuple(sorted(_LINKS.split(found[2]))))


def read_report(text: str) -> Report | None:
    """The parts of a text that is a report and nothing else, whatever it tells; else None."""
    found = _REPORT.fullmatch(text)
    return found and Report(tuple(sorted(line[2:] for line in found[1].splitlines())), found[2])
