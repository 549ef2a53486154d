"""Adapters in the one training loop: the base never moves, a resumed run is bit-equal, and every
piece of the state is needed for that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import (
    FP32,
    Noted,
    Outcome,
    numbered,
    seeded,
    settings,
    shape,
    spread,
    stops_at,
    trained,
    weights_of,
)

from matura.core.errors import RedLine, StoreError
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.checkpoint import OPTIMIZER, REST, WEIGHTS
from matura.learn.compute import Compute
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.settings import Settings
from matura.learn.sight import check_sight
from matura.learn.step import Stepper
from matura.models.decoder import Decoder
from matura.models.lora import adapted, attach

STEPS, KILLED = 12, 7
TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")


def base(**more: Any) -> Decoder:
    """The model that the adapters stand on."""
    return spread(shape(layers=2, **more)).train()


def adaptable(model: Decoder | None = None) -> Decoder:
    """It with fresh adapters."""
    model = base() if model is None else model
    attach(model, rank=2, alpha=4, targets=TARGETS, generator=seeded(4))
    return model


def how(**more: Any) -> Settings:
    return settings(STEPS, learning_rate=0.02, evaluate_at=frozenset((4, 8, 12)), **more)


def run(folder: Path, model: Decoder | None = None, **more: Any) -> Outcome:
    return trained(folder, how(), model=model or adaptable(), scratch=False, **more)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run that nobody interrupts."""
    return run(tmp_path_factory.mktemp("straight"))


def test_it_learns_and_the_base_stays_bit_equal(straight: Outcome) -> None:
    losses = [straight.losses[step] for step in range(STEPS)]
    assert sum(losses[-3:]) < sum(losses[:3]) * 0.95
    before, start = weights_of(base()), weights_of(adaptable())
    moved = {name for name, weight in straight.weights.items() if weight != start[name]}
    assert moved == {name for name in start if ".lora." in name}
    assert before == {name: straight.weights[name] for name in before}


def test_optimizer_and_checkpoints_hold_adapters_only(straight: Outcome, ram: Path) -> None:
    model = adaptable()
    names = {name for name in weights_of(model) if ".lora." in name}
    rates = {"matrix_learning_rate": 9.0, "learning_rate": 0.1, "embedding_learning_rate": 9.0}
    made = Optimizer.of(model, **rates, weight_decay=0.0)
    assert made.parameters.keys() == names
    kinds = ("momentum", "variance")
    assert made.buffers.keys() == {f"{kind}.{name}" for name in names for kind in kinds}
    run(ram, model)
    at = Checkpoints(ram).at(STEPS)
    assert load_file(at / WEIGHTS).keys() == names
    assert len(json.loads((at / REST).read_text())["base"]) == 64


@pytest.mark.parametrize("step", range(0, STEPS, 2))
def test_interrupted_at_a_step(step: int, straight: Outcome, ram: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(ram, batches=stops_at(step))
    found = run(ram)
    assert sorted(found.losses) == list(range(step, STEPS))
    assert found.losses == {at: straight.losses[at] for at in found.losses}
    assert (found.weights, found.fitted) == (straight.weights, straight.fitted)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted in its middle."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(KeyboardInterrupt):
        run(folder, batches=stops_at(KILLED))
    return folder


def changed(killed: Path, folder: Path, change: Callable[[Path], object]) -> Path:
    """A copy of that run whose newest checkpoint is whole, but not what was saved."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(killed, folder)
    checkpoints = Checkpoints(folder, keep=99)
    old = folder / "old"
    checkpoints.at(KILLED).rename(old)

    def write(work: Path) -> None:
        for name in (WEIGHTS, OPTIMIZER, REST):
            shutil.copy(old / name, work / name)
        change(work)

    checkpoints.save(KILLED, write)
    shutil.rmtree(old)
    return folder


@pytest.mark.parametrize("file", [WEIGHTS, OPTIMIZER])
@pytest.mark.parametrize("kind", ["missing", "set back"])
def test_every_tensor_of_the_state_is_needed(
    file: str, kind: str, killed: Path, straight: Outcome, ram: Path
) -> None:
    first = adaptable().state_dict()
    names = sorted(load_file(Checkpoints(killed).at(KILLED) / file))
    assert len(names) == 2 * len([*adapted(adaptable())]) * (2 if file == OPTIMIZER else 1)
    survivors = []
    for name in names:

        def change(work: Path, name: str = name) -> None:
            found = load_file(work / file)
            zero = torch.zeros_like(found[name])
            if kind == "missing":
                del found[name]
            else:
                found[name] = first.get(name, zero).clone()
            save_file(found, work / file)

        folder = changed(killed, ram / "state", change)
        if kind == "missing":
            with pytest.raises(StoreError, match=name):
                run(folder)
        elif run(folder).weights == straight.weights:
            survivors.append(name)
    assert survivors == []


@pytest.mark.parametrize("told", [None, "0" * 64])
def test_a_state_of_another_base_is_refused(told: str | None, killed: Path, ram: Path) -> None:
    def change(work: Path) -> None:
        state = json.loads((work / REST).read_text())
        state.pop("base")
        (work / REST).write_text(json.dumps(state | ({} if told is None else {"base": told})))

    with pytest.raises(StoreError, match="base"):
        run(changed(killed, ram / "state", change))


def test_resumed_on_another_base_is_refused(killed: Path, ram: Path) -> None:
    shutil.copytree(killed, ram / "state")
    other = base()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-7  # type: ignore[index,union-attr]
    with pytest.raises(StoreError, match="another base"):
        run(ram / "state", adaptable(other))


def test_an_adapter_s_state_is_none_of_a_whole_model(killed: Path, ram: Path) -> None:
    shutil.copytree(killed, ram / "state")
    with pytest.raises(StoreError, match="weights differ"):
        run(ram / "state", base())


def test_micro_batches_give_the_same_gradient() -> None:
    found = []
    for rows in (4, 1):
        model = adaptable()
        with torch.no_grad():
            for _, _, one in adapted(model):
                one.up.fill_(0.1)
        batch = numbered(0)
        Stepper(model, NextToken(), FP32).gradients(batch, 50.0, micro_rows=rows)
        found.append([w.grad for w in model.parameters() if w.requires_grad])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_the_frozen_get_no_gradient() -> None:
    model = adaptable()
    Stepper(model, NextToken(), FP32).gradients(numbered(0), 50.0)
    have = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert have == {name for name, weight in model.named_parameters() if weight.requires_grad}


class Peeking(Decoder):
    """A model whose mask has a hole."""

    def trunk(self, x_BTC: Any, cos: Any, sin: Any, bias_B1TS: Any, attend: Any) -> Any:
        """Every position sees every other."""
        return super().trunk(x_BTC, cos, sin, torch.zeros_like(bias_B1TS), attend)


@pytest.mark.parametrize("targets", [("q_proj",), ("down_proj",), TARGETS])
def test_a_hole_in_the_mask_is_seen_where_weights_are_frozen(targets: tuple[str, ...]) -> None:
    for kind in (Decoder, Peeking):
        model = kind(shape(layers=2))
        model.load_state_dict(base().state_dict())
        attach(model, rank=2, alpha=4, targets=targets, generator=seeded(4))
        stepper = Stepper(model, NextToken(), FP32)
        batch: Batch = numbered(0)
        if kind is Decoder:
            check_sight(stepper, batch)
        else:
            with pytest.raises(RedLine, match="future"):
                check_sight(stepper, batch)
        assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.slow
def test_compiled_is_eager() -> None:
    pytest.importorskip("torch._inductor")
    if shutil.which("g++") is None:
        pytest.skip("no compiler here")
    found = []
    for compiled in (False, True):
        model = spread(shape()).train()
        attach(
            model, rank=2, alpha=4, targets=("q_proj", "v_proj", "down_proj"), generator=seeded(4)
        )
        with torch.no_grad():
            for _, _, one in adapted(model):
                one.up.normal_(0.0, 0.2, generator=seeded(9))
        compute = Compute("cpu", torch.float32, compiled, 1)
        total = Stepper(model, NextToken(), compute).gradients(numbered(0), 50.0)
        found.append((total, [w.grad for w in model.parameters() if w.requires_grad]))
    (eager, grads), (other, theirs) = found
    assert other == pytest.approx(eager, rel=1e-5)
    for one, two in zip(grads, theirs, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-6)


def test_the_ledger_tells_of_adapters_only(ram: Path) -> None:
    ledger = Noted()
    run(ram, ledger=ledger)
    updates = [float(values["update"]) for _, values in ledger.rows if "update" in values]
    assert min(updates) > 1e-3  # of all weights it would be far less
