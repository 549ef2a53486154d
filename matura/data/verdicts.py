"""What becomes of each gathered document: left out as a duplicate, or which split it belongs to.

The only step that sees all documents, and it sees their fingerprints alone; signatures stay in a
file.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.core.errors import DataError
from matura.core.record import digest
from matura.core.store import publish, work_place
from matura.data.dedup import (
    EXACT_BYTES,
    Duplicates,
    Found,
    StoredFingerprints,
    duplicates_of,
    similarity,
)
from matura.data.gathered import Gathered, made_before
from matura.data.hashed import Ids
from matura.data.held import HELD_OUT_LIMIT_BYTES
from matura.data.split import EXAM_SHARE, VALIDATION_SHARE
from matura.data.stored import Stored

VERDICTS = (
    "train",
    "validation",
    "exam",
    "exact duplicate",
    "near duplicate",
    "held out beyond the limit",
)
TRAIN, VALIDATION, EXAM, EXACT, NEAR, BEYOND = range(len(VERDICTS))
SPLITS = VERDICTS[:3]
CLUSTERS, EXAMPLES = 10, 10
LISTED = "duplicates.jsonl"
COPY_BYTES = 2**22


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts of all documents, in the order of parts."""

    verdicts: NDArray[np.uint8]
    starts: tuple[int, ...]
    """The first document of each part, and the number of all."""
    sha256: str
    counts: dict[str, Any]

    def of_part(self, number: int) -> NDArray[np.uint8]:
        """The verdicts of one part's documents."""
        return self.verdicts[self.starts[number] : self.starts[number + 1]]


def judge(folder: Path, parts: Sequence[Gathered], settings: Duplicates) -> Judged:
    """The verdicts, kept in `folder`; made only if those there are of other parts or settings.

    Raises:
        DataError: a source has too few documents left to be split.
    """
    starts = tuple(np.cumsum([0, *(part.documents for part in parts)]).tolist())
    wanted = digest({"parts": [part.sha256 for part in parts], "settings": settings})
    if (record := made_before(folder, wanted)) is None:
        work = work_place(folder)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        verdicts, counts = _judged(work, parts, starts, settings)
        (work / "verdicts.bin").write_bytes(verdicts.tobytes())
        record = publish(work, folder, {"identity": wanted, "counts": counts}).record
    verdicts = np.fromfile(folder / "verdicts.bin", dtype=np.uint8)
    return Judged(verdicts, starts, record["files"]["verdicts.bin"]["sha256"], record["counts"])


def _judged(
    work: Path, parts: Sequence[Gathered], starts: Sequence[int], settings: Duplicates
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    width = settings.permutations if settings.near else 0
    exact = [part.array("exact.bin", "u1", EXACT_BYTES) for part in parts]
    path = work / ".signatures"
    with path.open("w+b") as file:
        path.unlink()  # open as long as it is needed, and a kill leaves nothing
        for part in parts:
            with (part.folder / "signatures.bin").open("rb") as some:
                shutil.copyfileobj(some, file, COPY_BYTES)
        file.flush()
        prints = StoredFingerprints(np.concatenate(exact), Stored(file, starts[-1], width))
        return _compared(work, parts, starts, settings, prints)


def _compared(
    work: Path,
    parts: Sequence[Gathered],
    starts: Sequence[int],
    settings: Duplicates,
    prints: StoredFingerprints,
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    texts = _Texts(parts, starts)
    found = duplicates_of(prints, settings, texts)
    verdicts = np.full(len(prints), TRAIN, dtype=np.uint8)
    verdicts[found.of >= 0] = NEAR
    verdicts[found.is_exact] = EXACT
    notes: list[str] = []
    for name, some in groupby(range(len(parts)), key=lambda number: parts[number].source):
        numbers = list(some)
        rows = slice(starts[numbers[0]], starts[numbers[-1] + 1])
        notes += _split(name, [parts[number] for number in numbers], verdicts[rows])
    _list(work / LISTED, found, texts)
    told = {
        "clusters": list(_clusters(found, texts)),
        "examples": list(_examples(found, prints, texts)),
        "notes": notes,
    }
    return verdicts, told


class _Texts:
    """The texts of documents by their numbers, read when asked for."""

    def __init__(self, parts: Sequence[Gathered], starts: Sequence[int]) -> None:
        self._parts, self._starts = parts, np.array(starts)
        self._named: tuple[int, list[str]] = (-1, [])

    def __call__(self, documents: Ids) -> list[str]:
        found: list[str] = []
        for number, rows in self._by_part(documents):
            part = self._parts[number]
            found += part.texts(rows, part.array("ends.bin", "<u8"))
        return found

    def names(self, documents: Ids) -> list[str]:
        """Their ids, with their sources."""
        found: list[str] = []
        for number, rows in self._by_part(documents):
            part = self._parts[number]
            if self._named[0] != number:
                self._named = number, part.names()
            found += [f"{part.source}/{self._named[1][row]}" for row in rows]
        return found

    def _by_part(self, documents: Ids) -> Iterator[tuple[int, list[int]]]:
        numbers = np.searchsorted(self._starts, documents, side="right") - 1
        for number, rows in groupby(
            zip(numbers.tolist(), documents.tolist(), strict=True), key=lambda pair: pair[0]
        ):
            yield number, [row - int(self._starts[number]) for _, row in rows]


def _split(name: str, parts: Sequence[Gathered], verdicts: NDArray[np.uint8]) -> Iterator[str]:
    """Gives each document of one source that is kept its split, in place; yields what is odd."""
    places = np.concatenate([part.array("places.bin", "<f8") for part in parts])
    kept = np.flatnonzero(verdicts == TRAIN)
    if len(kept) < len(SPLITS):
        raise DataError(
            f"{name}: too little to split: {len(kept)} documents are left of {len(verdicts)}; "
            f"expected at least {len(SPLITS)}, one each for {', '.join(SPLITS)}"
        )
    exam = places[kept] < EXAM_SHARE
    validation = ~exam & (places[kept] < EXAM_SHARE + VALIDATION_SHARE)
    if not (exam.any() and validation.any() and not (exam | validation).all()):
        order = np.argsort(places[kept], kind="stable")
        exam, validation = np.zeros_like(exam), np.zeros_like(exam)
        exam[order[0]] = validation[order[1]] = True
        yield f"{name}: too few documents for all splits: the nearest were moved"
    verdicts[kept[validation]] = VALIDATION
    verdicts[kept[exam]] = EXAM
    ends = [np.diff(part.array("ends.bin", "<u8"), prepend=np.uint64(0)) for part in parts]
    sizes = np.concatenate(ends)[kept[exam]]
    beyond = np.cumsum(sizes) > HELD_OUT_LIMIT_BYTES
    beyond[0] = False
    verdicts[kept[exam][beyond]] = BEYOND


def _list(path: Path, found: Found, texts: _Texts) -> None:
    """Every document that is left out, with what it is a duplicate of, one JSON object a line."""
    out = np.flatnonzero(found.of >= 0)
    kept, place = np.unique(found.of[out], return_inverse=True)
    names = texts.names(kept)
    with path.open("w", encoding="utf-8") as lines:
        for document, name, of in zip(out.tolist(), texts.names(out), place, strict=True):
            row = {"left_out": name, "kept": names[of], "reason": found.reason(document)}
            lines.write(json.dumps(row) + "\n")


def _clusters(found: Found, texts: _Texts) -> Iterator[dict[str, Any]]:
    """The documents of which most others are duplicates."""
    of = found.of[found.of >= 0]
    if not len(of):
        return
    kept, counts = np.unique(of, return_counts=True)
    largest = np.lexsort((kept, -counts))[:CLUSTERS]
    for row in largest.tolist():
        (name,) = texts.names(kept[row : row + 1])
        yield {"kept": name, "left_out": int(counts[row])}


def _examples(found: Found, prints: StoredFingerprints, texts: _Texts) -> Iterator[dict[str, Any]]:
    """Some of those left out, spread over all, with what each is a duplicate of."""
    out = np.flatnonzero(found.of >= 0)
    some = out[np.linspace(0, len(out) - 1, min(EXAMPLES, len(out))).astype(np.int64)]
    for document in some:
        pair = np.array([document]), found.of[[document]]
        (left,), (kept,) = map(texts.names, pair)
        alike = 1.0
        if prints.signatures.shape[1]:
            alike = round(float(similarity(prints, *pair)[0]), 3)
        reason = found.reason(int(document))
        yield {"left_out": left, "kept": kept, "reason": reason, "similarity": alike}


def counted(verdicts: Iterable[int]) -> dict[str, int]:
    """How many documents have each verdict; verdicts that none has are left out."""
    found = Counter(verdicts)
    return {name: found[number] for number, name in enumerate(VERDICTS) if found[number]}
