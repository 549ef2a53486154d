"""A corpus that `data prepare` made, as `data mix` takes token folders: bare ids, each document
with its end behind it, and the tokenizer that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from matura.core.errors import DataError
from matura.core.store import RECORD
from matura.data.sources.corpus import Corpus
from matura.data.tokens import METADATA, TOKENIZER_SHA256, TokenFolder, Tokens
from matura.text.shards import Shard

SPLITS = {"train": "train", "val": "validation"}
TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class EncodedCorpus:
    """A corpus with the members that mixing asks a `TokenFolder` for."""

    path: Path
    sha256: str
    """Of the tokenizer."""
    about: dict[str, Any]
    """What a token folder's metadata would say: `origins` by tokens, and the tokenizer."""

    @classmethod
    def open(cls, path: Path) -> EncodedCorpus:
        """The corpus, its files checked by size.

        Raises:
            DataError: it is none, or damaged.
        """
        source = Corpus(path=path)
        sha256 = source.tokenizer_sha256
        origins = {name: told["tokens"]["train"] for name, told in source.counts().items()}
        return cls(path, sha256, {"origins": origins, TOKENIZER_SHA256: sha256})

    @cached_property
    def separator(self) -> int:
        """The id at the end of each document."""
        return int(next(self._shards("train")).ids[-1])

    def files(self, split: str) -> list[Path]:
        """The shards of `train` or `val`."""
        return [shard.path for shard in self._shards(split)]

    def count(self, split: str) -> int:
        """Tokens of a split, ends of documents counted."""
        return sum(shard.tokens - len(shard) for shard in self._shards(split))

    def tokens(self, file: Path) -> Tokens:
        """One shard's ids without the tag in front of each document.

        Raises:
            DataError: it is damaged.
        """
        shard = Shard.open(file, self.sha256)
        kept = np.ones(shard.tokens, dtype=np.bool_)
        kept[shard.starts[:-1].astype(np.int64)] = False
        found: Tokens = shard.ids[kept]
        return found

    def _shards(self, split: str) -> Iterator[Shard]:
        return Corpus(path=self.path).shards(SPLITS[split], check="header")


Opened = TokenFolder | EncodedCorpus


def opened(path: Path) -> Opened:
    """The token folder or the corpus that lies there.

    Raises:
        DataError: it is neither, or damaged.
    """
    if (path / RECORD).is_file() and not (path / METADATA).is_file():
        return EncodedCorpus.open(path)
    if not (path / METADATA).is_file():
        raise DataError(
            f"{path}: no token folder ({METADATA} and *.bin below train/ and val/), and no corpus "
            "of `matura data prepare`; prepare its text first"
        )
    return TokenFolder.open(path)


def tokenizer_of(folders: Sequence[Opened]) -> Path | None:
    """Where the tokenizer lies that all of them were encoded with, if they say which.

    Raises:
        DataError: two of them differ, or one does not say.
    """
    told = [(folder.path, folder.about.get(TOKENIZER_SHA256)) for folder in folders]
    known = [(path, sha256) for path, sha256 in told if sha256 is not None]
    if not known:
        return None
    first, sha256 = known[0]
    for path, other in told:
        if other is None:
            raise DataError(
                f"{path}: does not say which tokenizer it was encoded with, {first} does; mixed, "
                "nobody could tell its tokens apart: prepare its text with --tokenizer "
                f"{first / TOKENIZER}"
            )
        if other != sha256:
            raise DataError(
                f"{path}: encoded with another tokenizer than {first}; prepare it again with "
                f"--tokenizer {first / TOKENIZER}"
            )
    return first / TOKENIZER
