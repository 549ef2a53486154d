"""Ending early: when the best evaluation is too long ago, once and the same after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import Noted, settings, stops_at, trained

from matura.core.store import Checkpoints
from matura.learn.settings import Settings

EXAMS = {5: 0.5, 10: 0.9, 15: 0.6, 20: 0.6, 25: 0.6, 30: 0.9}


def patient(patience: int | None = 2, **more: Any) -> Settings:
    """A run of 30 steps, evaluated every fifth."""
    return settings(30, patience=patience, **more)


class Listening(Noted):
    """A ledger that keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keeps it."""
        self.said.append(text)


def test_it_ends_after_so_many_evaluations_without_a_better_one(tmp_path: Path) -> None:
    ledger = Listening()
    found = trained(tmp_path / "a", patient(), exams=EXAMS, ledger=ledger)
    assert (found.fitted.steps, found.fitted.best_step) == (20, 10)
    assert max(found.losses) == 19
    assert "ends early, after step 20 of 30: 2 evaluations without a better" in ledger.said[-1]
    whole = trained(tmp_path / "b", patient(None), exams=EXAMS)
    assert whole.fitted.steps == 30
    assert {step: whole.losses[step] for step in found.losses} == found.losses


def test_a_better_evaluation_starts_the_count_again(tmp_path: Path) -> None:
    exams: Mapping[int, float] = {5: 0.5, 10: 0.3, 15: 0.7, 20: 0.3, 25: 0.3, 30: 0.3}
    assert trained(tmp_path, patient(), exams=exams).fitted.steps == 25


@pytest.mark.parametrize("step", [6, 12, 16, 19])
def test_a_restart_forgets_none_of_the_waiting(step: int, ram: Path, tmp_path: Path) -> None:
    straight = trained(tmp_path, patient(), exams=EXAMS)
    with pytest.raises(KeyboardInterrupt):
        trained(ram, patient(), batches=stops_at(step), exams=EXAMS)
    again = trained(ram, patient(), exams=EXAMS)
    assert again.fitted == straight.fitted
    assert again.weights == straight.weights
    assert again.losses == {s: loss for s, loss in straight.losses.items() if s >= step}


def test_what_ended_early_stays_ended(tmp_path: Path) -> None:
    first = trained(tmp_path, patient(), exams=EXAMS)
    assert max(Checkpoints(tmp_path).steps()) == 20

    def no_more(step: int) -> None:
        raise AssertionError(f"step {step} was trained")

    again = trained(tmp_path, patient(), batches=no_more)  # type: ignore[arg-type]
    assert (again.fitted, again.weights) == (first.fitted, first.weights)
