"""Tools as a prompt lists them, and what is asked for: a call that one of them fits, or none.

The tools are never run: a call is written as JSON text. Each argument goes by several names and
the list in the prompt says which, so that names are read and not remembered. Every request holds
its values as they are to be copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from matura.core.rng import Rng
from matura.core.types import Split
from matura.lessons.phrasing import Grammar
from matura.lessons.records import SHORT, Type, number, plain_words
from matura.lessons.words import Language, Words

Kind = Literal["word", "number", "switch"]

SLOTS = ("{a}", "{b}")
"""Where a request's first and second value go."""

_COPIED_REQUESTS = 0.4

_TYPES: Mapping[Kind, Type] = {"word": "text", "number": "number", "switch": "bool"}
_STATES: Mapping[Language, tuple[str, str]] = {"en": ("on", "off"), "de": ("ein", "aus")}
"""What is said for true and for false."""

_POLITE: Mapping[Language, tuple[str, ...]] = {
    "en": ("", "", "please ", "now ", "just ", "could you ", "then "),
    "de": ("", "", "bitte ", "nun ", "jetzt ", "also "),
}
_END: Mapping[Language, tuple[str, ...]] = {
    "en": ("", "", "", " for me", " please", " at once", " for us"),
    "de": ("", "", "", " bitte", " sofort", " für uns"),
}
_ASK: Mapping[Language, tuple[str, ...]] = {
    "en": ("what is", "tell me", "I need", "get", "I want", "let me see", "what about", "give me"),
    "de": ("ich brauche", "nenne mir", "ich will", "gib mir", "zeig mir"),
}


@dataclass(frozen=True, slots=True)
class Argument:
    """A value a tool takes, under one of its names."""

    names: tuple[str, ...]
    kind: Kind = "word"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that only exists in prompts; `{a}` and `{b}` are its first and second value."""

    name: str
    arguments: tuple[Argument, ...]
    topics: tuple[str, ...]
    """What one asks about, such as `the weather in {a}`; or orders, if `orders`."""
    orders: Literal["orders", "topics"] = "topics"
    language: Language = "en"

    def signature(self, names: tuple[str, ...]) -> str:
        """As the prompt lists it: `order(item, count#)`."""
        marked = (
            name + SHORT[_TYPES[argument.kind]]
            for name, argument in zip(names, self.arguments, strict=True)
        )
        return f"{self.name}({', '.join(marked)})"

    def named(self, rng: Rng) -> tuple[str, ...]:
        """A name for each argument."""
        return tuple(rng.choice(argument.names) for argument in self.arguments)

    def values(self, words: Words, rng: Rng, language: Language) -> tuple[str, ...]:
        """A value for each argument, as it is said."""
        kinds = [argument.kind for argument in self.arguments]
        needed = kinds.count("word")
        drawn = iter(plain_words(words, rng, needed, language) if needed else [])
        return tuple(
            next(drawn)
            if kind == "word"
            else number(rng, words.split)
            if kind == "number"
            else rng.choice(_STATES[language])
            for kind in kinds
        )

    def call(
        self, names: tuple[str, ...], values: tuple[str, ...], language: Language
    ) -> dict[str, object]:
        """The call as an object."""
        made: dict[str, object] = {}
        for name, argument, said in zip(names, self.arguments, values, strict=True):
            match argument.kind:
                case "word":
                    made[name] = said
                case "number":
                    made[name] = float(said) if "." in said else int(said)
                case "switch":
                    made[name] = said == _STATES[language][0]
        return {"name": self.name, "arguments": made}

    def payload(self, values: tuple[str, ...], request: str) -> tuple[str, ...]:
        """The values in the request that belong to a split; on and off belong to all."""
        return tuple(
            said
            for slot, argument, said in zip(SLOTS, self.arguments, values, strict=False)
            if argument.kind != "switch" and slot in request
        )


_WHERE = Argument(("place", "town", "where"))
_WHAT = Argument(("item", "product", "what"))
_TERM = Argument(("query", "term", "words"))

TOOLS: Mapping[Language, tuple[Tool, ...]] = {
    "en": (
        Tool(
            "weather",
            (_WHERE,),
            ("the weather in {a}", "the weather for {a}", "the forecast for {a}"),
        ),
        Tool("price", (_WHAT,), ("the price of {a}", "the cost of {a}", "a price for {a}")),
        Tool(
            "define",
            (_TERM,),
            ("define {a}", "define the term {a}", "give a definition of {a}"),
            "orders",
        ),
        Tool("browse", (_TERM,), ("browse for {a}", "browse pages about {a}"), "orders"),
        Tool(
            "translate",
            (Argument(("text", "phrase")), Argument(("to", "target"))),
            ("translate {a} to {b}", "translate {a} into {b}"),
            "orders",
        ),
        Tool(
            "route",
            (Argument(("from", "origin")), Argument(("to", "goal"))),
            ("the route from {a} to {b}", "the way from {a} to {b}"),
        ),
        Tool(
            "timer",
            (Argument(("minutes", "time"), "number"),),
            ("a timer for {a} minutes", "a timer of {a} minutes", "an alarm in {a} minutes"),
        ),
        Tool(
            "mail",
            (Argument(("to", "recipient")), Argument(("text", "body"))),
            ("mail to {a}: {b}", "send {a} a mail: {b}"),
            "orders",
        ),
        Tool(
            "volume",
            (Argument(("level", "value"), "number"),),
            ("set the volume to {a}", "make the volume {a}"),
            "orders",
        ),
        Tool(
            "order",
            (Argument(("count", "amount"), "number"), _WHAT),
            ("order {a} of {b}", "order {a} pieces of {b}", "buy {a} of {b}"),
            "orders",
        ),
        Tool(
            "switch",
            (Argument(("device", "thing")), Argument(("on", "state"), "switch")),
            ("switch {a} {b}", "switch the device {a} {b}"),
            "orders",
        ),
        Tool(
            "note",
            (Argument(("text", "body")), Argument(("title", "topic"))),
            ("note {a} about {b}", "write a note {a} about {b}"),
            "orders",
        ),
    ),
    "de": tuple(
        replace(tool, language="de")
        for tool in (
            Tool("wetter", (Argument(("ort", "wo")),), ("das Wetter in {a}", "das Wetter für {a}")),
            Tool(
                "preis",
                (Argument(("artikel", "ware")),),
                ("den Preis von {a}", "den Preis für {a}"),
            ),
            Tool(
                "suche",
                (Argument(("text", "begriff")),),
                ("suche {a}", "suche nach {a}"),
                "orders",
            ),
            Tool(
                "route",
                (Argument(("von", "start")), Argument(("nach", "ziel"))),
                ("die Route von {a} nach {b}", "den Weg von {a} nach {b}"),
            ),
            Tool(
                "wecker",
                (Argument(("minuten", "dauer"), "number"),),
                ("einen Wecker in {a} Minuten", "einen Wecker für {a} Minuten"),
            ),
            Tool(
                "schalte",
                (Argument(("gerät", "was")), Argument(("an", "zustand"), "switch")),
                ("schalte {a} {b}", "schalte das Gerät {a} {b}"),
                "orders",
            ),
        )
    ),
}

REQUESTS: Mapping[Language, Mapping[str, Grammar]] = {
    language: {
        tool.name: Grammar(
            language,
            ["<polite><topic><end>", "<opening><topic><end>"]
            if tool.orders == "orders"
            else ["<polite><ask> <topic><end>", "<opening><ask> <topic><end>"],
            {
                "polite": _POLITE[language],
                "opening": ("so, ", "well, ", "okay, ", "next: ", "please: ")
                if language == "en"
                else ("so, ", "gut, ", "okay, ", "Frage: "),
                "ask": _ASK[language],
                "topic": tool.topics,
                "end": _END[language],
            },
        )
        for tool in tools
    }
    for language, tools in TOOLS.items()
}

_LEAVE_SLOTS: Mapping[Language, Mapping[str, tuple[str, ...]]] = {
    "en": {
        "polite": _POLITE["en"],
        "verb": ("repeat", "copy", "echo", "write", "type", "copy out"),
        "object": ("this", "the text", "the words", "this text", "the following"),
        "without": ("without a tool", "as it is", "unchanged", "word for word"),
    },
    "de": {
        "polite": _POLITE["de"],
        "verb": ("wiederhole", "kopiere", "schreib", "schreibe", "tippe"),
        "object": ("das", "den Text", "diesen Text", "die Worte"),
        "without": ("ohne Werkzeug", "unverändert", "genau so"),
    },
}
LEAVE: Mapping[Language, Grammar] = {
    language: Grammar(
        language,
        [
            "<polite><verb>: {Q}",
            "<polite><verb> <object>: {Q}",
            "<polite><verb> <object> <without>: {Q}",
            "<without>, <polite><verb>: {Q}",
        ],
        slots,
    )
    for language, slots in _LEAVE_SLOTS.items()
}
"""To be answered directly, by copying: `{Q}` is a value, or something a tool could be asked for."""

FRAMES: Mapping[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<tools>: {T}<gap>{Q}",
            "<you> {T}<gap>{Q}",
            "<tools>: {T}<gap><request>: {Q}",
            "{Q}\n<tools>: {T}",
        ],
        {
            "tools": ("tools", "functions", "your tools", "tools you may use", "tools at hand"),
            "you": ("you have", "you may use", "here you have", "use"),
            "request": ("request", "question", "task", "user"),
            "gap": ("\n", "\n", ". ", " - ", "\n\n"),
        },
    ),
    "de": Grammar(
        "de",
        ["<tools>: {T}<gap>{Q}", "<you> {T}<gap>{Q}", "{Q}\n<tools>: {T}"],
        {
            "tools": ("Werkzeuge", "Funktionen", "deine Werkzeuge", "erlaubte Werkzeuge"),
            "you": ("du hast", "nutze", "du darfst nutzen"),
            "gap": ("\n", "\n", ". ", " - ", "\n\n"),
        },
    ),
}

NO_TOOL: Mapping[Language, str] = {"en": "No tool fits.", "de": "Kein Werkzeug passt."}


def listed(rng: Rng, language: Language, wanted: Tool, count: int) -> tuple[Tool, ...]:
    """`count` tools in any order, the wanted one among them."""
    chosen = [*unfit(rng, language, wanted, count - 1)]
    chosen.insert(rng.randint(0, len(chosen)), wanted)
    return tuple(chosen)


def unfit(rng: Rng, language: Language, wanted: Tool, count: int) -> tuple[Tool, ...]:
    """`count` tools of which none is the wanted one."""
    return tuple(rng.sample([tool for tool in TOOLS[language] if tool is not wanted], count))


def written(tools: tuple[Tool, ...], wanted: Tool, names: tuple[str, ...], rng: Rng) -> str:
    """The list as it stands in the prompt, the wanted tool with these names."""
    return ", ".join(tool.signature(names if tool is wanted else tool.named(rng)) for tool in tools)


def left_alone(rng: Rng, split: Split, language: Language, tool: Tool) -> tuple[str, str]:
    """A wording of what is only to be copied, and what that is: a value, or a request's own words;
    values open in both."""
    copied = rng.choice(tool.topics) if rng.random() < _COPIED_REQUESTS else SLOTS[0]
    return LEAVE[language].draw(rng, split).text.replace("{Q}", copied), copied
