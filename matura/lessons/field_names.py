"""The names that fields have and what else tells their values: data of `records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matura.lessons.words import Language

TRUE: Mapping[Language, str] = {"en": "yes", "de": "ja"}
FALSE: Mapping[Language, str] = {"en": "no", "de": "nein"}


@dataclass(frozen=True, slots=True)
class Keys:
    """The names a language's fields have, by what is usual for them, and phrases that tell a value
    without the name."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]
    flags: tuple[str, ...]
    lists: tuple[str, ...]
    groups: tuple[str, ...]
    """Names of nested objects."""
    cues: Mapping[str, str]
    """With `{v}` for the value."""
    is_: tuple[str, str]
    """One, many."""
    and_: str
    not_: str


def _split(names: str) -> tuple[str, ...]:
    return tuple(names.split())


KEYS: Mapping[Language, Keys] = {
    "en": Keys(
        words=_split("name title author country brand place team role topic maker"),
        numbers=_split("age price year weight width count score code pages rank total"),
        flags=_split("paid active sold ready urgent done valid"),
        lists=_split("tags parts hobbies items members guests colours names"),
        groups=_split("owner sender boss customer agent device"),
        cues={
            "name": "called {v}",
            "author": "written by {v}",
            "country": "comes from {v}",
            "place": "lives in {v}",
            "team": "plays for {v}",
            "role": "works as {v}",
            "topic": "reads about {v}",
            "maker": "made by {v}",
            "age": "{v} years old",
            "price": "costs {v}",
            "weight": "weighs {v}",
            "score": "scored {v}",
            "tags": "tagged {v}",
            "guests": "visited by {v}",
        },
        is_=("is", "are"),
        and_="and",
        not_="not",
    ),
    "de": Keys(
        words=_split("name titel autor land marke ort rolle thema"),
        numbers=_split("alter preis jahr gewicht breite anzahl punkte code seiten rang"),
        flags=_split("bezahlt aktiv fertig offen verkauft dringend"),
        lists=_split("tags teile mitglieder gäste farben"),
        groups=_split("besitzer absender kunde chef"),
        cues={
            "name": "heißt {v}",
            "land": "kommt aus {v}",
            "ort": "wohnt in {v}",
            "alter": "{v} Jahre alt",
            "preis": "kostet {v}",
            "gewicht": "wiegt {v}",
        },
        is_=("ist", "sind"),
        and_="und",
        not_="nicht",
    ),
}

RESERVED = frozenset(
    {*TRUE.values(), *FALSE.values()}
    | {
        name
        for keys in KEYS.values()
        for name in (*keys.words, *keys.numbers, *keys.flags, *keys.lists, *keys.groups)
    }
)
"""No payload word, in lower case: `name title` would be one fact or two."""
