"""Texts without the items of evaluations: benchmarks and exams that a model will be measured by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from matura.core.errors import DataError
from matura.core.types import Document
from matura.data.cleaner import Cleaner, Unfit
from matura.data.decontaminate import Index, Rules
from matura.data.lines import BadLine, decoded, lines
from matura.data.rows import ENDINGS, parsed


class Decontaminate(Cleaner):
    """Drops a document that holds an item, verbatim or lightly changed."""

    kind: Literal["decontaminate"] = "decontaminate"
    against: tuple[Path, ...] = Field(min_length=1)
    """Files of items: every text in a row of JSON lines is one, and every line of other files."""
    fields: tuple[str, ...] = ()
    """Of a row, the fields that are items, such as `question`; all that hold text if none."""
    rules: Rules = Rules()

    def texts(self, text: str) -> Sequence[str]:
        """The text itself."""
        index = _index(self.against, self.fields, self.rules)
        if hits := index.hits(Document(text=text, id="")):
            raise Unfit(f"evaluation item, {hits[0].rule}")
        return [text]


@cache
def _index(paths: tuple[Path, ...], fields: tuple[str, ...], rules: Rules) -> Index:
    """Made once per process, however many documents there are."""
    return Index((item for path in paths for item in items_of(path, fields)), rules)


def items_of(path: Path, fields: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Each item of a file and its name, `file:line field`.

    Raises:
        DataError: the file is missing, a row is no JSON object, or it lacks a field.
    """
    rows = path.name.endswith(ENDINGS)
    found = False
    for number, raw in lines(path):
        try:
            text = decoded(raw)
            told = _told(parsed(text), fields) if rows and text.strip() else [("", text)]
        except BadLine as problem:
            raise DataError(f"{path}:{number}: {problem}") from None
        for name, item in told:
            if item.strip():
                found = True
                yield f"{path.name}:{number} {name}".rstrip(), item
    if not found:
        raise DataError(f"{path}: no items; expected JSON lines, or an item on each line")


def _told(row: dict[str, Any], fields: Sequence[str]) -> list[tuple[str, str]]:
    if missing := [name for name in fields if not isinstance(row.get(name), str)]:
        raise BadLine(f"no text in {missing[0]!r}, only {sorted(row)[:8]}")
    if fields:
        return [(name, row[name]) for name in fields]
    return list(_texts(row, ""))


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every text inside, with the way to it."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{name}[{place}]")
