"""Runs of words as 64-bit hashes, all runs of a text at once, and where in known texts they occur.

Equal hashes propose equal runs and prove nothing: whoever looks here compares the words after.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_BASE = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xD6E8FEB86659FD93)


class Table:
    """From a hash to the places in items where it occurs, with a filter of bits in front."""

    def __init__(self, hashes: Hashes, items: Ids, offsets: Ids) -> None:
        order = np.argsort(hashes, kind="stable")
        self.hashes, first = np.unique(hashes[order], return_index=True)
        self.bounds = np.append(first, len(hashes))
        self.items, self.offsets = items[order], offsets[order]
        bits = (8 * len(hashes)).bit_length()
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, dtype=np.bool_)
        self._filter[self._slots(self.hashes)] = True

    def _slots(self, hashes: Hashes) -> Hashes:
        return (hashes * _SPREAD) >> self._shift

    def find(self, hashes: Hashes) -> tuple[Ids, Ids]:
        """Where in `hashes` known ones stand, and which they are."""
        places = np.flatnonzero(self._filter[self._slots(hashes)])
        rows = np.searchsorted(self.hashes, hashes[places])
        rows = np.minimum(rows, len(self.hashes) - 1)
        same = self.hashes[rows] == hashes[places]
        return places[same], rows[same]


def mixed(hashes: Hashes, ids: Hashes) -> Hashes:
    """The hashes of runs that are one word longer."""
    return hashes * _BASE + ids


def rolled(ids: Ids, longest: int) -> Iterator[tuple[int, Hashes]]:
    """For each length up to `longest`: the hash of the run of so many words at each place."""
    numbers = ids.astype(np.uint64)
    hashes = numbers
    for length in range(1, min(longest, len(ids)) + 1):
        if length > 1:
            hashes = mixed(hashes[:-1], numbers[length - 1 :])
        yield length, hashes


def hashes_of(ids: Ids, length: int) -> Hashes:
    """The hash of the run of so many words at each place where the text still has them."""
    return list(rolled(ids, length))[-1][1]
