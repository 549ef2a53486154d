"""What exactness costs: the document mask, saving, and going on after `kill -9`.

Each is measured on the shape of `recipes/quickstart.yaml`, turn by turn, medians of all turns.

    .venv/bin/python bench/cost.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import timing
import torch
from torch import Tensor
from watch import processes

from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.compute import Compute, choose
from matura.learn.loop import fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.run import Evaluation
from matura.learn.saving import Saver
from matura.learn.schedule import Schedule
from matura.learn.settings import Settings
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig
from matura.stages.parts import Train

ROOT = Path(__file__).resolve().parent.parent
RECIPE, STAGE = ROOT / "recipes" / "quickstart.yaml", "base"
SHAPE = DecoderConfig(
    vocab_size=2048, hidden_size=192, layers=4, heads=6, kv_heads=6, sequence_length=256
)
DOCUMENTS = 4
"""In a row, on average: the quickstart's chats are about 60 tokens long."""
SAVE_EVERY = 2
"""Steps between saves, so that one is over before the next begins, as at the usual interval."""
LOOK_S, HANGS_S = 0.01, 1800.0


class Causal(Stepper):
    """A stepper for which a row is one document, whatever it holds."""

    def _reach(self, segments_BT: Tensor, like: Tensor) -> Tensor:
        return super()._reach(torch.ones_like(segments_BT), like)


def packed(rows: int, documents: int, step: int = 0) -> Batch:
    """Rows of random ids, each of about so many documents."""
    draw = np.random.default_rng(step)
    size = (rows, SHAPE.sequence_length + 1)
    ids = draw.integers(3, SHAPE.vocab_size, size)
    segments = np.ones(size, dtype=np.int64)
    for row in segments:
        for cut in draw.integers(1, size[1], documents - 1):
            row[cut:] += 1
    return Batch.of(ids, np.ones(size, dtype=np.float32), segments, f"rows of step {step}")


def turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each way, in turn, for other work changes these the least; who begins
    changes too, and a first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.process_time()
            ways[name]()
            if number:
                found[name].append(time.process_time() - began)
    return found


def mask(rounds: int, rows: int, compute: Compute) -> dict[str, Any]:
    """A step's gradient with rows of several documents and with the same rows as one each."""
    model = Decoder(SHAPE).start(seeded(0)).to(compute.device)
    batch = packed(rows, DOCUMENTS).to(compute.device)
    many, plain = Stepper(model, NextToken(), compute), Causal(model, NextToken(), compute)

    def once(stepper: Stepper) -> None:
        stepper.gradients(batch, 1.0)
        for weight in model.parameters():
            weight.grad = None

    found = turns({"documents": lambda: once(many), "causal": lambda: once(plain)}, rounds)
    medians = {f"{name}_cpu_s": statistics.median(took) for name, took in found.items()}
    return {**medians, "ratio": timing.ratio(found["documents"], found["causal"])}


def saving(saves: int, folder: Path, compute: Compute) -> dict[str, Any]:
    """What a save makes the training wait, and that as a share of the usual interval."""
    waits: list[float] = []
    used: list[float] = []
    save = Saver.save

    def timed(self: Saver, *given: Any) -> None:
        began, cpu_s = time.perf_counter(), time.thread_time()
        save(self, *given)
        waits.append(time.perf_counter() - began)
        used.append(time.thread_time() - cpu_s)

    rows, steps = 1, SAVE_EVERY * (saves + 1)
    how = Settings(
        steps=steps,
        schedule=Schedule(steps * rows * SHAPE.sequence_length, 0, 0),
        tokens_per_step=rows * SHAPE.sequence_length,
        learning_rate=1e-3,
        embedding_learning_rate=1e-2,
        matrix_learning_rate=1e-3,
        weight_decay=0.0,
        clip=1.0,
        evaluate_at=frozenset({steps}),
        checkpoint_every_s=1e9,
        good_every=SAVE_EVERY,
    )
    model = Decoder(SHAPE).start(seeded(0)).to(compute.device)
    Saver.save = timed  # type: ignore[method-assign, assignment]
    try:
        fit(
            Stepper(model, NextToken(), compute),
            lambda step: packed(rows, DOCUMENTS, step),
            how,
            scratch=True,
            evaluate=lambda step: Evaluation({"nothing": 1.0}),
            checkpoints=Checkpoints(folder / "state"),
            ledger=Ledger(folder, "cost", mode="quiet"),
        )
    finally:
        Saver.save = save  # type: ignore[method-assign]
    every_s = Train().checkpoint_every_s
    first, later = waits[0], waits[1:saves]
    return {
        "saves": len(later),
        "state_bytes": sum(p.stat().st_size for p in (folder / "state").glob("*/*")) // 2,
        "first_wait_s": first,
        "wait_s": statistics.median(later),
        "longest_wait_s": max(later),
        "wait_cpu_s": statistics.median(used[1:saves]),
        "every_s": every_s,
        "share": statistics.median(later) / every_s,
    }


def started(runs: Path, log: Path) -> subprocess.Popen[bytes]:
    """`matura run` of the base stage, which saves every other second."""
    sets = f"stages.{STAGE}.train.checkpoint_every_s=2"
    command = [sys.executable, "-m", "matura", "run", str(RECIPE), "--runs", str(runs)]
    with log.open("ab") as out:
        return subprocess.Popen(
            [*command, "--until", STAGE, "--set", sets],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def last_row(metrics: Path) -> int:
    """The last whole row's step; -1 if there is none."""
    if not metrics.exists():
        return -1
    whole = metrics.read_bytes().rpartition(b"\n")[0].splitlines()
    return int(json.loads(whole[-1])["step"]) if whole else -1


def killed(kills: int, runs: Path, seed: int) -> dict[str, Any]:
    """Seconds from the restart's command to its first trained step.

    Raises:
        SystemExit: the run ends, or trains nothing.
    """
    work, log, draw = runs / "quickstart" / f"{STAGE}@1.work", runs / "log", Random(seed)
    runs.mkdir(parents=True, exist_ok=True)
    metrics, states = work / "metrics.jsonl", Checkpoints(work / "state")
    took: list[float] = []
    used: list[float] = []
    process = started(runs, log)

    def until(holds: Callable[[], bool]) -> None:
        ends = time.monotonic() + HANGS_S
        while not holds():
            if process.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"it trains nothing: {log.read_text()[-1000:]}")
            time.sleep(LOOK_S)

    try:
        until(lambda: bool(states.steps()))
        for _ in range(kills):
            time.sleep(draw.uniform(0.0, 2.0))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            before = last_row(metrics)
            began = time.monotonic()
            process = started(runs, log)
            # what was not saved is rewound and made again: the first row beyond the checkpoint
            seen = metrics.stat().st_ino
            until(lambda seen=seen: metrics.stat().st_ino != seen)  # type: ignore[misc]
            saved = last_row(metrics)
            until(lambda saved=saved: last_row(metrics) > saved)  # type: ignore[misc]
            took.append(time.monotonic() - began)
            used.append(sum(cpu_s for cpu_s, _ in processes(process.pid).values()))
            print(
                f"killed after step {before}: {took[-1]:.1f} s, {used[-1]:.1f} s of processors",
                file=sys.stderr,
            )
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = next(line for line in log.read_text().splitlines() if "training on" in line)
    return {
        "kills": kills,
        "compute": said.partition("training on ")[2].partition(";")[0],
        "median_s": statistics.median(took),
        "longest_s": max(took),
        "cpu_s": statistics.median(used),
    }


def main() -> int:
    """Parses, measures, prints."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--rounds", type=int, default=9, help="of the mask, 5 at least")
    about.add_argument("--rows", type=int, default=16, help="of a step")
    about.add_argument("--saves", type=int, default=6)
    about.add_argument("--kills", type=int, default=5)
    about.add_argument("--runs", type=Path, help="where the killed run lies; default: /tmp, once")
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    compute = replace(choose(0.0), compiled=False)
    found: dict[str, Any] = {}
    if asked.rounds or asked.saves:
        found["compute"] = str(compute)
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        if asked.rounds:
            found["mask"] = mask(max(5, asked.rounds), asked.rows, compute)
        if asked.saves:
            found["saving"] = saving(max(2, asked.saves), Path(folder), compute)
        if asked.kills:
            found["kill"] = killed(asked.kills, asked.runs or Path(folder) / "runs", 0)
    found["machine"] = timing.here()
    if asked.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{key:8} {value}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
