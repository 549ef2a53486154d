"""NEFTune: a little noise on what the model reads, in training only, so that it learns the sense of
an instruction and not its letters.

Each row of each step has a random stream of its own, named by both. So the noise is the same
however a batch is cut, and after a restart.

Source: Jain et al. 2023, arXiv 2310.05914. Embeddings there have a deviation of about 0.02; here
they start at 1, so that the paper's scales of 5 to 15 hardly show, and 100 does.

Axes: B rows, T positions, C model width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.core.rng import stream_seed


@dataclass(frozen=True)
class Noise:
    """Evenly drawn from -1 to 1, times `alpha` / sqrt(T * C)."""

    alpha: float
    seed: int
    stage: str

    def added(self, x_BTC: Tensor, step: int, first_row: int = 0) -> Tensor:
        """Embedded inputs with the noise of that step; their rows are numbered from `first_row`."""
        rows, length, width = x_BTC.shape
        noise_BTC = torch.empty(rows, length, width)
        for row in range(rows):
            seed = stream_seed(self.seed, self.stage, "neftune", step, first_row + row)
            generator = torch.Generator().manual_seed(seed % 2**63)
            noise_BTC[row].uniform_(-1.0, 1.0, generator=generator)
        noise_BTC *= self.alpha / math.sqrt(length * width)
        return x_BTC + noise_BTC.to(device=x_BTC.device, dtype=x_BTC.dtype)
