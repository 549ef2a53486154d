"""A step that does not fit is cut until it does: same batch, same gradient, and it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    FP32,
    VOCAB,
    Noted,
    by_validation,
    fresh,
    numbered,
    settings,
    shape,
    spread,
    weights_of,
)
from torch import Tensor

from matura.core.errors import ShortOfMemory
from matura.core.store import Checkpoints
from matura.learn import room
from matura.learn.batch import Batch
from matura.learn.footprint import footprint, standing
from matura.learn.loop import fit
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.room import Cut, Room, cuts, fixed_cuts, is_short
from matura.learn.settings import Settings
from matura.learn.step import Stepper
from matura.learn.team import Team
from matura.models.decoder import Decoder

CPU_SHORT = "[enforce fail at alloc_cpu.cpp:126] . DefaultCPUAllocator: can't allocate memory: 9"
ERRORS = {
    "cpu": RuntimeError(CPU_SHORT),
    "python": MemoryError(),
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
}


class Narrow(Stepper):
    """A stepper that runs out of memory in its backward pass above so many rows at once."""

    def __init__(
        self, model: Decoder, problem: Exception, fits: Callable[[int, int], bool]
    ) -> None:
        super().__init__(model, NextToken(), FP32)
        self.problem, self.fits = problem, fits
        self.tried: list[tuple[int, bool]] = []

    def _total(self, batch: Batch, step: int, first_row: int) -> Tensor:
        total = super()._total(batch, step, first_row)
        rows = len(batch.ids_BL)
        self.tried.append((rows, self.model.recompute))
        if not self.fits(rows, step):
            total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            raise self.problem
        return total


def narrow(most: int, problem: Exception = ERRORS["cpu"], from_step: int = 0) -> Narrow:
    return Narrow(fresh(layers=2), problem, lambda rows, step: rows <= most or step < from_step)


def run(
    folder: Path,
    stepper: Stepper,
    how: Settings | None = None,
    batches: Any = numbered,
    team: Team | None = None,
) -> tuple[Noted, Any]:
    ledger = Noted()
    found = fit(
        stepper,
        batches,
        how or settings(12),
        scratch=True,
        evaluate=by_validation(stepper.model),
        checkpoints=Checkpoints(folder),
        ledger=ledger,
        team=team,
    )
    return ledger, found


def grads(model: Decoder) -> list[Tensor]:
    return [w.grad.clone() for w in model.parameters() if w.grad is not None]


@pytest.mark.parametrize("kind", ERRORS)
def test_running_out_halves_and_gives_the_same_gradient(kind: str) -> None:
    stepper = narrow(1, ERRORS[kind])
    total = stepper.gradients(numbered(3), 40.0)
    cut = grads(stepper.model)
    assert [rows for rows, _ in stepper.tried] == [4, 2, 1, 1, 1, 1]
    assert stepper.room.cut == Cut(1, False)
    assert [done for _, done in stepper.room.found] == [
        "the step is made again, 2 rows at once from now on",
        "the step is made again, 1 rows at once from now on",
    ]
    whole = Stepper(fresh(layers=2), NextToken(), FP32)
    assert whole.gradients(numbered(3), 40.0) == pytest.approx(total, rel=1e-6)
    for one, other in zip(grads(whole.model), cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_another_error_is_no_lack_of_memory() -> None:
    stepper = narrow(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        stepper.gradients(numbered(3), 40.0)
    assert not is_short(ValueError("out of memory"))


@pytest.mark.parametrize(("recompute", "words"), [("auto", "again"), (False, "recompute: auto")])
def test_at_one_row_there_is_one_clear_error(recompute: Any, words: str) -> None:
    stepper = narrow(0)
    stepper.room.recompute = recompute
    with pytest.raises(ShortOfMemory, match="sequence_length") as caught:
        stepper.gradients(numbered(3), 40.0)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stepper.tried[-1] == (1, recompute == "auto")
    assert not grads(stepper.model)


def test_gradients_of_others_are_never_dropped() -> None:
    """A step that others take part in cannot be begun anew by one alone."""
    stepper = narrow(2)
    next(iter(stepper.model.parameters())).grad = torch.ones(VOCAB, 32)
    with pytest.raises(ShortOfMemory, match="others"):
        stepper.gradients(numbered(3), 40.0)
    stepper = narrow(2)
    stepper.room.alone = False
    with pytest.raises(ShortOfMemory, match="others"):
        stepper.gradients(numbered(3), 40.0)


def test_a_run_goes_on_in_smaller_cuts_and_says_so_once(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", Stepper(fresh(layers=2), NextToken(), FP32))
    stepper = narrow(1, from_step=6)
    ledger, found = run(tmp_path / "short", stepper)
    assert found.memory == {"micro_rows": 1, "recompute": False}
    assert ledger.losses == pytest.approx(whole.losses, rel=1e-4)
    assert {s: x for s, x in ledger.losses.items() if s < 6} == {
        step: loss for step, loss in whole.losses.items() if step < 6
    }
    told = [(step, row) for step, row in ledger.rows if "event" in row]
    assert [step for step, _ in told] == [6, 6]
    assert all(row["line"] == "out of memory" for _, row in told)
    assert [event["step"] for event in found.events] == [6, 6]


def test_a_resumed_run_goes_on_as_it_was(tmp_path: Path) -> None:
    def stops(number: int) -> Batch:
        if number == 9:
            raise KeyboardInterrupt
        return numbered(number)

    how = settings(12)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "two", narrow(2), how, stops)
    resumed, found = run(tmp_path / "two", narrow(2), how)
    at_once, undisturbed = run(tmp_path / "one", narrow(2), how)
    assert found.memory["micro_rows"] == undisturbed.memory["micro_rows"] == 2
    assert resumed.losses[11] == at_once.losses[11]
    # asked for otherwise, it is done otherwise
    _, found = run(tmp_path / "two", narrow(1), settings(14, micro_rows=1, recompute=True))
    assert found.memory == {"micro_rows": 1, "recompute": True}


def test_running_out_in_an_update_is_told_too(tmp_path: Path) -> None:
    def batches(number: int) -> Batch:
        if number == 3:
            raise ERRORS["cpu"]
        return numbered(number)

    with pytest.raises(ShortOfMemory, match=r"out of memory: .*take a shorter"):
        run(tmp_path, narrow(4), batches=batches)


def test_what_is_preferred() -> None:
    ways = [(cut.rows, cut.recompute) for cut in cuts(8, None, "auto", None, busy=4)]
    assert ways == [(None, False), (4, False), (None, True), (4, True), (2, True), (1, True)]
    # of rows that long, one is enough
    ways = [(cut.rows, cut.recompute) for cut in cuts(2, None, "auto", None, busy=0)]
    assert ways == [(None, False), (1, False), (None, True), (1, True)]
    ways = [(cut.rows, cut.recompute) for cut in cuts(8, None, "auto", None, busy=16)]
    assert ways == [(None, False), (None, True), (4, True), (2, True), (1, True)]
    kept, again = [Cut(2, False), Cut(1, False)], [Cut(2, True), Cut(1, True)]
    assert [*cuts(8, 2, "auto", None)] == [*kept, *again]
    assert [*cuts(3, None, False, None)] == [Cut(None, False), Cut(1, False)]
    assert next(cuts(8, None, "auto", Cut(2, True))) == Cut(2, True)
    assert next(cuts(8, 4, "auto", Cut(None, True))) == Cut(4, False)
    assert next(cuts(8, None, True, Cut(4, False))) == Cut(None, True)
    assert [*cuts(4, None, True, None, busy=4)] == [Cut(None, True), Cut(2, True), Cut(1, True)]


@pytest.mark.parametrize("chosen", [*cuts(8, None, "auto", None, busy=4)], ids=str)
def test_what_fits_is_chosen(chosen: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just as much is there as that cut takes, then hardly anything."""
    model = fresh(layers=8)
    stepper = Stepper(model, NextToken(), FP32)
    need = footprint(
        model.config,
        chosen.of(8),
        256,
        learning=model.config.parameters,
        recompute=chosen.recompute,
    ).peak
    monkeypatch.setattr(room, "bytes_left", lambda: int(need * room.SPARE) + 1)
    assert "mind:" not in stepper.settle(numbered(1, rows=8, length=256))
    assert stepper.room.cut == chosen
    assert model.recompute is chosen.recompute
    monkeypatch.setattr(room, "bytes_left", lambda: 1000)
    assert "mind: that may be too much" in stepper.settle(numbered(1, rows=8, length=256))
    assert stepper.room.cut == Cut(1, True)
    monkeypatch.setattr(room, "bytes_left", lambda: None)
    assert "GB there" not in stepper.settle(numbered(1, rows=8, length=256))
    assert stepper.room.cut == Cut()


def test_where_it_is_tried_the_first_that_fits_is_taken() -> None:
    """As on a GPU, but for the GPU."""
    stepper = narrow(2, ERRORS["gpu"])
    found = Room()
    ways = [*cuts(4, None, "auto", None, busy=4)]

    def probe(rows: int) -> None:
        stepper._summed(numbered(3), 40.0, rows, 0, 0)

    chosen = room._tried(found, stepper.model, ways, probe, 4, lambda cut: True)
    assert chosen == found.cut == Cut(2, True)
    assert stepper.tried == [(4, False), (4, True), (2, True), (2, True)]
    assert not grads(stepper.model)
    few = room._tried(Room(), stepper.model, ways, probe, 4, lambda cut: cut.of(4) < 2)
    assert few == Cut(1, True)
    stepper = narrow(0, ERRORS["gpu"])
    with pytest.raises(ShortOfMemory, match="one row"):
        room._tried(found, stepper.model, ways, probe, 4, lambda cut: True)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("more", [
    {"layers": 3, "kv_heads": 4},
    {"layers": 6, "hidden_size": 96, "heads": 3, "kv_heads": 3, "intermediate_size": 256},
    {"layers": 2, "qk_norm": True},
    {"layers": 3, "qk_norm": True, "conv_layers": (0, 1)},
], ids=["heads", "deep", "grouped", "convolutions"])  # fmt: skip
def test_what_is_reckoned_is_what_is_kept(more: dict[str, Any], recompute: bool, size: int) -> None:
    dtype = {2: torch.bfloat16, 4: torch.float32}[size]
    model = spread(shape(**({"hidden_size": 64, "intermediate_size": 160} | more))).train()
    model.recompute = recompute
    stepper = Stepper(model, NextToken(), replace(FP32, dtype=dtype))
    own = {w.untyped_storage().data_ptr() for w in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stepper._total(numbered(3, rows=4, length=32), 0, 0)
    told = footprint(
        model.config, 4, 32, learning=model.config.parameters, size=size, recompute=recompute
    )
    assert told.kept == pytest.approx(sum(sizes.values()), rel=0.08)


def test_the_choice_changes_no_bit_where_all_fits(tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "1", one := Stepper(fresh(), NextToken(), FP32))
    again, found = run(tmp_path / "2", two := Stepper(fresh(), NextToken(), FP32),
                       settings(12, recompute=True))  # fmt: skip
    assert plain.losses == again.losses
    assert weights_of(one.model) == weights_of(two.model)
    assert found.memory == {"micro_rows": None, "recompute": True}


# Exact runs


@pytest.fixture(scope="module")
def exactly() -> Iterator[Team]:
    """One process in exact mode; threads as they were afterwards."""
    threads = torch.get_num_threads()
    yield Team(exact=True)
    torch.set_num_threads(threads)


def many(step: int) -> Batch:
    """A batch of which each of eight shards has four rows."""
    return numbered(step, rows=32)


@pytest.mark.parametrize("exact", [True, False])
def test_an_exact_run_is_the_same_with_whatever_memory(
    exact: bool, exactly: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is not asked to be exact is not: four rows at once are summed otherwise than
    one by one."""
    made = []
    for left in (None, 1000):
        monkeypatch.setattr(room, "bytes_left", lambda left=left: left)
        stepper = Stepper(fresh(layers=2), NextToken(), FP32)
        team = exactly if exact else Team(exact=False)
        ledger, found = run(tmp_path / str(left), stepper, settings(6), many, team)
        assert found.memory["recompute"] is (left is not None)
        made.append((weights_of(stepper.model), ledger.losses))
    assert (made[0] == made[1]) is exact


def test_an_exact_run_that_runs_out_computes_layers_again(exactly: Team, tmp_path: Path) -> None:
    def narrowed(recompute: Any) -> Narrow:
        stepper = Narrow(fresh(layers=2), ERRORS["cpu"], lambda rows, step: step < 3)
        stepper.fits = lambda rows, step: step < 3 or stepper.model.recompute
        stepper.room.recompute = recompute
        return stepper

    whole, _ = run(tmp_path / "whole", Stepper(fresh(layers=2), NextToken(), FP32),
                   settings(6), many, exactly)  # fmt: skip
    ledger, found = run(tmp_path / "short", narrowed("auto"), settings(6), many, exactly)
    assert ledger.losses == whole.losses
    assert [event["step"] for event in found.events] == [3]
    with pytest.raises(ShortOfMemory, match="4 rows at once, which an exact run keeps to"):
        run(tmp_path / "kept", narrowed(False), settings(6, recompute=False), many, exactly)


def test_an_exact_run_goes_on_with_as_many_rows_at_once(exactly: Team, tmp_path: Path) -> None:
    """As were asked for when it began."""

    def stops(number: int) -> Batch:
        if number == 4:
            raise KeyboardInterrupt
        return many(number)

    def stepper() -> Stepper:
        return Stepper(fresh(layers=2), NextToken(), FP32)

    few = settings(6, micro_rows=2)
    whole, _ = run(tmp_path / "whole", stepper(), few, many, exactly)
    other, _ = run(tmp_path / "other", stepper(), settings(6), many, exactly)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stepper(), few, stops, exactly)
    rest, found = run(tmp_path / "part", stepper(), settings(6), many, exactly)
    assert found.memory["micro_rows"] == 2
    assert rest.losses[5] == whole.losses[5] != other.losses[5]


def test_what_changes_no_bit() -> None:
    kept, busy = Cut(2, True), 4
    assert fixed_cuts(None, "auto", None, busy, compiled=False) == [Cut(4, False), Cut(4, True)]
    assert fixed_cuts(2, "auto", None, busy, compiled=False) == [Cut(2, False), Cut(2, True)]
    assert fixed_cuts(None, "auto", None, 0, compiled=True) == [Cut(1, False)]
    assert fixed_cuts(None, "auto", kept, busy, compiled=True) == [kept]
    assert fixed_cuts(None, False, kept, busy, compiled=False) == [Cut(2, False)]
    assert fixed_cuts(None, "auto", Cut(), busy, compiled=True) == [Cut()]


def test_what_lies_there_between_steps_is_counted() -> None:
    """Weights, Muon's moment or AdamW's two, and what is saved in the background."""
    for more in ({"tie_embeddings": True}, {"tie_embeddings": False}):
        model = fresh(layers=2, **more)
        optimizer = Optimizer.of(
            model,
            matrix_learning_rate=0.1,
            learning_rate=0.1,
            embedding_learning_rate=0.1,
            weight_decay=0.0,
        )
        weights = sum(w.nbytes for w in model.parameters())
        moments = sum(buffer.nbytes for buffer in optimizer.buffers.values())
        learning = model.config.parameters
        bare = standing(model.config, learning=learning, copies=0)
        assert bare == pytest.approx(weights + moments, rel=0.02)  # norms have two moments, too
        assert standing(model.config, learning=learning) == 2 * bare
        assert standing(model.config, learning=learning, shared_by=4) == bare // 2
        assert standing(model.config, learning=100, copies=0) == weights + 4 * 300
