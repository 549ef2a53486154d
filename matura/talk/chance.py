"""The random numbers of sampling: each depends on its row's seed and the step only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def uniform(seeds: Sequence[int], step: int) -> np.ndarray:
    """A number in [0, 1) for each row at this step, from its seed alone.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014), as a counter-based generator.
    """
    x = np.array(seeds, dtype=np.uint64) + np.uint64((step + 1) * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
