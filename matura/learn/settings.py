"""How a run learns, as the loop reads it: the recipe's `train`, worked out for this many rows."""

from __future__ import annotations

from dataclasses import dataclass

from matura.learn.room import Recompute
from matura.learn.schedule import Schedule


@dataclass(frozen=True)
class Settings:
    """How a run learns. Token counts are nominal: rows times row length."""

    steps: int
    schedule: Schedule
    tokens_per_step: int
    learning_rate: float
    embedding_learning_rate: float
    matrix_learning_rate: float
    weight_decay: float
    clip: float
    evaluate_at: frozenset[int]
    """Steps after which to evaluate; the last one is always among them."""
    checkpoint_every_s: float
    micro_rows: int | None = None
    """Rows computed at once; as many as fit into memory if absent."""
    recompute: Recompute = "auto"
    """Whether layers are computed again for the gradient, which saves memory; if it must be."""
    patience: int | None = None
    """Evaluations in a row without a new best after which a run ends early."""
    good_every: int = 500
    """Steps between states that are kept to go back to, if something goes wrong."""
