"""Bits per byte after so many seconds from a cold start: Matura beside `transformers` with AdamW.

The same files, tokens and tokenizer, a Llama of the same shape, two cores, one at a time. A run is
a process: imports and compiling are part of its time, measuring at the end is not. The peer's
learning rate is tuned at the shortest time over `RATES`, and at each longer one the best of those
and its half are tried; the best it ever got at a time is what counts.

    .venv/bin/python bench/quality.py --seconds 60 120 300 --json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timing
import torch
from quality_data import prepare
from quality_ours import DECAY, ROWS
from quality_plot import drawing
from train_ours import SHAPES

from matura.core.disk import replace_atomically
from matura.learn.compute import choose

BENCH = Path(__file__).resolve().parent
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
PLOT = BENCH / "plots" / "quality.svg"


def run(command: Sequence[str], cache: Path) -> dict[str, Any]:
    """What a process says that starts now, cold."""
    surroundings = os.environ | {
        "BENCH_BEGAN": str(time.time()),
        "HF_HOME": str(cache / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "compiled"),
    }
    done = subprocess.run(command, env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    print(f"{Path(command[1]).stem} {' '.join(command[3:])}: {found['bpb']:.4f}", file=sys.stderr)
    return found


def rates_to_try(seconds: Sequence[float], tried: Mapping[float, float], at: float) -> list[float]:
    """All of `RATES` at the shortest time; later the best there and its half. `tried`: bits per
    byte at the shortest time, by rate."""
    if at == min(seconds):
        return list(RATES)
    best = min(tried, key=tried.__getitem__)
    return [best, best / 2]


def measure(
    shape: str, seconds: Sequence[float], folder: Path, *, clock: str = "wall", plain: bool = False
) -> dict[str, Any]:
    """Both sides at every time."""
    data = folder / "data"
    data.mkdir()
    said = prepare(data, SHAPES[shape])
    wide = choose(0.0).dtype is torch.bfloat16
    ours: dict[str, Any] = {}
    like_theirs: dict[str, Any] = {}
    theirs: dict[str, list[dict[str, Any]]] = {}
    tried: dict[float, float] = {}
    for at in sorted(seconds):
        name = f"{at:g}"
        common = [f"--shape={shape}", f"--seconds={at}", f"--clock={clock}"]
        for results, more in ((ours, []), (like_theirs, ["--plain"])):
            if more and not plain:
                continue
            cold = folder / f"cold-{name}-{len(more)}"
            start = [sys.executable, str(BENCH / "quality_ours.py"), str(data), str(cold / "out")]
            results[name] = run([*start, *common, *more], cold)
        theirs[name] = []
        for rate in rates_to_try(seconds, tried, at):
            start = [sys.executable, str(BENCH / "quality_peer.py"), str(data), *common]
            told = [f"--rows={ROWS}", f"--decay={DECAY}", f"--bf16={int(wide)}", f"--rate={rate:g}"]
            found = run([*start, *told], folder / "peer")
            theirs[name].append(found)
            if at == min(seconds):
                tried[rate] = found["bpb"]
    return report(said, ours, theirs, like_theirs) | {"shape": shape, "machine": timing.here()}


def report(
    data: Mapping[str, Any],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Sequence[Mapping[str, Any]]],
    like_theirs: Mapping[str, Any],
) -> dict[str, Any]:
    """The best of each side at each time, and all runs."""
    best = {at: min(found, key=lambda one: float(one["bpb"])) for at, found in theirs.items()}
    return {
        "bpb": {at: round(found["bpb"], 4) for at, found in ours.items()},
        "bpb_same_architecture": {at: round(one["bpb"], 4) for at, one in like_theirs.items()},
        "bpb_transformers": {at: round(found["bpb"], 4) for at, found in best.items()},
        "lowest_everywhere": all(ours[at]["bpb"] < best[at]["bpb"] for at in ours),
        "tokens": {at: found["tokens"] for at, found in ours.items()},
        "tokens_transformers": {at: found["tokens"] for at, found in best.items()},
        "rate_transformers": {at: found["rate"] for at, found in best.items()},
        "runs": dict(ours),
        "runs_same_architecture": dict(like_theirs),
        "runs_transformers": {at: list(found) for at, found in theirs.items()},
        "data": dict(data),
    }


def main() -> int:
    """Parses, measures, prints, draws."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--seconds", type=float, nargs="+", default=[60.0, 120.0, 300.0])
    about.add_argument("--shape", choices=SHAPES, default="small")
    about.add_argument("--clock", choices=["wall", "busy"], default="wall")
    about.add_argument("--plain", action="store_true", help="ours with the peer's layers, too")
    about.add_argument("--plot", type=Path, default=PLOT)
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        found = measure(
            asked.shape, asked.seconds, Path(folder), clock=asked.clock, plain=asked.plain
        )
    asked.plot.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(asked.plot, drawing(found).encode())
    if asked.json:
        print(json.dumps(found))
        return 0
    print(f"bits per byte of {found['data']['held_out_bytes']:,} held-out bytes, {found['shape']}")
    print(f"{'seconds':>9}{'matura':>10}{'transformers':>14}{'its rate':>10}")
    for at, value in found["bpb"].items():
        theirs, rate = found["bpb_transformers"][at], found["rate_transformers"][at]
        print(f"{at:>9}{value:>10.3f}{theirs:>14.3f}{rate:>10g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
