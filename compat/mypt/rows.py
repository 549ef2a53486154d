"""The rows of a JSONL file as they stand and as they are understood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matura.core.errors import DataError
from matura.core.types import Conversation
from matura.data.conversations import Reader
from matura.data.lines import BadLine, lines
from matura.data.split import Item, content_key


@dataclass(frozen=True)
class Row:
    """One row; `raw` is written on as it came."""

    raw: bytes
    thing: Item
    key: str
    """Equal for rows that say the same."""

    @property
    def group(self) -> str:
        """What must not be in two splits: the payload, or the content where there is none."""
        payload = self.thing.meta.get("payload") if isinstance(self.thing, Conversation) else None
        return payload.casefold() if payload else self.key


def read_rows(path: Path) -> Iterator[Row]:
    """Each row of the file.

    Raises:
        DataError: `file:line: reason`, or there is none.
    """
    reader = Reader()
    found = False
    for number, raw in lines(path):
        if not raw.strip():
            continue
        try:
            thing = reader.item(reader.row(raw), f"{path.name}:{number}")
        except BadLine as problem:
            raise DataError(f"{path}:{number}: {problem}") from None
        found = True
        yield Row(raw, thing, content_key(thing))
    if not found:
        raise DataError(f"{path}: no rows; expected one JSON object per line")
