"""Parquet files: one column of text, a batch of rows at a time.

A file says at its end how many rows it has, so one that was cut is an error and never a short
success; pages that carry a checksum are checked against it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from matura.core.errors import DataError, RecipeError
from matura.core.leaves import did_you_mean
from matura.core.types import Document, Given
from matura.data.lines import LINE_LIMIT_BYTES, BadLine, reason, status
from matura.data.naming import named
from matura.data.rows import refuse_surrogates
from matura.data.source import Source

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch
    from pyarrow.parquet import ParquetFile

Value = bool | int | float | str
BATCH_BYTES = 8 * 2**20
"""Unpacked text of a batch, about: what bounds the memory, and not the size of row groups."""
MOST_ROWS = 4096
BUFFER_BYTES = 2**20
TEXT = ("string", "large_string", "string_view")


class Parquet(Source):
    """Each row's text as a document; rows count from 1 in errors. Rows of nothing but white space
    are left out, rows without a text are an error."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    kind: Literal["parquet"] = "parquet"
    path: Path | tuple[Path, ...]
    """A file, several that are read one after the other, or a folder: its `.parquet` files in the
    order of paths."""
    below: str | None = Field(default=None, exclude=True)
    """Ids are paths below this folder; told from the files if absent."""
    field: str = "text"
    """The column that holds the text."""
    filter_field: str | None = None
    """A column that says which rows are read; all if absent."""
    filter_value: Value | None = None
    """What stands there in the rows that are read."""
    row_limit_bytes: PositiveInt = LINE_LIMIT_BYTES
    """The longest text; a longer one is an error."""

    @model_validator(mode="after")
    def _both(self) -> Parquet:
        if (self.filter_field is None) != (self.filter_value is None):
            raise ValueError("'filter_field' and 'filter_value' are given together, or neither")
        return self

    def read(self, given: Given) -> Iterator[Document]:
        """Each row that the filter lets through."""
        only = (self.filter_field, self.filter_value) if self.filter_field else None
        for path, name in named(self.files(), self.below or _top(self.path)):
            found = False
            for number, text in texts(path, self.field, only, limit_bytes=self.row_limit_bytes):
                found = True
                yield Document(text=text, id=f"{name}:{number}")
            if not found:
                where = f" where {self.filter_field!r} is {self.filter_value!r}" if only else ""
                raise DataError(f"{path}: no rows with text{where}")

    def files(self) -> list[Path]:
        """The files, in the order they are read."""
        if isinstance(self.path, tuple):
            return list(self.path)
        if not self.path.is_dir():
            return [self.path]
        found: list[Path] = []
        for here, folders, names in os.walk(self.path, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(here, n) for n in names if n.endswith(".parquet") and n[0] != "."]
        if not found:
            raise DataError(f"{self.path}: no files ending in .parquet")
        return sorted(found)


def _top(path: Path | tuple[Path, ...]) -> str | None:
    return path.as_posix() if isinstance(path, Path) and path.is_dir() else None


def _refuse(problem: OSError) -> None:
    raise DataError(f"{problem.filename}: {reason(problem)}") from None


def texts(
    path: Path,
    field: str,
    only: tuple[str, Value | None] | None = None,
    *,
    limit_bytes: int = LINE_LIMIT_BYTES,
) -> Iterator[tuple[int, str]]:
    """Each row's number from 1 and its text, of the rows where a column has a value.

    Memory is bounded by about a batch and a page, not by the file.

    Raises:
        DataError: damaged, cut or changed while read; no such column; a row that has no text.
        RecipeError: pyarrow is not installed.
    """
    for number, text in judged(path, field, only, limit_bytes=limit_bytes):
        if isinstance(text, BadLine):
            raise DataError(f"{path}:{number}: {text}")
        yield number, text


def judged(
    path: Path,
    field: str,
    only: tuple[str, Value | None] | None = None,
    *,
    limit_bytes: int = LINE_LIMIT_BYTES,
) -> Iterator[tuple[int, str | BadLine]]:
    """As `texts`, but a row that has no text comes as what is wrong with it, and the rest follows.

    Raises:
        DataError: damaged, cut or changed while read; no such column.
        RecipeError: pyarrow is not installed.
    """
    before = status(path)
    with _told(path), _opened(path) as file:
        _check_columns(path, file, field, only)
        seen = 0
        wanted = list(dict.fromkeys([field, *([only[0]] if only else [])]))
        rows = _batch_rows(file, wanted)
        for batch in file.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
            yield from _rows(batch, field, only, seen + 1, limit_bytes)
            seen += batch.num_rows
        if seen != file.metadata.num_rows:
            raise DataError(f"{path}: {seen} rows, its footer says {file.metadata.num_rows}")
    after = status(path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{path}: changed while it was read")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what pyarrow says of a bad file into one line that names it."""
    try:
        import pyarrow
    except ImportError:
        raise RecipeError(
            f"{path}: Parquet needs pyarrow, which is not installed: pip install 'matura[data]'"
        ) from None
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as problem:
        said = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise DataError(f"{path}: damaged or no Parquet file: {said}") from None


@contextmanager
def _opened(path: Path) -> Iterator[ParquetFile]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(
        path,
        # Row groups of a gigabyte are usual: read through a window, not column by column.
        buffer_size=BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
    ) as file:
        yield file


def _check_columns(
    path: Path, file: ParquetFile, field: str, only: tuple[str, Value | None] | None
) -> None:
    schema = file.schema_arrow
    for name in (field, *([only[0]] if only else [])):
        if (count := schema.names.count(name)) != 1:
            known = ", ".join(schema.names[:12]) or "none"
            hint = did_you_mean(name, schema.names) if len(schema.names) <= 12 else ""
            what = (
                f"{count} columns named {name!r}" if count else f"no {name!r}, only {known}{hint}"
            )
            raise DataError(f"{path}:1: {what}")
    spelled = str(getattr(schema.field(field).type, "value_type", schema.field(field).type))
    if spelled not in TEXT or str(schema.field(field).type).startswith(("list", "large_list")):
        raise DataError(f"{path}:1: {field!r} must be text, not {schema.field(field).type}")


def _batch_rows(file: ParquetFile, columns: Sequence[str]) -> int:
    """How many rows make a batch of `BATCH_BYTES`, by what the footer says of their size."""
    largest = 1.0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        size = sum(
            group.column(place).total_uncompressed_size
            for place in range(group.num_columns)
            if group.column(place).path_in_schema in columns
        )
        largest = max(largest, size / max(1, group.num_rows))
    return max(1, min(MOST_ROWS, int(BATCH_BYTES / largest)))


def _rows(
    batch: RecordBatch,
    field: str,
    only: tuple[str, Value | None] | None,
    first: int,
    limit_bytes: int,
) -> Iterator[tuple[int, str | BadLine]]:
    column = batch.column(field)
    keys = batch.column(only[0]).to_pylist() if only else None
    for place in range(batch.num_rows):
        if only and keys is not None and not same(keys[place], only[1]):
            continue
        try:
            text = _text(column, place, field, limit_bytes)
        except BadLine as problem:
            yield first + place, problem
            continue
        if text.strip():
            yield first + place, text


def _text(column: Array, place: int, field: str, limit_bytes: int) -> str:
    try:
        value: Any = column[place].as_py()
    except UnicodeDecodeError as problem:
        raise BadLine(f"{field!r} is not valid UTF-8 at byte {problem.start + 1}") from None
    if not isinstance(value, str):
        raise BadLine(f"{field!r} must be text, not null")
    if len(value) > limit_bytes:
        raise BadLine(f"{field!r} is longer than {limit_bytes:,} characters")
    refuse_surrogates(value, field)
    return value


def same(found: object, wanted: Value | None) -> bool:
    """Whether a row's value is the one that is asked for; 1 is not true, and 1.0 is 1."""
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)
