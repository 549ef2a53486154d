"""A text as the set of its runs of five words or so, each run a 64-bit number: what near-duplicates
share.

Words are runs of letters and digits, ASCII capitals taken as small. Runs of operators and brackets
are words too (`2 + 3` is not `2 * 3`), quotes and full stops only part words, and in scripts
without spaces each character is one. All of a batch is done at once on its bytes, for Python is
too slow to look at every word. The numbers are equal on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matura.data.hashed import Hashes, Ids

BLOCK_BYTES = 2**18
"""Text that is done at once: its words fit the second cache. 2**16 and 2**20 were slower."""
LONGEST_WORD = 32
"""Bytes; a longer run without a space (base64, another script) is several words."""

_BLANK, _LETTER, _SIGN = 0, 1, 2
_OUTSIDE = bytes([_BLANK])
_PARTS = b"\"'`,.;:!?"
"""Signs that only part words: that they differ means nothing."""
_FIRST, _NEXT, _RUN, _LAST = (
    np.uint64(number)
    for number in (
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0xD6E8FEB86659FD93,
        0xFF51AFD7ED558CCD,
    )
)
_HALF = np.uint64(32)
_PIECE = 8
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(_PIECE + 1)], dtype=np.uint64)


def _classes() -> bytes:
    kinds = bytearray([_LETTER] * 256)
    for code in range(128):
        if code <= 32 or code == 127 or code in _PARTS:
            kinds[code] = _BLANK
        elif not chr(code).isalnum() and chr(code) != "_":
            kinds[code] = _SIGN
    return bytes(kinds)


_CLASS = _classes()
_LOWER = bytes(range(256)).lower()


@dataclass(frozen=True, slots=True)
class Shingles:
    """Runs of words of several texts: those of text `i` stand from `bounds[i]` to `bounds[i + 1]`.

    Each text has one at least; a run that comes twice in a text stands there twice.
    """

    hashes: Hashes
    bounds: Ids

    def of(self, text: int) -> Hashes:
        """The different runs of one text, in order of their numbers."""
        return np.unique(self.hashes[self.bounds[text] : self.bounds[text + 1]])


def shingles(raw: Sequence[bytes], ngram: int) -> Shingles:
    """The runs of `ngram` words of each UTF-8 text; a text of fewer words has one, itself.

    Meant for about `BLOCK_BYTES` at a time (`blocks` cuts a batch up).
    """
    joined = b"\n".join(raw).translate(_LOWER)
    lengths = np.fromiter(map(len, raw), dtype=np.int64, count=len(raw))
    ends = np.cumsum(lengths + 1)
    starts, sizes = _words(joined)
    words = _hashed(joined, starts, sizes)
    last = np.searchsorted(starts, ends)
    counts = np.diff(last, prepend=0) - ngram + 1
    short = np.flatnonzero(counts < 1)
    bounds = np.zeros(len(raw) + 1, dtype=np.int64)
    np.cumsum(np.maximum(counts, 1), out=bounds[1:])
    hashes = np.empty(bounds[-1], dtype=np.uint64)
    whole = np.ones(len(hashes), dtype=np.bool_)
    whole[bounds[short]] = False
    hashes[whole] = _runs(words, last, ngram)
    # byte for byte: what is so short is a duplicate only of its own copy
    hashes[bounds[short]] = [_number(raw[text]) for text in short.tolist()]
    return Shingles(hashes, bounds)


def blocks(raw: Sequence[bytes], block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    """Where to cut a batch: first text and the one after the last of each block."""
    first = size = 0
    for number, text in enumerate(raw):
        if size and size + len(text) > block_bytes:
            yield first, number
            first, size = number, 0
        size += len(text)
    if first < len(raw):
        yield first, len(raw)


def _number(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def _words(joined: bytes) -> tuple[Ids, Ids]:
    """Where each word starts, and its bytes."""
    framed = b"".join((_OUTSIDE, joined.translate(_CLASS), _OUTSIDE))
    kinds = np.frombuffer(framed, dtype=np.uint8)
    alone = np.empty(0, dtype=np.int64)
    if not joined.isascii():
        kinds = kinds.copy()
        alone = _beyond_ascii(np.frombuffer(joined + bytes(2), dtype=np.uint8), kinds[1:-1])
    edges = kinds[1:] != kinds[:-1]
    edges[alone] = True
    # two passes over bytes are faster than one over the numbers of all edges
    starts = np.flatnonzero(edges & (kinds[1:] != _BLANK))
    sizes = np.flatnonzero(edges & (kinds[:-1] != _BLANK))
    sizes -= starts
    long = np.flatnonzero(sizes > LONGEST_WORD)
    if len(long):
        more = (sizes[long] - 1) // LONGEST_WORD
        which = np.repeat(long, more)
        within = 1 + np.arange(len(which)) - np.repeat(np.cumsum(more) - more, more)
        left = sizes[which] - within * LONGEST_WORD
        added = starts[which] + within * LONGEST_WORD
        starts = np.insert(starts, which + 1, added)
        sizes = np.minimum(np.insert(sizes, which + 1, left), LONGEST_WORD)
    return starts, sizes


def _beyond_ascii(codes: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> Ids:
    """Blanks out typographic quotes, dashes and spaces in `kinds`; returns where else a word begins
    or ends, around the characters that are words by themselves. Two bytes come after the text."""
    leads = np.flatnonzero(codes[:-2] >= 0xC2)
    first, second, third = codes[leads], codes[leads + 1], codes[leads + 2]
    two = leads[(first == 0xC2) & np.isin(second, (0xA0, 0xAB, 0xBB))]
    three = leads[
        ((first == 0xE2) & (second == 0x80))
        | ((first == 0xE3) & (second == 0x80) & (third <= 0x82))
    ]
    for blank, size in ((two, 2), (three, 3)):
        for shift in range(size):
            kinds[blank + shift] = _BLANK
    # kana, han and symbols; Thai and Lao; Burmese; Khmer
    alone = (first >= 0xE2) & (first <= 0xE9) | (first == 0xEF)
    alone |= (first == 0xE0) & (second >= 0xB8) & (second <= 0xBB)
    alone |= (first == 0xE1) & ((second <= 0x82) | (second == 0x9E) | (second == 0x9F))
    some, emoji = leads[alone], leads[first >= 0xF0]
    return np.concatenate([some, some + 3, emoji, emoji + 4])


def _hashed(joined: bytes, starts: Ids, sizes: Ids) -> Hashes:
    """A number for each word, eight of its bytes at a time."""
    padded = joined + bytes(LONGEST_WORD)
    each = np.ndarray((len(joined) + LONGEST_WORD - 7,), dtype="<u8", buffer=padded, strides=(1,))
    # `take` copies what is not aligned as a whole, each time
    at = each.astype(np.uint64)
    hashes = at.take(starts, mode="clip")  # nothing to clip, but faster than "raise"
    hashes &= _MASKS.take(sizes, mode="clip")
    hashes *= _FIRST
    hashes ^= hashes >> _HALF
    for begin in range(_PIECE, LONGEST_WORD, _PIECE):
        longer = np.flatnonzero(sizes > begin)
        if not len(longer):
            break
        piece = at.take(starts.take(longer) + begin, mode="clip")
        piece &= _MASKS.take(sizes.take(longer) - begin, mode="clip")
        more = (hashes.take(longer) + piece * _NEXT) * _FIRST
        hashes[longer] = more ^ (more >> _HALF)
    return hashes


def _runs(words: Hashes, last: Ids, ngram: int) -> Hashes:
    """The number of each run of `ngram` words that lies within one text; `last` is the word after
    each text's."""
    places = len(words) - ngram + 1
    if places < 1:
        return np.empty(0, dtype=np.uint64)
    runs = words[:places].copy()
    for shift in range(1, ngram):
        runs *= _RUN
        runs += words[shift : shift + places]
    inside = np.ones(len(words), dtype=np.bool_)
    for back in range(1, ngram):
        inside[last[last >= back] - back] = False
    runs = runs[inside[:places]]
    runs ^= runs >> _HALF
    runs *= _LAST
    runs ^= runs >> _HALF
    runs *= _NEXT
    runs ^= runs >> _HALF
    return runs
