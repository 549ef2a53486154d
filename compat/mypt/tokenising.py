"""Text shards as MyPT's token files: `train/` and `val/` with `.bin`, split by content in each
source, an id after each document."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from matura.core.disk import WORK, delete, replace_atomically, sync_tree, telling
from matura.core.errors import DataError, RecipeError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.mixing import TRAIN, VALIDATION
from matura.data.sources.marked import MarkedShards
from matura.data.split import content_key, place_of
from matura.data.tokens import METADATA, SEPARATOR, STATE
from matura.text.template import Template

BATCH = 256


@dataclass
class Counted:
    """What became of one source's documents: read = documents + duplicates."""

    documents: int = 0
    duplicates: int = 0
    train: int = 0
    """Tokens, separators included."""
    val: int = 0


@dataclass
class _Files:
    """One source's token files in one split, each of so many tokens."""

    folder: Path
    name: str
    limit: int
    count: int = 0
    tokens: int = 0
    _waiting: array[int] = field(default_factory=lambda: array("I"))

    def add(self, ids: list[int]) -> None:
        self._waiting.extend(ids)
        self.tokens += len(ids)
        if len(self._waiting) >= self.limit:
            self.flush()

    def flush(self) -> None:
        """Documents are never divided between files."""
        if self._waiting:
            path = self.folder / f"{self.name}_{self.count:05d}.bin"
            with telling(path, "write"):
                np.asarray(self._waiting).astype("<u4").tofile(path)
            self.count += 1
            self._waiting = array("I")


def tokenise(
    sources: Mapping[str, Path],
    final: Path,
    template: Template,
    *,
    val_fraction: float,
    tokens_per_shard: int,
    licences: Mapping[str, str],
    told: Callable[[str], None],
) -> dict[str, Any]:
    """Writes the token folder, whole or not at all, and says what is in it.

    Raises:
        RecipeError: `final` is something else.
        DataError: a source is damaged, or too little to be split.
    """
    if final.exists() and not (final / METADATA).is_file():
        raise RecipeError(f"{final}: is there and is no token folder; nothing done")
    work = final.with_name(final.name + WORK)
    with telling(work, "make"):
        if work.exists():
            delete(work)
        for split in (TRAIN, VALIDATION):
            (work / split).mkdir(parents=True)
    end = template.document(Document(text="", id="", ids=())).ids[-1]
    seen: set[str] = set()
    counts: dict[str, Counted] = {}
    for key, folder in sources.items():
        counts[key] = _source(
            key, folder, work, template, end, seen, val_fraction, tokens_per_shard
        )
        told(f"{key}: {counts[key].train:,} tokens")
    whole = sum(one.train for one in counts.values())
    about = {
        "dtype": "uint32",
        SEPARATOR: end,
        "train_tokens": whole,
        "val_tokens": sum(one.val for one in counts.values()),
        "val_fraction": {"asked": val_fraction, "by": "content, in each source"},
        "sources": {key: asdict(one) for key, one in counts.items()},
        "origins": {key: one.train / whole for key, one in counts.items()},
        "licences": dict(licences),
        "tokenizer": {"sha256": template.tokenizer.sha256},
    }
    state = {
        "sha256": template.tokenizer.sha256,
        "vocab_size": template.tokenizer.vocab_size,
        "dialect": template.tokenizer.dialect,
    }
    replace_atomically(work / STATE, state)
    replace_atomically(work / METADATA, about)
    sync_tree(work)
    if final.exists():
        delete(final)
    with telling(final, "rename to"):
        work.rename(final)
    return about


def _source(
    key: str,
    folder: Path,
    work: Path,
    template: Template,
    end: int,
    seen: set[str],
    val_fraction: float,
    tokens_per_shard: int,
) -> Counted:
    """One source's files; what an earlier document said already is left out."""
    found = Counted()
    below = _threshold(folder, key, val_fraction)
    files = {split: _Files(work / split, key, tokens_per_shard) for split in (TRAIN, VALIDATION)}
    new = _new(folder, key, seen, found)
    while some := list(islice(new, BATCH)):
        encoded = template.tokenizer.encode_many([document.text for document in some])
        for document, ids in zip(some, encoded, strict=True):
            split = VALIDATION if place_of(document) < below else TRAIN
            files[split].add([*ids, end])
    for one in files.values():
        one.flush()
        if not one.tokens:
            raise DataError(
                f"{folder}: nothing new for {one.folder.name} among {found.documents} documents; "
                f"fetch more of {key}"
            )
    found.train, found.val = files[TRAIN].tokens, files[VALIDATION].tokens
    return found


def _threshold(folder: Path, key: str, val_fraction: float) -> float:
    """Below which place a document is for validation: the fraction, unless that leaves one of the
    two without any.

    Raises:
        DataError: there is but one document.
    """
    places = sorted({place_of(document) for document in _documents(folder, key)})
    if len(places) < 2:
        raise DataError(f"{folder}: too little to be split: one document; fetch more of {key}")
    return min(max(val_fraction, places[1]), places[-1])


def _documents(folder: Path, key: str) -> Iterator[Document]:
    return MarkedShards(path=folder).read(Given(rng=rng(0, "mypt", "tokenise", key)))


def _new(folder: Path, key: str, seen: set[str], found: Counted) -> Iterator[Document]:
    for document in _documents(folder, key):
        name = content_key(document)
        if name in seen:
            found.duplicates += 1
            continue
        seen.add(name)
        found.documents += 1
        yield document
