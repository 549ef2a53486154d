"""One model shared out: what one process makes, whoever joins or leaves in mid-run."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import STEPS, TIMEOUT_S, done, run, started
from safetensors import safe_open
from tiny import fresh

from matura.core.store import Checkpoints
from matura.learn.optim import orthogonalised
from matura.learn.sharded_optim import orthogonal, owners
from matura.learn.step import Stepper
from matura.learn.team import Team
from matura.models.pieces import mine, rows_mine, rows_of, whole

slow = pytest.mark.slow  # starting two or three processes takes 10 to 20 s
TOLERANCE = 1e-6
"""Relative, of the weights after 16 steps: sums in another order; 7e-8 was measured."""
NEAR = 1e-5
"""Nats that the loss of a step may differ by."""
TWO = {"layers": 2}
TIED = {"layers": 2, "tie_embeddings": True}
FEW = {"micro_rows": 2}
LORA = {"shape": TWO, "adapters": True}
BACK = {5: [7, 8, 9], 0: [2, 3, 4]}
"""Steps in a row whose gradients are not numbers, by the good state before them."""


def sharded(size: int, tasks: list[dict[str, Any]], folder: Path) -> list[list[dict[str, Any]]]:
    """What each of so many processes made of each task."""
    return done(size, tasks, folder, MATURA_SHARD="1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    """What one process makes."""
    tasks = {"two": {"shape": TWO}, "tied": {"shape": TIED}, "lora": LORA}
    tasks |= {f"back {to}": going_back(to, rank=0) for to in BACK}
    folder, whole = tmp_path_factory.mktemp("alone"), Stepper.gradients
    try:
        return {n: run(folder / n, Team(exact=False), **task) for n, task in tasks.items()}
    finally:
        Stepper.gradients = whole  # type: ignore[method-assign]


def going_back(to: int, rank: int) -> dict[str, Any]:
    """A run in which one rank's gradients are not numbers three times in a row."""
    faults = [{"kind": "nan", "step": step, "rank": rank} for step in BACK[to]]
    return {"shape": TWO, "how": {"good_every": 5}, "faults": faults}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Three processes, so that rows and micro-batches come out uneven."""
    folder = tmp_path_factory.mktemp("three")
    tasks = [
        {"do": "run", "folder": str(folder / "tied"), "shape": TIED, "how": FEW, "only": 1},
        {"do": "run", "folder": str(folder / "part"), "shape": TWO, "until": 7},
        {
            "do": "run",
            "folder": str(folder / "nan"),
            "shape": TWO,
            "faults": [{"kind": "nan", "step": 6, "rank": 1}],
        },
        {"do": "run", "folder": str(folder / "lora"), **LORA},
        {"do": "run", "folder": str(folder / "lora part"), **LORA, "until": 7},
        *(
            {"do": "run", "folder": str(folder / f"back {to}"), **going_back(to, rank=1)}
            for to in BACK
        ),
    ]
    return folder, sharded(3, tasks, folder)


def assert_like(found: Mapping[str, Any], one: Mapping[str, Any]) -> None:
    """The same losses and weights but for the order of sums."""
    for step, loss in found["losses"].items():
        assert abs(loss - one["losses"][step]) < NEAR, step
    theirs, ours = torch.tensor(one["weights"]), torch.tensor(found["weights"])
    assert float((ours - theirs).norm() / theirs.norm()) < TOLERANCE
    assert found["best"] == one["best"]


@slow
def test_three_make_what_one_makes(three: Any, alone: Mapping[str, Any]) -> None:
    """Tied; 2, 3 and 3 rows, and what one of them asks for, two at once, holds for all; matrices
    of 32 rows in 11, 11 and 10."""
    assert_like(three[1][0][0], alone["tied"])
    assert len({str(rank[0]["losses"]) for rank in three[1]}) == 1


@slow
def test_each_has_its_share_of_the_weights(three: Any, alone: Mapping[str, Any]) -> None:
    shares = [rank[0]["bytes"] for rank in three[1]]
    assert sum(shares) == alone["tied"]["bytes"]
    assert max(shares) < 1.05 * alone["tied"]["bytes"] / 3


@slow
def test_a_checkpoint_has_each_ones_rows_and_one_record(three: Any) -> None:
    folder = Checkpoints(three[0] / "part").newest().folder
    assert folder is not None
    assert len([name for name in folder.record["files"] if name.endswith(".safetensors")]) == 6
    rows = 0
    for rank in (1, 2, 3):
        with safe_open(folder.file(f"weights-{rank}-of-3.safetensors"), "pt") as file:
            rows += file.get_slice("lm_head.weight").get_shape()[0]
    assert rows == fresh().config.vocab_size


@slow
def test_the_number_changes_in_mid_run(
    three: Any, alone: Mapping[str, Any], tmp_path: Path
) -> None:
    """Three that share out, then two that do, then one that has all; and a replica after them."""
    state = three[0] / "part"
    tasks = [{"do": "run", "folder": str(state), "shape": TWO, "until": 11}]
    assert sharded(2, tasks, tmp_path) == [[{"stopped": 11}]] * 2
    last = run(state, Team(exact=False), shape=TWO)
    assert sorted(map(int, last["losses"])) == list(range(11, STEPS))
    assert_like(last, alone["two"])


@slow
def test_all_pass_over_one_ranks_nan(three: Any) -> None:
    first, *others = (rank[2] for rank in three[1])
    assert sorted(map(int, first["losses"])) == [step for step in range(STEPS) if step != 6]
    assert all(other["losses"] == first["losses"] for other in others)


@slow
def test_adapters_are_shared_out(three: Any, alone: Mapping[str, Any], tmp_path: Path) -> None:
    """What learns and what is frozen; merged by the leader; and one process alone goes on."""
    one, found = alone["lora"], three[1][0][3]
    assert_like(found, one)
    assert found["merged"] == pytest.approx(one["merged"], rel=1e-6)
    files = Checkpoints(three[0] / "lora").newest().folder
    assert files is not None
    with safe_open(files.file("weights-2-of-3.safetensors"), "pt") as file:
        assert all(".lora." in name for name in file.keys())  # noqa: SIM118  it is no dict
    last = run(three[0] / "lora part", Team(exact=False), **LORA)
    assert sorted(map(int, last["losses"])) == list(range(7, STEPS))
    assert_like(last, one)


@slow
@pytest.mark.parametrize("to", BACK)
def test_all_go_back_to_the_good_state(to: int, three: Any, alone: Mapping[str, Any]) -> None:
    """Of one rank's gradients, and leave out the steps that one process leaves out."""
    one, ranks = alone[f"back {to}"], [rank[5 + [*BACK].index(to)] for rank in three[1]]
    assert one["done"] == ["passed over", "passed over", f"back to step {to}"]
    assert [rank["done"] for rank in ranks] == [one["done"]] * 3
    assert ranks[0]["losses"].keys() == one["losses"].keys()
    assert_like(ranks[0], one)


@slow
def test_a_killed_one_stops_all_and_the_rest_is_the_same(
    alone: Mapping[str, Any], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    fault = {"kind": "killed", "step": 9, "rank": 1}
    task = {"do": "run", "folder": str(state), "shape": TWO, "faults": [fault]}
    ranks = started(2, [task], tmp_path, MATURA_SHARD="1")
    said = [rank.communicate(timeout=TIMEOUT_S)[1] for rank in ranks]
    assert ranks[1].returncode == -signal.SIGKILL
    assert ranks[0].returncode == 1, said
    assert "rank 1" in said[0]
    newest = Checkpoints(state).newest().step
    assert newest in (8, 9)  # that of step 9 may not have been whole yet
    found = sharded(2, [task], tmp_path)[0][0]
    assert sorted(map(int, found["losses"])) == list(range(newest, STEPS))
    assert_like(found, alone["two"])


def test_rows_are_cut_without_loss() -> None:
    for rows in range(1, 20):
        for size in range(1, 8):
            cuts = [rows_of(rows, rank, size) for rank in range(size)]
            assert [row for cut in cuts for row in range(rows)[cut]] == list(range(rows))


def test_a_weight_that_is_not_sharded_is_all_mine() -> None:
    weight = fresh().lm_head.weight
    assert torch.equal(mine(weight), weight)
    assert torch.equal(whole(weight), weight)
    assert rows_mine(weight) == slice(0, len(weight))
    assert mine(weight).data_ptr() == weight.data_ptr()


def test_owners_have_about_the_same_work() -> None:
    shapes = {f"{n}": (64 * (1 + n % 4), 64) for n in range(40)}
    found = owners(shapes, 4)
    loads = [0] * 4
    for name, (rows, columns) in shapes.items():
        loads[found[name]] += rows * columns * min(rows, columns)
    assert max(loads) < 1.1 * min(loads)


def test_matrices_of_all_shapes_are_orthogonalised() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {"a": (8, 4), "b": (4, 8), "c": (8, 8), "d": (4, 8)}
    given = {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    made = orthogonal(given, torch.float32)
    for name, matrix in given.items():
        tall = len(matrix) > matrix.shape[1]
        one = orthogonalised((matrix.mT if tall else matrix)[None], torch.float32)[0]
        torch.testing.assert_close(made[name], one.mT if tall else one)
