"""Folders of bare token files, as MyPT's pre-training reads them: `train/` and `val/` with `.bin`
shards, which say nothing of themselves, and a `dataset_metadata.json` that does.

The files have no headers, so everything about them is checked that can be: the width of a token
against what is declared, counts against sizes, and every id against the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.core.errors import DataError
from matura.core.types import Document, TextCodec

METADATA, STATE = "dataset_metadata.json", "tokenizer_state.json"
WIDTHS: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
DOCUMENT_TOKENS = 4096
"""Where the files keep no document ends, they are cut every so often; packing cuts further."""
SEPARATOR = "separator"
"""In the metadata: the control id that stands after each document."""
TOKENIZER_SHA256 = "tokenizer_sha256"
"""In the metadata: of the tokenizer that lies in `tokenizer/`, where it is known."""

Tokens = NDArray[Any]


@dataclass(frozen=True)
class TokenFolder:
    """One folder and how its files spell a token."""

    path: Path
    width: np.dtype[Any]
    about: dict[str, Any]
    """What `dataset_metadata.json` says."""

    @classmethod
    def open(cls, path: Path) -> TokenFolder:
        """The folder, with its metadata read.

        Raises:
            DataError: it has no token files, or its metadata are missing or strange.
        """
        if next(path.rglob("episodes.idx"), None) is not None:
            raise DataError(
                f"{path}: chats as another tokenizer spelled them, without their text; prepare it "
                "again from its JSONL"
            )
        about = read_object(path / METADATA)
        name = str(about.get("dtype", "uint32"))
        if name not in WIDTHS:
            raise DataError(f"{path / METADATA}: dtype {name!r}; expected {' or '.join(WIDTHS)}")
        folder = cls(path, WIDTHS[name], about)
        if not folder.files("train"):
            raise DataError(f"{path}: neither train.jsonl nor token files (*.bin) below train/")
        return folder

    @property
    def separator(self) -> int | None:
        """The id after each document; None if nothing stands there."""
        told = self.about.get(SEPARATOR)
        return told if isinstance(told, int) else None

    def files(self, split: str) -> list[Path]:
        """The token files of `train` or `val`, in the order of their names, also in folders."""
        return sorted(self.path.joinpath(split).rglob("*.bin"))

    def tokens(self, file: Path) -> Tokens:
        """One file's ids.

        Raises:
            DataError: it is no whole number of tokens.
        """
        size = file.stat().st_size
        if size % self.width.itemsize:
            raise DataError(
                f"{file}: {size} bytes are no whole number of tokens of {self.width.itemsize} bytes"
            )
        return np.fromfile(file, dtype=self.width)

    def count(self, split: str) -> int:
        """Tokens in all files of a split."""
        return sum(file.stat().st_size for file in self.files(split)) // self.width.itemsize

    def documents(self, split: str, codec: TextCodec) -> Iterator[Document]:
        """The tokens as documents, or in pieces that can be read one by one where nothing says
        where one ends.

        Raises:
            DataError: an id is none of the tokenizer's text ids, or the metadata name another
                tokenizer, so it was written by another one.
        """
        known, own = self.about.get(TOKENIZER_SHA256), getattr(codec, "sha256", None)
        if known is not None and known != own:
            raise DataError(
                f"{self.path}: encoded with another tokenizer than the model's; give the recipe "
                f"`tokenizer: {{path: {self.path}}}`, or prepare its text again"
            )
        for file in self.files(split):
            ids = self.tokens(file)
            ends = np.flatnonzero(ids == self.separator) if self.separator is not None else ids[:0]
            ids[ends] = 0
            if len(ids) and (most := int(ids.max())) >= codec.text_vocab_size:
                raise DataError(
                    f"{file}: holds the id {most}, the model's text has {codec.text_vocab_size}: "
                    "written by another tokenizer, or with another dtype"
                )
            name = file.relative_to(self.path).as_posix()
            for start, stop in _pieces(len(ids), ends):
                yield Document(text="", id=f"{name}:{start}", ids=tuple(ids[start:stop].tolist()))


def _pieces(count: int, ends: Tokens) -> Iterator[tuple[int, int]]:
    """Where each document starts and stops; empty ones are left out."""
    start = 0
    for stop in (*ends.tolist(), count) if len(ends) else ():
        if stop > start:
            yield start, stop
        start = stop + 1
    if not len(ends):
        for at in range(0, count, DOCUMENT_TOKENS):
            yield at, min(at + DOCUMENT_TOKENS, count)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object")
    return value
