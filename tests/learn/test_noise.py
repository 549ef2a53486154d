"""NEFTune: noise of the stated size, a pure function of the step, and none where it is measured."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import (
    FP32,
    Noted,
    by_validation,
    fresh,
    numbered,
    settings,
    shape,
    spread,
    stops_at,
    weights_of,
)

from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.loop import fit
from matura.learn.noise import Noise
from matura.learn.objectives.next_token import NextToken
from matura.learn.settings import Settings
from matura.learn.step import Stepper

NOISE = Noise(50.0, 7, "chat")
Run = tuple[dict[int, float], dict[str, bytes]]


def run(folder: Path, noise: Noise | None, *, batches: object = numbered, steps: int = 12) -> Run:
    """Losses and weights of the tiny run with noise."""
    model, ledger = fresh(), Noted()
    how: Settings = settings(steps)
    fit(
        Stepper(model, NextToken(), FP32, noise),
        batches,  # type: ignore[arg-type]
        how,
        scratch=True,
        evaluate=by_validation(model),
        checkpoints=Checkpoints(folder),
        ledger=ledger,
    )
    return ledger.losses, weights_of(model)


def test_its_size_and_that_step_and_row_name_it() -> None:
    x = torch.zeros(3, 16, 32)
    first, again = NOISE.added(x, 4), NOISE.added(x, 4)
    most = 50.0 / math.sqrt(16 * 32)
    assert torch.equal(first, again)
    assert 0.95 * most < float(first.abs().max()) <= most
    assert float(first.mean()) == pytest.approx(0.0, abs=0.1 * most)
    assert torch.equal(first[1:], NOISE.added(x[1:], 4, first_row=1))
    others = [
        NOISE.added(x, 5),
        replace(NOISE, seed=8).added(x, 4),
        replace(NOISE, stage="x").added(x, 4),
    ]
    assert all(not torch.equal(first, other) for other in others)
    assert not torch.equal(first[0], first[1])
    assert NOISE.added(x.to(torch.bfloat16), 4).dtype == torch.bfloat16


def test_a_cut_into_micro_batches_sees_the_same_noise() -> None:
    batch = numbered(3)
    grads = []
    for micro_rows in (None, 1):
        model = fresh()
        total = Stepper(model, NextToken(), FP32, NOISE).gradients(
            batch, 10.0, micro_rows=micro_rows, step=3
        )
        grads.append((total, [p.grad for p in model.parameters() if p.grad is not None]))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-5)
    for whole, cut in zip(grads[0][1], grads[1][1], strict=True):
        torch.testing.assert_close(whole, cut, rtol=1e-4, atol=1e-5)


def test_it_changes_training_and_not_what_is_measured(tmp_path: Path) -> None:
    plain, noisy = run(tmp_path / "0", None), run(tmp_path / "1", NOISE)
    assert plain[0].keys() == noisy[0].keys()
    assert plain[0] != noisy[0]
    model = fresh()
    quiet, loud = (Stepper(model, NextToken(), FP32, noise) for noise in (None, NOISE))
    assert torch.equal(quiet.measure(numbered(1)).total, loud.measure(numbered(1)).total)


def test_a_restart_sees_the_same_noise(tmp_path: Path, ram: Path) -> None:
    straight = run(tmp_path, NOISE)
    with pytest.raises(KeyboardInterrupt):
        run(ram, NOISE, batches=stops_at(7))
    losses, weights = run(ram, NOISE)
    assert losses == {step: straight[0][step] for step in range(7, 12)}
    assert weights == straight[1]


def test_rows_count_positions_through_if_asked() -> None:
    batch = numbered(0)
    assert batch.positions == "segment"
    through = replace(batch, positions="row")
    length = batch.inputs_BT.shape[1]
    assert through.positions_BT.tolist() == [list(range(length))] * len(batch.ids_BL)
    assert batch.positions_BT.tolist() != through.positions_BT.tolist()
    parts: list[Batch] = list(through.to("cpu").split(2))
    assert {part.positions for part in parts} == {"row"}
    # rotary positions are relative: where a segment stands makes no difference but in rounding
    stepper = Stepper(spread(shape()), NextToken(), FP32)
    torch.testing.assert_close(
        stepper.measure(batch).total, stepper.measure(through).total, rtol=1e-5, atol=1e-4
    )
