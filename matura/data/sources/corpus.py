"""A corpus that `data prepare` made: cleaned, without duplicates, split and tokenised already.

Where a recipe's tokenizer is the corpus's own, its shards are used as they are; with another one
its text is encoded anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from matura.core.errors import DataError, StoreError
from matura.core.leaves import did_you_mean
from matura.core.store import Folder
from matura.core.types import Document, Given
from matura.data.lines import BadLine, decoded, lines
from matura.data.rows import parsed
from matura.data.source import Source
from matura.text.shards import Shard
from matura.text.tokenizer import Tokenizer

HELD_OUT = "heldout.jsonl"


class Corpus(Source):
    """One source of a corpus, or all of them one after the other."""

    splits_itself: ClassVar[bool] = True
    holds_out: ClassVar[bool] = True

    kind: Literal["corpus"] = "corpus"
    path: Path
    """The folder."""
    source: str | None = None
    """The name of one of its sources; all of them if absent."""

    def read(self, given: Given) -> Iterator[Document]:
        """The documents of a split: held-out ones as text; others as ids of the corpus's own
        tokenizer, as text where the recipe has another.

        Raises:
            DataError: there is no corpus, it is damaged, or has no such source.
        """
        if given.split == "exam":
            yield from self._held_out()
            return
        self._folder()
        tokenizer = Tokenizer.load(self.path / "tokenizer")
        own = getattr(given.tokenizer, "sha256", None) == tokenizer.sha256
        for shard in self.shards(given.split):
            for number in range(len(shard)):
                ids = tuple(shard.example(number)[0][1:-1].tolist())  # without the tags around it
                name = f"{shard.path.stem}:{number}"
                if own:
                    yield Document(text="", id=name, ids=ids)
                else:
                    yield Document(text=tokenizer.decode(ids), id=name)

    @property
    def tokenizer_sha256(self) -> str:
        """Of the tokenizer that it was encoded with."""
        return str(self._folder().record["tokenizer"])

    def counts(self) -> dict[str, dict[str, Any]]:
        """What became of each of its sources' documents, as the record has it."""
        folder = self._folder()
        return {name: folder.record["sources"][name] for name in self._names(folder)}

    def shards(self, split: str, *, check: Literal["all", "header"] = "all") -> Iterator[Shard]:
        """The token shards of `train` or `validation`, each checked as it is opened."""
        folder = self._folder()
        for name in self._names(folder):
            wanted = f"{name}.{split}-"
            for file in sorted(folder.record["files"]):
                if file.startswith(wanted) and file.endswith(".shard"):
                    yield Shard.open(self.path / file, folder.record["tokenizer"], check=check)

    def inputs(self) -> Iterator[Path]:
        """Its record, which has the hash of everything in it."""
        yield self.path / "record.json"

    def _held_out(self) -> Iterator[Document]:
        folder = self._folder()
        for name in self._names(folder):
            path = self.path / f"{name}.{HELD_OUT}"
            if path.name not in folder.record["files"]:
                continue
            for number, raw in lines(path):
                try:
                    row = parsed(decoded(raw))
                except BadLine as problem:
                    raise DataError(f"{path}:{number}: {problem}") from None
                yield Document(text=row["text"], id=row["id"])

    def _folder(self) -> Folder:
        try:
            folder = Folder.open(self.path, hashes="when read")
        except StoreError as problem:
            raise DataError(f"{problem} (a corpus is made by `matura data prepare`)") from None
        if not {"sources", "tokenizer"} <= folder.record.keys():
            raise DataError(f"{self.path}: no corpus; expected a folder of `matura data prepare`")
        return folder

    def _names(self, folder: Folder) -> list[str]:
        names = list(folder.record["sources"])
        if self.source is None:
            return names
        if self.source not in names:
            raise DataError(
                f"{self.path}: no source {self.source!r}{did_you_mean(self.source, names)}"
            )
        return [self.source]
