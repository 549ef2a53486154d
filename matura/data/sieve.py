"""Documents without duplicates, or without evaluation items, as text shards that any recipe can
read, and beside them what was left out and why.

A folder of them is whole or absent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matura.core.disk import replace_atomically
from matura.core.errors import DataError
from matura.core.record import plain
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.atonce import at_once
from matura.data.cleaner import first_change
from matura.data.corpus import marked
from matura.data.decontaminate import Findings, Index, decontaminated
from matura.data.dedup import (
    Duplicates,
    Fingerprints,
    Found,
    Reason,
    StoredFingerprints,
    Tally,
    likeness,
    similarity,
)
from matura.data.deduped import text_only
from matura.data.marked import SHARD_BYTES, Marked, write_marked
from matura.data.source import Source
from matura.data.spool import Spool

DUPLICATES, ITEMS = "dedup.json", "decontamination.json"
CLUSTERS, CLUSTER_IDS, PAIRS = 10, 5, 10
TOLD_EVERY = 1000

Named = Sequence[tuple[str, Source]]
Told = Callable[[str, int], None]
"""Is given a source's name and how many of its documents were read so far."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kept document and how many duplicate it."""

    kept: str
    duplicates: int
    ids: tuple[str, ...]
    """The first of them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A document that was left out and the kept one that it duplicates."""

    dropped: str
    kept: str
    reason: Reason
    similarity: float
    """Share of their runs of words that both have. Of an exact duplicate less than 1, if the
    earlier one with its bytes was itself left out for a third."""
    change: str
    """The first lines that differ, `-` kept and `+` dropped."""


@dataclass(frozen=True, slots=True)
class Deduped:
    """What became of every document: read = kept + sum of dropped."""

    sources: dict[str, Tally]
    clusters: tuple[Cluster, ...]
    """The largest."""
    pairs: tuple[Pair, ...]
    """Examples: near duplicates from the least to the most alike, then exact ones."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a report."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Decontaminated:
    """What became of every document, and what matched in those that were left out."""

    sources: dict[str, Findings]
    items: int
    only_whole: int
    """Items so short that they are found only where they are the whole document."""
    empty: tuple[str, ...]
    """Items without a word, which nobody can look for."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a report."""
        told = {  # asdict would count a Counter's pairs anew
            name: {
                "read": found.read,
                "kept": found.kept,
                "dropped": dict(found.dropped),
                "hits": [asdict(hit) for hit in found.hits],
                "hits_left_out": found.hits_left_out,
            }
            for name, found in self.sources.items()
        }
        items = {"items": self.items, "only_whole": self.only_whole, "empty": list(self.empty)}
        return {"sources": told, **items}


def dedup_into(
    folder: Path,
    named: Named,
    settings: Duplicates,
    *,
    shard_bytes: int = SHARD_BYTES,
    told: Told | None = None,
) -> Deduped:
    """Writes the documents that are like none before them in any of the sources, the first source
    first.

    Beside the shards there has to be room for one more copy of the text while it works.

    Raises:
        DataError: an input is wrong, a source is named twice, or the folder is in use.
    """
    _refuse_twice(named)
    with at_once(folder, DUPLICATES) as made:
        spool = Spool(settings, made)
        ends = [0]
        for name, source in named:
            for document in _documents(name, source, told):
                spool.add(document)
            ends.append(len(spool))
        compared = _Compared(spool, spool.prints(), settings, [name for name, _ in named], ends)
        report = compared.report()
        shards = write_marked(made, compared.kept(), shard_bytes=shard_bytes)
        told_there = {"settings": plain(settings), **report.as_dict()}
        replace_atomically(made / DUPLICATES, told_there | {"shards": [p.name for p in shards]})
    return report


def decontaminate_into(
    folder: Path,
    named: Named,
    index: Index,
    *,
    shard_bytes: int = SHARD_BYTES,
    told: Told | None = None,
) -> Decontaminated:
    """Writes the documents that hold no evaluation item.

    Raises:
        DataError: an input is wrong, a source is named twice, nothing is left, or the folder is in
            use.
    """
    _refuse_twice(named)
    sources = {name: Findings() for name, _ in named}

    def documents() -> Iterator[Marked]:
        for name, source in named:
            read = _documents(name, source, told)
            for document in decontaminated(read, index, sources[name]):
                yield marked(document, name)
        if not any(findings.kept for findings in sources.values()):
            read_all = sum(findings.read for findings in sources.values())
            raise DataError(f"{folder}: each of the {read_all:,} documents holds an item")

    with at_once(folder, ITEMS) as made:
        shards = write_marked(made, documents(), shard_bytes=shard_bytes)
        report = Decontaminated(sources, len(index), index.only_whole, tuple(index.empty))
        told_there = {"rules": plain(index.rules), **report.as_dict()}
        replace_atomically(made / ITEMS, told_there | {"shards": [p.name for p in shards]})
    return report


def _refuse_twice(named: Named) -> None:
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{twice[0]}: named twice; its counts would not add up")


def _documents(name: str, source: Source, told: Told | None) -> Iterator[Document]:
    number = 0
    for number, item in enumerate(source.read(Given(rng=rng(0, "sieve", name))), start=1):
        if told and number % TOLD_EVERY == 0:
            told(name, number)
        yield text_only(item)
    if told:
        told(name, number)
    if not number:
        raise DataError(f"{name}: no document")


class _Compared:
    """Documents of several sources, one after the other, of which the duplicates were found."""

    def __init__(
        self,
        spool: Spool,
        prints: Fingerprints | StoredFingerprints,
        settings: Duplicates,
        names: Sequence[str],
        ends: Sequence[int],
    ) -> None:
        self._spool, self._prints, self._settings = spool, prints, settings
        self._names, self._ends = names, ends
        self._found = spool.found(prints)

    def kept(self) -> Iterator[Marked]:
        """Those that are no duplicates."""
        return map(self._marked, map(int, np.flatnonzero(self._found.of < 0)))

    def report(self) -> Deduped:
        """What became of all."""
        of, is_exact = self._found.of, self._found.is_exact
        sources = {
            name: Found(of[start:end], is_exact[start:end]).tally()
            for name, start, end in zip(self._names, self._ends, self._ends[1:], strict=False)
        }
        return Deduped(sources, tuple(self._clusters()), tuple(self._pairs()))

    def _clusters(self) -> Iterator[Cluster]:
        of = self._found.of
        out = np.flatnonzero(of >= 0)
        kept, counts = np.unique(of[out], return_counts=True)
        for at in np.lexsort((kept, -counts))[:CLUSTERS].tolist():
            members = out[of[out] == kept[at]][:CLUSTER_IDS].tolist()
            ids = tuple(self._id(number) for number in members)
            yield Cluster(self._id(int(kept[at])), int(counts[at]), ids)

    def _pairs(self) -> Iterator[Pair]:
        of, is_exact = self._found.of, self._found.is_exact
        near = np.flatnonzero((of >= 0) & ~is_exact)
        alike = similarity(self._prints, near, of[near])
        order = np.argsort(alike, kind="stable")
        some = np.unique(np.linspace(0, len(order) - 1, min(PAIRS, len(order))).round().astype(int))
        for at in order[some].tolist():
            yield self._pair(int(near[at]), int(of[near[at]]))
        for dropped in np.flatnonzero(is_exact)[: PAIRS - len(some)].tolist():
            yield self._pair(dropped, int(of[dropped]))

    def _pair(self, dropped: int, kept: int) -> Pair:
        reason = self._found.reason(dropped)
        assert reason is not None
        here, there = self._spool.document(dropped), self._spool.document(kept)
        change = first_change(there, here).partition("\n")[2] if here.text != there.text else ""
        alike = 1.0 if here.text == there.text else likeness(here.text, there.text, self._settings)
        return Pair(self._id(dropped), self._id(kept), reason, round(alike, 3), change)

    def _marked(self, number: int) -> Marked:
        owner = self._names[bisect_right(self._ends, number) - 1]
        return marked(self._spool.document(number), owner)

    def _id(self, number: int) -> str:
        return self._marked(number).id
