"""What one step reads: packed rows as tensors, and how much of them is learned from.

Axes: B rows, L = T + 1 tokens of a row (T inputs and T targets, shifted by one).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Positions = Literal["segment", "row"]


@dataclass(frozen=True)
class Batch:
    """Packed rows. `name` says which rows these are, for messages."""

    ids_BL: Tensor
    weights_BL: Tensor
    segments_BL: Tensor
    name: str = ""
    positions: Positions = "segment"
    """Where positions start from 0: in each segment, or in the row alone."""

    @classmethod
    def of(
        cls,
        ids: np.ndarray,
        weights: np.ndarray,
        segments: np.ndarray,
        name: str = "",
        positions: Positions = "segment",
    ) -> Batch:
        """A batch from the arrays of packed rows (segment 0 is padding)."""
        return cls(
            torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)),
            torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32)),
            torch.from_numpy(np.ascontiguousarray(segments, dtype=np.int64)),
            name,
            positions,
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return replace(
            self,
            ids_BL=self.ids_BL.to(device),
            weights_BL=self.weights_BL.to(device),
            segments_BL=self.segments_BL.to(device),
        )

    @property
    def inputs_BT(self) -> Tensor:
        """What the model reads."""
        return self.ids_BL[:, :-1]

    @property
    def targets_BT(self) -> Tensor:
        """What comes next."""
        return self.ids_BL[:, 1:]

    @property
    def segments_BT(self) -> Tensor:
        """Which example each input belongs to; inputs of different examples never see each
        other."""
        return self.segments_BL[:, :-1]

    @property
    def target_weights_BT(self) -> Tensor:
        """Each target's loss weight; 0 across a border between examples and in padding."""
        same = (self.segments_BL[:, 1:] == self.segments_BL[:, :-1]) & (self.segments_BL[:, 1:] > 0)
        return self.weights_BL[:, 1:] * same

    @property
    def positions_BT(self) -> Tensor:
        """Each input's position; within a segment, attention sees no difference but in rounding,
        since rotary positions are relative."""
        segments = self.segments_BT
        places = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
        if self.positions == "row":
            return places
        starts = torch.zeros_like(segments)
        starts[:, 1:] = torch.where(segments[:, 1:] != segments[:, :-1], places[:, 1:], 0)
        return places - starts.cummax(dim=1).values

    def split(self, rows: int) -> Iterator[Batch]:
        """Micro-batches of at most `rows` rows."""
        for start in range(0, len(self.ids_BL), rows):
            yield self.rows(slice(start, start + rows))

    def rows(self, cut: slice) -> Batch:
        """Some of the rows."""
        return replace(
            self,
            ids_BL=self.ids_BL[cut],
            weights_BL=self.weights_BL[cut],
            segments_BL=self.segments_BL[cut],
        )
