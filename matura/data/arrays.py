"""Rows of a file: its lines or, where the whole file is one JSON array, the array's items.

Data sets of chats often come as one array, laid out over many lines. Its items are found by their
brackets, a piece of the file at a time, so that no array is held whole and a damaged item costs no
other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matura.core.errors import DataError
from matura.data.lines import BUFFER_BYTES, LINE_LIMIT_BYTES, lines, opened, refuse_utf16

ENDINGS = (".json", ".json.gz", ".json.zst")
"""Of files that may hold one array."""
SIGN = re.compile(rb'"(?:[^"\\]|\\.)*+("?)|[\[{]|[\]}]|,', re.DOTALL)
"""Strings, whole or up to the end of what was read; brackets; commas."""
LEAD = re.compile(rb"[ \t\r\n]*")


def rows(path: Path, limit_bytes: int = LINE_LIMIT_BYTES) -> Iterator[tuple[int, bytes]]:
    """Each row's bytes and the line it starts at, counted from 1. Only a file named `.json` that
    begins with `[` is an array; what stands in it is for the caller to parse.

    Raises:
        DataError: the file cannot be read, a row is longer than the limit, or an array is not
            closed, closed by the wrong bracket, or followed by something.
    """
    if is_array(path):
        return _Array(path, limit_bytes).items()
    return lines(path, limit_bytes)


def is_array(path: Path) -> bool:
    """Whether the file is one JSON array, by its name and its first character.

    Raises:
        DataError: it cannot be read.
    """
    if not path.name.lower().endswith(ENDINGS):
        return False
    with opened(path) as stream:
        start = stream.read(BUFFER_BYTES).removeprefix(b"\xef\xbb\xbf")
    return start.lstrip(b" \t\r\n").startswith(b"[")


@dataclass(slots=True)
class _Array:
    """One reading of a file."""

    path: Path
    limit_bytes: int

    def items(self) -> Iterator[tuple[int, bytes]]:
        """What stands between the commas, without the white space around it."""
        with opened(self.path) as stream:
            held = stream.read(BUFFER_BYTES)
            refuse_utf16(self.path, held)
            start = at = held.index(b"[") + 1
            line, number, opening = 1 + held.count(b"\n", 0, at), 1, bytearray()
            while True:
                found = SIGN.search(held, at)
                if found is None or found[1] == b"":  # a string may go on in what follows
                    at = (len(held) if found is None else at) - start
                    held, start = held[start:], 0
                    self._check(held, line)
                    # twice as much each time: a long string is looked through again
                    more = stream.read(max(BUFFER_BYTES, len(held)))
                    if not more:
                        self._refuse_end(line + held.count(b"\n"))
                    held += more
                    continue
                sign, at = found[0], found.end()
                if sign in (b"[", b"{"):
                    opening += sign
                elif opening and sign in (b"]", b"}"):
                    self._close(opening, sign, line + held.count(b"\n", start, at))
                elif not opening and sign in (b",", b"]", b"}"):
                    if sign == b"}":
                        self._close(bytearray(b"["), sign, line + held.count(b"\n", start, at))
                    row = held[start : found.start()]
                    if sign == b"," or number > 1 or row.strip():
                        yield self._item(row, line, sign)
                    line += row.count(b"\n")
                    start, number = at, number + 1
                    if sign == b"]":
                        break
            while rest := held[start:] or stream.read(BUFFER_BYTES):
                self._refuse_rest(rest, line)
                line += rest.count(b"\n")
                held, start = b"", 0

    def _item(self, row: bytes, line: int, sign: bytes) -> tuple[int, bytes]:
        start, lines_above = _lead(row)
        self._check(row, line)
        # one comma too many is no row, and what parses rows refuses it with its line
        return line + lines_above, row[start:].rstrip(b" \t\r\n") or sign

    def _check(self, row: bytes, line: int) -> None:
        if len(row) > self.limit_bytes:
            line += _lead(row)[1]
            raise DataError(f"{self.path}:{line}: item longer than {self.limit_bytes:,} bytes")

    def _close(self, opening: bytearray, sign: bytes, line: int) -> None:
        if (before := bytes(opening[-1:])) + sign not in (b"[]", b"{}"):
            raise DataError(
                f"{self.path}:{line}: {sign.decode()!r} closes {before.decode()!r}; where the next "
                "item starts cannot be told"
            )
        del opening[-1]

    def _refuse_end(self, line: int) -> None:
        raise DataError(f"{self.path}:{line}: the file ends inside its array (a cut-off download?)")

    def _refuse_rest(self, rest: bytes, line: int) -> None:
        start, lines_above = _lead(rest)
        if said := rest[start : start + 40].decode(errors="replace"):
            raise DataError(f"{self.path}:{line + lines_above}: {said!r} after the array's end")


def _lead(row: bytes) -> tuple[int, int]:
    """How much white space stands in front, and how many lines it ends."""
    space = LEAD.match(row)
    assert space is not None  # it may match nothing
    return space.end(), space[0].count(b"\n")
