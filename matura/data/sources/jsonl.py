"""JSON lines, plain or gzip: `text`, `messages`, or `prompt` and `completion`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Given
from matura.data.lines import LINE_LIMIT_BYTES, BadLine, decoded, lines
from matura.data.rows import DEPTH_LIMIT, Format, format_of, item, parsed
from matura.data.source import Source


class Jsonl(Source):
    """One JSON object per line. The first error stops, with file, line and what was expected.

    The first row decides the format of its file where `format` is `auto`; a later row of another
    kind is an error.
    """

    kind: Literal["jsonl"] = "jsonl"
    path: Path | tuple[Path, ...]
    """One file, or several that are read one after the other."""
    format: Literal["auto", "text", "messages", "prompt"] = "auto"
    field: str = "text"
    """Where a document's text stands."""
    limit: PositiveInt | None = None
    """Read no more than so many rows in all."""
    line_limit_bytes: PositiveInt = LINE_LIMIT_BYTES
    depth_limit: int = Field(default=DEPTH_LIMIT, ge=4, le=256)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, also where there is one."""
        return self.path if isinstance(self.path, tuple) else (self.path,)

    def read(self, given: Given) -> Iterator[Document | Conversation]:
        """Each row; rows are numbered from 1 as an editor shows them."""
        left = self.limit
        for path in self.paths:
            found = False
            for thing in self._rows(path):
                found = True
                if left == 0:
                    return
                yield thing
                left = None if left is None else left - 1
            if not found:
                raise DataError(f"{path}: no rows; expected one JSON object per line")

    def _rows(self, path: Path) -> Iterator[Document | Conversation]:
        format: Format | None = None if self.format == "auto" else self.format
        for number, raw in lines(path, self.line_limit_bytes):
            if not raw.strip():
                continue
            try:
                row = parsed(decoded(raw), self.depth_limit)
                format = format or format_of(row, self.field)
                yield item(row, format, f"{path.name}:{number}", self.field)
            except BadLine as problem:
                raise DataError(f"{path}:{number}: {problem}") from None
