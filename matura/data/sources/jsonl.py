"""JSON lines or one JSON array, packed or not: documents, or conversations in the usual formats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Given
from matura.data.arrays import ENDINGS as ARRAYS
from matura.data.arrays import is_array, rows
from matura.data.conversations import AsideUse, ContextUse, Format, Reader
from matura.data.layout import Layout, fields_of
from matura.data.lines import LINE_LIMIT_BYTES, BadLine, reason
from matura.data.naming import named
from matura.data.rows import DEPTH_LIMIT, ENDINGS
from matura.data.source import Source


class Jsonl(Source):
    """One JSON object, or nanochat's array, per line; of a file named `.json` that is one array,
    per item. The first error stops, with file, line and what was expected.

    The first row decides the format of its file where `format` is `auto`; a later row of another
    kind is an error.
    """

    kind: Literal["jsonl"] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (*ENDINGS, *ARRAYS)
    path: Path | tuple[Path, ...]
    """One file, several that are read one after the other, or a folder: its JSON lines and its
    arrays, in the order of paths."""
    below: str | None = Field(default=None, exclude=True)
    """Ids are paths below this folder; told from the files if absent."""
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
        """The files, also where there is one; a folder without any is read as a file is, and so
        refused."""
        if isinstance(self.path, tuple):
            return self.path
        if not self.path.is_dir():
            return (self.path,)
        found: list[Path] = []
        for here, folders, names in os.walk(self.path, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            some = (Path(here, n) for n in names if n.endswith(self.suffixes) and n[0] != ".")
            # what is one object is a program's setting, no rows
            found += [path for path in some if path.name.endswith(ENDINGS) or is_array(path)]
        return tuple(sorted(found)) or (self.path,)

    def read(self, given: Given) -> Iterator[Document | Conversation]:
        """Each row; rows are numbered from 1 as an editor shows them."""
        left = self.limit
        folder = isinstance(self.path, Path) and self.path.is_dir()
        below = self.below or (str(self.path) if folder else None)
        for path, name in named(self.paths, below):
            found = False
            for thing in self._rows(path, name):
                found = True
                if left == 0:
                    return
                yield thing
                left = None if left is None else left - 1
            if not found:
                raise DataError(
                    f"{path}: no rows; expected JSON objects, one a line or in one array"
                )

    def _rows(self, path: Path, name: str) -> Iterator[Document | Conversation]:
        reader = Reader(
            None if self.format == "auto" else self.format,
            self.field,
            self.context,
            self.asides,
            self.depth_limit,
            None if self.layout is None else Layout(self.layout, self.each),
        )
        last, more = 0, 0
        for number, raw in rows(path, self.line_limit_bytes):
            if not raw.strip():
                continue
            more = more + 1 if number == last else 0  # an array may stand in one line
            last = number
            place = f"{number}.{more + 1}" if more else f"{number}"
            try:
                thing = reader.item(reader.row(raw), f"{name}:{place}")
            except BadLine as problem:
                raise DataError(f"{path}:{number}: {problem}") from None
            if isinstance(thing, Conversation):
                thing = replace(thing, place=f"{path}:{place}")
            yield thing


def _refuse(problem: OSError) -> None:
    raise DataError(f"{problem.filename}: {reason(problem)}") from None
