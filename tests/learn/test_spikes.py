"""What stands out in a step's numbers, in what a batch holds, and in what learns."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import MATRIX, Faulty, ran
from tiny import VOCAB, Noted, by_validation, fresh, numbered, settings

from matura.core.errors import RedLine
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.guard import IN_A_ROW, MOST_LEAST, Guard, Setback
from matura.learn.loop import fit
from matura.learn.optim import Optimizer
from matura.learn.repeats import BACK, Repeats
from matura.learn.spikes import AGAIN, ENOUGH, WINDOW, Spikes

# What is usual


def test_spikes_are_no_part_of_what_is_usual() -> None:
    spikes = Spikes(2048, 1.0)
    for step in range(ENOUGH):
        assert spikes.odd(step, 3.0 + 0.1 * (step % 3), 0.5) is None
        spikes.accept(3.0 + 0.1 * (step % 3), 0.5)
    before = spikes.state()
    for loss, norm, line in (
        (50.0, 0.5, "loss spike"),
        (8.0, 0.5, "loss spike"),
        (3.0, 11.0, "gradient spike"),
        (math.nan, 0.5, "non-finite values"),
        (3.0, math.inf, "non-finite values"),
    ):
        found = spikes.odd(99, loss, norm)
        assert found is not None
        assert found[0] == line
    assert spikes.state() == before
    assert spikes.odd(99, 4.0, 9.0) is None


def test_a_spike_is_told_before_there_is_anything_usual() -> None:
    spikes = Spikes(2048, 1.0)
    assert spikes.odd(1, 15.0, 1.0) is None
    assert spikes.odd(1, 15.5, 1.0) == (
        "loss spike",
        "loss 15.500, where knowing nothing costs 7.625",
    )


def test_what_keeps_coming_alone_is_the_data() -> None:
    """One batch in ten of another kind: a few are passed over, then they count as usual."""
    guard = Guard(Spikes(2048, 1.0), 10_000)
    for step in range(1000):
        loss = 5.5 if step % 10 == 9 else 1.0 + 0.01 * (step % 7)
        odd = guard.spikes.odd(step, loss, 0.5)
        if odd is None:
            guard.accept(loss, 0.5)
        else:
            guard.pass_over(step, "rows", *odd)
    assert len(guard.passing) <= AGAIN * (1000 // WINDOW + 1)
    assert len(guard.spikes.losses) == WINDOW


def test_updates_that_stand_out() -> None:
    spikes = Spikes(2048, 1.0)
    for step in range(20):
        assert spikes.update(1e-3 * (1 + step % 3) / 20 * step, step / 20) is None
    assert spikes.update(0.005, 1.0) is None
    told = spikes.update(0.5, 1.0)
    assert told is not None
    assert "the update is 0.5 of the weights" in told
    assert max(spikes.updates) < 0.01


def test_no_more_than_a_share_is_passed_over() -> None:
    guard = Guard(Spikes(VOCAB, 1.0), 100)
    for step in range(MOST_LEAST):
        guard.leave_out(step, "repeated text", f"step {step}")
    with pytest.raises(RedLine, match=rf"^too much passed over: {MOST_LEAST + 1} of 100 steps"):
        guard.leave_out(MOST_LEAST, "repeated text", "one more")
    guard = Guard(Spikes(VOCAB, 1.0), 100)
    for step in range(IN_A_ROW - 1):
        guard.pass_over(step, "rows", "loss spike", "loss 9")
    with pytest.raises(Setback) as found:
        guard.pass_over(IN_A_ROW - 1, "rows", "loss spike", "loss 9")
    assert found.value.steps == range(IN_A_ROW)
    assert guard.spikes.losses == guard.spikes.norms == []  # what is turned away never enters


# A restart


def test_every_decision_survives_a_restart() -> None:
    """Restored from its state at any moment, a guard decides as one that was never saved."""
    draw = torch.Generator().manual_seed(0)
    whole, cut = (Guard(Spikes(VOCAB, 1.0), 1000) for _ in range(2))
    for step in range(300):
        loss = 2.0 + float(torch.rand((), generator=draw))
        if step % 41 in (30, 31):
            loss = 7.0
        found = []
        for guard in (whole, cut):
            odd = guard.spikes.odd(step, loss, loss)
            if odd is None:
                guard.accept(loss, loss)
                found.append(None)
            else:
                found.append(guard.pass_over(step, "rows", *odd))
        assert found[0] == found[1]
        again = Guard(Spikes(VOCAB, 1.0), 1000)
        again.restore(json.loads(json.dumps(cut.state())))
        assert again == cut == whole
        cut = again
    assert len(whole.passing) > 5


# The loader


@pytest.mark.parametrize("many", [1, 3, 4])
def test_f8_a_loader_that_is_stuck_stops_the_run(many: int, ram: Path) -> None:
    """Also if it hands out a few batches in turn, and shuffles their rows."""

    def batches(step: int) -> Batch:
        batch = numbered(step if step < 20 else 20 + step % many)
        order = torch.randperm(len(batch.ids_BL), generator=torch.Generator().manual_seed(step))
        return replace(
            batch,
            ids_BL=batch.ids_BL[order],
            weights_BL=batch.weights_BL[order],
            segments_BL=batch.segments_BL[order],
        )

    ledger = Noted()
    with pytest.raises(RedLine, match="same batch: step"):
        ran(ram, batches=batches, ledger=ledger)
    assert 20 < max(ledger.losses) < 40
    assert ledger.rows[-1][1]["event"] == "stopped"


def test_f8_few_data_read_in_order_time_and_again_are_none() -> None:
    repeats = Repeats()
    for step in range(100):
        assert repeats.look(step, numbered(step % (BACK + 1))) is None


# What learns


def test_f2_what_the_optimizer_lacks_is_named_before_the_first_step(
    ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Optimizer.of

    def of(*args: Any, **more: Any) -> Optimizer:
        made = real(*args, **more)
        del made.parameters[MATRIX]
        return made

    monkeypatch.setattr(Optimizer, "of", of)
    with pytest.raises(RedLine, match=f"^never updated: before the first step: .* {MATRIX}$"):
        ran(ram)


def test_f2_what_is_cut_off_from_the_loss_is_named(ram: Path) -> None:
    model, ledger = fresh(layers=2), Noted()

    def change(step: int, seen: int, total: float, divisor: float) -> float:
        if step >= 12:
            model.get_parameter(MATRIX).grad = None
            model.get_parameter("model.layers.0.input_layernorm.weight").grad.zero_()  # type: ignore[union-attr]
        return total

    with pytest.raises(
        RedLine, match=r"^zero gradient: step 16, .*layers\.0\.input_.*layers\.1\.mlp"
    ):
        fit(
            Faulty(model, change),
            numbered,
            settings(40),
            scratch=True,
            evaluate=by_validation(model),
            checkpoints=Checkpoints(ram),
            ledger=ledger,
        )
    assert max(ledger.losses) == 15


class Ending:
    """A schedule that gives 0 from a step on."""

    def factor(self, seen_tokens: int) -> float:
        """As asked."""
        return 0.0 if seen_tokens >= 31 * 64 else 1.0


def test_f1_a_schedule_that_gives_nothing_is_found(ram: Path) -> None:
    how: Any = settings(40, schedule=Ending())
    with pytest.raises(RedLine, match=r"^no update: step 33"):
        ran(ram, how=how)
