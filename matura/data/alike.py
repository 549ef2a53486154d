"""Groups of documents with like signatures: found by bands, joined, and taken apart again so that
none is left out that is not like the one that stays.

Joining alone would not do: A is like B and B is like C, and after fifty steps a table of characters
was "like" one with which it had not a word in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.data.hashed import Hashes, Ids
from matura.data.minhash import Signatures
from matura.data.stored import Stored, rows_of

Verdict = Callable[[Ids, Ids], NDArray[np.bool_]]

MISSED = 0.005
"""Chance that a pair at the threshold itself is never proposed; more alike ones less often."""
MOST_ROWS = 16
DOUBT = 2.0
"""Standard deviations of a signature's estimate within which it is not believed: what it takes for
one side is then on the other by a hair at most."""
WINDOW = 16
"""Neighbours that a document is compared with among those that share a band. Where more share it
that is boilerplate, and comparing all pairs would take the square of their number."""
KEYS_BYTES = 2**27
PAIRS = 2**12
"""Compared at once: 4 MB of signatures."""
STAYING = 256
"""Documents of one group that may stay before the rest is grouped anew, more strictly."""


def agreement(signatures: Signatures | Stored, left: Ids, right: Ids) -> NDArray[np.float64]:
    """About how alike the documents of each pair are, from 0 to 1."""
    rows = rows_of(signatures)
    found = np.empty(len(left), dtype=np.float64)
    for start in range(0, len(left), PAIRS):
        some = slice(start, start + PAIRS)
        same = rows.take(left[some], axis=0) == rows.take(right[some], axis=0)
        found[some] = same.mean(axis=1)
    return found


def near_duplicates(
    signatures: Signatures | Stored, documents: Ids, *, threshold: float, verdict: Verdict | None
) -> tuple[Ids, Ids]:
    """Those of the documents that are left out, and beside each the one that stays, which is an
    earlier one. `verdict` decides about pairs that signatures leave in doubt.

    Whoever stays is not like any that stays before it in its group, as far as bands tell.
    """
    signatures, places = rows_of(signatures), signatures.shape[1]
    spread = 0.0 if verdict is None else DOUBT * (threshold * (1 - threshold) / places) ** 0.5
    search = _Search(signatures, rows_of_band(threshold, places))
    level = threshold - spread
    out: list[Ids] = []
    stay: list[Ids] = []
    while len(documents) > 1:
        members, groups = search.grouped(documents, level)
        for _ in range(STAYING):
            if not len(members):
                break
            first = np.flatnonzero(np.diff(groups, prepend=-1))
            sizes = np.diff(first, append=len(members))
            heads = np.repeat(members[first], sizes)
            others = np.ones(len(members), dtype=np.bool_)
            others[first] = False
            members, groups, heads = members[others], groups[others], heads[others]
            near = _like(signatures, heads, members, threshold, spread, verdict)
            out.append(members[near])
            stay.append(heads[near])
            members, groups = members[~near], groups[~near]
        documents = np.sort(members)
        level = (1 + level) / 2 if level < 0.99 else 1.0
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *out]), np.concatenate([empty, *stay])


def _like(
    signatures: Signatures | Stored,
    left: Ids,
    right: Ids,
    threshold: float,
    spread: float,
    verdict: Verdict | None,
) -> NDArray[np.bool_]:
    told = agreement(signatures, left, right)
    near: NDArray[np.bool_] = told >= threshold + spread
    if verdict is not None:
        doubt = np.flatnonzero(~near & (told >= threshold - spread))
        near[doubt] = verdict(left[doubt], right[doubt])
    return near


def rows_of_band(threshold: float, places: int) -> int:
    """How many places in a row must agree for two documents to be compared: the most with which no
    more than `MISSED` of the pairs at the threshold are missed."""
    rows = 1
    while rows < MOST_ROWS:
        bands = places // (rows + 1)
        if (1 - threshold ** (rows + 1)) ** bands > MISSED:
            break
        rows += 1
    return rows


class _Search:
    """Documents that agree in a whole band of places, compared in the rest."""

    def __init__(self, signatures: Any, rows: int) -> None:
        self._signatures, self._rows = signatures, rows

    def grouped(self, documents: Ids, level: float) -> tuple[Ids, Ids]:
        """Documents that stand in a group of two or more, with the number of the group; the groups
        one after the other, each in the order of documents."""
        parents = np.arange(len(documents))
        for keys in self._keys(documents):
            for column in range(keys.shape[1]):
                self._band(documents, keys[:, column], parents, level)
        roots = _roots(parents, np.arange(len(documents)))
        shared = np.bincount(roots, minlength=len(documents))[roots] > 1
        members = np.flatnonzero(shared)
        members = members[np.argsort(roots[members], kind="stable")]
        return documents[members], roots[members]

    def _keys(self, documents: Ids) -> Iterator[Hashes]:
        """A hash of each band, as many bands at once as memory allows."""
        bands = self._signatures.shape[1] // self._rows
        together = max(1, min(bands, KEYS_BYTES // (8 * len(documents))))
        for first in range(0, bands, together):
            after = min(bands, first + together)
            keys = np.empty((len(documents), after - first), dtype=np.uint64, order="F")
            for start in range(0, len(documents), PAIRS):
                some = documents[start : start + PAIRS]
                part = self._signatures.take(some, axis=0)
                part = part[:, first * self._rows : after * self._rows].reshape(
                    len(some), after - first, self._rows
                )
                hashed = np.zeros(part.shape[:2], dtype=np.uint64)
                for place in range(self._rows):
                    hashed ^= part[:, :, place]
                    hashed *= np.uint64(0x9E3779B97F4A7C15)
                    hashed ^= hashed >> np.uint64(32)
                keys[start : start + PAIRS] = hashed
            yield keys

    def _band(self, documents: Ids, keys: Hashes, parents: Ids, level: float) -> None:
        """Compares those that share this band with their neighbours and with the first of them."""
        bits = np.uint64((len(keys) - 1).bit_length())
        # key and place in one number: sorting numbers is ten times as fast as sorting places by key
        ordered = np.sort((keys >> bits << bits) | np.arange(len(keys), dtype=np.uint64))
        new = np.ones(len(keys), dtype=np.bool_)
        new[1:] = np.diff(ordered >> bits) != 0
        rows = (ordered & ((np.uint64(1) << bits) - np.uint64(1))).view(np.int64)
        heads = np.flatnonzero(new)
        rank = np.arange(len(keys)) - np.repeat(heads, np.diff(heads, append=len(keys)))
        later = np.flatnonzero(rank)
        for back in range(1, WINDOW + 1):
            later = later[rank[later] >= back]
            self._join(documents, rows[later - back], rows[later], parents, level)
        later = later[rank[later] > WINDOW]
        self._join(documents, rows[later - rank[later]], rows[later], parents, level)

    def _join(self, documents: Ids, left: Ids, right: Ids, parents: Ids, level: float) -> None:
        """One group for each pair that is alike enough and in two groups yet."""
        apart = np.flatnonzero(_roots(parents, left) != _roots(parents, right))
        left, right = left[apart], right[apart]
        near = agreement(self._signatures, documents[left], documents[right]) >= level
        left, right = left[near], right[near]
        while len(left):
            left, right = _roots(parents, left), _roots(parents, right)
            apart = np.flatnonzero(left != right)
            low = np.minimum(left[apart], right[apart])
            high = np.maximum(left[apart], right[apart])
            np.minimum.at(parents, high, low)
            left, right = low, high


def _roots(parents: Ids, rows: Ids) -> Ids:
    """The first of each row's group; ways that were gone are shortened."""
    found = parents[rows]
    while not np.array_equal(above := parents[found], found):
        found = above
    parents[rows] = found
    return found
