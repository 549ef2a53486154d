"""FAULTS A16 in one piece: a training that is told to end saves, says so, and goes on when run
again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Call

from matura.core.store import Checkpoints

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"
STEPS, FEW = 468, 5
WORDS = [
    *("run", str(SMOKE), "--until", "base", "--set", f"stages.base.train.tokens={512 * STEPS}"),
    *("--set", "stages.base.train.evaluations=1"),
    *("--set", "stages.base.train.checkpoint_every_s=10000"),  # the signal's is the only one
]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the process that is terminated: the number of threads shows in the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(runs: Path) -> list[str]:
    """What the training has noted so far, a row each step."""
    found = runs.glob("smoke/base@1*/metrics.jsonl")
    return [line for path in found for line in path.read_text().splitlines()]


@pytest.mark.slow  # a process that imports torch, and twice 468 steps
@pytest.mark.usefixtures("one_thread")
def test_terminated_in_mid_training_and_run_again(call: Call, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-m", "matura", *WORDS, "--runs", str(stopped)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while len(rows(stopped)) < FEW:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (143, "matura: terminated")
    (state,) = stopped.glob("smoke/base@1*/state")
    newest = Checkpoints(state).newest()
    assert newest.refused == ()
    assert FEW <= newest.step < STEPS
    assert [path.name for path in state.iterdir()] == [f"step-{newest.step:08d}"]

    again = call([*WORDS, "--runs", stopped])
    assert again.code == 0
    assert f"resuming after step {newest.step}" in again.err
    assert call([*WORDS, "--runs", straight]).code == 0
    weights = [root / "smoke/base@1/model/model.safetensors" for root in (stopped, straight)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
