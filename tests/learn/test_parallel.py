"""Many processes: the same weights as one, whoever joins or leaves in mid-run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import STEPS, done, run

from matura.core.store import Checkpoints
from matura.learn import room
from matura.learn.gathering import block, shards_of, tree_sum
from matura.learn.team import Team

NAN, DRIFT = {"kind": "nan", "step": 6}, {"kind": "drifts", "step": 6}
slow = pytest.mark.slow  # starting two or four processes takes 10 to 20 s
HARDLY_ANY = 1000
"""Bytes of memory, too few for whatever cut."""
MANY = 32
"""Rows of a step, so that each of eight shards has some to be cut into."""
SHORT = {"exact": True, "rows": MANY, "memory": [None, HARDLY_ANY]}
TOLERANCE = 2e-5
"""Relative, of the weights after 16 steps in the default mode at any number of processes: the only
difference is in which order fp32 sums are made."""


@pytest.fixture(scope="module")
def exactly() -> Iterator[Team]:
    """One process in exact mode; threads as they were afterwards."""
    threads = torch.get_num_threads()
    yield Team(exact=True)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(exactly: Team, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process makes, in exact mode."""
    return run(tmp_path_factory.mktemp("alone"), exactly)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict[str, Any]]]]:
    """Two processes: exact, exact but stopped, and the default."""
    folder = tmp_path_factory.mktemp("two")
    facts = [{"recipe": "ab", "torch": "2"}, {"recipe": "cd", "torch": "2"}]
    tasks = [
        {"do": "run", "exact": True, "folder": str(folder / "whole")},
        {"do": "run", "exact": True, "folder": str(folder / "part"), "until": 7},
        {"do": "run", "folder": str(folder / "default")},
        {"do": "compare", "facts": [facts[0], facts[0]]},
        {"do": "compare", "facts": facts},
        {"do": "run", "folder": str(folder / "nan"), "faults": [{**NAN, "rank": 1}]},
        {"do": "run", "folder": str(folder / "drift"), "faults": [{**DRIFT, "rank": 1}]},
        {"do": "run", "folder": str(folder / "short"), **SHORT},
        {"do": "run", "folder": str(folder / "short part"), **SHORT, "until": 7},
    ]
    return folder, done(2, tasks, folder)


@slow
def test_two_make_what_one_makes(two: Any, alone: dict[str, Any]) -> None:
    for rank in two[1]:
        assert rank[0]["sha256"] == alone["sha256"]
        assert rank[0]["best"] == alone["best"]
    assert two[1][0][0]["losses"] == alone["losses"]


@slow
def test_a_checkpoint_is_written_in_parts_with_one_record(two: Any) -> None:
    folder = Checkpoints(two[0] / "part").newest().folder
    assert folder is not None
    assert sorted(folder.record["files"]) == [
        "optimizer-1-of-2.safetensors",
        "optimizer-2-of-2.safetensors",
        "state.json",
        "weights-1-of-2.safetensors",
        "weights-2-of-2.safetensors",
    ]


@slow
def test_the_number_changes_in_mid_run(
    two: Any, alone: dict[str, Any], exactly: Team, tmp_path: Path
) -> None:
    """Two processes, then one, then four."""
    state = tmp_path / "state"
    shutil.copytree(two[0] / "part", state)
    assert run(state, exactly, until=11) == {"stopped": 11}
    whole = tmp_path / "whole"
    tasks = [{"do": "run", "exact": True, "folder": str(at)} for at in (state, whole)]
    for rank in done(4, tasks, tmp_path):
        assert [task["sha256"] for task in rank] == [alone["sha256"]] * 2
        assert sorted(map(int, rank[0]["losses"])) == list(range(11, STEPS))


@slow
def test_without_the_record_it_is_no_checkpoint(two: Any, exactly: Team, tmp_path: Path) -> None:
    """What a rank that was killed between its part and the record leaves behind."""
    state = tmp_path / "state"
    shutil.copytree(two[0] / "part", state)
    newest = max(Checkpoints(state).steps())
    (Checkpoints(state).at(newest) / "record.json").unlink()
    (Checkpoints(state).at(newest) / "weights-2-of-2.safetensors").unlink()
    found = Checkpoints(state).newest()
    assert found.step == 5
    assert len(found.refused) == 1


@slow
def test_a_part_that_is_not_there_is_named(two: Any, exactly: Team, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(two[0] / "part", state)
    for step in Checkpoints(state).steps():
        (Checkpoints(state).at(step) / "weights-2-of-2.safetensors").unlink()
    assert "weights-2-of-2.safetensors: missing" in run(state, exactly)["refused"]


@slow
def test_the_default_mode_is_within_its_tolerance(two: Any, tmp_path: Path) -> None:
    whole = run(tmp_path, Team(exact=False))
    mine = torch.tensor(whole["weights"])
    for rank in two[1]:
        theirs = torch.tensor(rank[2]["weights"])
        assert float((mine - theirs).norm() / mine.norm()) < TOLERANCE
    assert two[1][0][2]["weights"] == two[1][1][2]["weights"]


@slow
def test_a_difference_is_refused_with_who_has_what(two: Any) -> None:
    for rank in two[1]:
        assert rank[3] == {}
        assert rank[4]["refused"] == "the processes differ in recipe (rank 0: ab; rank 1: cd)"


@slow
def test_all_decide_the_same_on_one_ranks_nan(two: Any) -> None:
    """Rank 1's gradients of step 6 are not numbers: no rank applies that step, and all go on."""
    first, second = (rank[5] for rank in two[1])
    assert first["sha256"] == second["sha256"]
    assert sorted(map(int, first["losses"])) == [step for step in range(STEPS) if step != 6]
    assert first["losses"] == second["losses"]


@slow
def test_weights_that_drift_apart_are_not_saved(two: Any) -> None:
    for rank in two[1]:
        assert "after step 7 (rank 0: " in rank[6]["refused"]
    assert Checkpoints(two[0] / "drift").newest().step == 6


@slow
def test_exact_whatever_memory_each_has(
    two: Any, exactly: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 computes layers again and rank 0 does not; then one process alone goes on, with the
    memory of rank 1."""
    whole = run(tmp_path / "whole", exactly, rows=MANY)
    first, second = (rank[7] for rank in two[1])
    assert first["sha256"] == second["sha256"] == whole["sha256"]
    assert first["losses"] == whole["losses"]
    ways = [found["memory"]["recompute"] for found in (whole, first, second)]
    assert ways == [False, False, True]
    monkeypatch.setattr(room, "bytes_left", lambda: HARDLY_ANY)
    shutil.copytree(two[0] / "short part", tmp_path / "state")
    last = run(tmp_path / "state", exactly, rows=MANY)
    assert last["sha256"] == whole["sha256"]
    assert last["memory"]["recompute"]


def test_a_batch_is_cut_without_loss() -> None:
    for rows in range(1, 40):
        for blocks in (1, shards_of(rows)):
            cuts = [block(rows, number, blocks) for number in range(blocks)]
            assert [row for cut in cuts for row in range(rows)[cut]] == list(range(rows))
            assert all(cut.stop > cut.start for cut in cuts)


def test_a_subtree_is_part_of_the_tree() -> None:
    """Sums of aligned blocks, summed, are the sum to the bit; a plain sum is not."""
    draws = torch.randn(8, 1000, generator=torch.Generator().manual_seed(0))
    whole = tree_sum([[draw.clone()] for draw in draws])[0]
    for size in (2, 4, 8):
        width = 8 // size
        parts = [
            tree_sum([[draw.clone()] for draw in draws[at : at + width]])
            for at in range(0, 8, width)
        ]
        assert torch.equal(tree_sum(parts)[0], whole)
    plain = torch.zeros(1000)
    for draw in draws:
        plain += draw
    assert not torch.equal(plain, whole)
