"""How somebody asks for what needs a tool, or several in turn: wordings put together from clauses.

A request for a chain is made of clauses (`convert 3 km to m`, `add 40`, `note it as lamp`), so it
cannot be one flat pattern; rules here may name rules. A whole wording belongs to training or to
exams by its hash, as everywhere, while its clauses occur in both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from matura.core.rng import Rng
from matura.core.types import Split
from matura.lessons.phrasing import is_for_exam
from matura.lessons.words import Language

_NAME = re.compile(r"<(\w+)>")
_LOWER_START = 0.15
_TRIES = 1_000


class Rules:
    """Clauses by name; each is one of its patterns, in which `<name>` is another clause."""

    def __init__(self, language: Language, rules: Mapping[str, Sequence[str]]) -> None:
        self.language = language
        self.rules = {name: tuple(patterns) for name, patterns in rules.items()}

    def size(self, pattern: str) -> int:
        """How many different wordings a pattern has."""
        return math.prod(
            sum(self.size(inner) for inner in set(self.rules[name]))
            for name in _NAME.findall(pattern)
        )

    def draw(self, rng: Rng, split: Split, patterns: Sequence[str]) -> str:
        """A wording of one of the patterns that belongs to the split; validation shares
        training's."""
        for _ in range(_TRIES):
            text = self._fill(rng, rng.choice(patterns))
            if rng.random() >= _LOWER_START:
                text = text[:1].upper() + text[1:]
            if is_for_exam(text) == (split == "exam"):
                return text
        raise AssertionError(f"no wording of {patterns[0]!r} belongs to {split}")

    def _fill(self, rng: Rng, pattern: str) -> str:
        return _NAME.sub(lambda found: self._fill(rng, rng.choice(self.rules[found[1]])), pattern)


SINGLE: dict[str, tuple[str, ...]] = {
    "convert": ("<polite><conversion>", "<opening><how_many>"),
    "set": ("<polite><noting>",),
    "get": ("<polite><reading>", "<opening><recalling>"),
    "list": ("<polite><listing>", "<opening><which>"),
    "find": ("<polite><finding>", "<opening><told_by>"),
    "either": ("<polite><finding><or_else> {j}", "<opening><told_by_text><or_else> {j}?"),
    "copy": ("<polite><copying>", "<without>, <polite><copying_short>"),
}
"""The patterns of requests that are no chain; sums have theirs by sign."""
DRILLED: dict[str, tuple[str, ...]] = {
    "convert": ("<conversion_last>",),
    "find": ("<finding_last>",),
    "set": ("<polite><noting_last>",),
}
"""Special cases that training draws as well: where the value stands first, or where name and text
change places."""
SUMS: dict[str, tuple[str, ...]] = {
    sign: (f"<polite><work> <{word}>", f"<opening><ask> <{word}>?", f"<polite><{word}_told>")
    for sign, word in (("+", "plus"), ("-", "minus"), ("*", "times"))
}
SUMS["/"] = ("<polite><work> <over>", "<opening><ask> <over>?")
FIRST = {
    "convert": ("<polite><conversion_first>",),
    "find": ("<polite><finding_first>",),
    "two": ("<polite><finding_two>",),
    "set": ("<polite><noting>",),
    "set two": ("<polite><noting_two>",),
    "sum": ("<polite><work> <sum>",),
}
"""How a chain begins; for a sum, `<sum>` is the rule of its sign."""
SUM_RULES = {"+": "plus", "-": "minus", "*": "times", "/": "over"}
CLAUSES = {"+": "<adding>", "-": "<taking>", "*": "<multiplying>"}
"""What is done to the result before, by sign; `{m}` is the number."""
TOTALS = {"+": "<both_added>", "*": "<both_multiplied>"}

_DELIMITED = ('"{p}"', "'{p}'", "({p})", "`{p}`", "[{p}]")

ENGLISH = Rules(
    "en",
    {
        "polite": ("", "", "", "please ", "now ", "just ", "you should "),
        "opening": ("", "", "please, ", "now, ", "so, ", "question: ", "tell me, "),
        "and": (" and ", ", then ", " and then ", ". then ", ", and ", "; "),
        "to": (" to ", " into ", " to ", " in "),
        # sums
        "work": (
            "work out",
            "calculate",
            "compute",
            "solve",
            "figure out",
            "work out:",
            "compute:",
        ),
        "ask": ("what is", "how much is", "what's", "what do you get for"),
        "plus": ("{n} + {m}", "{n}+{m}", "{n} plus {m}", "the sum of {n} and {m}"),
        "minus": ("{n} - {m}", "{n}-{m}", "{n} minus {m}", "{n} less {m}"),
        "times": ("{n} * {m}", "{n}*{m}", "{n} times {m}", "the product of {n} and {m}"),
        "over": ("{n} / {m}", "{n}/{m}", "{n} divided by {m}"),
        "plus_told": ("add {n} to {m}", "add {n} and {m}", "add up {n} and {m}"),
        "minus_told": ("subtract {m} from {n}", "take {m} from {n}", "deduct {m} from {n}"),
        "times_told": ("multiply {n} by {m}", "multiply {n} with {m}"),
        "adding": ("add {m}", "add {m} to it", "add another {m}", "add {m} to that"),
        "taking": ("subtract {m}", "take {m} from it", "subtract {m} from that", "deduct {m}"),
        "multiplying": ("multiply by {m}", "multiply it by {m}", "multiply that by {m}"),
        # conversion
        "conversion": (
            "<turn> {n} {u}<to>{w}",
            "<turn>: {n} {u}<to>{w}",
            "<turn> this<to>{w}: {n} {u}",
            "{n} {u} - <turn> this<to>{w}",
        ),
        "conversion_first": ("<turn> {n} {u}<to>{w}", "<turn>: {n} {u}<to>{w}"),
        "conversion_last": ("{n} {u} - <turn> this<to>{w}",),
        "turn": ("convert", "change", "express", "convert", "translate"),
        "how_many": (
            "how many {w} are {n} {u}?",
            "how many {w} is {n} {u}?",
            "what is {n} {u} in {w}?",
            "how much is {n} {u} in {w}?",
            "what's {n} {u} in {w}?",
            "{n} {u} in {w}?",
        ),
        # notes
        "noting": (
            "<note> that {k} is {v}",
            "<note> {v} <as> {k}",
            "<note>: {k} is {v}",
            "<note> my {k}: {v}",
        ),
        "noting_last": ("<note> {v} <as> {k}",),
        "note": ("note", "note down", "jot down", "put down", "remember", "keep", "write down"),
        "as": ("as", "for", "with the name", "as my", "by the name"),
        "noting_two": (
            "<note> {v} <as> {k} and {x} <as> {j}",
            "<note> that {k} is {v} and {j} is {x}",
        ),
        "keeping": ("<note> <it> <as> {k}",),
        "it": ("it", "that", "the result", "this", "the answer"),
        "reading": (
            "<read> my note <on> {k}",
            "<read> the note <on> {k}",
            "<read> what I noted <on> {k}",
        ),
        "read": ("read", "read out", "show me", "give me", "get", "recall", "fetch"),
        "on": ("on", "for", "about", "with the name"),
        "recalling": (
            "what is my note <on> {k}?",
            "what did I note <on> {k}?",
            "what have I noted <on> {k}?",
            "what did you note <on> {k}?",
            "what does my note <on> {k} say?",
        ),
        "listing": (
            "<read> <all_of> notes",
            "list <all_of> notes",
            "<read> a list of <all_of> notes",
        ),
        "all_of": ("my", "all my", "the", "all", "all the"),
        "which": (
            "which notes <have>?",
            "what notes <have>?",
            "what are <all_of> notes called?",
            "what are the names of <all_of> notes?",
        ),
        "have": ("do I have", "did I take", "have I got", "do you have", "have I made"),
        # search
        "finding": ("<look> {k}<where>", "<look_first>: {k}", "{k} - <look> it<where>"),
        "finding_first": ("<look> {k}<where>",),
        "finding_last": ("{k} - <look> it<where>",),
        "finding_two": ("<look> {k} and {j}<where>", "<look> both {k} and {j}<where>"),
        "look": ("look up", "find", "look for", "check", "locate", "look up"),
        "look_first": ("look up in the text", "find in the text", "look for this in the text"),
        "where": (
            " in the text",
            " in the text",
            " in the list",
            " in my text",
            " in the lines",
            "",
        ),
        "told_by": ("<told_by_text>?", "what is {k} in the text?", "what is {k} in the list?"),
        "told_by_text": (
            "what does the text say on {k}",
            "what does the text have for {k}",
            "what does the list say for {k}",
        ),
        "or_else": (
            ", or else",
            ", or if it is missing",
            ", and if it is missing,",
            ", failing that,",
        ),
        "both_added": ("add them", "add both", "add the two", "add up the numbers", "sum them up"),
        "both_multiplied": ("multiply them", "multiply both", "multiply the two numbers"),
        # nothing but words
        "copying": ("<copy> <quoted>", "<copy>: <quoted>", "<copy> <quoted> <without>"),
        "copying_short": ("<copy> <quoted>", "<copy>: <quoted>"),
        "copy": ("copy", "write", "repeat", "type", "echo", "copy out", "say"),
        "quoted": _DELIMITED,
        "without": (
            "as it is",
            "unchanged",
            "without a tool",
            "without any change",
            "but use no tool",
            "with no tool",
        ),
    },
)
GERMAN = Rules(
    "de",
    {
        "polite": ("", "", "bitte ", "nun ", "jetzt ", "also "),
        "opening": ("", "", "bitte, ", "nun, ", "also, ", "Frage: "),
        "and": (" und ", ", dann ", " und dann ", ". dann "),
        "to": (" in ", " zu "),
        "work": ("berechne", "rechne", "löse", "ermittle", "berechne:"),
        "ask": ("was ist", "wie viel ist", "was ergibt"),
        "plus": ("{n} + {m}", "{n}+{m}", "{n} plus {m}"),
        "minus": ("{n} - {m}", "{n}-{m}", "{n} minus {m}"),
        "times": ("{n} * {m}", "{n}*{m}", "{n} mal {m}"),
        "over": ("{n} / {m}", "{n}/{m}", "{n} durch {m}", "{n} geteilt durch {m}"),
        "plus_told": ("addiere {n} und {m}", "zähle {n} und {m} zusammen"),
        "minus_told": ("ziehe {m} von {n} ab", "nimm {m} von {n} weg"),
        "times_told": ("multipliziere {n} mit {m}", "nimm {n} mal {m}"),
        "adding": ("addiere {m}", "zähle {m} dazu"),
        "taking": ("ziehe {m} ab", "ziehe davon {m} ab"),
        "multiplying": ("multipliziere mit {m}", "nimm es mal {m}"),
        "conversion": ("<turn> {n} {u}<to>{w}", "<turn>: {n} {u}<to>{w}"),
        "conversion_first": ("<turn> {n} {u}<to>{w}",),
        "conversion_last": ("<turn>: {n} {u}<to>{w}",),
        "turn": ("wandle", "verwandle", "übertrage", "konvertiere"),
        "how_many": (
            "wie viele {w} sind {n} {u}?",
            "wie viel {w} sind {n} {u}?",
            "was sind {n} {u} in {w}?",
        ),
        "noting": ("<note> {v} <as> {k}", "<note>, dass {k} {v} ist", "<note>: {k} ist {v}"),
        "noting_last": ("<note> {v} <as> {k}",),
        "note": ("notiere", "merke dir", "schreib auf", "vermerke"),
        "as": ("als", "für", "mit dem Namen"),
        "noting_two": ("<note> {v} <as> {k} und {x} <as> {j}",),
        "keeping": ("<note> <it> <as> {k}",),
        "it": ("es", "das", "das Ergebnis"),
        "reading": ("<read> meine Notiz <on> {k}", "<read> die Notiz <on> {k}"),
        "read": ("zeig mir", "gib mir", "nenne", "hole"),
        "on": ("zu", "für", "über", "mit dem Namen"),
        "recalling": (
            "was ist meine Notiz <on> {k}?",
            "was habe ich <on> {k} notiert?",
            "wie lautet die Notiz <on> {k}?",
        ),
        "listing": ("<read> <all_of> Notizen", "<read> die Namen <of_all> Notizen"),
        "all_of": ("alle", "meine", "alle meine", "die"),
        "of_all": ("aller", "meiner", "aller meiner"),
        "which": ("welche Notizen <are_there>?", "was für Notizen <are_there>?"),
        "are_there": ("gibt es", "habe ich", "hast du", "sind da"),
        "finding": ("<look> {k}<where>", "{k} - <look> das<where>"),
        "finding_first": ("<look> {k}<where>",),
        "finding_last": ("{k} - <look> das<where>",),
        "finding_two": ("<look> {k} und {j}<where>",),
        "look": ("finde", "suche", "schau nach:"),
        "where": (" im Text", " in der Liste", " in den Zeilen", ""),
        "told_by": ("<told_by_text>?", "was ist {k} im Text?", "was ist {k} in der Liste?"),
        "told_by_text": ("was sagt der Text zu {k}", "was steht im Text zu {k}"),
        "or_else": (", sonst", ", und wenn es fehlt,", " oder ersatzweise"),
        "both_added": ("addiere sie", "addiere beide", "zähle sie zusammen"),
        "both_multiplied": ("multipliziere sie", "multipliziere beide"),
        "copying": ("<copy> <quoted>", "<copy>: <quoted>", "<copy> <quoted> <without>"),
        "copying_short": ("<copy>: <quoted>",),
        "copy": ("kopiere", "schreib", "schreibe", "wiederhole", "tippe", "sag"),
        "quoted": _DELIMITED,
        "without": ("ohne Werkzeug", "unverändert", "ohne Änderung"),
    },
)
RULES: dict[Language, Rules] = {"en": ENGLISH, "de": GERMAN}
