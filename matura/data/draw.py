"""Random numbers for numpy that are equal under every version of numpy.

numpy promises a stable stream for its bit generators but not for `Generator.shuffle` or
`integers`, and a data order that changes with an upgrade would break exact resume. So everything
here is made of raw 64-bit draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Draw:
    """One random stream, from a 64-bit seed (`core.rng.stream_seed`, `rng.getrandbits(64)`)."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def fractions(self, count: int) -> npt.NDArray[np.float64]:
        """`count` numbers in [0, 1)."""
        raw: npt.NDArray[Any] = self._bits.random_raw(count)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, bound: int, count: int) -> Ints:
        """`count` whole numbers in [0, bound)."""
        return (self.fractions(count) * bound).astype(np.int64)

    def permutation(self, count: int) -> Ints:
        """The numbers 0 .. count - 1 in random order."""
        raw: npt.NDArray[Any] = self._bits.random_raw(count)
        return np.argsort(raw, kind="stable").astype(np.int64)
