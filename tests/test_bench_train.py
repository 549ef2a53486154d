"""`bench/train.py`: arithmetic is counted, turns are taken, the best peer is compared with."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent / "bench"
READY = {"first_step_s": 30.0, "threads": 1, "compute": "x", "versions": "y 1"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of `bench/`, imported as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def test_arithmetic_is_counted(bench: Any) -> None:
    tiny = bench("train_ours").SHAPES["tiny"]
    layer = 4 * 192 * 192 + 3 * 192 * 512
    matrices = 6 * (4 * layer + 2048 * 192)
    attention = 12 * 4 * 192 * 256
    assert tiny.flops_per_token(0.0) == matrices
    assert tiny.flops_per_token(1.0) == matrices + attention
    assert tiny.flops_per_token(0.5) == matrices + attention / 2
    assert tiny.tokens == 4096


def test_bf16_is_asked_for_only_where_it_is(bench: Any) -> None:
    train = bench("train")
    wide = train.commands("small", True, 3, 1.0, Path("p"))
    narrow = train.commands("small", False, 3, 1.0, Path("p"))
    assert [*wide] == [
        "fit",
        "fit_eager",
        "loop_fp32",
        "loop_bf16",
        "loop_bf16_compiled",
        "trainer_bf16",
        "litgpt_bf16_compiled",
    ]
    assert not [word for words in narrow.values() for word in words if "bf16" in word]
    assert [*narrow][2:] == [
        "loop_fp32",
        "loop_fp32_compiled",
        "trainer_fp32",
        "litgpt_fp32_compiled",
    ]
    assert "litgpt" not in " ".join(train.commands("small", True, 3, 1.0, None))
    shape = json.loads(wide["loop_fp32"][4])
    assert (shape["hidden_size"], shape["vocab_size"]) == (256, 4096)
    assert "--rows=8" in wide["loop_fp32"]
    # every contender takes the turns of both halves
    assert all("--rounds=6" in words for words in wide.values())


def test_the_best_peer_of_each_half_is_what_counts(bench: Any) -> None:
    train, contender = bench("train"), bench("contender")
    rates = {
        # as shipped three rounds, then three with the same allocator
        "fit": [100, 110, 120, 100, 110, 120],
        "fit_eager": [50, 55, 60, 50, 55, 60],
        "loop_fp32": [50, 50, 50, 80, 80, 80],
        "litgpt_fp32_compiled": [60, 60, 60, 70, 70, 70],
    }
    found = {}
    for name, values in rates.items():
        made = found[name] = contender.Contender(name, [], {})
        made.ready = READY | {"bf16": False, "without": []}
        made.turns = [{"trained": float(value), "seconds": 1.0} for value in values]
    found["fit_eager"].ready = found["fit_eager"].ready | {"first_step_s": 4.0}
    tiny = bench("train_ours").SHAPES["tiny"]
    said = train.report(tiny, found, 3, {"fp32": [10.0, 20.0, 30.0]})
    assert (said["mode"], said["tok_s"]) == ("fp32", 110)
    assert (said["best"], said["ratio_best"]) == ("litgpt_fp32_compiled", 1.83)
    assert said["best_same_allocator"] == "loop_fp32"
    assert said["ratio_best_same_allocator"] == 1.38
    assert said["mfu"] == pytest.approx(110 * tiny.flops_per_token(0.5) / 20e9, rel=0.01)
    assert said["ratio"]["fit_eager"] == 2.0
    # twice as fast but 26 s later: at 56 s both have done 52 s of eager work
    assert said["earned_back_s"] == 56.0


def test_compiling_is_earned_back_or_not(bench: Any) -> None:
    earned = bench("train").earned_back_s
    assert earned(30.0, 4.0, 0.9) is None
    assert earned(30.0, 4.0, 1.0) is None
    assert earned(3.0, 4.0, 2.0) == 3.0


def test_a_peer_clocks_its_turns(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = bench("train_peers")
    now = [100.0]
    kept: list[bool] = []
    monkeypatch.setattr(peers.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(peers, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nkeep\n"))
    out = io.StringIO()
    turns = peers.Turns(out, 2, 4.0, 10, {"compute": "fp32"})
    steps = 0
    while True:
        now[0] += 1.0
        steps += 1
        if turns.stepped():
            break
        assert steps < 100
    ready, first, second = map(json.loads, out.getvalue().splitlines())
    assert ready["compute"] == "fp32"
    assert "first_step_s" in ready
    # two uncounted and one to calibrate, then twice one uncounted and four counted
    assert first == second == {"seconds": 4.0, "trained": 40}
    assert steps == 3 + 2 * 5
    assert kept == [True]


@pytest.mark.slow
def test_fit_takes_turns_with_a_peer(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("MATURA_COMPILE", "0")
    train = bench("train")
    started = train.commands("mini", False, 1, 0.1, None)
    asked = {name: started[name] for name in ("fit", "fit_eager", "loop_fp32")}
    between: list[int] = []
    found = train.race(asked, 1, lambda: between.append(1), tmp_path)
    assert len(between) == 2
    assert all(len(each.turns) == 2 for each in found.values())
    said = train.report(
        bench("train_ours").SHAPES["mini"], found, 1, {"fp32": [1.0], "bf16": [1.0]}
    )
    assert said["tok_s"] > 0
    assert said["best"] == "loop_fp32"
    assert 0 < said["first_step_s"] < 600
