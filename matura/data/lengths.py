"""How long things are, in six numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MARKS = {"least": 0.0, "quarter": 0.25, "half": 0.5, "three_quarters": 0.75, "99%": 0.99, "most": 1}


def spread(lengths: Sequence[int]) -> dict[str, int]:
    """The lengths at the quantiles of `MARKS`, each one that really occurs; nothing of none."""
    if not len(lengths):
        return {}
    found = np.quantile(np.array(lengths), list(MARKS.values()), method="nearest")
    return {name: int(size) for name, size in zip(MARKS, found, strict=True)}
