"""Any file the product reads, gone through to the end: what is in it, and everything that is wrong
with it.

A stage stops at the first error; here each bad line is named, up to a cap. The readers are the
sources' own, so a file that passes is a file that trains. Recipes are another room's: whoever calls
hands in what checks them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from matura.core.errors import DataError, MaturaError
from matura.core.types import Conversation, Document
from matura.data.arrays import is_array, rows
from matura.data.conversations import Format, Reader
from matura.data.lines import LINE_LIMIT_BYTES, BadLine, status, whole
from matura.data.marked import is_marked, read_marked
from matura.data.sources.folder import text_of
from matura.data.sources.parquet import Parquet, judged
from matura.data.split import content_key
from matura.data.too_long import Comparing
from matura.text.shards import Shard

Kind = Literal["jsonl", "recipe", "shard", "text", "parquet", "marked"]
MOST_ERRORS = 50
FIRST_CHARS = 200
FIRST_TURN_CHARS = 160
"""Of each turn of the first conversation."""

RecipeCheck = Callable[[Path], Mapping[str, Any]]
"""Reads a recipe and returns what there is to say of it, or raises a MaturaError."""


@dataclass(slots=True)
class Report:
    """What a file holds. `errors` are whole lines, `file:line: reason`; none means that it can be
    used."""

    path: str
    kind: Kind
    format: str = ""
    """What JSON lines were read as, such as `sharegpt`."""
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """How many blank lines, documents, conversations, turns, calls, duplicates."""
    fields: Counter[str] = field(default_factory=Counter)
    """In how many rows each key stands."""
    first: str = ""
    """The beginning of the first item, as it was understood."""
    too_long: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each policy would make of chats longer than a row, where that was asked."""
    errors: list[str] = field(default_factory=list)
    errors_left_out: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    def add(self, error: str) -> None:
        """Keeps an error, or counts it when there are too many."""
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(error)
        else:
            self.errors_left_out += 1

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "path": self.path,
            "kind": self.kind,
            "format": self.format,
            "ok": self.ok,
            "rows": self.rows,
            "counts": dict(sorted(self.counts.items())),
            "fields": dict(self.fields.most_common()),
            "first": self.first,
            **({"too_long": self.too_long} if self.too_long else {}),
            "errors": self.errors,
            "errors_left_out": self.errors_left_out,
        }


def kind_of(path: Path) -> Kind:
    """What a file is, by its name: shards, recipes and JSON lines have their own endings."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in (".shard", ".parquet"):
        return "shard" if last == ".shard" else "parquet"
    if last in (".yaml", ".yml", ".json"):
        return "recipe"
    return "jsonl" if last in (".jsonl", ".ndjson") else "text"


def check(
    path: Path,
    *,
    kind: Kind | None = None,
    format: Format | None = None,
    recipe: RecipeCheck | None = None,
    lengths: Comparing | None = None,
) -> Report:
    """The report on one file. Wrong input never raises; it stands in the report's errors.

    `format` is that of a file of JSON lines, told by its first row if absent; `lengths` is told of
    its chats.
    """
    report = Report(path=str(path), kind=kind or kind_of(path))
    try:
        status(path)
        if kind is None and is_array(path):  # a recipe is an object
            report.kind = "jsonl"
        if kind is None and report.kind == "text" and is_marked(path):
            report.kind = "marked"
        if report.kind == "jsonl":
            _check_rows(path, report, Reader(format), lengths)
        elif report.kind == "shard":
            _check_shard(path, report)
        elif report.kind == "parquet":
            _check_parquet(path, report)
        elif report.kind == "marked":
            for document in read_marked(path):
                report.rows += 1
                _count(Document(text=document.text, id=document.id), report)
        elif report.kind == "text":
            _check_text(path, report)
        else:
            _check_recipe(path, report, recipe)
    except MaturaError as problem:
        report.add(str(problem))
    return report


def _check_rows(
    path: Path, report: Report, reader: Reader, lengths: Comparing | None = None
) -> None:
    seen: set[str] = set()
    for number, raw in rows(path, LINE_LIMIT_BYTES):
        if not raw.strip():
            report.counts["blank lines"] += 1
            continue
        report.rows += 1
        try:
            row = reader.row(raw)
            report.fields.update(tuple(row) if isinstance(row, dict) else ())
            thing = reader.item(row, f"{path.name}:{number}")
            if lengths is not None and isinstance(thing, Conversation):
                lengths.add(replace(thing, place=f"{path}:{number}"))
        except (BadLine, DataError) as problem:
            report.add(f"{path}:{number}: {problem}")
            continue
        finally:
            report.format = reader.format or ""
        _count(thing, report)
        key = content_key(thing)
        report.counts["duplicates"] += key in seen
        seen.add(key)
    if not report.rows:
        raise DataError(f"{path}: no rows; expected JSON objects, one a line or in one array")
    if lengths is not None:
        report.too_long = lengths.tallies()


def _check_parquet(path: Path, report: Report) -> None:
    field = Parquet.model_fields["field"].default
    for number, text in judged(path, field):
        report.rows += 1
        if isinstance(text, BadLine):
            report.add(f"{path}:{number}: {text}")
        else:
            _count(Document(text=text, id=str(number)), report)
    if not report.rows:
        raise DataError(f"{path}: no rows with text")


def _count(thing: Document | Conversation, report: Report) -> None:
    if isinstance(thing, Document):
        report.counts["documents"] += 1
        report.counts["characters"] += len(thing.text)
        report.first = report.first or thing.text[:FIRST_CHARS]
        return
    report.counts["conversations"] += 1
    if "context" in thing.meta:
        report.counts["contexts kept as notes"] += 1
    for turn in thing.messages:
        report.counts[f"{turn.role} turns"] += 1
        report.counts["calls"] += len(turn.calls)
        if turn.context:
            report.counts["contexts read"] += 1
        if turn.think or turn.cite:
            report.counts["turns that think or cite"] += 1
        said = (turn.context, turn.think, turn.content, turn.cite)
        report.counts["characters"] += sum(map(len, said))
    report.first = report.first or "\n".join(_spelled(thing))


def _spelled(thing: Conversation) -> Iterator[str]:
    """A line for each thing said, context before the words it comes with."""
    for turn in thing.messages:
        if turn.context:
            yield f"context: {_short(turn.context)}"
        if turn.think:
            yield f"{turn.role} thinks: {_short(turn.think)}"
        calls = (f"{call.name}({json.dumps(dict(call.arguments))})" for call in turn.calls)
        yield f"{turn.role}: {_short(' '.join(filter(None, (turn.content, *calls))))}"
        if turn.cite:
            yield f"{turn.role} cites: {_short(turn.cite)}"


def _short(text: str) -> str:
    return text if len(text) <= FIRST_TURN_CHARS else f"{text[:FIRST_TURN_CHARS]} …"


def _check_text(path: Path, report: Report) -> None:
    text = text_of(path, whole(path), "utf-8", "keep")
    if not text.strip():
        raise DataError(f"{path}: empty; expected text")
    report.rows = 1
    report.counts["documents"] = 1
    report.counts["characters"] = len(text)
    report.counts["lines"] = text.count("\n") + (not text.endswith("\n"))
    report.counts["lines ending in CRLF"] = text.count("\r\n")
    report.first = text[:FIRST_CHARS]


def _check_shard(path: Path, report: Report) -> None:
    shard = Shard.open(path)
    report.rows = len(shard)
    report.counts["tokens"] = shard.tokens
    report.counts["trained tokens"] = int((shard.weights != 0).sum())
    if len(shard):
        report.first = " ".join(map(str, shard.example(0)[0][:32].tolist()))


def _check_recipe(path: Path, report: Report, recipe: RecipeCheck | None) -> None:
    if recipe is None:
        raise DataError(f"{path}: a recipe? expected .jsonl, .txt or .shard here")
    found = recipe(path)
    report.rows = 1
    report.first = json.dumps(found, ensure_ascii=False, default=str)[:FIRST_CHARS]
