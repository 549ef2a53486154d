"""Facts, the schema they are to fill, and the JSON they come to: what `structured` is made of.

A schema is written short (`name, age#, tags[], paid:bool, city?, owner{name}`) or in words (`name
text, age number, tags list, paid bool, city text optional`). Whether a value is a string, a number,
a list or a boolean is decided by the schema alone: `code 407` is `"407"` under `code` and 407 under
`code#`. A schema belongs to training or to exams by a hash of its names and types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from matura.core.rng import Rng
from matura.core.types import Split
from matura.lessons.field_names import FALSE, KEYS, RESERVED, TRUE, Keys
from matura.lessons.phrasing import is_for_exam
from matura.lessons.words import Language, Words, invent, word_split

Type = Literal["text", "number", "list", "bool"]
Form = Literal["RECORD", "OPTIONAL", "NESTED"]
Value = str | int | float | bool | list[str]

SHORT: Mapping[Type, str] = {"text": "", "number": "#", "list": "[]", "bool": ":bool"}
WORDED: Mapping[Language, Mapping[Type, str]] = {
    "en": {"text": " text", "number": " number", "list": " list", "bool": " bool"},
    "de": {"text": " text", "number": " zahl", "list": " liste", "bool": " bool"},
}
_MOST_WORDS = 4
"""In all text values of a record: what keeps an answer within about 60 tokens."""
_TRIES = 12
_INVENTED = 6
"""Made-up names of each kind that a record draws from."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the text tells; `group` is the nested object it is about, or empty."""

    key: str
    said: tuple[str, ...]
    """Its words: as many as the list has parts, else one."""
    group: str = ""
    cued: bool = False
    """Told by a phrase of its own, without its name or with its name as a verb."""


@dataclass(frozen=True, slots=True)
class Style:
    """In what ways facts are told, as the lesson's settings say."""

    prose: float = 0.0
    """Share of facts told by a phrase of their own, where there is one."""
    lines: bool = False
    """Whether a text is lines of `name: value`, in the schema's order."""
    invented: float = 0.0
    """Share of records whose names are made up."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How a text tells its facts, one way throughout."""

    join: str
    """Between two facts."""
    joiner: str
    """Between the parts of a list."""
    link: str
    """Between a name and its value."""
    between: str
    """Between a nested object's name and a name in it."""
    grouped: bool
    """Whether a nested object's facts are told together."""


_LINES = _Way(join="\n", joiner=", ", link=": ", between=".", grouped=False)


@dataclass(frozen=True, slots=True)
class Field:
    """A place in the schema. Without a fact the text gives it no value, so it is left out."""

    key: str
    type: Type
    fact: Fact | None
    group: str = ""
    optional: bool = False

    @property
    def spelled(self) -> str:
        """What the split by schema goes by."""
        return f"{self.group}.{self.key}:{self.type}{'?' if self.optional else ''}"


@dataclass(frozen=True, slots=True)
class Told:
    """A text, a schema to fill from it, and all words of the text that are payload."""

    text: str
    fields: tuple[Field, ...]
    joiner: str
    """What stands between the parts of a list in the text."""
    payload: tuple[str, ...]
    language: Language

    @property
    def split_key(self) -> str:
        """The schema by its names and types, in one order."""
        return "schema " + " ".join(sorted(field.spelled for field in self.fields))

    @property
    def answer(self) -> dict[str, Any]:
        """The object, in the schema's order."""
        made: dict[str, Any] = {}
        for field in self.fields:
            inner = made.setdefault(field.group, {}) if field.group else made
            if field.fact is not None:
                inner[field.key] = _value(field.fact, field.type, self.joiner, self.language)
        return made

    def schema(self, rng: Rng) -> str:
        """The schema in one of its two notations, in order."""
        marks = SHORT if rng.random() < 0.6 else WORDED[self.language]
        optional = "?" if marks is SHORT else " optional"
        parts: list[str] = []
        for place, field in enumerate(self.fields):
            part = field.key + marks[field.type] + (optional if field.optional else "")
            if field.group and field.group == (self.fields[place - 1].group if place else ""):
                parts[-1] = f"{parts[-1][:-1]}, {part}}}"
            else:
                parts.append(f"{field.group}{{{part}}}" if field.group else part)
        return ", ".join(parts)


def spell_json(value: object) -> str:
    """JSON without spaces: fewest tokens, and one spelling of each value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def number(rng: Rng, split: Split) -> str:
    """A number of that split, of at most four characters: whole, or with one decimal."""
    while True:
        if rng.random() < 0.15:
            said = f"{rng.randrange(100)}.{rng.randint(1, 9)}"
        else:
            said = str(rng.randrange(10 ** rng.randint(1, 4)))
        if word_split(said) == split:
            return said


def plain_words(words: Words, rng: Rng, count: int, language: Language) -> list[str]:
    """That many words of the split, none of which names a field or says yes or no."""
    while True:
        drawn = words.payload(rng, count, language).split(" ")
        if not {word.casefold() for word in drawn} & RESERVED:
            return drawn


def tell(words: Words, rng: Rng, form: Form, count: int, language: Language, style: Style) -> Told:
    """A text and a schema of `count` fields whose names and types are of the words' split."""
    while True:
        keys = KEYS[language]
        if rng.random() < style.invented:
            keys = invented_keys(rng, keys)
        told = _tell(words, rng, form, count, language, style, keys)
        if told.payload and is_for_exam(told.split_key) == (words.split == "exam"):
            return told


def invented_keys(rng: Rng, keys: Keys) -> Keys:
    """Names made up for this once, a few of each kind; no phrase tells their values without
    them."""
    names = invented_names(rng, 5 * _INVENTED)
    words, numbers, flags, lists, groups = (tuple(names[kind::5]) for kind in range(5))
    return replace(
        keys, words=words, numbers=numbers, flags=flags, lists=lists, groups=groups, cues={}
    )


def invented_names(rng: Rng, count: int) -> list[str]:
    """That many different made-up names."""
    made: dict[str, None] = {}
    while len(made) < count:
        name = invent(rng, rng.choice((1, 1, 2)))
        if name not in RESERVED:
            made[name] = None
    return list(made)


def retyped(told: Told, rng: Rng, split: Split) -> Told | None:
    """The same text under a schema that wants other types, if one of the split is found soon."""
    for _ in range(_TRIES):
        fields = tuple(
            replace(field, type=_other_type(field)) if rng.random() < 0.6 else field
            for field in told.fields
        )
        other = replace(told, fields=fields)
        changed = other.answer != told.answer or other.split_key != told.split_key
        if changed and is_for_exam(other.split_key) == (split == "exam"):
            return other
    return None


def _tell(
    words: Words,
    rng: Rng,
    form: Form,
    count: int,
    language: Language,
    style: Style,
    keys: Keys,
) -> Told:
    spare = 1 if rng.random() < 0.4 else 0
    names = _names(keys, rng, count + spare)
    inner = min(count, rng.randint(1, 2)) if form == "NESTED" else 0
    group = rng.choice(keys.groups)
    facts = _facts(names, [group] * inner, keys, words, rng, language, style.prose)
    absent = 0
    if form == "OPTIONAL":
        absent = rng.randint(0, min(2, count - 1))
    fields: list[Field] = []
    for place, fact in enumerate(facts[:count]):
        optional = form == "OPTIONAL" and (place < absent or place == 0 or rng.random() < 0.3)
        given = None if place < absent else fact
        type_ = _usual_type(fact, keys, rng)
        fields.append(Field(fact.key, type_, given, fact.group, optional))
    flat = fields[inner:]
    rng.shuffle(flat)
    flat[(at := rng.randint(0, len(flat))) : at] = fields[:inner]
    present = list(facts[absent:])
    if style.lines:
        asked = [field.fact for field in flat if field.fact is not None]
        for fact in present:
            if fact not in asked:
                asked.insert(rng.randint(0, len(asked)), fact)
        present = asked
    way = _LINES if style.lines else _way(rng, keys, grouped=inner == 2 and rng.random() < 0.5)
    return Told(
        text=_text(present, way, keys, rng),
        fields=tuple(flat),
        joiner=way.joiner,
        payload=tuple(
            word
            for fact in present
            if fact.said[0] not in (TRUE[language], FALSE[language])
            for part in fact.said
            for word in part.split(" ")
        ),
        language=language,
    )


def _names(keys: Keys, rng: Rng, count: int) -> list[str]:
    """Different names: four kinds as likely as each other, lists at most once, as they are long."""
    found: list[str] = []
    kinds = [keys.words, keys.words, keys.numbers, keys.flags, keys.lists]
    while len(found) < count:
        kind = rng.choice(kinds)
        name = rng.choice(kind)
        if name not in found:
            found.append(name)
            if kind is keys.lists:
                kinds.remove(keys.lists)
    return found


def _facts(
    names: Sequence[str],
    groups: Sequence[str],
    keys: Keys,
    words: Words,
    rng: Rng,
    language: Language,
    prose: float,
) -> list[Fact]:
    """One fact for each name; the first ones are about their group."""
    room = _MOST_WORDS
    sizes: list[list[int]] = []
    for name in names:
        parts = rng.randint(1, 3) if name in keys.lists else 1
        long = name in keys.words and rng.random() < 0.25
        wanted = [2 if long else 1] * parts
        if sum(wanted) > room:
            wanted = [1]
        room -= sum(wanted) if name in keys.words or name in keys.lists else 0
        room = max(room, 1)
        sizes.append(wanted)
    total = sum(sum(s) for n, s in zip(names, sizes, strict=True) if _worded(n, keys))
    drawn = iter(plain_words(words, rng, total, language) if total else [])
    used: set[str] = set()
    facts: list[Fact] = []
    for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
        group = groups[place] if place < len(groups) else ""
        cued = not group and rng.random() < prose and (name in keys.cues or name in keys.flags)
        if _worded(name, keys):
            said = tuple(" ".join(next(drawn) for _ in range(n)) for n in size)
        elif name in keys.flags:
            said = (rng.choice((TRUE, FALSE))[language],)
        else:
            while (one := number(rng, words.split)) in used:
                pass
            used.add(one)
            said = (one,)
        facts.append(Fact(name, said, group, cued))
    return facts


def _worded(name: str, keys: Keys) -> bool:
    return name in keys.words or name in keys.lists


def _usual_type(fact: Fact, keys: Keys, rng: Rng) -> Type:
    """What its name suggests; a quarter of numbers and of flags are wanted as text all the same."""
    if fact.key in keys.lists:
        return "list"
    if fact.key in keys.words:
        return "text"
    if fact.key in keys.numbers:
        return "text" if rng.random() < 0.25 else "number"
    return "bool" if fact.cued or rng.random() < 0.75 else "text"


def _other_type(field: Field) -> Type:
    """The other type its fact could be wanted as; its own where there is none."""
    fact = field.fact
    if fact is None:
        return field.type
    flag = fact.said[0] in (*TRUE.values(), *FALSE.values())
    if flag and fact.cued:
        return field.type
    if field.type != "text":
        return "text"
    if flag:
        return "bool"
    digits = len(fact.said) == 1 and fact.said[0].replace(".", "").isdigit()
    return "number" if digits else "list"


def _value(fact: Fact, type_: Type, joiner: str, language: Language) -> Value:
    said = joiner.join(fact.said)
    match type_:
        case "number":
            return float(said) if "." in said else int(said)
        case "bool":
            return said == TRUE[language]
        case "list":
            return list(fact.said)
    return said


def _way(rng: Rng, keys: Keys, *, grouped: bool) -> _Way:
    join = rng.choice((", ", ", ", "; ", "\n", " | "))
    joiner = rng.choice((f" {keys.and_} ", f" {keys.and_} ", " + ", "/"))
    if join != ", " and not grouped and rng.random() < 0.3:
        joiner = ", "
    link = rng.choice((" ", " ", ": ", " = ", f" {keys.is_[0]} "))
    return _Way(join, joiner, link, rng.choice((" ", " ", ".")), grouped)


def _text(facts: Sequence[Fact], way: _Way, keys: Keys, rng: Rng) -> str:
    """The facts, lines in the order given and all else in any."""
    inner = [fact for fact in facts if fact.group]
    if way.grouped and inner:
        told = [_said(fact, way, keys) for fact in facts if not fact.group]
        lines = ", ".join(_said(fact, way, keys) for fact in inner)
        told.append(f"{inner[0].group} ({lines})")
    else:
        told = [
            (f"{fact.group}{way.between}" if fact.group else "") + _said(fact, way, keys)
            for fact in facts
        ]
    if way is not _LINES:
        rng.shuffle(told)
    return way.join.join(told)


def _said(fact: Fact, way: _Way, keys: Keys) -> str:
    value, link = way.joiner.join(fact.said), way.link
    if fact.cued and fact.key in keys.flags:
        no = "" if value in TRUE.values() else f"{keys.not_} "
        return f"{keys.is_[0]} {no}{fact.key}"
    if fact.cued:
        return keys.cues[fact.key].replace("{v}", value)
    if fact.key in keys.lists:
        link = link.replace(*keys.is_)
    return f"{fact.key}{link}{value}"
