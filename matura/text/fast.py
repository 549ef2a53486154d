"""The same ids as `tokenizers` gives, three to six times faster: byte-pair merging by `tiktoken`
(`pip install 'matura[fast]'`).

That the ids are the same is no luck. tiktoken merges whatever pair spells the lowest id, the other
whatever pair was merged first in training; where each merge made the next id, that is one order.
A vocabulary that was made in another way is left to `tokenizers`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tiktoken

LONG_LINE = 10_000
"""Characters. A piece that long takes time by its square, and pieces never span lines; such texts
are the other engine's."""


class FastEngine:
    """Encodes ordinary text. Make one with `fast_engine`."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding

    def takes(self, text: str) -> bool:
        """Whether it is text that this engine gives the right ids for in good time."""
        if len(text) > LONG_LINE and max(map(len, text.split("\n"))) > LONG_LINE:
            return False
        if text.isascii():
            return True
        try:  # the library would put a question mark for half a surrogate pair
            text.encode()
        except UnicodeEncodeError:
            return False
        return True

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores."""
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=threads)

    def array(self, text: str) -> NDArray[np.uint32]:
        """The ids of one text. Not by `encode_to_numpy`, which takes a third longer."""
        return np.array(self._encoding.encode_ordinary(text), dtype=np.uint32)


def fast_engine(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    spelled: Mapping[str, int],
    pattern: str,
) -> FastEngine | None:
    """The engine for a vocabulary, or None where `tiktoken` is missing or would differ.

    `spelled` is the byte that each character of the vocabulary stands for.
    """
    try:
        import tiktoken
    except ImportError:
        return None
    made = [vocab.get("".join(pair)) for pair in merges]
    if made != list(range(256, len(vocab))):
        return None
    ranks = {bytes(spelled[char] for char in token): number for token, number in vocab.items()}
    if len(ranks) != len(vocab):
        return None
    more: dict[str, Any] = {"special_tokens": {}}
    return FastEngine(tiktoken.Encoding("matura", pat_str=pattern, mergeable_ranks=ranks, **more))
