"""A stage's training before its first step: its data, its rows, its model and how it will learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from matura.data.mixture import Feed, Part
from matura.text.shards import Shard
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.learn.batch import Batch, Positions
    from matura.learn.compute import Compute
    from matura.learn.inherited import Inherited
    from matura.learn.settings import Settings
    from matura.learn.step import Stepper


@dataclass(frozen=True)
class Data:
    """A stage's tokens: what it made itself and what it replays."""

    parts: tuple[Part, ...]
    validation: Mapping[str, Shard]
    counts: Mapping[str, Any]


@dataclass(frozen=True)
class Ready:
    """All that the training goes on from."""

    template: Template
    data: Data
    feed: Feed
    rows: int
    """In a batch."""
    positions: Positions
    compute: Compute
    stepper: Stepper
    settings: Settings
    notes: Mapping[str, Any]
    """On how the model was made ready."""
    inherits: Inherited | None = None
    """What the optimizer begins with."""

    def batch(self, step: int) -> Batch:
        """Batch k of the run: rows k * `rows` onwards; a pure function of k."""
        from matura.learn.batch import Batch

        indexes = (np.arange(self.rows) + step * self.rows) % len(self.feed)
        found = self.feed.at(indexes)
        name = f"rows {indexes[0]} to {indexes[-1]}"
        return Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, name, self.positions)
