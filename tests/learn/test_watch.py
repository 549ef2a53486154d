"""Each red line stops a run at once, and names the step and the batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import VOCAB, Noted, by_validation, fresh, numbered, settings, stops_at, trained

from matura.core.errors import RedLine
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.schedule import Schedule
from matura.learn.watch import STILL_STEPS, Watch, check_finite


def finite(folder: Path) -> bool:
    """Whether every checkpoint opens and holds nothing but numbers."""
    from safetensors.torch import load_file

    checkpoints = Checkpoints(folder)
    for step in checkpoints.steps():
        for path in checkpoints.at(step).glob("*.safetensors"):
            if not all(bool(t.isfinite().all()) for t in load_file(path).values()):
                return False
    return True


def test_a_value_that_is_not_finite(tmp_path: Path) -> None:
    model = fresh()

    def batches(step: int) -> Batch:
        if step == 7:
            with torch.no_grad():
                model.lm_head.weight[3, 3] = math.nan
        return numbered(step)

    message = "non-finite values: step 7, rows of step 7: loss nan, gradient norm nan"
    with pytest.raises(RedLine, match=message):
        trained(tmp_path, settings(), model=model, batches=batches)
    assert Checkpoints(tmp_path).steps() == [5]
    assert finite(tmp_path)


def test_an_infinite_gradient_of_a_finite_loss() -> None:
    with pytest.raises(RedLine, match=r"non-finite values: step 3, rows 8 to 9: loss 2\.0"):
        Watch(VOCAB, scratch=True).loss(3, "rows 8 to 9", 2.0, math.inf)


def test_a_nan_is_never_saved(tmp_path: Path) -> None:
    """Neither by Ctrl-C nor by the clock; what was saved before stays."""
    for how in ("interrupt", "clock"):
        folder, model = tmp_path / how, fresh()

        def batches(step: int, model: torch.nn.Module = model, how: str = how) -> Batch:
            if step == 7:
                with torch.no_grad():
                    model.get_parameter("model.norm.weight")[0] = math.inf
                if how == "interrupt":
                    raise KeyboardInterrupt
            return numbered(step)

        every = 1e9 if how == "interrupt" else 0.0
        with pytest.raises(RedLine, match=r"non-finite values: .*step 7"):
            trained(folder, settings(checkpoint_every_s=every), model=model, batches=batches)
        assert 5 in Checkpoints(folder).steps()
        assert max(Checkpoints(folder).steps()) <= 7
        assert finite(folder)
        assert Checkpoints(folder).newest().refused == ()


def test_an_update_out_of_range(tmp_path: Path) -> None:
    how = settings(learning_rate=1e38, clip=1e9)
    with pytest.raises(RedLine, match="non-finite values: step 0, rows of step 0: the update is"):
        trained(tmp_path, how)
    assert Checkpoints(tmp_path).steps() == []


def test_a_tensor_that_is_not_finite_is_named() -> None:
    good = {"a": torch.ones(2), "ids": torch.ones(2, dtype=torch.int64)}
    check_finite(good, 4)
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(RedLine, match="non-finite values: b after step 4"):
            check_finite(good | {"b": torch.tensor([1.0, bad])}, 4)


def test_nothing_trained(tmp_path: Path) -> None:
    """Users' pain 1: an empty loss mask is no small loss."""

    def batches(step: int) -> Batch:
        batch = numbered(step)
        if step == 2:
            batch.weights_BL.zero_()
        return batch

    with pytest.raises(RedLine, match="nothing trained: step 2, rows of step 2"):
        trained(tmp_path, settings(), batches=batches)


def test_no_update(tmp_path: Path) -> None:
    still: dict[str, Any] = {
        "learning_rate": 0.0,
        "embedding_learning_rate": 0.0,
        "matrix_learning_rate": 0.0,
    }
    with pytest.raises(RedLine, match="no update: step 2, rows of step 2: 3 steps in a row"):
        trained(tmp_path, settings(**still))
    assert Checkpoints(tmp_path).steps() == []


def test_no_update_is_counted_across_a_restart(tmp_path: Path) -> None:
    how = settings(schedule=Schedule(10**9, 0, 0), evaluate_at=frozenset())
    still = settings(
        evaluate_at=frozenset(),
        learning_rate=0.0,
        embedding_learning_rate=0.0,
        matrix_learning_rate=0.0,
    )
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, still, batches=stops_at(2))
    with pytest.raises(RedLine, match=r"no update: step 2, .* 3 steps in a row"):
        trained(tmp_path, still)
    assert STILL_STEPS == 3
    trained(tmp_path, how)  # and a rate that is not 0 goes on from there


def test_a_pause_in_learning_is_no_red_line() -> None:
    watch = Watch(VOCAB, scratch=False)
    for step in range(10):
        watch.update(step, "rows", 0.0 if step % STILL_STEPS else 1e-9)
    assert watch.state()["still"] == 0


@pytest.mark.parametrize(
    ("loud", "scratch", "message"),
    [
        (300.0, True, r"start loss far from ln V: step 0, rows of step 0: .* near 3\.871"),
        (3000.0, False, r"start loss far above ln V: step 0, rows of step 0: .* 7\.742"),
    ],
)
def test_a_start_loss_far_from_chance(
    loud: float, scratch: bool, message: str, tmp_path: Path
) -> None:
    model = fresh()
    with torch.no_grad():
        model.lm_head.weight.mul_(loud)
    with pytest.raises(RedLine, match=message):
        trained(tmp_path, settings(), model=model, scratch=scratch)
    assert Checkpoints(tmp_path).steps() == []


def test_a_trained_model_may_start_near_its_own_loss(tmp_path: Path) -> None:
    """A fresh one may not: it would have seen the data."""
    watch = Watch(VOCAB, scratch=False)
    watch.loss(0, "rows", 0.5, 1.0)
    watch.loss(0, "rows", 1.4 * math.log(VOCAB), 1.0)
    with pytest.raises(RedLine, match="start loss far from ln V"):
        Watch(VOCAB, scratch=True).loss(0, "rows", 0.5, 1.0)
    Watch(VOCAB, scratch=True, begun=True).loss(1, "rows", 0.5, 1.0)
    model = fresh()
    done = trained(tmp_path / "first", settings(), model=model)
    again = trained(
        tmp_path / "second",
        settings(5),
        model=model,
        evaluate=by_validation(model),
        ledger=Noted(),
        scratch=False,
    )
    assert again.losses[0] < done.losses[0]
