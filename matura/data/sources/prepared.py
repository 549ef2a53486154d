"""A folder that somebody split already: `train` and `val`, as JSON lines or as token files.

What stands in `val` is never trained on, however it was chosen; nothing is split by content here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Given
from matura.data.source import Source
from matura.data.sources.jsonl import Jsonl
from matura.data.tokens import TokenFolder

TRAIN, VALIDATION = "train", "val"


class Prepared(Source):
    """`train.jsonl` and `val.jsonl`; or token files (`*.bin`) below `train/` and `val/`, cut into
    documents."""

    splits_itself: ClassVar[bool] = True

    kind: Literal["prepared"] = "prepared"
    path: Path
    """The folder."""

    @property
    def is_text(self) -> bool:
        """Whether it holds JSON lines."""
        return (self.path / f"{TRAIN}.jsonl").is_file()

    def read(self, given: Given) -> Iterator[Document | Conversation]:
        """The items of `given.split`; nothing for an exam.

        Raises:
            DataError: there is no such folder, or the token files are of another tokenizer.
        """
        if given.split == "exam":
            return
        name = TRAIN if given.split == "train" else VALIDATION
        if self.is_text:
            yield from Jsonl(path=self.path / f"{name}.jsonl").read(given)
            return
        if not self.path.is_dir():
            raise DataError(f"{self.path}: no such folder")
        folder = TokenFolder.open(self.path)
        if given.tokenizer is None:
            raise DataError(f"{self.path}: holds tokens, and a tokenizer is trained on text")
        yield from folder.documents(name, given.tokenizer)
