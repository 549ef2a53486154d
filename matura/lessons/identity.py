"""Who the assistant is, from a short persona file, asked many ways and held against other names.

Three kinds of item. OWN: what the persona is, by heart, one to three things in one question. RIVAL:
another name or maker is put forward and denied, the right one affirmed. GIVEN: a system message
makes somebody else of the assistant, and what it says there counts; so the model learns to look
before it recites. The persona's own answers are the same in training and exams, as they must be;
what an exam asks is a wording never seen.

About 8,800 wordings for one thing, 380,000 for two and 14 million for three, each with one answer;
2,300 wordings of other names and over 7 million of given personas, with names made up afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from matura.core.rng import Rng
from matura.core.types import Conversation, Given, Split
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.persona import DEFAULT, TRAITS, Persona, joined
from matura.lessons.phrasing import is_for_exam
from matura.lessons.words import (
    ENGLISH,
    GERMAN,
    MAX_PIECES,
    Language,
    Words,
    split_of,
    word_split,
)

OPERATORS = ("OWN", "RIVAL", "GIVEN")
GIVEN_TRAITS = ("name", "maker", "version", "home")
"""What a system message may say of somebody else: whatever can be one or two made-up words."""

KNOWN = (
    "ChatGPT",
    "GPT",
    "Claude",
    "Gemini",
    "Llama",
    "Mistral",
    "Copilot",
    "Siri",
    "Alexa",
    "Qwen",
)
"""Names of other assistants; each is denied in training, validation or exams, by its hash."""

_OPENING: dict[Language, tuple[str, ...]] = {
    "en": (
        *("", "", "", "", "hi, ", "hey: ", "so, ", "say, ", "quick: ", "question: "),
        *("one question: ", "please tell me: ", "before we go on: ", "by the way, ", "and "),
        *("excuse me, ", "tell me, ", "okay, ", "well, "),
    ),
    "de": (
        *("", "", "", "", "hi, ", "also, ", "sag, ", "Frage: ", "eine Frage: ", "bitte, "),
        *("übrigens, ", "nun, ", "sag mir, ", "gut, "),
    ),
}
_TAIL: dict[Language, tuple[str, ...]] = {
    "en": ("?", "?", "?", "", ", please?", ", then?", ", exactly?", " again?", "? I want to know"),
    "de": ("?", "?", "?", "", ", bitte?", " denn?", " genau?", "? Das will ich wissen"),
}
_ASIDE: dict[Language, Mapping[str, tuple[str, ...]]] = {
    "en": {
        "name": (
            "are you {X}",
            "you are {X}, correct",
            "is your name {X}",
            "are you called {X}",
            "you are called {X}, correct",
            "do they call you {X}",
            "am I talking to {X}",
            "is this {X}",
        ),
        "maker": (
            "did {X} make you",
            "were you made by {X}",
            "did {X} program you",
            "is {X} your maker",
            "was it {X} who made you",
            "is {X} responsible for you",
        ),
    },
    "de": {
        "name": (
            "bist du {X}",
            "heißt du {X}",
            "ist dein Name {X}",
            "nennt man dich {X}",
            "du bist {X}, oder",
            "rede ich mit {X}",
        ),
        "maker": (
            "hat {X} dich gemacht",
            "bist du von {X}",
            "hat {X} dich trainiert",
            "ist {X} dein Hersteller",
            "steckt {X} dahinter",
        ),
    },
}
_VERDICT: dict[Language, dict[bool, str]] = {
    "en": {True: "Yes.", False: "No."},
    "de": {True: "Ja.", False: "Nein."},
}
_SYSTEM: dict[Language, Mapping[str, tuple[str, ...]]] = {
    "en": {
        "name": ("your name is {}", "you are {}", "you are called {}", "they call you {}"),
        "maker": ("{} made you", "you were made by {}", "your maker is {}", "{} built you"),
        "version": ("you are version {}", "your version is {}", "this is version {}"),
        "home": ("you are hosted on {}", "your host is {}", "{} hosts you"),
    },
    "de": {
        "name": ("dein Name ist {}", "du bist {}", "du heißt {}", "man nennt dich {}"),
        "maker": ("{} hat dich gemacht", "du bist von {}", "dein Hersteller ist {}"),
        "version": ("du bist Version {}", "deine Version ist {}"),
        "home": ("du läufst auf {}", "man betreibt dich auf {}"),
    },
}
_LISTED = frozenset(ENGLISH) | frozenset(GERMAN) | {name.casefold() for name in KNOWN}
_JOINT = (". ", ". ", "; ")


class Identity(Lesson):
    """The persona's answers, kept against other names, and given up where the system says so."""

    presets: ClassVar[Mapping[str, int]] = {"nanochat": 1_000}

    by_heart: ClassVar[bool] = True

    kind: Literal["identity"] = "identity"
    path: Path | None = None
    """The persona's YAML or JSON file: `name`, `maker`, `purpose`, `languages`, and if you like
    `nature`, `version`, `home`; each one text or `{en: …, de: …}`. If absent, Matura's own."""
    max_facts: int = Field(default=3, ge=1, le=4)
    """A question asks for 1 to this many things, each number equally often."""
    rival: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of items that put a name or maker forward, a wrong one in two of three."""
    told: float = Field(default=0.35, ge=0.0, le=1.0)
    """Share of items where a system message says who the assistant is."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.rival + self.told > 1:
            raise ValueError("rival + told is over 1: these are shares of all items")
        return self

    def persona(self) -> Persona:
        """Who the assistant is.

        Raises:
            DataError: `file:line: key: reason`.
        """
        return Persona(DEFAULT) if self.path is None else Persona.load(self.path)

    def items(self, given: Given) -> Iterator[Conversation]:
        """Questions without end, the three kinds mixed evenly."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        persona = self.persona()
        words = Words.of(given.split, "include", given.tokenizer)
        shares = {
            "OWN": 1 - self.rival - self.told,
            "RIVAL": self.rival,
            "GIVEN": self.told,
        }
        owed = dict.fromkeys(shares, 0.0)
        asked = dict.fromkeys(shares, 0)
        while True:
            for operator, share in shares.items():
                owed[operator] += share
            operator = max(owed, key=lambda name: owed[name])
            owed[operator] -= 1
            facts = 1 + asked[operator] % self.max_facts
            asked[operator] += 1
            language: Language = "de" if given.rng.random() < self.german else "en"
            ask = {"OWN": _own, "RIVAL": _rival, "GIVEN": _given}[operator]
            yield (ask(_Asking(given, persona, words, language), facts),)


class _Asking(NamedTuple):
    """All that an item is made from."""

    given: Given
    persona: Persona
    words: Words
    language: Language

    @property
    def rng(self) -> Rng:
        return self.given.rng

    def too_long(self, value: str) -> bool:
        """Whether a capital cut one of its made-up words into too many pieces."""
        codec = self.given.tokenizer
        made_up = (word for word in value.split(" ") if word.casefold() not in _LISTED)
        return codec is not None and any(len(codec.encode(word)) > MAX_PIECES for word in made_up)

    def worded(self, compose: Callable[[], str], *, by_wording: bool = False) -> str:
        """A wording of the item's split; `by_wording` keeps validation's apart from training's too,
        where no payload does."""
        while True:
            text = compose()
            if is_for_exam(text) != (self.given.split == "exam"):
                continue
            if not by_wording or self.given.split == "exam":
                return text
            held = split_of(text.casefold(), "identity") == "validation"
            if held == (self.given.split == "validation"):
                return text

    def question(self, parts: Sequence[str]) -> str:
        """Parts of a question as one, with an opening and an end."""
        rng = self.rng
        text = rng.choice(_OPENING[self.language]) + joined(parts, self.language)
        text += rng.choice(_TAIL[self.language])
        return text if rng.random() < 0.15 else text[:1].upper() + text[1:]

    def about(self, traits: Sequence[str]) -> str:
        """A question for these traits."""
        return self.question(
            [self.rng.choice(TRAITS[trait][self.language].questions) for trait in traits]
        )

    def answer(self, trait: str, value: str) -> str:
        """The sentence that says so."""
        return TRAITS[trait][self.language].answer.replace("{}", value)


def _own(asking: _Asking, facts: int) -> Conversation:
    said, language = asking.persona.said, asking.language
    traits = asking.rng.sample(sorted(said), min(facts, len(said)))
    text = asking.worded(lambda: asking.about(traits), by_wording=True)
    return conversation(
        text,
        operator="OWN",
        payload=" ".join(traits),
        template=text,
        language=language,
        bucket=f"OWN x {len(traits)}",
        expected=" ".join(asking.answer(trait, said[trait][language]) for trait in traits),
    )


def _rival(asking: _Asking, facts: int) -> Conversation:
    """A third of the questions put the right one forward, so that `No` is no safe answer."""
    rng, language = asking.rng, asking.language
    trait = rng.choice(("name", "maker"))
    own = asking.persona.said[trait][language]
    right = rng.random() < 1 / 3
    text = asking.worded(
        lambda: asking.question([rng.choice(_ASIDE[language][trait])]),
        by_wording=right,
    )
    other = _somebody(asking, trait)
    return conversation(
        text.replace("{X}", own if right else other),
        operator="RIVAL",
        payload=trait if right else other,
        template=text,
        language=language,
        bucket=f"RIVAL {'right' if right else 'wrong'} {trait}",
        expected=f"{_VERDICT[language][right]} {asking.answer(trait, own)}",
        extra={} if right else {"rival": other},
    )


def _given(asking: _Asking, facts: int) -> Conversation:
    """Two or more things are said in the system message, one or more of them asked for."""
    rng, language = asking.rng, asking.language
    told = rng.sample(GIVEN_TRAITS, max(rng.randint(2, 3), facts))
    traits = rng.sample(told, facts)
    values: dict[str, str] = {}
    for trait in told:
        values[trait] = _somebody(asking, trait)

    def compose() -> str:
        parts = [
            rng.choice(_SYSTEM[language][trait]).replace("{}", f"{{{trait}}}") for trait in told
        ]
        joint = rng.choice(_JOINT)
        if joint != "; ":
            parts = [part[:1].upper() + part[1:] for part in parts]
        return f"{joint.join(parts)}.\n{asking.about(traits)}"

    template = asking.worded(compose)
    system, _, user = template.partition("\n")
    for trait, value in values.items():
        system = system.replace(f"{{{trait}}}", value)
    return conversation(
        user,
        operator="GIVEN",
        payload=" ".join(values.values()),
        template=template,
        language=language,
        bucket=f"GIVEN x {facts}",
        expected=" ".join(asking.answer(trait, values[trait]) for trait in traits),
        system=system[:1].upper() + system[1:],
        extra={"own": asking.persona.said["name"][language]} if "name" in traits else {},
    )


def _somebody(asking: _Asking, trait: str) -> str:
    """A name, maker, version or home that is not the persona's, of the item's split."""
    rng, split = asking.rng, asking.given.split
    own = asking.persona.said.get(trait, {}).values()
    while True:
        if trait == "version":
            value = _number(rng, split)
        elif trait == "name" and rng.random() < 0.1:
            value = rng.choice(KNOWN)
            if word_split(value) != split:
                continue
        else:
            words = asking.words.payload(rng, 1 if trait == "name" else rng.randint(1, 2))
            if any(word.isdigit() for word in words.split(" ")):
                continue
            value = " ".join(word[:1].upper() + word[1:] for word in words.split(" "))
            if asking.too_long(value):
                continue
        if value not in own:
            return value


def _number(rng: Rng, split: Split) -> str:
    while True:
        number = str(rng.randrange(10 ** rng.randint(1, 3)))
        if word_split(number) == split:
            return number
