"""How long training waits for a checkpoint: written at once, and in the background.

Both write the same state to the same disk, turn by turn. Also how long a step takes while the other
thread writes, for it uses the same cores and memory.

    .venv/bin/python bench/saving.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch

from matura.core.store import Checkpoints
from matura.learn import checkpoint
from matura.learn.batch import Batch
from matura.learn.compute import Compute
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.saving import Saver
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig
from matura.stages.parts import Train

SIZES = {  # hidden size, layers, heads, vocabulary
    "tiny": (192, 4, 6, 2048),
    "small": (256, 4, 4, 4096),
    "medium": (512, 8, 8, 8192),
    "100M": (768, 14, 12, 8192),
}
ROWS, LENGTH = 2, 64


def measured(size: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Median seconds of a model's saves, and its steps beside them."""
    hidden, layers, heads, vocab = SIZES[size]
    config = DecoderConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        sequence_length=LENGTH,
    )
    model = Decoder(config).start(torch.Generator().manual_seed(0))
    optimizer = Optimizer.of(
        model,
        matrix_learning_rate=0.01,
        learning_rate=1e-3,
        embedding_learning_rate=1e-2,
        weight_decay=0.0,
        muon_dtype=torch.float32,
    )
    compute = Compute("cpu", torch.float32, compiled=False, threads=torch.get_num_threads())
    stepper = Stepper(model, NextToken(), compute)
    ids = np.random.default_rng(0).integers(0, vocab, (ROWS, LENGTH + 1))
    batch = Batch.of(ids, np.ones(ids.shape), np.ones(ids.shape))

    def step() -> None:
        stepper.gradients(batch, 1.0)
        optimizer.clip(1.0)
        optimizer.step(0.01)

    saver, checkpoints = Saver(), Checkpoints(folder)
    seen: dict[str, list[float]] = {
        "at_once": [],
        "waits": [],
        "writes": [],
        "step": [],
        "beside": [],
    }
    for number in range(rounds + 1):  # the first makes buffers
        at = 2 * number
        state = checkpoint.state(model, optimizer, {}, at)
        at_once = took(lambda state=state, at=at: checkpoints.save(at, state.write))  # type: ignore[misc]
        plain = [took(step)]
        began = time.perf_counter()

        def publish(state: checkpoint.State, at: int = at) -> None:
            checkpoints.save(at + 1, state.write)

        saver.save(checkpoint.state(model, optimizer, {}, at + 1), publish)
        waits = time.perf_counter() - began
        beside: list[float] = []
        while not saver.over:
            beside.append(took(step))
        saver.wait()
        if number:
            seen["at_once"].append(at_once)
            seen["waits"].append(waits)
            seen["writes"].append(time.perf_counter() - began)
            seen["step"] += plain
            seen["beside"] += beside
    found = {f"{name}_s": statistics.median(times) for name, times in seen.items() if times}
    every_s = float(Train.model_fields["checkpoint_every_s"].default)
    return {
        "parameters": config.parameters,
        "bytes": sum(t.nbytes for tensors in state.files.values() for t in tensors.values()),
        **found,
        "share_before": found["at_once_s"] / every_s,
        "share": found["waits_s"] / every_s,
    }


def took(once: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    once()
    return time.perf_counter() - began


def main() -> int:
    """A line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one if absent")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for size in asked.sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            found[size] = measured(size, asked.rounds, Path(folder))
    if asked.json:
        print(json.dumps({"machine": timing.here(), **found}, indent=1))
    for size, row in () if asked.json else found.items():
        print(
            f"{size}: {row['bytes'] / 1e6:.0f} MB: at once {row['at_once_s']:.3f} s "
            f"({row['share_before']:.2%} of the interval), waits {row['waits_s']:.3f} s "
            f"({row['share']:.2%}); a step {row['step_s']:.3f} s, {row.get('beside_s', 0):.3f} s "
            f"beside the writing, which takes {row['writes_s']:.2f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
