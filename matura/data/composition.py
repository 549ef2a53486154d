"""What kind of text a document is: code, dialogue, structured, or prose. A table of signs that a
person can read, no model.

Each line is one of the four by what it looks like; the document is decided by shares of lines. What
is structured is written to be looked up and not to be read: tables, markup, settings, lists with
headings, as in a README.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from matura.data.language import CODE_LINE

TextKind = Literal["code", "dialogue", "structured", "prose"]
LineKind = Literal["code", "structured", "either", "prose"]
KINDS: tuple[TextKind, ...] = get_args(TextKind)

LOOK_LINES = 200
"""Filled lines that are looked at; of a longer document that many, in four runs."""
LINE_CHARS = 300
LEAST_CODE = 0.2
LEAST_STRUCTURED = 0.2
LEAST_SPOKEN = 0.5
MOST_SPEAKERS = 0.5
"""Different names by lines that begin with one: a script's come again, a form's do not."""
UTTERANCE_CHARS = 90
"""Mean length of a line of talk."""
LEAST_TALK_LINES = 4
LEAST_TALK = 0.16
"""Share of the lines of talk without names that ask or call out, and four times that of the words
that are I, you and the like."""

SPEAKER = re.compile(
    r"\s*(?!Classifier|Platform|License)(?:\[?\d{1,2}:\d{2}(?::\d{2})?\]?\s*)?(?:<(?P<nick>[\w-]{1,20})>|(?P<name>[^\W\d_][\w.'’]*"
    r"(?: [\w.'’]+){0,2})(?: \([^()]*\))?:)\s+(?=\S+\s+\S|\S{1,12}[.!?]?$)"
)
"""`Anna: …`, `<anna> …`, with or without the time."""
DASHED = re.compile(r"\s*[-–—]\s*[^\W\d_]")
QUOTED = re.compile(r"\s*>+\s*[^\s>]")
ENDED = re.compile(r"[.!?…\"'”’)♪-]$")
ASKED = re.compile(r"[?!]['\"”’)]*$")
PERSONAL = re.compile(
    r"\b(?:I|I'm|I'll|I've|you|you're|me|my|your|we|yeah|okay|ok|ich|du|wir|je|tu|vous|yo|usted)\b",
    re.IGNORECASE,
)
STRUCTURED = re.compile(
    r"\s*(?:[{}\[\]()]+[,;]?\s*$"  # JSON laid out over lines
    r"|[\"'][^\"']{1,60}[\"']\s*:(?:\s|$)"
    r"|\{\s*[\"'\[{]|\[\s*[\"{\[\d]"
    r"|</?[A-Za-z!?][^<>]*>|<!--"  # markup
    r"|\#{1,6}\s|(?:[=\-~^*_#+]\s?){3,}$|```|~~~|:[\w-]+:|\.\.\s+[\w-]|!?\[[^\]]+\][(:]"  # Markdown
    r"|[-*+•]\s|\(?(?:\d{1,3}|[a-zA-Z])[.)]\s"  # lists
    r"|\[[\w.:\" -]+\]\s*$|[\w.-]+\s*[=:]\s*(?:[\"'\[{\d]|true|false|null|none)"  # settings
    r"|[\w.-]+:\s*$|[\w-]+(?:[ ._-][\w-]+){0,2}:\s+\S+(?:\s+\S+){0,3}$"
    r"|(?:Q|A|Question|Answer|Tags?|Title|Score)\s*[:.]\s"
    r"|[-+\d.,;:\sxXa-fA-F]*\d[-+\d.,;:\sxXa-fA-F]*$"  # figures
    r"|\|.*\||[+|][-=+|]{3,})",
    re.IGNORECASE,
)
COMMENT = re.compile(r"\s*(?:#|\*|%|--|;|!)")
"""As some languages spell it: headings and items of lists begin so too."""
SEPARATORS = "\t,;|"
LEAST_FIELDS = 4
WORDS_A_FIELD = 3.0


@dataclass(frozen=True, slots=True)
class Make:
    """What a document's lines look like: shares of those that were looked at."""

    kind: TextKind
    code: float
    structured: float
    spoken: float
    """That begin with a name, a dash or a quote mark of mail."""
    lines: int


def make_of(text: str) -> Make:
    """What kind of text it is, and by which shares of its lines."""
    lines = _looked_at([line for line in text.splitlines() if line.strip()])
    count = max(1, len(lines))
    names = [hit["nick"] or hit["name"] for line in lines if (hit := SPEAKER.match(line))]
    named = len(names) if len(set(names)) <= max(2, MOST_SPEAKERS * len(names)) else 0
    marked = sum(bool(DASHED.match(line) or QUOTED.match(line)) for line in lines)
    spoken = max(named, marked if marked >= LEAST_SPOKEN * count else 0) / count
    seen: Counter[LineKind] = Counter(map(_kind, lines))
    # what either may hold goes to the one that has more of what only it holds
    owner: LineKind = "code" if seen["code"] > seen["structured"] else "structured"
    seen[owner] += seen.pop("either", 0)
    code, structured = seen["code"] / count, seen["structured"] / count
    if spoken >= LEAST_SPOKEN and code < LEAST_CODE and not _is_list(lines, named):
        kind: TextKind = "dialogue"
    elif code >= LEAST_CODE and code >= structured:
        kind = "code"
    elif structured >= LEAST_STRUCTURED or code + structured >= 0.5:
        kind = "code" if code >= structured else "structured"
    elif _is_talk(lines):
        kind = "dialogue"
    else:
        kind = "prose"
    return Make(kind, code, structured, spoken, len(lines))


def kind_of_text(text: str) -> TextKind:
    """What kind of text it is."""
    return make_of(text).kind


def _looked_at(lines: list[str]) -> list[str]:
    if len(lines) > LOOK_LINES:
        run, step = LOOK_LINES // 4, len(lines) // 4
        lines = [line for start in range(4) for line in lines[start * step :][:run]]
    return [line[:LINE_CHARS] for line in lines]


def _kind(line: str) -> LineKind:
    """What one line looks like; a line of talk looks like prose."""
    structured = STRUCTURED.match(line) or _is_row(line)
    if structured and (COMMENT.match(line) or CODE_LINE.search(line)):
        return "either"
    if structured:
        return "structured"
    return "code" if CODE_LINE.search(line) else "prose"


def _is_row(line: str) -> bool:
    """Whether it is one of a table: several short fields between one kind of separator."""
    for separator in SEPARATORS:
        fields = line.count(separator) + 1
        if (
            fields >= LEAST_FIELDS - (" " not in line)
            and len(line.split()) <= WORDS_A_FIELD * fields
        ):
            # a sentence with commas has a blank after each
            return separator != "," or line.count(", ") <= fields // 2
    return False


def _is_list(lines: Sequence[str], named: int) -> bool:
    """Whether dashes are a list's: its items do not end as sentences do."""
    return not named and sum(bool(ENDED.search(line.rstrip())) for line in lines) < 0.5 * len(lines)


def _is_talk(lines: Sequence[str]) -> bool:
    """Whether lines without names are talk: short, each ended, asking, calling out, saying you."""
    if len(lines) < LEAST_TALK_LINES or sum(map(len, lines)) > UTTERANCE_CHARS * len(lines):
        return False
    ended = sum(bool(ENDED.search(line.rstrip())) for line in lines)
    if ended < 0.6 * len(lines):
        return False
    asked = sum(bool(ASKED.search(line.rstrip())) for line in lines) / len(lines)
    words = sum(len(line.split()) for line in lines)
    personal = sum(len(PERSONAL.findall(line)) for line in lines) / words
    return asked + 4 * personal >= LEAST_TALK
