"""A text as plain words with their places in it: compatibility forms resolved (NFKC), case folded,
all that is neither letter nor digit taken as a space.

Scripts without spaces have no words that could be told without a dictionary, so there each
character is one. Letters keep their combining marks; soft hyphens and other characters that have no
width are left out. An escaped line end (`\\n` as in code and JSON) is a space, not the letter n.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from bisect import bisect_right
from functools import cache

_ASCII = re.compile(r"[a-z0-9]+")
_PLAIN = bytes(code if chr(code).isalnum() and code < 128 else 32 for code in range(256))
_ESCAPES = re.compile(r"\\[nrt]")
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf"
_NO_SPACES += "\u4e00-\u9fff\U00020000-\U0003ffff"
_CHARACTER = re.compile(f"[{_NO_SPACES}]")
_NO_WIDTH = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_LEFT_OUT = dict.fromkeys(map(ord, _NO_WIDTH))
_JAMO = "\u1160-\u11ff"
"""Second and third parts of decomposed Korean syllables: they join the part before as marks do."""


def words(text: str) -> list[str]:
    """The plain words in order."""
    if text.isascii():
        # as `_ASCII.findall` finds them, in a third of the time
        return _without_escapes(text.lower()).encode().translate(_PLAIN).decode().split()
    found = _patterns()[0].findall(_without_escapes(_composed(text)[0]))
    folded = unicodedata.normalize("NFKC", "\n".join(found).casefold())
    if any(character in folded for character in _NO_WIDTH):
        folded = folded.translate(_LEFT_OUT)
    return folded.split("\n") if found else []


def spans(text: str) -> list[tuple[int, int]]:
    """For each of the `words` where it starts and ends in the text, in characters."""
    if text.isascii():
        return [match.span() for match in _ASCII.finditer(_without_escapes(text.lower()))]
    composed, pieces = _composed(text)
    found = [match.span() for match in _patterns()[0].finditer(_without_escapes(composed))]
    return [(_origin(pieces, a)[0], _origin(pieces, b - 1)[1]) for a, b in found]


def is_character(word: str) -> bool:
    """Whether it is one character of a script without spaces."""
    return _CHARACTER.match(word) is not None


def _without_escapes(text: str) -> str:
    return _ESCAPES.sub("  ", text) if "\\" in text else text


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A word; and a piece of text that is composed by itself. Made when first needed, for the marks
    have to be looked up among all characters (0.1 s)."""
    starts, before = [], False
    for code in range(0x300, sys.maxunicode):
        mark = unicodedata.category(chr(code))[0] == "M"
        if mark != before:
            starts.append(code)
        before = mark
    pairs = zip(starts[::2], starts[1::2], strict=True)
    marks = "".join(f"{chr(first)}-{chr(after - 1)}" for first, after in pairs)
    letters, after = rf"[^\W_{_NO_SPACES}]", f"[{marks}{_NO_WIDTH}]"
    word = re.compile(rf"{letters}+(?:{after}+{letters}*)*|[{_NO_SPACES}]{after}*")
    joined = f"[{marks}{_JAMO}]"
    plain = "\0-\x7f\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff"
    return word, re.compile(rf"[{plain}]+(?!{joined})|.{joined}*", re.DOTALL)


def _composed(text: str) -> tuple[str, list[tuple[int, int, int]]]:
    """The text in NFKC, and its pieces: where each starts there, and where it starts and ends in
    the text. The last piece is the empty one after the end."""
    if unicodedata.is_normalized("NFKC", text):
        return text, [(0, 0, len(text)), (len(text), len(text), len(text))]
    parts, pieces, length = [], [], 0
    for match in _patterns()[1].finditer(text):
        part = match[0] if match[0].isascii() else unicodedata.normalize("NFKC", match[0])
        if part:
            parts.append(part)
            pieces.append((length, match.start(), match.end()))
            length += len(part)
    return "".join(parts), [*pieces, (length, len(text), len(text))]


def _origin(pieces: list[tuple[int, int, int]], place: int) -> tuple[int, int]:
    """Where in the text the character of the composed text at `place` starts and ends."""
    index = bisect_right(pieces, place, key=lambda piece: piece[0]) - 1
    start, first, end = pieces[index]
    if pieces[index + 1][0] - start == end - first:
        return first + place - start, first + place - start + 1
    return first, end
