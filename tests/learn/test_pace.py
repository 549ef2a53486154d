"""What slows a run down is said once, while something can still be done about it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tiny import Noted, numbered, settings, trained

from matura.learn.batch import Batch
from matura.learn.pace import LOOKED, SETTLED, Pace


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def paced(step_s: float, read_s: float, core: float, *, steps: int = LOOKED + 9) -> list[str]:
    """What is said of steps that take so long, in so much of a core, and read so long before."""
    wall, spent = Clock(), Clock()
    pace = Pace(wall=wall, spent=spent)

    def batches(step: int) -> Batch:
        slow = 100.0 if step < SETTLED else 1.0  # what is compiled first is not counted
        wall.s += read_s * slow
        spent.s += read_s * slow * core
        return numbered(step)

    read = pace.reading(batches)
    said = []
    for step in range(steps):
        read(step)
        wall.s += step_s
        spent.s += step_s * core
        said.append(pace.look())
    assert all(word is None for step, word in enumerate(said, 1) if step != LOOKED)
    return [word for word in said if word]


def test_a_run_that_has_what_it_needs_hears_nothing() -> None:
    assert paced(1.0, 0.1, 0.95) == []
    assert paced(1.0, 0.1, 7.5) == []
    assert paced(1.0, 9.0, 0.1, steps=LOOKED - 1) == []


def test_slow_batches_are_said() -> None:
    (said,) = paced(1.0, 1.0, 1.0)
    assert said.startswith("50% of the time is spent reading batches: ")
    assert "core" not in said


@pytest.mark.parametrize(("on_cpu", "heard"), [(True, True), (False, False)])
def test_a_core_shared_with_others_is_said(on_cpu: bool, heard: bool) -> None:
    wall, spent = Clock(), Clock()
    pace = Pace(on_cpu=on_cpu, wall=wall, spent=spent)
    said = []
    for _ in range(LOOKED):
        wall.s += 1.0
        spent.s += 0.25
        said.append(pace.look())
    assert ("gets 0.25 of a core: other programs" in (said[-1] or "")) == heard


class Heard(Noted):
    """A ledger that keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keeps it."""
        self.said.append(text)


def test_a_run_is_looked_at(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on while batches are read, and not while they are learned from."""
    clock, ledger = Clock(), Heard()
    monkeypatch.setattr("matura.learn.loop.Pace", partial(Pace, wall=clock, spent=clock))

    def batches(step: int) -> Batch:
        clock.s += 1.0
        return numbered(step)

    trained(ram, settings(LOOKED, evaluate_at=frozenset()), batches=batches, ledger=ledger)
    told = [line for line in ledger.said if "of the time is spent reading batches" in line]
    assert len(told) == 1
    assert told[0].startswith("tiny: slow: 100% of the time")
