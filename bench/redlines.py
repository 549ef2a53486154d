"""Whether what goes wrong in training is noticed, how soon, and a healthy run left alone.

Each fault begins at a known step of a tiny run, with three seeds; fifty healthy runs differ in
shape, rates and text. `--cost` times what looking costs beside a step of a 192 x 4 model.

    .venv/bin/python bench/redlines.py --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from random import Random
from statistics import median
from typing import Any

import torch
from redlines_faults import FAULTS, FROM_THE_START, HARMLESS, STOPS
from redlines_scene import FP32, ONSET, Shape, batch_of, ran

from matura.learn.guard import Guard
from matura.learn.loop import seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.repeats import Repeats
from matura.learn.spikes import Spikes
from matura.learn.step import Stepper
from matura.learn.untouched import Untouched
from matura.learn.watch import Watch
from matura.models.decoder import Decoder, DecoderConfig

BAR = 50
"""Steps from a fault's first to when it is noticed, at most."""
TEXTS = ("counting", "noisy", "two kinds", "drill", "chat")


def fault_run(name: str, seed: int) -> dict[str, Any]:
    """One fault with one seed: what was noticed and when, and how the run ended."""
    onset = 0 if name in FROM_THE_START else ONSET + 3 * seed
    shape = Shape(seed=seed, layers=2 + seed % 2, tie=seed == 2)
    found = ran(shape, FAULTS[name], onset)
    at, line = found.first or (None, None)
    row = {
        "fault": name,
        "seed": seed,
        "noticed_after": None if at is None else at - onset,
        "line": line,
        "events": [f"{e['at']}: {e['line']}: {e['event']}" for e in found.events],
        "stopped": found.stopped,
        "last_loss": median(list(found.losses.values())[-10:]) if found.losses else None,
    }
    if name in HARMLESS:
        healthy = ran(shape)
        row["loss_moved"] = max(
            abs(found.losses[step] - loss)
            for step, loss in healthy.losses.items()
            if step in found.losses
        )
        row["well"] = found.stopped is None
        return row
    soon = at is not None and 0 <= at - onset <= BAR
    row["well"] = soon and (found.stopped is not None) == name.startswith(STOPS)
    return row


def healthy_shape(seed: int) -> Shape:
    """One of many shapes, rates and texts."""
    draw = Random(seed)
    return Shape(
        seed=seed,
        layers=draw.choice((1, 2, 3)),
        hidden=draw.choice((16, 32, 48)),
        vocab=draw.choice((32, 64, 256)),
        rows=draw.choice((2, 4, 8)),
        length=draw.choice((16, 24, 40)),
        tie=draw.random() < 0.3,
        rate=draw.choice((0.3, 1.0, 2.0)),
        text=TEXTS[seed % len(TEXTS)],
        micro_rows=draw.choice((None, None, 2)),
    )


def healthy_run(seed: int) -> dict[str, Any]:
    """One healthy run: whether anything was said of it."""
    shape = healthy_shape(seed)
    found = ran(shape)
    losses = list(found.losses.values())
    return {
        "seed": seed,
        "shape": vars(shape),
        "first_loss": losses[0],
        "last_loss": median(losses[-10:]),
        "stopped": found.stopped,
        "events": [f"{e['at']}: {e['line']}: {e['event']}: {e['why']}" for e in found.events],
    }


def cost(repeats: int) -> dict[str, float]:
    """Milliseconds of a step of a 192 x 4 model and of what is looked at beside it, in turn."""
    shape = Shape(vocab=2048, rows=16, length=256)
    model = Decoder(
        DecoderConfig(
            vocab_size=2048,
            hidden_size=192,
            layers=4,
            heads=6,
            kv_heads=6,
            intermediate_size=512,
            sequence_length=256,
            qk_norm=True,
        )
    ).start(seeded(0))
    stepper = Stepper(model, NextToken(), FP32)
    optimizer = Optimizer.of(
        model,
        matrix_learning_rate=1e-3,
        learning_rate=1e-3,
        embedding_learning_rate=1e-3,
        weight_decay=0.0,
        muon_dtype=FP32.dtype,
    )
    untouched, seen = Untouched(), Repeats()
    guard, watch = Guard(Spikes(2048, 1.0), 10**6), Watch(2048, scratch=True)
    plain, looking = [], []
    for step in range(repeats + 1):
        batch = batch_of(shape, step)
        began = time.perf_counter()
        weight = float(batch.target_weights_BT.abs().sum())
        total = stepper.gradients(batch, weight)
        norm = optimizer.clip(1.0)
        between = time.perf_counter()
        seen.look(step, batch)
        untouched.changed(model, optimizer)
        watch.gradients(step, batch.name, optimizer.norms)
        if guard.spikes.odd(step, total / weight, norm) is None:
            guard.accept(total / weight, norm)
        seconds = time.perf_counter() - between
        optimizer.step(1.0)
        ended = time.perf_counter()
        untouched.after(model, optimizer)
        looking.append(seconds + time.perf_counter() - ended)
        plain.append(ended - began - seconds)
    step_ms, look_ms = 1e3 * median(plain[1:]), 1e3 * median(looking[1:])
    return {"step_ms": step_ms, "look_ms": look_ms, "share": look_ms / step_ms}


def main() -> None:
    """Prints a line a fault, and of the healthy runs those that something was said of."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--only", default="", help="faults whose name has this in it")
    ask.add_argument("--healthy", type=int, default=50)
    ask.add_argument("--cost", type=int, default=0, help="steps to time")
    ask.add_argument("--json", action="store_true")
    asked = ask.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    faults = []
    for name in (name for name in FAULTS if asked.seeds and asked.only in name):
        rows = [fault_run(name, seed) for seed in range(asked.seeds)]
        faults += rows
        soon = ", ".join(str(row["noticed_after"]) for row in rows)
        moved = [f"{row['loss_moved']:.2g}" for row in rows if "loss_moved" in row]
        more = f"; moves the loss by {', '.join(moved)}" if moved else ""
        well = "well" if all(row["well"] for row in rows) else "NOT WELL"
        end = "stops" if rows[0]["stopped"] else "goes on"
        print(
            f"{name:28} {well:8} after {soon} steps: {rows[0]['line']}; {end}{more}",
            file=sys.stderr,
        )
    healthy = [healthy_run(seed) for seed in range(asked.healthy)]
    said = [row for row in healthy if row["stopped"] or row["events"]]
    for row in said:
        print(f"healthy {row['seed']}: {row['stopped'] or row['events']}", file=sys.stderr)
    found: dict[str, Any] = {
        "faults_well": sum(row["well"] for row in faults),
        "faults": len(faults),
        "noticed_after_most": max((r["noticed_after"] or 0 for r in faults), default=0),
        "healthy": len(healthy),
        "healthy_stopped": sum(row["stopped"] is not None for row in healthy),
        "healthy_passed_over": sum(len(row["events"]) for row in healthy),
        "seconds": round(time.monotonic() - began, 1),
        "rows": [*faults, *said],
    }
    if asked.cost:
        found["cost"] = cost(asked.cost)
    if asked.json:
        print(json.dumps(found))
    else:
        told = {k: v for k, v in found.items() if k != "rows"}
        print("\n".join(f"{key}: {value}" for key, value in told.items()))


if __name__ == "__main__":
    main()
