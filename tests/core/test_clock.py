"""FAULTS A13: what is newest goes by its number, never by a clock that may stand or jump back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from matura.core.store import Checkpoints, address, latest, publish, work_place

LONG_AGO_S = 1_000_000_000


def spelled(step: int) -> Callable[[Path], None]:
    def write(work: Path) -> None:
        (work / "tensors").write_bytes(bytes([step]))

    return write


def backwards(number: int) -> float:
    return LONG_AGO_S - 3600.0 * number


def at_once(number: int) -> float:
    return LONG_AGO_S


def dated(folder: Path, when: float) -> None:
    """The folder and all in it, as if made then."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (when, when))


@pytest.mark.parametrize("clock", [backwards, at_once])
def test_checkpoints_go_by_step(clock: Callable[[int], float], tmp_path: Path) -> None:
    state = Checkpoints(tmp_path, keep=2)
    for step in range(1, 6):
        state.save(step, spelled(step))
        dated(state.at(step), clock(step))
        assert state.newest().step == step
        assert state.steps() == [step - 1, step][-min(step, 2) :]
    (state.at(5) / "tensors").write_bytes(b"torn")
    assert state.newest().step == 4


@pytest.mark.parametrize("clock", [backwards, at_once])
def test_attempts_go_by_number(clock: Callable[[int], float], tmp_path: Path) -> None:
    for number in range(1, 12):
        final = tmp_path / address("base", number)
        work_place(final).mkdir()
        publish(work_place(final), final, {})
        dated(final, clock(number))
    assert latest(tmp_path, "base") == tmp_path / "base@11"
