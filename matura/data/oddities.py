"""Characters that text seldom has, by what they mean when it does: a binary file, a wrong decoding,
a web page's layout, a disguise."""

from __future__ import annotations

import re
from collections import Counter

RANGES: dict[str, str] = {
    "NUL": "\0",
    "control": "\x01-\x08\x0b\x0e-\x1f\x7f",
    "C1 control": "\x80-\x9f",
    "replacement character": "\ufffd",
    "byte-order mark inside": "\ufeff",
    "zero width": "\u200b-\u200d\u2060",
    "direction override": "\u202a-\u202e\u2066-\u2069",
    "line separator": "\u2028\u2029",
    "soft hyphen": "\xad",
    "private use": "\ue000-\uf8ff\U000f0000-\U0010fffd",
    "half a character": "\ud800-\udfff",
    "noncharacter": "\ufdd0-\ufdef\ufffe\uffff",
}
_ANY = re.compile(f"[{''.join(RANGES.values())}]")
_EACH = {name: re.compile(f"[{spelled}]") for name, spelled in RANGES.items()}
_WRONGLY_DECODED = re.compile("Ã[\x80-\xbf\u0152-\u2122]|â€[\x80-\xbf\u0152-\u2122]|Â[\xa0-\xbf]")
"""UTF-8 that was read as Windows-1252: `Ã©`, `â€™`."""


def odd_characters(text: str) -> dict[str, int]:
    """How many there are of each sort, and of lines that end in CRLF or a bare CR; without those
    that are not there."""
    found: Counter[str] = Counter()
    if not text.isascii() or not text.isprintable():
        for hit in _ANY.findall(text):
            found[next(name for name, one in _EACH.items() if one.match(hit))] += 1
        if crlf := text.count("\r\n"):
            found["CRLF line end"] = crlf
        if bare := text.count("\r") - crlf:
            found["bare CR"] = bare
        if feeds := text.count("\f"):
            found["form feed"] = feeds
        if wrong := len(_WRONGLY_DECODED.findall(text)):
            found["wrongly decoded"] = wrong
    return dict(found)
