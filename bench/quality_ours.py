"""Our side of `quality.py`: `fit` until the time is up, then bits per byte of held-out files.

The process starts cold: imports, and compiling where it is done, are part of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from quality_clock import Clock, busy_s, wall_s
from quality_data import SAID, SHARD, HeldOut
from train_ours import SHAPES, Shape

from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.data.mixture import Feed, Part
from matura.learn.batch import Batch
from matura.learn.compute import Compute, choose, keep_freed_memory
from matura.learn.loop import fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.run import Evaluation
from matura.learn.schedule import Schedule
from matura.learn.settings import Settings
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig
from matura.text.shards import Shard

FOR_EVER = 1_000_000
EPOCHS = 2
COMPILE_FROM_S = 150.0
"""Compiling cold takes 30 to 45 s and makes steps 1.6 times as fast, so what it costs is back
after about 110 s."""
ROWS, MATRICES, EMBEDDINGS, REST, DECAY = 4, 0.03, 0.05, 3e-3, 0.6
"""Short horizons are short of steps, so rows are few and rates high (bench/README.md)."""


class TimeIsUp(Exception):
    """Where training ends."""


@dataclass(frozen=True)
class Timed(Schedule):
    """By the clock instead of by tokens."""

    clock: Clock | None = None

    def factor(self, seen_tokens: int) -> float:
        """The clock's."""
        assert self.clock is not None
        return self.clock.factor()


@dataclass(frozen=True)
class Rates:
    """How fast each group learns, at most."""

    matrices: float
    embeddings: float
    rest: float


def train(
    model: Decoder,
    compute: Compute,
    shape: Shape,
    data: Path,
    out: Path,
    clock: Clock,
    rates: Rates,
) -> None:
    """Leaves the model as it is when the time is up."""
    said = json.loads((data / SAID).read_text(encoding="utf-8"))
    part = Part(name="text", shard=Shard.open(data / SHARD), share=1.0)
    feed = Feed(
        [part],
        tokens=EPOCHS * said["tokens"] * 9 // 10,
        row_length=shape.length + 1,
        pad_id=said["pad_id"],
        seed=0,
        stage="quality",
    )
    stepper = Stepper(model, NextToken(), compute)

    def batch(step: int) -> Batch:
        if not clock.begins():
            raise TimeIsUp
        found = feed.at((np.arange(shape.rows) + step * shape.rows) % len(feed))
        return Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, f"step {step}")

    settings = Settings(
        steps=FOR_EVER,
        schedule=Timed(FOR_EVER, 0, 0, clock=clock),
        tokens_per_step=shape.tokens,
        learning_rate=rates.rest,
        embedding_learning_rate=rates.embeddings,
        matrix_learning_rate=rates.matrices,
        weight_decay=0.0,
        clip=1.0,
        evaluate_at=frozenset([FOR_EVER]),
        checkpoint_every_s=math.inf,
        good_every=FOR_EVER,
    )
    with suppress(TimeIsUp), Ledger(out, "quality", mode="quiet") as ledger:
        fit(
            stepper,
            batch,
            settings,
            scratch=True,
            evaluate=lambda step: Evaluation(losses={"none": 0.0}),
            checkpoints=Checkpoints(out / "state"),
            ledger=ledger,
        )


def main() -> int:
    """Parses, trains, measures, prints one line of JSON."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("data", type=Path)
    about.add_argument("out", type=Path)
    about.add_argument("--shape", choices=SHAPES, required=True)
    about.add_argument("--seconds", type=float, required=True)
    about.add_argument("--clock", choices=["wall", "busy"], default="wall")
    about.add_argument("--rows", type=int, default=ROWS, help="of a step")
    about.add_argument("--matrices", type=float, default=MATRICES)
    about.add_argument("--embeddings", type=float, default=EMBEDDINGS)
    about.add_argument("--rest", type=float, default=REST)
    about.add_argument("--decay", type=float, default=DECAY)
    about.add_argument("--plain", action="store_true", help="the peer's architecture")
    asked = about.parse_args()
    asked.out.mkdir(parents=True)
    keep_freed_memory()
    compute = choose(math.inf if asked.seconds >= COMPILE_FROM_S else 0.0)
    shape = replace(SHAPES[asked.shape], rows=asked.rows)
    config = shape.config
    if not asked.plain:
        # every other layer from the first on reads its neighbours; at least one attends
        convolving = tuple(range(0, config.layers - 1, 2))
        changed = {"qk_norm": True, "conv_layers": convolving}
        config = DecoderConfig(**(config.model_dump() | changed))
    clock = Clock(asked.seconds, asked.decay, wall_s if asked.clock == "wall" else busy_s)
    model = Decoder(config).start(seeded(0)).to(compute.device).train()
    rates = Rates(asked.matrices, asked.embeddings, asked.rest)
    train(model, compute, shape, asked.data, asked.out, clock, rates)
    held_out = HeldOut.load(asked.data)
    found = {
        "bpb": held_out.bits_per_byte(model.eval()),
        "steps": len(clock.steps),
        "tokens": len(clock.steps) * shape.tokens,
        "first_step_s": clock.first_s,
        "parameters": config.parameters,
        "compute": str(compute),
        "rows": asked.rows,
        "rates": asdict(rates),
        "decay": asked.decay,
    }
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
