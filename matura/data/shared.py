"""Documents that several sources of one mixture have: they would be learnt once for each.

Shards are compared, not texts: with one tokenizer equal documents are equal ids, wherever they came
from, and content decides the split, so they stand in the same one everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.text.shards import Shard

HASH_BYTES = 8
"""For a count: of a hundred million documents two differ and are taken for equal once in 4,000."""
MIND_SHARE = 0.001
"""Of a source's training tokens: what is less is recorded, not said."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What two sources have in common, byte for byte."""

    first: str
    second: str
    documents: int
    """Of the second that the first has too."""
    tokens: int
    share: float
    """Of the second's training tokens."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a record."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Known:
    hashes: NDArray[np.uint64]
    lengths: NDArray[np.int64]


def shared(shards: Mapping[str, Path]) -> list[Shared]:
    """Each pair of sources whose training shards have examples in common, in the order given.

    Memory: 16 bytes an example.

    Raises:
        DataError: a shard is missing or damaged.
    """
    known = {name: _known(path) for name, path in shards.items()} if len(shards) > 1 else {}
    found = []
    for first, second in combinations(known, 2):
        there = np.isin(known[second].hashes, known[first].hashes)
        if there.any():
            lengths = known[second].lengths
            tokens = int(lengths[there].sum())
            share = tokens / int(lengths.sum())
            found.append(Shared(first, second, int(there.sum()), tokens, share))
    return found


def _known(path: Path) -> _Known:
    shard = Shard.open(path)
    hashes = np.fromiter(_hashes(shard), dtype=np.uint64, count=len(shard))
    return _Known(hashes, shard.lengths)


def _hashes(shard: Shard) -> Iterator[int]:
    for number in range(len(shard)):
        raw = np.ascontiguousarray(shard.example(number)[0]).data
        yield int.from_bytes(hashlib.blake2b(raw, digest_size=HASH_BYTES).digest(), "little")


def minded(found: list[Shared]) -> Iterator[str]:
    """A line for each pair that has more in common than chance, and what can be done."""
    for one in found:
        if one.share >= MIND_SHARE:
            yield (
                f"{one.second} has {one.documents:,} documents ({one.share:.1%} of its tokens) "
                f"that {one.first} has too, and they are learnt once for each; `matura data "
                "prepare` leaves out what any source before has"
            )
