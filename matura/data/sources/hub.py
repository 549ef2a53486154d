"""A dataset of the Hugging Face hub, read file by file; nothing past the budget is downloaded.

Without the network (the default) it reads what is in the cache. A dataset that needs code to be
read is not read: code is never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from matura.core.errors import DataError
from matura.core.types import Document, Given
from matura.data.configs import chosen, kind_of
from matura.data.hub import Shelf, shelf
from matura.data.lines import LINE_LIMIT_BYTES, BadLine, decoded, lines
from matura.data.rows import parsed, text_at
from matura.data.source import CHARS_PER_TOKEN, Source
from matura.data.sources.parquet import Value, same, texts


class Hub(Source):
    """Parquet files or JSON lines of a dataset, in the order of paths; rows of nothing but white
    space are left out, rows without a text are an error.

    A branch such as `main` stays the commit it was when it was first read, for as long as it is in
    the cache; state a commit as `revision` to read the same everywhere.
    """

    kind: Literal["hub"] = "hub"
    remote: ClassVar[bool] = True
    id: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    """Such as `codeparrot/codeparrot-clean`."""
    revision: str = Field(default="main", pattern=r"^[A-Za-z0-9][\w./-]*$")
    """A commit, tag or branch; `refs/convert/parquet` is the hub's own conversion."""
    config: str | None = None
    """A configuration of the dataset's card; a folder, where the card has none."""
    data_dir: str | None = None
    """A folder to look into, whatever the card says."""
    split: str = "train"
    files: tuple[str, ...] = ()
    """Patterns such as `data/*.json.gz`, instead of `config`, `data_dir` and `split`."""
    field: str = "text"
    """Where a row's text stands."""
    filter_field: str | None = None
    """A field that says which rows are read; all if absent."""
    filter_value: Value | None = None
    """What stands there in the rows that are read."""
    token_budget: PositiveInt | None = None
    """Stop after about so many tokens, four characters each."""
    endpoint: str | None = None
    """A mirror's URL, or a folder that holds `datasets/ID/…`; `HF_ENDPOINT` or the hub if absent.
    The token in `HF_TOKEN` goes only to the hub and to what `HF_ENDPOINT` names."""
    allow_unknown_licence: bool = False
    """Read it though its card names no licence."""
    row_limit_bytes: PositiveInt = LINE_LIMIT_BYTES

    @model_validator(mode="after")
    def _both(self) -> Hub:
        if (self.filter_field is None) != (self.filter_value is None):
            raise ValueError("'filter_field' and 'filter_value' are given together, or neither")
        if ".." in f"{self.id}/{self.revision}/{self.data_dir or ''}".split("/"):
            raise ValueError("'..' leads outside the dataset")
        return self

    def licence(self) -> str | None:
        """What the dataset's card names, such as `apache-2.0`; None if it names none.

        Raises:
            DataError: the card cannot be had, or names none and that is not allowed.
        """
        return self._licence(shelf(self.id, self.revision, self.endpoint))

    def inputs(self) -> Iterator[Path]:
        """The files of a folder that is read, to be recorded by hash; what a hub holds is known by
        its commit.

        Raises:
            DataError: there is no such folder, or none of its files is asked for.
        """
        place = shelf(self.id, self.revision, self.endpoint)
        if place.is_here:
            yield from (path for path, _ in self._files(place))

    def read(self, given: Given) -> Iterator[Document]:
        """Each row that the filter lets through, until the budget is spent."""
        place = shelf(self.id, self.revision, self.endpoint)
        self._licence(place)
        chars = 0
        for path, name in self._files(place):
            found = False
            for number, text in self._texts(path, name):
                found = True
                yield Document(text=text, id=f"{name}:{number}")
                chars += len(text)
                if self.token_budget and chars >= self.token_budget * CHARS_PER_TOKEN:
                    return
            if not found and self.filter_field is None:
                raise DataError(f"{path}: no rows with text")
        if not chars:
            what = f" where {self.filter_field!r} is {self.filter_value!r}"
            raise DataError(f"{place.where}: no rows with text{what}")

    def _licence(self, place: Shelf) -> str | None:
        licence = place.card().licence
        if licence is None and not self.allow_unknown_licence:
            raise DataError(
                f"{place.where}: its card names no licence; look whether you may use it, and then "
                "say `allow_unknown_licence: true`"
            )
        return licence

    def _files(self, place: Shelf) -> Iterator[tuple[Path, str]]:
        """Each file to read and its path in the dataset; fetched when it is its turn."""
        entries = {entry.path: entry for entry in place.entries()}
        for name in chosen(
            list(entries),
            place.card().configs,
            where=place.where,
            config=self.config,
            data_dir=self.data_dir,
            split=self.split,
            files=self.files,
        ):
            yield place.file(entries[name]), name

    def _texts(self, path: Path, name: str) -> Iterator[tuple[int, str]]:
        only = (self.filter_field, self.filter_value) if self.filter_field else None
        if kind_of(name) == "parquet":
            yield from texts(path, self.field, only, limit_bytes=self.row_limit_bytes)
            return
        for number, raw in lines(path, self.row_limit_bytes):
            if not raw.strip():
                continue
            try:
                row = parsed(decoded(raw))
                if only and only[0] not in row:
                    raise BadLine(f"no {only[0]!r}, only {sorted(row)[:8]}")
                if only and not same(row[only[0]], only[1]):
                    continue
                text = text_at(row, self.field, empty="allowed")
            except BadLine as problem:
                raise DataError(f"{path}:{number}: {problem}") from None
            if text.strip():
                yield number, text
