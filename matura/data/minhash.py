"""Texts as short signatures: the share of places where two agree is about the share of runs of
words that the texts have in common.

Every run is thrown into one of K places, and the least number in each place is kept; what is still
empty is thrown for again, up to `ROUNDS` times, and then filled by itself. A run is so looked at a
few times instead of K, and each place still agrees with exactly the wished-for chance.

Source: Dahlgaard, Knudsen, Thorup, "Fast Similarity Sketching" (FOCS 2017), with fewer rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matura.data.hashed import Hashes
from matura.data.shingles import Shingles, blocks, shingles

Signatures = NDArray[np.uint32]

ROUNDS = 4
"""For texts of 200 words, which are then full or nearly so."""
WORTH_PICKING = 0.7
"""Share of texts with empty places above which looking for their runs takes longer than throwing
all of them."""
_EMPTY = np.uint64(2**64 - 1)
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)
_ODD, _MIX, _ROUND = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0x9E3779B1)
)


def signatures(texts: Sequence[bytes], *, ngram: int, places: int) -> Signatures:
    """The signature of each UTF-8 text: N rows of `places` numbers, equal on every machine."""
    out = np.empty((len(texts), places), dtype=np.uint32)
    for first, after in blocks(texts):
        out[first:after] = signed(shingles(texts[first:after], ngram), places)
    return out


def signed(found: Shingles, places: int) -> Signatures:
    """The signatures of texts of which the runs of words are known."""
    texts = len(found.bounds) - 1
    kept = np.full((texts, places), _EMPTY, dtype=np.uint64)
    flat = kept.reshape(-1)
    hashes = found.hashes
    row = np.repeat(np.arange(0, texts * places, places), np.diff(found.bounds))
    for number in range(ROUNDS):
        thrown = hashes if number == 0 else _again(hashes, number)
        where = ((thrown >> _HALF) * np.uint64(places) >> _HALF).view(np.int64)
        where += row
        np.minimum.at(flat, where, (thrown & _LOW) | np.uint64(number << 32))
        unfilled = (kept == _EMPTY).any(axis=1)
        if not unfilled.any():
            break
        # another throw changes no place that has a number already, so all may throw again
        if unfilled.mean() < WORTH_PICKING:
            still = np.flatnonzero(unfilled[row // places])
            hashes, row = hashes.take(still), row.take(still)
    else:
        _fill(kept, found)
    return ((kept & _LOW) + (kept >> _HALF) * _ROUND).astype(np.uint32)


def _again(hashes: Hashes, number: int) -> Hashes:
    """Other numbers for the same runs."""
    mixed = (hashes ^ np.uint64(number)) * _ODD
    mixed ^= mixed >> _HALF
    mixed *= _MIX
    mixed ^= mixed >> _HALF
    return mixed


def _fill(kept: Hashes, found: Shingles) -> None:
    """Each empty place gets the least number of the text's runs, as that place numbers them."""
    rows, columns = np.nonzero(kept == _EMPTY)
    counts = np.diff(found.bounds)[rows]
    ends = np.cumsum(counts)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    mixed = found.hashes[np.repeat(found.bounds[rows], counts) + within]
    mixed ^= np.repeat(columns, counts).astype(np.uint64) << np.uint64(8)
    mixed = _again(mixed, ROUNDS)
    if len(rows):
        least = np.minimum.reduceat(mixed & _LOW, ends - counts)
        kept[rows, columns] = least | np.uint64(ROUNDS << 32)
