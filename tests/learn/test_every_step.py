"""FAULTS B1: interrupted at each of its 20 steps and gone on with, a run is the straight one to the
bit, in loss, gradient norm, update and weights: of text, of chats, and of adapters on a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import (
    FP32,
    LENGTH,
    Noted,
    by_validation,
    fresh,
    numbered,
    seeded,
    settings,
    shape,
    spread,
    weights_of,
)

from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.loop import fit
from matura.learn.noise import Noise
from matura.learn.objectives.next_token import NextToken
from matura.learn.step import Stepper
from matura.models.decoder import Decoder
from matura.models.lora import attach

STEPS = 20
Rows = dict[int, dict[str, Any]]


def chats(step: int) -> Batch:
    """Rows of which the first part is only read, each another one, and one answer counts double."""
    batch = numbered(step)
    for row in range(len(batch.ids_BL)):
        batch.weights_BL[row, : (row + step) % (LENGTH - 4)] = 0.0
    batch.weights_BL[step % 4] *= 2.0
    return batch


def adapters() -> Decoder:
    model = spread(shape(layers=2)).train()
    attach(model, rank=2, alpha=4, targets=("q_proj", "down_proj"), generator=seeded(4))
    return model


KINDS: Mapping[str, tuple[Callable[[], Decoder], Callable[[int], Batch], Noise | None]] = {
    "text": (fresh, numbered, None),
    "chats": (lambda: spread(shape(layers=2)).train(), chats, Noise(5.0, 0, "chat")),
    "adapters": (adapters, chats, None),
}


def run(folder: Path, kind: str, until: int | None = None) -> tuple[Rows, Any]:
    """What a process sees of the run: each step's numbers, and the end if it came so far."""
    start, batches, noise = KINDS[kind]
    model, ledger = start(), Noted()

    def read(step: int) -> Batch:
        if step == until:
            raise KeyboardInterrupt
        return batches(step)

    ended: Any = None
    try:
        fitted = fit(
            Stepper(model, NextToken(), FP32, noise),
            read,
            settings(STEPS),
            scratch=kind == "text",
            evaluate=by_validation(model),
            checkpoints=Checkpoints(folder),
            ledger=ledger,
        )
        ended = (fitted, weights_of(model))
    except KeyboardInterrupt:
        assert until is not None
    return {step: row for step, row in ledger.rows if "loss" in row}, ended


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_at_every_step(kind: str, ram: Path) -> None:
    straight, end = run(ram / "straight", kind)
    assert len(straight) == STEPS
    assert all({"loss", "grad_norm", "rate", "update"} <= row.keys() for row in straight.values())
    rows: Rows = {}
    for step in range(1, STEPS):
        found, ended = run(ram / "cut", kind, step)
        assert list(found) == [step - 1]  # resumed, and one step made
        assert ended is None
        rows |= found
    found, ended = run(ram / "cut", kind)
    assert rows | found == straight
    assert ended == end
