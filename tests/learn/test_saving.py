"""Saving in the background is saving: the same bytes, nothing torn, and no error is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from tiny import FP32, Noted, by_validation, fresh, numbered, settings, stops_at, trained

from matura.core.errors import StoreError
from matura.core.store import Checkpoints, Folder, work_place
from matura.learn.checkpoint import OPTIMIZER, WEIGHTS, State, state
from matura.learn.loop import fit
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.saving import MOST_SHARE, Saver
from matura.learn.step import Stepper


def a_state(fill: float = 0.5) -> State:
    """A state of a few numbers; `changed` writes over its tensors."""
    return State({WEIGHTS: {"a": torch.full((3, 2), fill)}}, '{"step": 1}', 1)


def changed(one: State, value: float) -> None:
    for tensors in one.files.values():
        for tensor in tensors.values():
            tensor.fill_(value)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_bytes_are_those_of_the_moment_it_was_asked(tmp_path: Path) -> None:
    """And the training goes on writing into its tensors while they are saved."""
    model = fresh()
    optimizer = Optimizer.of(
        model,
        matrix_learning_rate=0.02,
        learning_rate=1e-3,
        embedding_learning_rate=1e-2,
        weight_decay=0.0,
    )
    stepper, saver, go = Stepper(model, NextToken(), FP32), Saver(), Event()
    for step in range(4):
        at_once, later = tmp_path / f"at-once-{step}", tmp_path / f"later-{step}"
        at_once.mkdir()
        later.mkdir()
        now = state(model, optimizer, {"step": step}, step)
        now.write(at_once)

        def publish(copied: State, later: Path = later) -> None:
            go.wait(10)
            copied.write(later)

        go.clear()
        saver.save(now, publish)
        stepper.gradients(numbered(step), 1.0)
        optimizer.step(1.0)
        go.set()
        saver.wait()
        assert content(later) == content(at_once)
        assert content(at_once).keys() == {WEIGHTS, OPTIMIZER, "state.json"}


def test_one_is_in_flight_at_most() -> None:
    saver, said, one = Saver(), [], a_state()

    def publish(copied: State) -> None:
        before = float(copied.files[WEIGHTS]["a"][0, 0])
        time.sleep(0.05)
        said.append((before, float(copied.files[WEIGHTS]["a"][0, 0])))

    for value in (1.0, 2.0, 3.0):
        changed(one, value)
        saver.save(one, publish)
    saver.wait()
    assert said == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    assert 0.08 < saver.waited_s < 5


def refuses(copied: State) -> None:
    raise StoreError("the disk is full")


def is_over(saver: Saver) -> None:
    """What the loop asks after each step, until the save in flight is over."""
    for _ in range(500):
        saver.check()
        time.sleep(0.01)


@pytest.mark.parametrize("ask", [is_over, Saver.wait, lambda saver: saver.save(a_state(), print)])
def test_what_it_failed_with_is_raised_once(ask: Callable[[Saver], object]) -> None:
    saver = Saver()
    saver.save(a_state(), refuses)
    with pytest.raises(StoreError, match="the disk is full"):
        ask(saver)
    saver.wait()
    saver.save(a_state(), lambda copied: None)
    saver.wait()


def test_without_memory_for_a_copy_it_is_saved_at_once() -> None:
    one, given = a_state(), []
    for room, same in ((1, True), (10**9, False), (None, False)):
        saver = Saver(lambda room=room: room)
        saver.save(one, given.append)
        saver.wait()
        assert (given.pop() is one) is same


def test_a_state_that_takes_long_to_copy_is_saved_more_rarely() -> None:
    saver = Saver()
    assert saver.pause_s(30.0) == 30.0
    saver.last_s = 0.9
    assert saver.pause_s(30.0) == pytest.approx(0.9 / MOST_SHARE)
    saver.last_s = 1e6
    assert saver.pause_s(30.0) == 300.0
    assert saver.pause_s(0.0) == 0.0


# In a run


class Slow(Checkpoints):
    """A disk on which a save takes a while, and from one step on does something else."""

    def __init__(self, folder: Path, *, after: int, act: Callable[[Path], object]) -> None:
        super().__init__(folder)
        self.after, self.act = after, act

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        record: Mapping[str, Any] | None = None,
        *,
        spare: Collection[int] = (),
    ) -> Folder:
        """Slowly."""
        time.sleep(0.02)
        if step >= self.after:
            self.act(work_place(self.at(step)))
        return super().save(step, write, record, spare=spare)


def run(checkpoints: Checkpoints, steps: int, batches: Callable[[int], Any] = numbered) -> None:
    model = fresh()
    fit(
        Stepper(model, NextToken(), FP32),
        batches,
        settings(steps, checkpoint_every_s=0.0),
        scratch=True,
        evaluate=by_validation(model),
        checkpoints=checkpoints,
        ledger=Noted(),
    )


def test_a_disk_that_refuses_stops_the_run_and_what_was_saved_stays(tmp_path: Path) -> None:
    def refuse(work: Path) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        run(Slow(tmp_path, after=6, act=refuse), 20)
    newest = Checkpoints(tmp_path).newest()
    assert (newest.step, newest.refused) == (5, ())


def test_stopped_while_a_save_is_in_flight(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Slow(tmp_path, after=99, act=print), 20, stops_at(9))
    newest = Checkpoints(tmp_path).newest()
    assert (newest.step, newest.refused) == (9, ())
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("step-")]


def test_killed_while_a_save_is_in_flight(tmp_path: Path) -> None:
    """The one before is whole, and from there the run goes on to the same end."""

    def die(work: Path) -> None:
        work.mkdir()
        (work / WEIGHTS).write_bytes(b"half")
        os._exit(9)

    killed = tmp_path / "killed"
    child = os.fork()
    if child == 0:
        try:
            run(Slow(killed, after=8, act=die), 20)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    newest = Checkpoints(killed).newest()
    assert (newest.step, newest.refused) == (7, ())
    straight = trained(tmp_path / "straight", settings(20))
    found = trained(killed, settings(20))
    assert sorted(found.losses) == list(range(7, 20))
    assert found.weights == straight.weights
    assert found.losses == {step: straight.losses[step] for step in found.losses}
