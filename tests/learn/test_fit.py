"""The one training loop: what it learns, what it keeps, and that looking at it changes nothing."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from tiny import by_validation, fresh, numbered, settings, trained, weights_of

from matura.core.errors import StoreError
from matura.core.store import Checkpoints, Folder
from matura.learn.checkpoint import WEIGHTS
from matura.learn.loop import Evaluation

GOLDEN = {0: 3.872705841064453, 10: 3.5675590515136717, 20: 3.2615694681803387}
EXAMS = {5: 0.3, 10: 0.9, 15: 0.9, 20: 0.4}


def test_golden_losses(tmp_path: Path) -> None:
    """A refactor leaves these as they are; a commit that moves them says why."""
    losses = trained(tmp_path, settings(21)).losses
    assert {step: losses[step] for step in GOLDEN} == pytest.approx(GOLDEN, rel=1e-5)


def test_it_learns_and_says_how(tmp_path: Path) -> None:
    found = trained(tmp_path, settings(60))
    steps = [values for _, values in found.rows if "loss" in values]
    assert [step for step, values in found.rows if "loss" in values] == list(range(60))
    groups = {f"update/{group}" for group in ("matrices", "embeddings", "head", "rest")}
    assert set(steps[0]) == {"loss", "grad_norm", "rate", "update", *groups}
    assert all(0 < float(steps[0][group]) < 1 for group in groups - {"update/head"})
    assert found.losses[59] < 0.6 * found.losses[0]
    assert [float(row["rate"]) for row in steps[2:30]] == [1.0] * 28
    assert 0 < float(steps[59]["rate"]) < 0.1
    updates = {step: float(row["update"]) for step, row in enumerate(steps) if "update" in row}
    assert list(updates) == [*range(20), 20, 30, 40, 50]  # closely at first, then now and then
    assert all(0 < update < 1 for update in updates.values())


def test_accumulating_is_training_alike(tmp_path: Path) -> None:
    whole = trained(tmp_path / "1", settings(5)).losses
    cut = trained(tmp_path / "4", settings(5, micro_rows=1)).losses
    assert cut == pytest.approx(whole, rel=1e-4)


def test_evaluating_changes_nothing(tmp_path: Path) -> None:
    """C-22: whatever an evaluation draws or runs, the steps and the weights stay bit-equal."""
    model = fresh()
    look = by_validation(model)

    def noisy(step: int) -> Evaluation:
        torch.manual_seed(step)
        torch.rand(step)
        model.eval()
        found = look(step)
        model.train()
        return Evaluation(found.losses, step / 20)

    often = settings(evaluate_at=frozenset(range(1, 21)))
    seldom = settings(evaluate_at=frozenset())
    looked = trained(tmp_path / "often", often, model=model, evaluate=noisy)
    not_looked = trained(tmp_path / "seldom", seldom)
    assert looked.losses == not_looked.losses
    assert looked.weights == not_looked.weights


def test_best_and_last_are_kept_and_the_model_is_the_best(tmp_path: Path) -> None:
    model = fresh()
    found = trained(tmp_path, settings(), model=model, exams=EXAMS)
    assert (found.fitted.steps, found.fitted.best.exam, found.fitted.last.exam) == (20, 0.9, 0.4)
    best = found.fitted.best_step
    checkpoints = Checkpoints(tmp_path)
    assert {best, 20} <= set(checkpoints.steps())
    saved = {step: load_file(checkpoints.at(step) / WEIGHTS) for step in (best, 20)}
    assert found.weights == weights_of(model)
    assert found.weights == {n: t.numpy().tobytes() for n, t in saved[best].items()}
    assert found.weights != {n: t.numpy().tobytes() for n, t in saved[20].items()}
    for step in checkpoints.steps():
        Folder.open(checkpoints.at(step))


def test_of_two_equal_exams_the_lower_validation_loss_wins(tmp_path: Path) -> None:
    found = trained(tmp_path, settings(), exams=EXAMS)
    seen = {
        step + 1: values["validation/counting"]
        for step, values in found.rows
        if "exam/select" in values
    }
    assert list(seen) == [5, 10, 15, 20]
    assert found.fitted.best_step == min((10, 15), key=lambda step: float(seen[step]))


def test_without_an_exam_validation_loss_decides() -> None:
    worse, better = Evaluation({"a": 2.0, "b": 1.0}), Evaluation({"a": 1.0, "b": 1.5})
    assert better.rank > worse.rank
    assert Evaluation({"a": 9.0}, 0.9).rank > Evaluation({"a": 1.0}, 0.1).rank


def test_old_checkpoints_are_forgotten_but_not_the_best(tmp_path: Path) -> None:
    exams = dict.fromkeys(range(1, 21), 0.1) | {3: 0.9}
    how = settings(evaluate_at=frozenset(range(1, 21)), checkpoint_every_s=0.0)
    trained(tmp_path, how, exams=exams)
    assert Checkpoints(tmp_path).steps() == [3, 19, 20]


def test_a_finished_run_is_read_and_not_trained_again(tmp_path: Path) -> None:
    first = trained(tmp_path, settings(), exams=EXAMS)

    def no_more(step: int) -> None:
        raise AssertionError(f"step {step} was trained again")

    again = trained(tmp_path, settings(), batches=no_more)  # type: ignore[arg-type]
    assert again.fitted == first.fitted
    assert again.weights == first.weights


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, settings(5))
    for more, message in (
        ({"layers": 2}, "weights differ in"),
        ({"intermediate_size": 64}, r"is \(32, 48\), expected \(32, 64\)|expected \(64, 32\)"),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            trained(tmp_path, settings(10), model=fresh(**more))
        assert "\n" not in str(caught.value)


def test_batches_are_a_function_of_the_step() -> None:
    """What the tests of this room lean on."""
    for step in Random(0).sample(range(1000), 5):
        assert torch.equal(numbered(step).ids_BL, numbered(step).ids_BL)
