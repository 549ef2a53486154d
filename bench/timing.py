"""What timings are compared with: the best matrix product here, and the machine they belong to.

On a machine that others use too, whatever runs first or last is favoured or punished; so contenders
take turns, and each turn is compared with the others' in the same round.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

SHAPES = ((4096, 192, 512), (2048, 768, 768), (1024, 1024, 1024), (2048, 2048, 2048))
"""Rows, depth and columns of the products that the peak is looked for in."""
PRODUCT_S = 0.15
LONGEST_S = 2.0
"""A product that is expected to take longer is left out: where bf16 is emulated (1 GFLOP/s), larger
ones are no faster and take minutes."""


def ratio(tops: list[float], bottoms: list[float]) -> float:
    """The median over rounds of what one got against the other in the same round."""
    return statistics.median(top / bottom for top, bottom in zip(tops, bottoms, strict=True))


def gemm_gflops(dtype: torch.dtype) -> float:
    """The best rate of a matrix product of any of `SHAPES`, written into memory that is there.

    Units: 1e9 multiplications and additions a second.
    """
    best = 0.0
    generator = torch.Generator().manual_seed(0)
    for rows, depth, columns in SHAPES:
        work = 2.0 * rows * depth * columns
        if best and work / best > LONGEST_S:
            continue
        a = torch.randn(rows, depth, generator=generator).to(dtype)
        b = torch.randn(depth, columns, generator=generator).to(dtype)
        out = torch.empty(rows, columns, dtype=dtype)
        torch.mm(a, b, out=out)
        until = time.perf_counter() + PRODUCT_S
        while (began := time.perf_counter()) < until:
            torch.mm(a, b, out=out)
            took = time.perf_counter() - began
            best = max(best, work / took)
    return best / 1e9


def here() -> dict[str, Any]:
    """The machine and the versions that a number belongs to."""
    from matura.ladder.machine import machine

    return {**machine(), "threads": torch.get_num_threads()}
