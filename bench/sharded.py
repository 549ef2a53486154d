"""What one process holds of a model that several share out: bytes of tensors after a few steps.

Each number of processes is started by itself, with gloo on this machine; a step's rows are random.

    python bench/sharded.py --processes 1 2 4 --json
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import torch

from matura.learn.batch import Batch
from matura.learn.compute import Compute
from matura.learn.loop import seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.parallel import Ranks
from matura.learn.rendezvous import meet
from matura.learn.sharded import Sharded
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig
from matura.models.pieces import mine

SHAPES = {
    "tiny": {"vocab_size": 2048, "hidden_size": 192, "layers": 4, "heads": 6, "kv_heads": 6},
    "small": {"vocab_size": 4096, "hidden_size": 256, "layers": 4, "heads": 8, "kv_heads": 8},
    "medium": {"vocab_size": 8192, "hidden_size": 512, "layers": 8, "heads": 8, "kv_heads": 8},
}
ROWS, LENGTH = 8, 64
RATES = {"matrix_learning_rate": 0.02, "learning_rate": 3e-3, "embedding_learning_rate": 0.03}


def held(shape: str, steps: int, kind: type[Ranks]) -> dict[str, Any]:
    """One rank's bytes after a few steps, and the seconds of the last one."""
    config = DecoderConfig(**SHAPES[shape], sequence_length=LENGTH)
    model = Decoder(config).start(seeded(0))
    with kind(meet(), tell=print) as team:
        team.place(model, "cpu")
        stepper = Stepper(model, NextToken(), Compute("cpu", torch.float32, False, 1))
        optimizer = team.optimizer(model, weight_decay=0.01, muon_dtype=torch.float32, **RATES)
        gradients, seconds = 0, 0.0
        for step in range(steps):
            began = time.monotonic()
            batch = random(step, config.vocab_size)
            weight = float(batch.target_weights_BT.abs().sum())
            team.gradients(stepper, batch, weight, micro_rows=None, step=step)
            gradients = sum(mine(w.grad).nbytes for w in model.parameters() if w.grad is not None)
            optimizer.clip(1.0)
            optimizer.step(1.0)
            seconds = time.monotonic() - began
        return {
            "parameters": sum(mine(weight).nbytes for weight in model.parameters()),
            "optimizer": sum(buffer.nbytes for buffer in optimizer.buffers.values()),
            "gradients": gradients,
            "step_s": seconds,
        }


def random(step: int, vocab_size: int) -> Batch:
    """A batch of random ids."""
    size = (ROWS, LENGTH + 1)
    ids = torch.randint(vocab_size, size, generator=seeded(step)).numpy()
    ones = torch.ones(size)
    return Batch.of(ids, ones.numpy(), ones.long().numpy(), f"step {step}")


def ranks(size: int, shape: str, steps: int, way: str) -> list[dict[str, Any]]:
    """What each of so many processes holds."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    told = [sys.executable, __file__, "--rank", way, "--shape", shape, "--steps", str(steps)]
    place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            told,
            env={"OMP_NUM_THREADS": "1", **os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [rank.communicate()[0] for rank in started]
    return [json.loads(lines.splitlines()[-1]) for lines in said]


def main() -> None:
    """A table, or JSON."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    asked.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    asked.add_argument("--steps", type=int, default=3)
    asked.add_argument("--ways", nargs="+", choices=["replicas", "sharded"], default=["sharded"])
    asked.add_argument("--rank", help=argparse.SUPPRESS)
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    if given.rank:
        kind = Sharded if given.rank == "sharded" else Ranks
        print(json.dumps(held(given.shape, given.steps, kind)))
        return
    found = {
        way: {size: ranks(size, given.shape, given.steps, way) for size in given.processes}
        for way in given.ways
    }
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for way, sizes in found.items():
        for size, each in sizes.items():
            most = {name: max(rank[name] for rank in each) for name in each[0]}
            said = ", ".join(f"{name} {most[name] / 1e6:.2f} MB" for name in list(most)[:3])
            print(
                f"{way}, {size} processes, the most of any: {said}, {most['step_s']:.2f} s a step"
            )


if __name__ == "__main__":
    main()
