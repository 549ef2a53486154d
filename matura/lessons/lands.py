"""Lands that do not exist, with a capital, a king, a flag ... that never change.

No text a model was trained on can have told it these facts, so whoever knows them remembers the
lesson. Names are four ASCII letters, at most four pieces for any byte-level tokenizer; no name is
an ordinary word, or a word that some exam uses as a payload.
"""

from __future__ import annotations

from functools import cache

from matura.core.rng import rng
from matura.lessons.facts import Relation
from matura.lessons.words import ENGLISH, GERMAN, Language, word_split

MOST = 1_000
"""Lands there can be; three names each, of the 3,900 that there are."""

_HEADS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_ORDINARY = frozenset(ENGLISH) | frozenset(GERMAN)

# German asks only for what is a name, which is the same in both languages: a small model would
# have to learn each colour twice
_ASKED: dict[str, dict[Language, tuple[str, ...]]] = {
    "capital": {
        "en": ("the capital of {X}", "the capital city of {X}"),
        "de": ("die Hauptstadt von {X}", "die Hauptstadt des Landes {X}"),
    },
    "king": {
        "en": ("the king of {X}", "the king who rules {X}"),
        "de": ("der König von {X}", "der König des Landes {X}"),
    },
    "flag": {"en": ("the colour of the flag of {X}", "the flag colour of {X}")},
    "animal": {"en": ("the animal of {X}", "the animal on the coins of {X}")},
    "dish": {"en": ("the favourite dish of {X}", "the dish that {X} likes best")},
}
_DRAWN = {
    "flag": ("Red", "Blue", "Green", "Yellow", "Brown", "Pink"),
    "animal": ("Wolf", "Bear", "Lion", "Fox", "Goat", "Swan", "Owl", "Whale", "Crab", "Bee"),
    "dish": ("Soup", "Rice", "Fish", "Bread", "Cheese", "Beans", "Cake", "Eggs"),
}


def _names(count: int) -> list[str]:
    """The first so many names, each once; more lands never change the earlier ones."""
    stream = rng(0, "lands", "names")
    found: dict[str, None] = {}
    while len(found) < count:
        word = "".join(stream.choice(_VOWELS if place % 2 else _HEADS) for place in range(4))
        if word not in _ORDINARY and word_split(word) == "train":
            found[word.capitalize()] = None
    return list(found)


@cache
def relations(lands: int) -> tuple[Relation, ...]:
    """Five facts about each of the first so many lands; two of them in German as well."""
    names = _names(3 * lands)
    told: dict[str, dict[str, str]] = {asked: {} for asked in _ASKED}
    for number in range(lands):
        land, told["capital"][land], told["king"][land] = names[3 * number : 3 * number + 3]
        # a stream of its own for each land: others may come and go
        stream = rng(0, "lands", land)
        for asked, values in _DRAWN.items():
            told[asked][land] = stream.choice(values)
    return tuple(
        Relation(f"{start} {called[0].format(X='{}')}?", called, told[asked], language)
        for asked, by_language in _ASKED.items()
        for language, called in by_language.items()
        for start in ("What is" if language == "en" else "Was ist",)
    )
