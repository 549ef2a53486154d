"""What goes wrong on the way is computed once more, passed over, or gone back from; in the end it
stops, with what was seen. Whatever happens, a run that was killed does the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import MATRIX, Faulty, did, ran, worth
from tiny import Noted, Outcome, by_validation, fresh, numbered, settings, trained, weights_of

from matura.core.errors import RedLine
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.checkpoint import REST
from matura.learn.guard import TIMES
from matura.learn.loop import fit
from matura.learn.optim import Optimizer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run in which nothing goes wrong."""
    return ran(tmp_path_factory.mktemp("plain"))


# A batch


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [3, 30])
def test_f9_f10_a_batch_that_is_not_finite_is_passed_over(bad: float, step: int, ram: Path) -> None:
    """And nothing of it is left: the run goes on as one that never had that step."""
    found = ran(ram, worth(bad, step))
    assert did(found) == [(step, "non-finite values", "passed over")]
    assert sorted(found.losses) == [k for k in range(40) if k != step]
    rows = [values for at, values in found.rows if at == step and "event" in values]
    assert [row["event"] for row in rows] == ["passed over"]
    assert f"step {step}, rows of step {step}: loss {bad}" in str(rows[0]["why"])


def test_f9_a_nan_in_the_first_step_is_passed_over_and_the_next_one_is_the_first(
    ram: Path,
) -> None:
    """Sight and start loss are looked at then."""
    calls: list[int] = []

    def change(step: int, seen: int, total: float, divisor: float) -> float:
        calls.append(step)
        return math.nan if step == 0 else total

    found = ran(ram, change)
    assert did(found) == [(0, "non-finite values", "passed over")]
    assert calls.count(1) == 3
    how = settings(20, learning_rate=1e-9)
    with pytest.raises(RedLine, match="start loss far from ln V: step 1"):
        ran(ram / "b", lambda k, n, t, d: math.nan if k == 0 else 3 * t, how=how)


def test_what_is_well_the_second_time_was_the_machine(plain: Outcome, ram: Path) -> None:
    """The second result is taken, so nothing differs from a run without the mistake."""
    found = ran(ram / "mistaken", worth(math.nan, 30, times=1))
    assert did(found) == [(30, "hardware", "the second result was taken")]
    assert (found.losses, found.weights) == (plain.losses, plain.weights)
    with pytest.raises(RedLine, match=r"^hardware: step 30, .*; step 35, .*test the memory"):
        ran(ram / "again", worth(math.nan, 30, 35, times=1))


def test_f16_two_spikes_are_both_passed_over(ram: Path) -> None:
    """OLMo's first one would hide the second."""

    def change(step: int, seen: int, total: float, divisor: float) -> float:
        return {30: 50.0, 35: 8.0}.get(step, total / divisor) * divisor

    found = ran(ram, change)
    assert [(k, done) for k, _, done in did(found)] == [(30, "passed over"), (35, "passed over")]


def repeated(period: int, at: int) -> Callable[[int], Batch]:
    def batches(step: int) -> Batch:
        batch = numbered(step, length=32)
        if step == at:
            batch.ids_BL.copy_(torch.arange(33) % period)
            batch.segments_BL.fill_(1)
        return batch

    return batches


@pytest.mark.parametrize("period", [1, 7, 16])
def test_f15_a_batch_that_says_one_thing_is_passed_over(period: int, ram: Path) -> None:
    """And hides no spike that comes after it."""
    found = ran(ram, worth(8.0, 34), batches=repeated(period, 30))
    assert did(found) == [
        (30, "repeated text", "passed over"),
        (34, "loss spike", "passed over"),
    ]


# The state


BAD = worth(math.nan, 30, 31, 32)


def test_a_state_that_went_bad_is_gone_back_from(ram: Path) -> None:
    """Three in a row: to the last good one, and this time without what led there."""
    seen: dict[int, dict[str, bytes]] = {}
    model = fresh(layers=2)

    def change(step: int, again: int, total: float, divisor: float) -> float:
        seen[step] = weights_of(model)
        return BAD(step, again, total, divisor)

    ledger = Noted()
    fitted = fit(
        Faulty(model, change),
        numbered,
        settings(40, evaluate_at=frozenset(), good_every=20),
        scratch=True,
        evaluate=by_validation(model),
        checkpoints=Checkpoints(ram),
        ledger=ledger,
    )
    assert [event["done"] for event in fitted.events] == [
        "passed over",
        "passed over",
        "back to step 20",
    ]
    back = [(at, row["at"]) for at, row in ledger.rows if row.get("event") == "back to step 20"]
    assert back == [(20, 32)]
    over = [at for at, row in ledger.rows if row.get("event") == "passed over"]
    assert over[-13:] == list(range(20, 33))
    assert seen[33] == seen[20]  # nothing in between was learnt from, so this is the good state


def flips(step: int, times: int, bit: int, tensor: Callable[[Any, Optimizer], Any]) -> Any:
    """Batches during which a bit flips in what `tensor` gives, so many times, and the run."""

    def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
        model, made, done = fresh(layers=2), [], []
        real = Optimizer.of

        def of(*args: Any, **more: Any) -> Optimizer:
            made.append(real(*args, **more))
            return made[-1]

        monkeypatch.setattr(Optimizer, "of", of)

        def batches(number: int) -> Batch:
            if number == step and len(done) < times:
                done.append(number)
                words = tensor(model, made[-1]).detach().view(-1).view(torch.int32)
                words[7] ^= 1 << bit
            return numbered(number)

        return trained(folder, settings(40, good_every=20), model=model, batches=batches)

    return run


TENSORS: dict[str, Callable[[Any, Optimizer], Any]] = {
    "weight": lambda model, optimizer: model.get_parameter(MATRIX),
    "odd weight": lambda model, optimizer: model.get_parameter("model.norm.weight"),
    "embedding": lambda model, optimizer: model.model.embed_tokens.weight,
    "momentum": lambda model, optimizer: optimizer.buffers[f"momentum.{MATRIX}"],
    "variance": lambda model, optimizer: optimizer.buffers["variance.lm_head.weight"],
}


@pytest.mark.parametrize("bit", [30, 10])
@pytest.mark.parametrize("what", TENSORS)
def test_f11_a_flipped_bit_leaves_no_trace(
    what: str, bit: int, plain: Outcome, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes back and ends bit by bit where it would have ended."""
    found = flips(22, 1, bit, TENSORS[what])(ram, monkeypatch)
    assert [(at, done) for at, _, done in did(found)] == [(22, "back to step 20")]
    assert "changed since the last update" in found.fitted.events[0]["why"]
    assert (found.losses, found.weights) == (plain.losses, plain.weights)


def test_before_there_is_a_good_state_the_run_begins_again(
    plain: Outcome, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the weights and the empty optimizer that it began with."""
    found = flips(3, 1, 10, TENSORS["weight"])(ram, monkeypatch)
    assert did(found) == [(3, "weights changed", "back to step 0")]
    assert (found.losses, found.weights) == (plain.losses, plain.weights)


@pytest.mark.parametrize("step", [2, 22])
def test_the_same_failure_three_times_stops(
    step: int, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no good state but the first one; the message says each time."""
    with pytest.raises(RedLine, match=rf"^weights changed: before step {step}") as stopped:
        flips(step, 99, 10, TENSORS["weight"])(ram, monkeypatch)
    assert str(stopped.value).count(f"before step {step}: {MATRIX} changed") == TIMES
    assert "test the memory" in str(stopped.value)


def test_what_never_gets_well_stops_and_says_what_to_try(ram: Path) -> None:
    ledger = Noted()
    with pytest.raises(RedLine, match=r"^non-finite values: step 32.*try a lower learning rate"):
        ran(ram, lambda k, n, t, d: math.nan if k >= 30 else t, ledger=ledger)
    assert ledger.rows[-1][1]["event"] == "stopped"
    assert sum("back to" in str(row.get("event")) for _, row in ledger.rows) == TIMES - 1


class Racing:
    """A schedule that multiplies every rate by 300 from a step on."""

    def __init__(self, onset: int) -> None:
        self.onset = onset

    def factor(self, seen_tokens: int) -> float:
        """As asked."""
        return 300.0 if seen_tokens >= self.onset * 64 else 1.0


@pytest.mark.parametrize("onset", [0, 22])
def test_f7_a_rate_300_times_too_high_goes_back_and_then_stops(onset: int, ram: Path) -> None:
    how: Any = settings(40, schedule=Racing(onset), good_every=20)
    ledger = Noted()
    with pytest.raises(RedLine, match=r"spike: .*; and again after going back: .*learning rate"):
        ran(ram, how=how, ledger=ledger)
    assert max(ledger.losses) < onset + 50


# A restart


class Killed(Exception):
    """Somebody pulled the plug."""


def killing(kind: type[BaseException], step: int, arrival: int) -> Callable[[int], Batch]:
    """Batches until the run comes to a step for the n-th time."""
    seen: list[int] = []

    def batches(number: int) -> Batch:
        seen.append(number)
        if number == step and seen.count(step) == arrival:
            raise kind
        return numbered(number)

    return batches


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run that passes over, goes back and goes on, and nobody interrupts."""
    return ran(tmp_path_factory.mktemp("straight"), BAD)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Killed])
@pytest.mark.parametrize(("step", "arrival"), [(10, 1), (31, 1), (31, 2), (35, 1)])
def test_a_killed_run_does_the_same(
    kind: type[BaseException], step: int, arrival: int, straight: Outcome, ram: Path
) -> None:
    """Between two rejections, on the way back, and after it."""
    with pytest.raises(kind):
        ran(ram, BAD, batches=killing(kind, step, arrival))
    found = ran(ram, BAD)
    assert found.weights == straight.weights
    assert found.fitted == straight.fitted
    assert all(straight.losses[k] == loss for k, loss in found.losses.items())
    kept = {at: row for at, row in straight.rows if "event" in row and at > step}
    assert {at: row for at, row in found.rows if "event" in row and at > step} == kept


def test_the_good_state_is_kept_and_what_was_left_behind_is_gone(ram: Path) -> None:
    how = settings(40, good_every=20, checkpoint_every_s=0.0)
    with pytest.raises(Killed):
        ran(ram, BAD, how=how, batches=killing(Killed, 31, 2))
    assert Checkpoints(ram).steps() == [30, 31]
    passing = [
        json.loads((Checkpoints(ram).at(step) / REST).read_text())["guard"]["passing"]
        for step in (30, 31)
    ]
    assert [sorted(map(int, found)) for found in passing] == [[], list(range(20, 33))]
