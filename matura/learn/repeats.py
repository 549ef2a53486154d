"""What the batches themselves show: the same one over and over, or text that says one thing only.

Known before anything is computed from them. A batch is told by a sum over its rows that does not
depend on their order, so each process can add its own rows' part.

Axes: B rows, L tokens of a row, T its targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any

import torch
from torch import Tensor

from matura.core.errors import RedLine
from matura.learn.batch import Batch

BACK = 4
"""Batches back that one is compared with: a loader may hand out a few in turn. At 8, sixty-four
chats that were read in order time and again were called a stuck loader."""
IN_A_ROW = 8
"""Batches in a row that were all there before. Data are shuffled anew each time they are read, so a
small source does not come to this."""
PERIODS = 16
"""The longest run of tokens that counts as one thing said again, and the fewest targets after it
that can show that it is."""
ALIKE = 0.9
"""Share of a row's targets that equal the token one period before."""
ROWS = 0.5
"""Share of such rows in a batch that makes it one to pass over."""
ENOUGH, WINDOW = 5, 64
"""Batches whose share is known before one stands out, and that are looked back on: a drill made of
repetition is what it is meant to be."""
_MIX = -7046029254386353131
"""An odd number with its bits well spread: 2**64 / golden ratio, as a signed one."""


@dataclass
class Repeats:
    """What one run has read of late; `state` survives a restart."""

    recent: list[int] = field(default_factory=list)
    """What tells each of the last batches."""
    again: int = 0
    """Batches in a row that are among those before them."""
    shares: list[float] = field(default_factory=list)
    """Share of rows that say one thing, of the last batches that were learnt from."""

    def look(self, step: int, batch: Batch) -> str | None:
        """Why the batch is to be passed over; None if it is not.

        Raises:
            RedLine: the same batches are read over and over.
        """
        found = told(batch)
        self.again = self.again + 1 if found in self.recent else 0
        self.recent = [*self.recent[1 - BACK :], found]
        if self.again >= IN_A_ROW:
            raise RedLine(
                f"same batch: step {step}, {batch.name}: each of the last {IN_A_ROW} batches holds "
                f"the very rows of one of the {BACK} before it; is the loader stuck, or the data "
                "no more than this?"
            )
        share = monotonous(batch)
        usual = median(self.shares) if self.shares else 0.0
        if len(self.shares) >= ENOUGH and share >= ROWS and usual < ROWS / 2:
            return f"{share:.0%} of its rows say one thing over and over, {usual:.0%} as a rule"
        self.shares = [*self.shares[1 - WINDOW :], share]
        return None

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {"recent": list(self.recent), "again": self.again, "shares": list(self.shares)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state."""
        self.recent = [int(one) for one in state["recent"]]
        self.again = int(state["again"])
        self.shares = [float(share) for share in state["shares"]]


def told(batch: Batch) -> int:
    """A number that two batches share if they hold the same rows, in whatever order."""
    learnt_BT = batch.target_weights_BT != 0
    length = batch.ids_BL.shape[1]
    ids_BL = batch.ids_BL * 2
    ids_BL[:, 1:] += learnt_BT
    rows_B = (ids_BL * _spread(length).to(ids_BL.device)).sum(dim=1)
    return int(((rows_B ^ (rows_B >> 29)) * _MIX).sum())


@cache
def _spread(length: int) -> Tensor:
    """An odd number for each place in a row."""
    draw = torch.Generator().manual_seed(length)
    return torch.randint(-(2**62), 2**62, (length,), generator=draw) * 2 + 1


def monotonous(batch: Batch) -> float:
    """Share of the rows with something to learn whose targets say one thing over and over."""
    learnt_BT = batch.target_weights_BT != 0
    taught_B = learnt_BT.any(dim=1)
    alike_B = torch.zeros_like(taught_B)
    for period in range(1, min(PERIODS, batch.ids_BL.shape[1] - 1) + 1):
        same = batch.ids_BL[:, period:] == batch.ids_BL[:, :-period]
        later_BT = learnt_BT[:, period - 1 :]  # the first period has nothing to be like
        many_B = later_BT.sum(dim=1)
        alike_B |= (many_B >= PERIODS) & ((same & later_BT).sum(dim=1) >= ALIKE * many_B)
    rows = int(taught_B.sum())
    return int(alike_B.sum()) / rows if rows else 0.0
