"""A folder that somebody split already: `train` and `val`, as JSON lines or as token files.

What stands in `val` is never trained on, however it was chosen; nothing is split by content here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from matura.core.errors import DataError, NotHereError
from matura.core.types import Conversation, Document, Given
from matura.data.source import CHARS_PER_TOKEN, OWN, Source
from matura.data.sources.jsonl import Jsonl
from matura.data.tokens import METADATA, TokenFolder, read_object

TRAIN, VALIDATION = "train", "val"


class Prepared(Source):
    """`train.jsonl` and `val.jsonl`; or token files (`*.bin`) below `train/` and `val/`, cut into
    documents."""

    splits_itself: ClassVar[bool] = True

    kind: Literal["prepared"] = "prepared"
    path: Path
    """The folder."""
    token_budget: PositiveInt | None = None
    """Of the training data, stop after about so many tokens (of text, four characters each)."""

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
        budget = self.token_budget if given.split == "train" else None
        if self.is_text:
            yield from _within(Jsonl(path=self.path / f"{name}.jsonl").read(given), budget)
            return
        if not self.path.is_dir():
            raise NotHereError(f"{self.path}: no such folder")
        folder = TokenFolder.open(self.path)
        if given.tokenizer is None:
            raise DataError(f"{self.path}: holds tokens, and a tokenizer is trained on text")
        yield from _within(folder.documents(name, given.tokenizer), budget)

    def licence(self) -> str:
        """Those of the parts it was mixed from, each once; the user's own where it does not say."""
        return "; ".join(dict.fromkeys(self._told("licences").values())) or OWN

    def origins(self) -> dict[str, float]:
        """The shares of what it was mixed from, down to the first sources; empty if it does not
        say."""
        return {str(name): float(share) for name, share in self._told("origins").items()}

    def _told(self, key: str) -> dict[str, Any]:
        if not (self.path / METADATA).is_file():
            return {}
        told = read_object(self.path / METADATA).get(key)
        return told if isinstance(told, dict) else {}

    def tokens(self) -> int:
        """How many are read for training from token files.

        Raises:
            DataError: there are none, or they are damaged.
        """
        count = TokenFolder.open(self.path).count(TRAIN)
        return min(count, self.token_budget or count)


def _within(
    items: Iterable[Document | Conversation], budget: int | None
) -> Iterator[Document | Conversation]:
    """The items up to the one that fills the budget."""
    chars = 0
    for item in items:
        yield item
        if budget is None:
            continue
        if isinstance(item, Document):
            chars += len(item.text) + CHARS_PER_TOKEN * len(item.ids or ())
        else:
            chars += sum(len(turn.content) for turn in item.messages)
        if chars >= budget * CHARS_PER_TOKEN:
            return
