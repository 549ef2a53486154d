"""What a recipe says about choosing the best step of a stage; `learn.gold` does the choosing."""

from __future__ import annotations

from pydantic import Field

from matura.core.record import Frozen


class Gold(Frozen):
    """The best step by exams counts only where these hold; if none does, the best is kept anyway
    and the record says so."""

    mean_rise_at_most: float = Field(default=0.25, ge=0, allow_inf_nan=False)
    """Share by which the mean validation loss may be above its lowest so far."""
    source_rise_at_most: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """Share by which a replayed source's validation loss may be above what it was at the stage's
    start. A healthy 2M model ends at most 0.14 above, and is 0.26 above half way (LOG
    2026-11-20)."""
