"""Which evaluated step is kept: the best by exams, unless it forgot or was learnt by heart.

A better exam score does not count where the mean validation loss rose too far above its lowest so
far, or where a guarded source rose too far above what it was at the start. If no step keeps the
guards, the best of the others is kept and the record says so: a stage always yields a model, and
its gates judge it. All of this is part of a checkpoint, so that a resumed run chooses alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SLACK_NATS = 0.1
"""A rise smaller than this never fires a guard: a copying drill goes from 0.03 to 0.06 nats and
back from one evaluation to the next, and knows as much at both."""

Rank = tuple[int, float]


@dataclass
class Gold:
    """The guards of one run, what they compare with, and a line for every evaluation.

    Shares of `math.inf` guard nothing.
    """

    mean_rise_at_most: float = math.inf
    """Share of the lowest mean validation loss so far by which a better exam may be above it."""
    source_rise_at_most: float = math.inf
    """Share of its loss at the start by which a guarded source may be above it."""
    start: dict[str, float] | None = None
    """Loss of each guarded source before the first step; None until it was measured."""
    lowest: float | None = None
    """Lowest mean validation loss of any evaluation so far."""
    kept: bool = False
    """Whether the best so far keeps the guards."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    """For each evaluation: step, exam, mean validation loss, verdict and why."""

    def begin(self, losses: Mapping[str, float]) -> None:
        """Remembers what the guarded sources cost before the first step."""
        self.start = dict(losses)

    def takes(
        self,
        step: int,
        losses: Mapping[str, float],
        exam: float | None,
        rank: Rank,
        best: Rank | None,
    ) -> bool:
        """Whether this evaluation is the best so far; `rank` is larger where it is better."""
        mean = sum(losses.values()) / max(len(losses), 1)
        broken = self._broken(losses, mean, exam)
        kept = not broken
        taken = best is None or (kept, rank) > (self.kept, best)
        self.lowest = mean if self.lowest is None else min(self.lowest, mean)
        if broken:
            verdict, why = "refused", "; ".join(broken)
            if taken:
                verdict, why = "taken", f"no step keeps the guards so far: {why}"
        elif best is None:
            verdict, why = "taken", "the first"
        elif taken:
            verdict, why = "taken", _better(rank, best, self.kept)
        else:
            verdict, why = "not better", _worse(rank, best)
        if taken:
            self.kept = kept
        found = {"step": step, "exam": exam, "mean_validation": mean}
        self.seen.append({**found, "verdict": verdict, "why": why})
        return taken

    def _broken(self, losses: Mapping[str, float], mean: float, exam: float | None) -> list[str]:
        """What each guard that fires says."""
        found = []
        if exam is not None and self.lowest is not None:
            found += _rise(
                "mean validation loss", mean, "its lowest", self.lowest, self.mean_rise_at_most
            )
        for name, start in (self.start or {}).items():
            if name in losses:
                found += _rise(name, losses[name], "the start", start, self.source_rise_at_most)
        return found

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {
            "start": self.start,
            "lowest": self.lowest,
            "kept": self.kept,
            "seen": list(self.seen),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state."""
        self.start, self.lowest = state["start"], state["lowest"]
        self.kept, self.seen = bool(state["kept"]), list(state["seen"])

    def report(self) -> dict[str, Any]:
        """For the record: the guards, what they compared with, why each step was taken or not."""
        guards = {
            "mean_rise_at_most": self.mean_rise_at_most,
            "source_rise_at_most": self.source_rise_at_most,
        }
        finite = {name: share for name, share in guards.items() if math.isfinite(share)}
        return {
            "guards": {**finite, "slack_nats": SLACK_NATS} if finite else {},
            "start": self.start or {},
            "guarded": self.kept,
            "steps": list(self.seen),
        }


def highest(then: float, at_most: float) -> float:
    """The highest loss that is no rise yet of more than that share of what it was."""
    return then * (1 + at_most) + SLACK_NATS


def _rise(name: str, now: float, what: str, then: float, at_most: float) -> list[str]:
    if now <= highest(then, at_most):
        return []
    return [
        f"{name} {now:.3f} is {now / then - 1 if then else math.inf:.0%} above {what}, {then:.3f}; "
        f"{at_most:.0%} and {SLACK_NATS} nats are allowed"
    ]


def _better(rank: Rank, best: Rank, kept: bool) -> str:
    if not kept:
        return "the first that keeps the guards"
    if rank[0] > best[0]:
        return "a better exam"
    return f"validation loss {-rank[1]:.3f}, below {-best[1]:.3f}"


def _worse(rank: Rank, best: Rank) -> str:
    if rank[0] < best[0]:
        return "a worse exam"
    return f"validation loss {-rank[1]:.3f}, not below {-best[1]:.3f}"
