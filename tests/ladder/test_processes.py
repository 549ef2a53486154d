"""Processes that die, hang, fail or cannot meet: one cause, a bounded number of restarts, the same
weights in the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ranked
import torch

from matura.core.errors import RankError
from matura.ladder.processes import supervise
from matura.ladder.recipe import load
from matura.ladder.together import facts
from matura.learn.rendezvous import meet
from matura.learn.team import Team

RANKED = (sys.executable, ranked.__file__)
SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a supervisor says; its processes are quick to give one up."""
    here = Path(ranked.__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here.parent}{os.pathsep}{here}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MATURA_SILENT_S", "6")
    return []


def supervised(tmp_path: Path, told: list[str], faults: list[dict[str, Any]]) -> int:
    """The tiny run in two processes, exact, with these faults."""
    task = {"do": "run", "exact": True, "folder": str(tmp_path / "state"), "faults": faults}
    spelled = [json.dumps([task]), str(tmp_path)]
    return supervise(spelled, 2, logs=tmp_path / "logs", tell=told.append, command=RANKED)


@pytest.mark.slow  # four starts of two processes: 20 s on idle cores
def test_killed_stopped_and_failed_it_ends_with_the_same_weights(
    tmp_path: Path, told: list[str]
) -> None:
    faults = [
        {"rank": 1, "step": 4, "kind": "killed"},
        {"rank": 1, "step": 8, "kind": "stopped"},
        {"rank": 0, "step": 12, "kind": "killed"},
    ]
    assert supervised(tmp_path, told, faults) == 0
    assert told[0] == "matura: rank 1 was killed by SIGKILL at step 4"
    assert told[1] == "matura: going on from the newest checkpoint (restart 1 of 3)"
    assert told[2].startswith("matura: rank 1 was not heard for ")
    assert told[2].endswith("last in step 8: reading the batch")
    assert told[4] == "matura: rank 0 was killed by SIGKILL at step 12"
    assert len(told) == 6
    threads = torch.get_num_threads()
    alone = ranked.run(tmp_path / "alone", Team(exact=True))
    torch.set_num_threads(threads)
    for rank in range(2):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert found[0]["sha256"] == alone["sha256"]


@pytest.mark.slow  # three starts of two processes
def test_who_fails_at_one_step_three_times_is_not_started_again(
    tmp_path: Path, told: list[str]
) -> None:
    fault = {"rank": 1, "step": 2, "kind": "raises", "always": True}
    assert supervised(tmp_path, told, [fault]) == 1
    causes = [line for line in told if "the disk is on fire" in line]
    assert causes == ["matura: rank 1: OSError: the disk is on fire"] * 3
    assert "failed 3 times at step 2" in told[-1]


@pytest.mark.slow  # two processes, and three seconds of silence
def test_a_rank_that_hangs_is_named_with_what_it_did(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It beats, but does not get on: an endless loop in what reads a batch."""
    monkeypatch.setenv("MATURA_STUCK_S", "3")
    monkeypatch.setattr("matura.ladder.processes.RESTARTS", 0)
    fault = {"rank": 1, "step": 2, "kind": "stuck"}
    assert supervised(tmp_path, told, [fault]) == 1
    assert told[0].startswith("matura: rank 1 hangs: ")
    assert told[0].endswith(" s in step 2: reading the batch")
    assert len(told) == 2


# Meeting


def alone(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    usual = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    for name, value in (usual | environment).items():
        monkeypatch.setenv(name, value)


def test_a_port_that_is_taken_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        alone(monkeypatch, MASTER_PORT=str(taken.getsockname()[1]))
        began_s = time.monotonic()
        with pytest.raises(RankError, match=r"cannot be opened at 127\.0\.0\.1"):
            meet(timeout_s=60)
        assert time.monotonic() - began_s < 30  # it did not wait for it


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch, RANK="1", MASTER_PORT=str(ranked.free_port()))
    with pytest.raises(RankError, match="rank 0 does not answer there"):
        meet(timeout_s=0.5)


def test_too_few_come_and_only_loopback_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong number of processes is an error that names who is missing."""
    port = ranked.free_port()
    alone(monkeypatch, MASTER_PORT=str(port), WORLD_SIZE="3")
    with pytest.raises(RankError, match=r"only 1 of 3 processes came within 1 s: no rank 1, 2"):
        meet(timeout_s=1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"RANK": "2"}, "RANK=2 of WORLD_SIZE=2: expected 0 to 1"),
        ({"RANK": "one"}, "RANK=one: expected a number"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MATURA_SILENT_S": "soon"}, "MATURA_SILENT_S=soon: expected seconds"),
    ],
)
def test_what_the_environment_says_is_checked(
    wrong: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch, **({"MASTER_PORT": str(ranked.free_port())} | wrong))
    with pytest.raises(RankError, match=said):
        meet(timeout_s=1)


def test_the_store_listens_on_loopback_only() -> None:
    """Seen from outside, by the system's own table of sockets."""
    port = ranked.free_port()
    code = "import sys; from matura.learn.rendezvous import meet; m = meet(timeout_s=60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=ranked.environment(0, 2, port),
        stderr=subprocess.DEVNULL,
    )
    try:
        until_s = time.monotonic() + 60
        while not (bound := listening(port)) and time.monotonic() < until_s:
            time.sleep(0.1)
        assert bound == {"0100007F"}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def listening(port: int) -> set[str]:
    """The addresses, as `/proc` spells them, on which that port is open."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if int(number, 16) == port and state == "0A":
                found.add(address)
    return found


def test_what_must_agree_names_every_place_of_a_recipe_and_every_file() -> None:
    one, other = facts(load(SMOKE)), facts(load(SMOKE, ["stages.base.train.tokens=70000"]))
    assert [name for name in one if one[name] != other[name]] == ["recipe: stages.0.train.tokens"]
    assert "code: matura/learn/parallel.py" in one
