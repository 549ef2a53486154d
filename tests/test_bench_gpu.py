"""`bench/gpu.py`: counted are the operations and bytes there must be, and nothing said is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import gpu, gpu_part

ROOT = Path(__file__).resolve().parent.parent


def test_the_operations_are_those_of_the_weights_and_the_pairs() -> None:
    shape = gpu_part.SHAPES["tiny"]
    c, tokens = shape.config, 4 * 128
    within = 2 * (4 * 64 * 64 + 3 * 64 * 192) + 2 * 5 * 64 // 2 + 64  # gains count as products do
    weights = c.parameters - 512 * 64
    assert weights - 512 * 64 == pytest.approx(within, rel=0.01)
    batch = gpu_part.packed(shape)
    seen = batch.segments_BL[:, :, None] == batch.segments_BL[:, None, :]
    pairs = int(seen.tril().sum())
    expected = 6 * weights * tokens + 2 * 12 * 64 * pairs
    assert gpu_part.flops_of(shape) == pytest.approx(expected)


def test_sizes_are_what_they_are_called() -> None:
    for name, size in (("124M", 124e6), ("561M", 561e6), ("1.5B", 1.5e9)):
        assert gpu_part.SHAPES[name].config.parameters == pytest.approx(size, rel=0.03)
    assert set(gpu.NAMES) == gpu_part.SHAPES.keys()


def test_a_step_reads_each_weight_and_what_was_told() -> None:
    c = gpu_part.SHAPES["tiny"].config
    read = gpu_part.read_bytes(c, 3, 4, 10)
    assert read == 4 * (c.parameters - 512 * 64) + 3 * 4 * (2 * 2 * 64 * 10)


@pytest.mark.parametrize(
    ("then", "why"),
    [
        ("raise SystemExit(0)", None),
        ("raise ValueError('too large')", "exit code 1: ValueError: too large"),
        ("import time; time.sleep(60)", "stopped after 5 s"),
    ],
)
def test_what_was_said_before_the_end_is_kept(then: str, why: str | None) -> None:
    line = json.dumps({"part": "train", "tok_s": 3})
    found = gpu.said([sys.executable, "-c", f"print({line!r}, flush=True); {then}"], 5.0)
    assert found[0] == {"part": "train", "tok_s": 3}
    assert [row.get("why") for row in found[1:]] == ([] if why is None else [why])


def test_shares_are_of_the_card_and_of_what_was_measured() -> None:
    row: dict[str, Any] = {
        "train": {"flops_s": 400e12, "tok_s": 6.0},
        "theirs_train": {"tok_s": 3.0},
        "batch1": {"tok_s": 2.0, "bytes_s": 1e12},
    }
    gpu.judged(row, {"name": "NVIDIA H200", "gemm_flops_s": 800e12, "read_bytes_s": 4e12})
    assert row["train"]["mfu"] == pytest.approx(400 / 989)
    assert row["train"]["share_of_gemm"] == 0.5
    assert row["train"]["ratio"] == 2.0
    assert row["batch1"]["share_of_bandwidth"] == 0.25
    unknown: dict[str, Any] = {"train": {"flops_s": 1.0, "tok_s": 1.0}}
    gpu.judged(unknown, {"name": "cpu", "gemm_flops_s": 4.0, "read_bytes_s": 1.0})
    assert (unknown["train"]["mfu"], unknown["train"]["share_of_gemm"]) == (None, 0.25)


@pytest.mark.slow
def test_the_whole_of_it_on_a_cpu() -> None:
    command = [sys.executable, "bench/gpu.py", "--device", "cpu", "--shapes", "tiny"]
    done = subprocess.run(
        [*command, "--no-peers", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["shapes"]["tiny"]
    assert row.keys() == {"train", "save", "batch1", "batch32"}
    assert row["train"]["losses"][0] > row["train"]["losses"][1]
    assert row["train"]["share_of_gemm"] > 0  # how much it is depends on who else is at work
    assert all(row[part]["tok_s"] > 0 for part in ("train", "batch1", "batch32"))
