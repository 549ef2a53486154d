"""Held-out documents as a file: text that no model of a run reads, which bits per byte are measured
on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from matura.core.errors import DataError
from matura.core.types import Document
from matura.data.conversations import item
from matura.data.lines import BadLine, decoded, lines
from matura.data.rows import parsed
from matura.data.split import Item

HELD_OUT_LIMIT_BYTES = 4 * 2**20
"""Enough text for bits per byte to a thousandth; more would only make the exam slow."""


def held_out(path: Path) -> list[Document]:
    """The documents of a `<name>.heldout.jsonl`.

    Raises:
        DataError: it is missing or damaged.
    """
    found = []
    for number, raw in lines(path):
        try:
            thing = item(parsed(decoded(raw)), "text", str(number))
        except BadLine as problem:
            raise DataError(f"{path}:{number}: {problem}") from None
        assert isinstance(thing, Document)
        found.append(thing)
    return found


class HeldOut:
    """Held-out documents, collected up to a limit."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.left_out = 0
        self._bytes = 0

    def add(self, things: Sequence[Item]) -> int:
        """How many of the documents were kept."""
        kept = 0
        for thing in things:
            assert isinstance(thing, Document)
            line = json.dumps({"id": thing.id, "text": thing.text})
            if self._bytes and self._bytes + len(line) > HELD_OUT_LIMIT_BYTES:
                self.left_out += 1
                continue
            self.lines.append(line)
            self._bytes += len(line)
            kept += 1
        return kept

    def write(self, path: Path) -> None:
        """Puts the file in its place, whole."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with beside.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(line + "\n" for line in self.lines)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)
