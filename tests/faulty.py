"""A tiny run that computes something wrong at a known step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny import FP32, Noted, Outcome, by_validation, fresh, numbered, settings, weights_of

from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.loop import fit
from matura.learn.objectives.next_token import NextToken
from matura.learn.settings import Settings
from matura.learn.step import Stepper

MATRIX = "model.layers.1.mlp.down_proj.weight"
Change = Callable[[int, int, float, float], float]


class Faulty(Stepper):
    """A stepper whose total and gradients somebody may change, by step and by how often that step
    was computed."""

    def __init__(self, model: Any, change: Change) -> None:
        super().__init__(model, NextToken(), FP32)
        self.change = change
        self.calls: dict[int, int] = {}

    def gradients(
        self, batch: Batch, divisor: float, *, micro_rows: int | None = None, step: int = 0
    ) -> float:
        """As usual, and then what goes wrong."""
        total = super().gradients(batch, divisor, micro_rows=micro_rows, step=step)
        named = int(batch.name.split()[-1])  # looking at the mask before the first step is no step
        seen = self.calls[named] = self.calls.get(named, -1) + 1
        return self.change(named, seen, total, divisor)


def ran(
    folder: Path,
    change: Change = lambda step, seen, total, divisor: total,
    *,
    how: Settings | None = None,
    batches: Callable[[int], Batch] = numbered,
    ledger: Noted | None = None,
) -> Outcome:
    """A run whose stepper makes mistakes."""
    model, ledger = fresh(layers=2), Noted() if ledger is None else ledger
    fitted = fit(
        Faulty(model, change),
        batches,
        how or settings(40, good_every=20),
        scratch=True,
        evaluate=by_validation(model),
        checkpoints=Checkpoints(folder),
        ledger=ledger,
    )
    return Outcome(ledger.losses, weights_of(model), fitted, ledger.rows)


def did(found: Outcome) -> list[tuple[int, str, str]]:
    """What happened: step, red line and what was done."""
    return [(event["step"], event["line"], event["done"]) for event in found.fitted.events]


def worth(bad: float, *steps: int, times: int = 99) -> Change:
    """These steps cost `bad` nats, the first so many times that they are computed."""

    def change(step: int, seen: int, total: float, divisor: float) -> float:
        return bad * divisor if step in steps and seen < times else total

    return change
