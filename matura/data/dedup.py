"""Which documents of many say again what an earlier one said: byte for byte, or nearly.

A hash or a signature only proposes. Exact duplicates are told by 128 bits of sha256; near ones are
compared place by place, and where that comes close to the threshold, run of words by run of words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from matura.core.record import Frozen
from matura.data.alike import agreement, near_duplicates
from matura.data.hashed import Hashes, Ids
from matura.data.minhash import Signatures, signatures
from matura.data.shingles import shingles
from matura.data.stored import Stored

TextsOf = Callable[[Ids], Sequence[str]]
Reason = Literal["exact duplicate", "near duplicate"]

EXACT_BYTES = 16
ASKED = 256
"""Pairs of texts that are in memory at once while they are compared."""


class Duplicates(Frozen):
    """How alike two documents must be for the later one to be left out."""

    threshold: float = Field(default=0.8, ge=0.3, le=1)
    """Share of their runs of words that both have, of all that either has (Jaccard)."""
    ngram: int = Field(default=5, ge=1, le=64)
    """Words in a run."""
    permutations: int = Field(default=128, ge=16, le=1024)
    """Numbers in a signature, of 4 bytes each: more tell more exactly and take more memory."""
    near: bool = True
    """Whether near duplicates are looked for; exact ones always are."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What is kept of documents to compare them, a row each; either may be a memory map."""

    exact: NDArray[np.uint8]
    """Of `EXACT_BYTES`."""
    signatures: Signatures
    """Of `permutations`; of none, where only exact duplicates are looked for."""

    def __len__(self) -> int:
        return len(self.exact)


@dataclass(frozen=True, slots=True)
class StoredFingerprints:
    """The same, where signatures are left in their file."""

    exact: NDArray[np.uint8]
    signatures: Stored

    def __len__(self) -> int:
        return len(self.exact)


@dataclass(slots=True)
class Tally:
    """What became of all documents: read = kept + sum of dropped."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Documents left out, by reason."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a record."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Found:
    """Which documents are duplicates, and of what."""

    of: Ids
    """For each document the one that it duplicates, an earlier one that is kept; -1 if it is kept
    itself."""
    is_exact: NDArray[np.bool_]
    """Which ones have the bytes of an earlier one (that may be a near duplicate itself)."""

    @property
    def exact(self) -> int:
        """How many are exact duplicates."""
        return int(self.is_exact.sum())

    @property
    def near(self) -> int:
        """How many are near duplicates and no exact ones."""
        return int((self.of >= 0).sum()) - self.exact

    def reason(self, document: int) -> Reason | None:
        """Why it is left out; None if it is kept."""
        if self.of[document] < 0:
            return None
        return "exact duplicate" if self.is_exact[document] else "near duplicate"

    def tally(self) -> Tally:
        """All of them counted."""
        reasons = {"exact duplicate": self.exact, "near duplicate": self.near}
        dropped = {reason: count for reason, count in reasons.items() if count}
        return Tally(len(self.of), len(self.of) - sum(dropped.values()), dropped)


def fingerprints(texts: Sequence[str], settings: Duplicates) -> Fingerprints:
    """The fingerprints of a batch of texts: the same ones however a corpus is cut into batches."""
    raw = [_bytes(text) for text in texts]
    joined = b"".join(hashlib.sha256(text).digest()[:EXACT_BYTES] for text in raw)
    exact = np.frombuffer(joined, dtype=np.uint8).reshape(len(raw), EXACT_BYTES)
    if not settings.near:
        return Fingerprints(exact, np.empty((len(raw), 0), dtype=np.uint32))
    places = settings.permutations
    return Fingerprints(exact, signatures(raw, ngram=settings.ngram, places=places))


def duplicates_of(
    prints: Fingerprints | StoredFingerprints,
    settings: Duplicates,
    texts_of: TextsOf | None = None,
) -> Found:
    """Which documents are duplicates of earlier ones that are kept.

    `texts_of` gives the texts of some documents by their numbers, which rise; it is asked for the
    pairs that signatures leave in doubt, some hundreds at a time. Without it signatures decide
    those too. Beside the fingerprints it takes some 110 bytes a document, and 150 MB.
    """
    of = _copies(prints.exact)
    is_exact = of >= 0
    if settings.near:
        verdict = _Comparison(settings, texts_of) if texts_of else None
        out, stay = near_duplicates(
            prints.signatures,
            np.flatnonzero(~is_exact),
            threshold=settings.threshold,
            verdict=verdict,
        )
        of[out] = stay
        # what is a copy of something left out duplicates what that one does
        above = of[of]
        of = np.where(is_exact & (above >= 0), above, of)
    return Found(of, is_exact)


def similarity(
    prints: Fingerprints | StoredFingerprints, left: Ids, right: Ids
) -> NDArray[np.float64]:
    """About how alike the documents of each pair are, from 0 to 1, by their signatures."""
    return agreement(prints.signatures, left, right)


def jaccard(left: Hashes, right: Hashes) -> float:
    """The share of all that either has that both have; each run of words stands there once."""
    both = len(np.intersect1d(left, right, assume_unique=True))
    return both / (len(left) + len(right) - both)


def likeness(left: str, right: str, settings: Duplicates) -> float:
    """How alike two texts are, from 0 to 1, by the runs of words they really have."""
    found = shingles([_bytes(left), _bytes(right)], settings.ngram)
    return jaccard(found.of(0), found.of(1))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _copies(exact: NDArray[np.uint8]) -> Ids:
    """For each document the first that has its bytes; -1 for that first one."""
    of = np.full(len(exact), -1, dtype=np.int64)
    halves = np.ascontiguousarray(exact).view("<u8")
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal ones stay in their order
    ordered = halves[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    firsts = order[new]
    of[order] = firsts[np.cumsum(new) - 1]
    of[firsts] = -1
    return of


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Decides about pairs of documents by the runs of words they really have."""

    settings: Duplicates
    texts_of: TextsOf

    def __call__(self, left: Ids, right: Ids) -> NDArray[np.bool_]:
        near = np.zeros(len(left), dtype=np.bool_)
        for start in range(0, len(left), ASKED):
            some = slice(start, start + ASKED)
            near[some] = list(self._alike(left[some], right[some]))
        return near

    def _alike(self, left: Ids, right: Ids) -> Iterator[bool]:
        asked, rows = np.unique(np.concatenate([left, right]), return_inverse=True)
        found = shingles([_bytes(text) for text in self.texts_of(asked)], self.settings.ngram)
        sets = [found.of(row) for row in range(len(asked))]
        for a, b in rows.reshape(2, -1).T.tolist():
            yield jaccard(sets[a], sets[b]) >= self.settings.threshold
