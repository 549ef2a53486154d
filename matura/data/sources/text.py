"""Plain text files, packed or not: each line, each paragraph or each file is a document.

Policies for bytes are those of `data/lines.py` for lines and paragraphs, where line ends become
`\\n`; a whole file keeps every byte, as in a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from matura.core.errors import DataError
from matura.core.types import Document, Given
from matura.data.lines import FILE_LIMIT_BYTES, LINE_LIMIT_BYTES, BadLine, decoded, lines, whole
from matura.data.naming import named
from matura.data.source import Source
from matura.data.sources.folder import text_of


class Text(Source):
    """UTF-8 text, plain, `.gz` or `.zst`; lines count from 1 in errors, blank ones are no
    documents."""

    kind: Literal["text"] = "text"
    path: Path | tuple[Path, ...]
    """One file, or several that are read one after the other."""
    below: str | None = Field(default=None, exclude=True)
    """Ids are paths below this folder; told from the files if absent."""
    unit: Literal["line", "paragraph", "file"] = "paragraph"
    """What a document is; paragraphs are parted by blank lines."""
    line_limit_bytes: PositiveInt = LINE_LIMIT_BYTES
    document_limit_bytes: PositiveInt = FILE_LIMIT_BYTES
    """The longest paragraph or file; a longer one is an error."""

    def read(self, given: Given) -> Iterator[Document]:
        """Each unit; its id is the file's name and the line it starts at."""
        paths = self.path if isinstance(self.path, tuple) else (self.path,)
        for path, name in named(paths, self.below):
            found = False
            for number, text in self._units(path):
                found = True
                yield Document(text=text, id=f"{name}:{number}")
            if not found:
                raise DataError(f"{path}: no text")

    def _units(self, path: Path) -> Iterator[tuple[int, str]]:
        if self.unit == "file":
            text = text_of(path, whole(path, self.document_limit_bytes), "utf-8", "keep")
            if text.strip():
                yield 1, text
        elif self.unit == "line":
            yield from ((n, text) for n, text in self._lines(path) if text.strip())
        else:
            yield from self._paragraphs(path)

    def _paragraphs(self, path: Path) -> Iterator[tuple[int, str]]:
        start, size = 1, 0
        waiting: list[str] = []
        for number, text in self._lines(path):
            if text.strip():
                start = start if waiting else number
                waiting.append(text)
                size += len(text.encode()) + 1
                if size > self.document_limit_bytes:
                    raise DataError(
                        f"{path}:{start}: paragraph longer than {self.document_limit_bytes:,} bytes"
                    )
            elif waiting:
                yield start, "\n".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield start, "\n".join(waiting)

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        for number, raw in lines(path, self.line_limit_bytes):
            if b"\0" in raw:
                raise DataError(
                    f"{path}:{number}: a NUL byte; expected text, this looks like a binary file"
                )
            try:
                yield number, decoded(raw)
            except BadLine as problem:
                raise DataError(f"{path}:{number}: {problem}") from None
