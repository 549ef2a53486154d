"""Kill it at any step and run it again: every later loss and the final weights are bit-equal.

And every piece of the state is needed for that: without any one, the run stops or differs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import Noted, Outcome, by_validation, fresh, settings, stops_at, trained

from matura.core.errors import MaturaError, StoreError
from matura.core.ledger import Value
from matura.core.store import Checkpoints
from matura.learn.checkpoint import OPTIMIZER, REST, WEIGHTS
from matura.learn.loop import Evaluation

STEPS, KILLED = 20, 11
EXAMS = {5: 0.9, 10: 0.5, 15: 0.6, 20: 0.6}  # the best comes before the kill
Mutate = Callable[[Callable[[Path], object]], Path]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run that nobody interrupts."""
    return trained(tmp_path_factory.mktemp("straight"), settings(STEPS), exams=EXAMS)


def same(found: Outcome, straight: Outcome) -> bool:
    """Whether all that is left to see of a resumed run is the straight one's."""
    later = {step: straight.losses[step] for step in found.losses}
    return (found.losses, found.weights, found.fitted) == (
        later,
        straight.weights,
        straight.fitted,
    )


@pytest.mark.parametrize("step", range(STEPS))
def test_interrupted_at_a_step(step: int, straight: Outcome, ram: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(ram, settings(STEPS), batches=stops_at(step), exams=EXAMS)
    assert max(Checkpoints(ram).steps()) == step
    found = trained(ram, settings(STEPS), exams=EXAMS)
    assert sorted(found.losses) == list(range(step, STEPS))
    assert same(found, straight)


def test_interrupted_at_every_step_of_one_run(straight: Outcome, ram: Path) -> None:
    losses: dict[int, float] = {}
    for step in range(1, STEPS):
        ledger = Noted()
        with pytest.raises(KeyboardInterrupt):
            trained(ram, settings(STEPS), batches=stops_at(step), exams=EXAMS, ledger=ledger)
        losses |= ledger.losses
    found = trained(ram, settings(STEPS), exams=EXAMS)
    assert same(found, straight)
    assert losses | found.losses == straight.losses


class Impatient(Noted):
    """A ledger during whose row somebody presses Ctrl-C: the weights have moved already."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def row(
        self, step: int, values: Mapping[str, Value], *, clock: Mapping[str, float] | None = None
    ) -> None:
        """Stops at the step's row."""
        if step == self.step and "loss" in values:
            raise KeyboardInterrupt
        super().row(step, values, clock=clock)


@pytest.mark.parametrize("step", [0, 7, STEPS - 1])
def test_interrupted_between_an_update_and_its_row(step: int, straight: Outcome, ram: Path) -> None:
    """Such a step is never saved: it would be made twice."""
    with pytest.raises(KeyboardInterrupt):
        trained(ram, settings(STEPS), exams=EXAMS, ledger=Impatient(step))
    assert same(trained(ram, settings(STEPS), exams=EXAMS), straight)


@pytest.mark.parametrize("at", [5, 15, STEPS])
def test_interrupted_in_an_evaluation(at: int, straight: Outcome, ram: Path) -> None:
    """The evaluation is made after all: the best and the last would not be the same without."""
    model = fresh()
    look = by_validation(model, EXAMS)

    def evaluate(step: int) -> Evaluation:
        if step == at:
            raise KeyboardInterrupt
        found: Evaluation = look(step)
        return found

    with pytest.raises(KeyboardInterrupt):
        trained(ram, settings(STEPS), model=model, evaluate=evaluate)
    assert same(trained(ram, settings(STEPS), exams=EXAMS), straight)


def test_a_torn_checkpoint_is_refused_and_the_one_before_taken(
    straight: Outcome, ram: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(ram, settings(STEPS), batches=stops_at(KILLED), exams=EXAMS)
    torn = Checkpoints(ram).at(KILLED) / OPTIMIZER
    content = bytearray(torn.read_bytes())
    content[-5] ^= 1
    torn.write_bytes(content)
    found = trained(ram, settings(STEPS), exams=EXAMS)
    assert sorted(found.losses) == list(range(5, STEPS))
    assert same(found, straight)


def test_with_no_whole_checkpoint_it_never_starts_afresh(ram: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(ram, settings(STEPS), batches=stops_at(3), exams=EXAMS)
    (Checkpoints(ram).at(3) / WEIGHTS).unlink()
    with pytest.raises(StoreError, match="no checkpoint is whole"):
        trained(ram, settings(STEPS), exams=EXAMS)


# Every piece of state, taken away or set back to what a fresh run has.

FRESH: dict[str, Any] = {
    "step": 0,
    "best_step": -1,
    "memory": {"micro_rows": 1, "recompute": False},
    "best": None,
    "optimizer_steps": 0,
    "best.losses": {"counting": 99.0},
    "best.exam": 0.0,
    "best.notes": {},
    "gold": {"start": {}, "lowest": None, "kept": False, "seen": []},
}
NO_INFLUENCE = {
    "last", "last.losses", "last.exam", "last.notes", "watch", "watch.still", "waited",
    "best.flags", "last.flags", "redlines", "watch.begun", "watch.silent", "guard", "repeats",
    "good", "good_best", "arithmetic",
}  # fmt: skip
"""Set back, they change nothing here: `last` is written anew by the last evaluation, no step of
this run was still (`test_watch` counts those across a restart), and it has no end to its patience
(`test_patience` has), and no answers and no slow red line (`test_redlines` has), and nothing went
wrong in it (`test_guard` has what did). Missing, they are refused."""
KEYS = sorted(FRESH.keys() | NO_INFLUENCE)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted in its middle."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(KeyboardInterrupt):
        trained(folder, settings(STEPS), batches=stops_at(KILLED), exams=EXAMS)
    return folder


@pytest.fixture
def mutated(killed: Path, ram: Path) -> Mutate:
    """Makes a copy of that run whose newest checkpoint is whole, but not what was saved."""

    def mutate(change: Callable[[Path], object]) -> Path:
        folder = ram / "state"
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

    return mutate


def edited(key: str, how: Callable[[dict[str, Any], str], object]) -> Callable[[Path], None]:
    """Changes one key of `state.json`, a dot leading into an object."""

    def change(work: Path) -> None:
        state = json.loads((work / REST).read_text())
        *above, last = key.split(".")
        inner = state
        for name in above:
            inner = inner[name]
        how(inner, last)
        (work / REST).write_text(json.dumps(state))

    return change


def loud_or_different(folder: Path, straight: Outcome) -> bool:
    try:
        return not same(trained(folder, settings(STEPS), exams=EXAMS), straight)
    except MaturaError:
        return True


def test_unchanged_it_goes_on(mutated: Mutate, straight: Outcome) -> None:
    assert not loud_or_different(mutated(lambda work: None), straight)


def test_the_list_of_keys_is_whole(killed: Path) -> None:
    state = json.loads((Checkpoints(killed).at(KILLED) / REST).read_text())
    inner = {f"{name}.{key}" for name in ("watch", "best", "last") for key in state[name]}
    assert sorted(state.keys() | inner) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_no_key_may_be_missing(key: str, mutated: Mutate) -> None:
    folder = mutated(edited(key, lambda inner, last: inner.pop(last)))
    with pytest.raises(StoreError, match=key.split(".")[-1]):
        trained(folder, settings(STEPS), exams=EXAMS)


@pytest.mark.parametrize("key", sorted(FRESH.keys() - {"best.notes"}))
def test_no_key_may_be_set_back(key: str, mutated: Mutate, straight: Outcome) -> None:
    folder = mutated(edited(key, lambda inner, last: inner.update({last: FRESH[key]})))
    assert loud_or_different(folder, straight)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"step": 11}', "null"])
def test_no_other_json_is_taken(content: str, mutated: Mutate) -> None:
    folder = mutated(lambda work: (work / REST).write_text(content))
    with pytest.raises(StoreError):
        trained(folder, settings(STEPS), exams=EXAMS)


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER])
@pytest.mark.parametrize("how", ["missing", "set back", "cut"])
def test_no_tensor_may_be_missing_or_set_back(
    name: str, how: str, mutated: Mutate, straight: Outcome
) -> None:
    first = fresh().state_dict()
    survivors: list[str] = []
    loud = how != "set back"

    def change(work: Path, tensor: str) -> None:
        found = load_file(work / name)
        if how == "missing":
            del found[tensor]
        elif how == "cut":
            found[tensor] = found[tensor][:1].clone()
        else:
            found[tensor] = first.get(tensor, torch.zeros_like(found[tensor])).clone()
        save_file(found, work / name)

    whole = load_file(Checkpoints(mutated(lambda work: None)).at(KILLED) / name)
    assert len(whole) > 12
    for tensor in whole:
        folder = mutated(lambda work, tensor=tensor: change(work, tensor))
        if loud:
            with pytest.raises(StoreError, match=tensor):
                trained(folder, settings(STEPS), exams=EXAMS)
        elif not loud_or_different(folder, straight):
            survivors.append(tensor)
    assert survivors == []


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, REST])
def test_no_file_may_be_missing(name: str, mutated: Mutate) -> None:
    folder = mutated(lambda work: (work / name).unlink())
    with pytest.raises(StoreError, match=name):
        trained(folder, settings(STEPS), exams=EXAMS)


def test_the_last_evaluation_of_a_finished_run_is_needed(ram: Path) -> None:
    trained(ram, settings(5), exams=EXAMS)
    checkpoints = Checkpoints(ram)
    kept = {n: (checkpoints.at(5) / n).read_bytes() for n in (WEIGHTS, OPTIMIZER, REST)}
    state = json.loads(kept[REST]) | {"last": None}
    shutil.rmtree(checkpoints.at(5))

    def write(work: Path) -> None:
        for name, content in kept.items():
            (work / name).write_bytes(content)
        (work / REST).write_text(json.dumps(state))

    checkpoints.save(5, write)
    with pytest.raises(StoreError, match="without an evaluation"):
        trained(ram, settings(5), exams=EXAMS)
