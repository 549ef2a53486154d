"""JSON lines or one JSON array, packed or not: documents, or conversations in the usual formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Given
from matura.data.arrays import rows
from matura.data.conversations import AsideUse, ContextUse, Format, Reader
from matura.data.layout import Layout, fields_of
from matura.data.lines import LINE_LIMIT_BYTES, BadLine
from matura.data.rows import DEPTH_LIMIT
from matura.data.source import Source


class Jsonl(Source):
    """One JSON object, or nanochat's array, per line; of a file named `.json` that is one array,
    per item. The first error stops, with file, line and what was expected.

    The first row decides the format of its file where `format` is `auto`; a later row of another
    kind is an error.
    """

    kind: Literal["jsonl"] = "jsonl"
    path: Path | tuple[Path, ...]
    """One file, or several that are read one after the other."""
    format: Literal["auto"] | Format = "auto"
    """`text`, `messages`, `prompt` (with `completion`), `sharegpt`, `alpaca`, `mypt` or `nanochat`;
    `auto` tells by the keys of a file's first row."""
    field: str = "text"
    """Where a document's text stands."""
    layout: str | None = None
    """Instead of `field`: a document's text made of several, such as `"{question}\\n{answer}"`; a
    brace is `{{`."""
    each: str | None = None
    """A list in the row; `layout` is spelled for each of its items, on lines of their own, such as
    `"{speaker}: {text}"` for each of `utterances`."""
    context: ContextUse = "auto"
    """What becomes of an episode's `context`: `read` puts it in front of what the user first says,
    `note` keeps it from the model; `auto` reads it unless it begins with `episode_id:`."""
    asides: AsideUse = "keep"
    """What the assistant thinks and cites in MyPT's episodes; `drop` it for a dialect that has no
    place for it, as all but `mypt`."""
    limit: PositiveInt | None = None
    """Read no more than so many rows in all."""
    line_limit_bytes: PositiveInt = LINE_LIMIT_BYTES
    depth_limit: int = Field(default=DEPTH_LIMIT, ge=4, le=256)

    @field_validator("layout")
    @classmethod
    def _names_fields(cls, spelled: str | None) -> str | None:
        if spelled is not None:
            fields_of(spelled)
        return spelled

    @model_validator(mode="after")
    def _fits(self) -> Jsonl:
        if self.each is not None and self.layout is None:
            raise ValueError("'each' needs a 'layout' for its items, such as '{text}'")
        if self.layout is not None and self.format not in ("auto", "text"):
            raise ValueError(f"'layout' makes documents; format {self.format!r} is conversations")
        return self

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
                raise DataError(
                    f"{path}: no rows; expected JSON objects, one a line or in one array"
                )

    def _rows(self, path: Path) -> Iterator[Document | Conversation]:
        reader = Reader(
            None if self.format == "auto" else self.format,
            self.field,
            self.context,
            self.asides,
            self.depth_limit,
            None if self.layout is None else Layout(self.layout, self.each),
        )
        for number, raw in rows(path, self.line_limit_bytes):
            if not raw.strip():
                continue
            try:
                yield reader.item(reader.row(raw), f"{path.name}:{number}")
            except BadLine as problem:
                raise DataError(f"{path}:{number}: {problem}") from None
