"""Cleaned documents with their fingerprints, on disk in parts that are whole or absent: what a
corpus is made of before duplicates are known.

A part holds `texts.bin` (UTF-8, end to end), `ends.bin` (where each ends), `exact.bin` and
`signatures.bin` (fingerprints), `places.bin` (what decides the split), `names.jsonl` and a record.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from matura.core.disk import delete
from matura.core.errors import StoreError
from matura.core.record import digest
from matura.core.store import Folder, publish
from matura.core.types import Document
from matura.data.clean.decontaminate import items_of
from matura.data.cleaner import Cleaner, Counts, outcome
from matura.data.cuts import Cut
from matura.data.decontaminate import Index
from matura.data.dedup import EXACT_BYTES, Duplicates, fingerprints
from matura.data.split import place_of

PART_BYTES = 16 * 2**20
"""Text in a part, about; a longer piece of a source becomes several parts."""
BATCH_CHARS = 2**21
BATCH = 1024
HITS_KEPT = 100
"""Evaluation items that a part's record tells of, with the words that matched."""


class AsIs(Cleaner):
    """Text as it is; what is no text at all is dropped as by every cleaner."""

    kind: Literal["text"] = "text"

    def texts(self, text: str) -> Sequence[str]:
        """The text itself."""
        return (text,)


@dataclass(frozen=True, slots=True)
class Against:
    """Evaluation items that no document may hold: files as `clean: decontaminate` reads them."""

    paths: tuple[Path, ...] = ()
    sha256: str = ""
    """Of the files."""


@cache
def index_of(against: Against) -> Index | None:
    """The items, made ready once a process; None if there are none.

    Raises:
        DataError: a file of items cannot be read.
    """
    if not against.paths:
        return None
    return Index(item for path in against.paths for item in items_of(path))


@dataclass(frozen=True, slots=True)
class Gathering:
    """One piece of a source, and what is to become of it."""

    cut: Cut
    root: Path
    """Where its parts lie: `<piece>-<part>`."""
    cleaners: tuple[Cleaner, ...]
    duplicates: Duplicates
    against: Against
    code: str
    """A hash of the program: another one makes its parts anew."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that its parts depend on."""
        return {
            "source": self.cut.source,
            "name": self.cut.name,
            "input": self.cut.sha256,
            "files": list(self.cut.names),
            "cleaners": list(self.cleaners),
            "against": self.against.sha256,
            "fingerprints": self.duplicates.model_dump(exclude={"threshold"}),
            "code": self.code,
        }

    def folder(self, number: int) -> Path:
        """Where its part of that number lies, or would."""
        return self.root / f"{self.cut.number:05d}-{number:04d}"


@dataclass(frozen=True, slots=True)
class Gathered:
    """One part, as it lies on disk."""

    folder: Path
    source: str
    documents: int
    sha256: str
    """Of all its files."""
    counts: dict[str, Any]

    def array(self, name: str, dtype: str, width: int = 0) -> NDArray[Any]:
        """One of its files, memory-mapped."""
        found = np.fromfile(self.folder / name, dtype=dtype)
        return found.reshape(self.documents, width) if width else found

    def texts(self, rows: Iterable[int], ends: NDArray[np.uint64]) -> Iterator[str]:
        """The texts of some of its documents."""
        with (self.folder / "texts.bin").open("rb") as file:
            for row in rows:
                start = int(ends[row - 1]) if row else 0
                file.seek(start)
                yield file.read(int(ends[row]) - start).decode()

    def names(self) -> list[str]:
        """The ids of its documents."""
        with (self.folder / "names.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def opened(folder: Path, record: Mapping[str, Any] | None = None) -> Gathered:
    """The part that lies there, checked unless its record is given.

    Raises:
        StoreError: it is not whole, or damaged.
    """
    record = Folder.open(folder).record if record is None else record
    return Gathered(
        folder=folder,
        source=record["source"],
        documents=record["documents"],
        sha256=digest(record["files"]),
        counts=record["counts"],
    )


def gather(asked: Gathering) -> list[Gathered]:
    """The parts of one piece; those that are there already are not made again.

    Raises:
        DataError: the input is wrong.
    """
    wanted = digest(asked.identity)
    parts: list[Gathered] = []
    read = 0
    while (record := made_before(folder := asked.folder(len(parts)), wanted)) is not None:
        parts.append(opened(folder, record))
        read += record["counts"]["cleaned"]["read"]
        if record["last"]:
            return parts
    writer = _Writer(asked, wanted, parts)
    documents = asked.cut.read()
    for _ in zip(range(read), documents, strict=False):
        pass  # what parts that are whole were made of
    writer.take(documents)
    return parts


def made_before(folder: Path, wanted: str) -> Mapping[str, Any] | None:
    """The record of a folder that was made from exactly this; what is damaged or made from
    something else makes room."""
    if not folder.exists():
        return None
    try:
        record = Folder.open(folder).record
        if record["identity"] == wanted:
            return record
    except StoreError:
        pass
    delete(folder)
    return None


class _Writer:
    """Writes the documents of one piece down, part by part."""

    def __init__(self, asked: Gathering, wanted: str, parts: list[Gathered]) -> None:
        self._asked, self._wanted, self._parts = asked, wanted, parts
        self._index = index_of(asked.against)

    def take(self, documents: Iterator[Document]) -> None:
        """All that is left of the piece."""
        more = True
        while more:
            final = self._asked.folder(len(self._parts))
            work = final.with_name(f"{final.name}.work")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            part = _Part(work, self._asked, self._index)
            with part:
                more = part.fill(documents)
            record = {
                "identity": self._wanted,
                "source": self._asked.cut.name,
                "documents": part.documents,
                "counts": part.as_dict(),
                "last": not more,
            }
            there = made_before(final, self._wanted)  # by a worker that was taken for dead
            if there is None:
                there = publish(work, final, record).record
            shutil.rmtree(work, ignore_errors=True)
            self._parts.append(opened(final, there))


FILES = ("texts.bin", "ends.bin", "exact.bin", "signatures.bin", "places.bin", "names.jsonl")


class _Part:
    """One part that is being written."""

    def __init__(self, work: Path, asked: Gathering, index: Index | None) -> None:
        self._asked, self._index = asked, index
        self._files: dict[str, IO[bytes]] = {name: (work / name).open("wb") for name in FILES}
        self._bytes = 0
        self.documents = 0
        self._counts = Counts()
        self._contaminated: Counter[str] = Counter()
        self._hits: list[dict[str, str]] = []

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *problem: object) -> None:
        for file in self._files.values():
            file.close()

    def fill(self, documents: Iterator[Document]) -> bool:
        """Takes documents until it is full; False if there are no more."""
        batch: list[Document] = []
        chars = 0
        for document in documents:
            found = outcome(self._asked.cleaners or (AsIs(),), document)
            self._counts.add(document, found)
            for made in found.made:
                batch.append(made)
                chars += len(made.text)
            if chars >= BATCH_CHARS or len(batch) >= BATCH:
                self._write(batch)
                batch, chars = [], 0
                if self._bytes >= PART_BYTES:
                    return True
        self._write(batch)
        return False

    def _write(self, batch: list[Document]) -> None:
        clean = [document for document in batch if not self._contaminated_by(document)]
        if not clean:
            return
        raw = [document.text.encode() for document in clean]
        ends = np.cumsum([len(text) for text in raw], dtype="<u8") + np.uint64(self._bytes)
        prints = fingerprints([document.text for document in clean], self._asked.duplicates)
        places = np.array([place_of(document) for document in clean], dtype="<f8")
        assert prints.exact.shape[1] == EXACT_BYTES
        names = "".join(json.dumps(document.id) + "\n" for document in clean)
        for name, content in zip(
            FILES,
            (
                b"".join(raw),
                ends.tobytes(),
                prints.exact.tobytes(),
                prints.signatures.astype("<u4", copy=False).tobytes(),
                places.tobytes(),
                names.encode(),
            ),
            strict=True,
        ):
            self._files[name].write(content)
        self._bytes = int(ends[-1])
        self.documents += len(clean)

    def _contaminated_by(self, document: Document) -> bool:
        if self._index is None or not (hits := self._index.hits(document)):
            return False
        self._contaminated[f"evaluation item, {hits[0].rule}"] += 1
        if len(self._hits) < HITS_KEPT:
            first = hits[0]
            told = {"document": first.document, "item": first.item, "rule": first.rule}
            self._hits.append({**told, "text": first.text})
        return True

    def as_dict(self) -> dict[str, Any]:
        """What became of everything that was read for it."""
        return {
            "cleaned": self._counts.as_dict(),
            "contaminated": dict(self._contaminated),
            "hits": self._hits,
        }
