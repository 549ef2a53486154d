"""FAULTS A11: a process of several is killed while a checkpoint is saved, after it wrote its part
or before the record of all parts: the checkpoint before is the one that all go on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ranked
import torch
from test_processes import supervised, told  # noqa: F401  a fixture

from matura.core.store import Checkpoints
from matura.learn.team import Team

LAST = 8


@pytest.mark.slow  # three starts of two processes
def test_killed_between_its_part_and_the_record(
    tmp_path: Path,
    told: list[str],  # noqa: F811
) -> None:
    faults = [
        {"rank": 1, "step": 3, "kind": "killed after its part"},
        {"rank": 0, "step": LAST, "kind": "killed before the record"},
    ]
    assert supervised(tmp_path, told, faults) == 0
    killed = [line for line in told if "was killed by SIGKILL" in line]
    assert [line.split()[2] for line in killed] == ["1", "0"], told
    threads = torch.get_num_threads()
    alone = ranked.run(tmp_path / "alone", Team(exact=True))
    torch.set_num_threads(threads)
    for rank in range(2):
        (found,) = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert found["sha256"] == alone["sha256"]
    leader = json.loads((tmp_path / "rank-0.json").read_text())[0]
    assert min(map(int, leader["losses"])) == LAST  # nothing of the torn one was taken
    assert Checkpoints(tmp_path / "state").newest().refused == ()
    assert not list((tmp_path / "state").glob("*.work"))


@pytest.mark.slow  # two starts of two processes
def test_a_disk_without_room_for_one_part_is_one_cause(
    tmp_path: Path,
    told: list[str],  # noqa: F811
) -> None:
    """Found in the background, told once, after the same step in all."""
    fault = {"rank": 1, "step": 3, "kind": "cannot write its part"}
    assert supervised(tmp_path, told, [fault]) == 0
    assert told == [
        "matura: rank 1: step-00000004.work: cannot write: No space left on device",
        "matura: going on from the newest checkpoint (restart 1 of 3)",
    ]
    (leader,), (other,) = (
        json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)
    )
    assert min(map(int, leader["losses"])) == 3
    assert leader["sha256"] == other["sha256"]
    assert not list((tmp_path / "state").glob("*.work"))
