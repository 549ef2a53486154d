"""Who the assistant says it is: a short file, and the sentences that questions and answers about it
are made of.

Everything in the file is text, so `version: 1.0` is said as it stands there. A text is said in both
languages, or a mapping gives one for each: `maker: {en: the team, de: das Team}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from matura.core.errors import DataError
from matura.core.leaves import did_you_mean
from matura.core.yaml_nodes import nodes_of, small_text
from matura.lessons.words import Language

LIMIT_BYTES = 64_000
"""A persona is a few lines; a larger file is another file."""
LONGEST = 120
"""Characters of one text: an answer is a sentence."""
LANGUAGES: tuple[Language, ...] = ("en", "de")


class Trait(NamedTuple):
    """One thing a persona can be asked: the questions, and the sentence that answers, `{}` being
    its value."""

    questions: tuple[str, ...]
    """Without capital or question mark, so that several fit into one sentence."""
    answer: str


TRAITS: dict[str, dict[Language, Trait]] = {
    "name": {
        "en": Trait(
            (
                "what is your name",
                "what's your name",
                "who are you",
                "what are you called",
                "what do they call you",
                "what should I call you",
                "by what name do you go",
                "which name do you have",
                "tell me your name",
                "give me your name",
                "say your name",
            ),
            "My name is {}.",
        ),
        "de": Trait(
            (
                "wie heißt du",
                "wer bist du",
                "wie ist dein Name",
                "wie nennt man dich",
                "wie soll ich dich nennen",
                "welchen Namen hast du",
                "sag mir deinen Namen",
            ),
            "Ich heiße {}.",
        ),
    },
    "maker": {
        "en": Trait(
            (
                "who made you",
                "who built you",
                "who created you",
                "who trained you",
                "who wrote you",
                "who is your maker",
                "who is responsible for you",
                "by whom were you made",
                "tell me your maker",
                "name your maker",
            ),
            "I was made by {}.",
        ),
        "de": Trait(
            (
                "wer hat dich gemacht",
                "wer hat dich gebaut",
                "wer hat dich trainiert",
                "wer steckt dahinter",
                "von wem bist du",
                "nenne deinen Hersteller",
            ),
            "Mich hat {} gemacht.",
        ),
    },
    "purpose": {
        "en": Trait(
            (
                "what are you for",
                "what is your purpose",
                "what is your task",
                "what is your job",
                "why are you here",
                "what were you made for",
                "what can you do for me",
                "tell me your purpose",
                "what is your use",
            ),
            "I am here to {}.",
        ),
        "de": Trait(
            (
                "wozu bist du da",
                "was ist deine Aufgabe",
                "was ist dein Zweck",
                "warum gibt es dich",
                "wofür bist du gemacht",
                "was kannst du für mich tun",
            ),
            "Ich bin da, um {}.",
        ),
    },
    "languages": {
        "en": Trait(
            (
                "which languages do you speak",
                "what languages do you speak",
                "what languages do you know",
                "which languages can you use",
                "tell me your languages",
                "name your languages",
                "in which languages can we chat",
            ),
            "I speak {}.",
        ),
        "de": Trait(
            (
                "welche Sprachen sprichst du",
                "welche Sprachen kannst du",
                "was für Sprachen kennst du",
                "nenne deine Sprachen",
                "in welchen Sprachen redest du",
            ),
            "Ich spreche {}.",
        ),
    },
    "nature": {
        "en": Trait(
            (
                "what are you",
                "what kind of thing are you",
                "are you human",
                "are you a machine",
                "are you a program",
                "are you alive",
                "what sort of thing are you",
            ),
            "I am {}.",
        ),
        "de": Trait(
            (
                "was bist du",
                "was für ein Ding bist du",
                "bist du menschlich",
                "bist du eine Maschine",
                "bist du ein Programm",
                "lebst du",
            ),
            "Ich bin {}.",
        ),
    },
    "version": {
        "en": Trait(
            (
                "which version are you",
                "what version are you",
                "what is your version",
                "which version is this",
                "tell me your version",
                "give me your version",
            ),
            "I am version {}.",
        ),
        "de": Trait(
            (
                "welche Version bist du",
                "was ist deine Version",
                "welche Version ist das",
                "nenne deine Version",
            ),
            "Ich bin Version {}.",
        ),
    },
    "home": {
        "en": Trait(
            (
                "where are you hosted",
                "what are you hosted on",
                "on what are you hosted",
                "what is your host",
                "tell me your host",
                "where do I find you",
            ),
            "My host is {}.",
        ),
        "de": Trait(
            (
                "worauf läufst du",
                "wo läufst du",
                "was ist dein Gerät",
                "wo finde ich dich",
            ),
            "Ich laufe auf {}.",
        ),
    },
}
REQUIRED = ("name", "maker", "purpose", "languages")
"""Traits that every persona has; the others may be left out."""

_LISTS = ("languages",)
_AND: dict[Language, str] = {"en": " and ", "de": " und "}

Said = Mapping[str, Mapping[Language, str]]
"""Of each trait, how it is said in each language."""


class Persona(NamedTuple):
    """A name and all that goes with it."""

    said: Said

    @classmethod
    def load(cls, path: Path) -> Persona:
        """The persona in a YAML or JSON file.

        Raises:
            DataError: `file:line: key: reason`.
        """
        return cls.parse(small_text(path, LIMIT_BYTES, "a persona", DataError), str(path))

    @classmethod
    def parse(cls, text: str, where: str) -> Persona:
        """The persona that `text` spells; `where` starts every error.

        Raises:
            DataError: as `load`.
        """
        # JSON may indent with tabs, YAML must not; all other JSON is YAML
        spelled = text.replace("\t", " ") if text.lstrip()[:1] == "{" else text
        node = nodes_of(spelled, where, DataError)
        return cls(_Reader(where).traits(node))

    @property
    def names(self) -> frozenset[str]:
        """What it is called, in any language."""
        return frozenset(self.said["name"].values())


class _Reader:
    """Makes traits of a file's nodes; every refusal names the line and the key."""

    def __init__(self, where: str) -> None:
        self.where = where

    def traits(self, node: yaml.Node | None) -> Said:
        if node is None:
            raise DataError(f"{self.where}: empty; expected {', '.join(REQUIRED)}")
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, "", "a persona is a mapping: name, maker, purpose, languages")
        found: dict[str, Mapping[Language, str]] = {}
        for key, key_node, value in self.pairs(node, ""):
            if key not in TRAITS:
                raise self.error(key_node, key, f"no such trait{did_you_mean(key, TRAITS)}")
            found[key] = self.both(value, key, listed=key in _LISTS)
        if missing := [name for name in REQUIRED if name not in found]:
            raise self.error(node, missing[0], "is missing")
        return {name: found[name] for name in TRAITS if name in found}

    def pairs(
        self, node: yaml.MappingNode, inside: str
    ) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """A mapping's keys, each once, with their nodes and values."""
        seen: dict[str, int] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error(key_node, inside, "a key is one word")
            key = str(key_node.value)
            if key in seen:
                raise self.error(key_node, key, f"stands in line {seen[key]} already")
            seen[key] = key_node.start_mark.line + 1
            yield key, key_node, value

    def both(self, node: yaml.Node, key: str, *, listed: bool) -> Mapping[Language, str]:
        """A text for both languages, or one for each."""
        if not isinstance(node, yaml.MappingNode):
            return {language: self.text(node, key, language, listed) for language in LANGUAGES}
        found: dict[str, str] = {}
        for name, name_node, value in self.pairs(node, key):
            place = f"{key}.{name}"
            if name not in LANGUAGES:
                raise self.error(
                    name_node, place, f"no such language{did_you_mean(name, LANGUAGES)}"
                )
            found[name] = self.text(value, place, "de" if name == "de" else "en", listed)
        if missing := [name for name in LANGUAGES if name not in found]:
            raise self.error(node, f"{key}.{missing[0]}", "is missing")
        return {language: found[language] for language in LANGUAGES}

    def text(self, node: yaml.Node, key: str, language: Language, listed: bool) -> str:
        """One line of text; several are joined as they are said."""
        if listed and isinstance(node, yaml.SequenceNode):
            if not node.value:
                raise self.error(node, key, "is empty")
            return joined([self.text(one, key, language, False) for one in node.value], language)
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, key, "must be text" + (" or a list of texts" * listed))
        text = " ".join(str(node.value).split())
        if not text or node.tag.endswith(":null"):
            raise self.error(node, key, "is empty")
        if len(text) > LONGEST:
            raise self.error(node, key, f"{len(text)} characters; at most {LONGEST}")
        if text.endswith((".", "!", "?")):
            raise self.error(node, key, f"ends with {text[-1]!r}; the sentence around it does")
        return text

    def error(self, node: yaml.Node, key: str, reason: str) -> DataError:
        line = node.start_mark.line + 1
        return DataError(
            f"{self.where}:{line}: {key}: {reason}" if key else f"{self.where}:{line}: {reason}"
        )


def joined(parts: Sequence[str], language: Language) -> str:
    """A list as it is said: `a, b and c`."""
    *first, last = parts
    return f"{', '.join(first)}{_AND[language]}{last}" if first else last


DEFAULT: Said = {
    "name": {"en": "Mati", "de": "Mati"},
    "maker": {"en": "the Matura team", "de": "das Matura-Team"},
    "purpose": {
        "en": "help with words and sums",
        "de": "mit Wörtern und Summen zu helfen",
    },
    "languages": {"en": "English and German", "de": "Englisch und Deutsch"},
    "nature": {"en": "a small language model", "de": "ein kleines Sprachmodell"},
    "version": {"en": "1", "de": "1"},
    "home": {"en": "a laptop", "de": "einem Laptop"},
}
"""Who the assistant is where no file says so."""
