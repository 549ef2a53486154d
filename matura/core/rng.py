"""Named random streams: every random thing draws from `rng(seed, stage, purpose, index)` and from
nothing else.

Streams are told apart by a hash of their name, never by seed arithmetic: Python seeds integers by
absolute value, so `Random(-5)` and `Random(5)` are one stream, which once made a test set equal
its training set.
"""

from __future__ import annotations

import hashlib
from random import Random

Rng = Random


def stream_seed(seed: int, *name: str | int) -> int:
    """A 64-bit seed for the stream of that name, equal on every machine and Python."""
    spelled = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(spelled.encode(), digest_size=8).digest(), "big")


def rng(seed: int, *name: str | int) -> Rng:
    """The random stream of that name, at its start."""
    return Random(stream_seed(seed, *name))


def fraction(key: str, salt: str = "split") -> float:
    """A number in [0, 1) that depends on nothing but `key` and `salt`: how content chooses its
    split."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=salt.encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big") / 2**64


def pair_is_for_exam(first: int, second: int) -> bool:
    """Whether two neighbouring token ids belong to exams: such pairs never occur in a random
    training run.

    A fifth of all pairs, by a multiplicative hash that numpy arrays can follow (all intermediate
    values < 2**63).
    """
    return ((first * 40503 + second * 30011 + 12345) % 1000003) % 5 == 0
