"""Our side of `train.py`: `fit` on random documents, a turn for each line it reads.

Alone in its process, as the peers are in theirs; `sft_ours.py` trains on chats by the same turns.
Whatever is imported, made and compiled before the first step is over counts as `first_step_s`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.data.mixture import Feed, Part
from matura.learn.batch import Batch
from matura.learn.compute import choose, keep_freed_memory
from matura.learn.loop import fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.run import Evaluation
from matura.learn.schedule import Schedule
from matura.learn.settings import Settings
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig
from matura.stages.parts import Train
from matura.text.shards import Shard, ShardWriter

LEAST_STEPS = 3
"""In a turn."""
UNCOUNTED = 25
"""First steps of `fit`, which it watches more closely than the thousands that follow."""
LONGEST_WARM_UP_S = 30.0
"""Where those take longer, they count: `fit` is then measured up to 4 % too slow."""
NO_TOKENIZER = "0" * 64


@dataclass(frozen=True)
class Shape:
    """What is trained on what."""

    config: DecoderConfig
    rows: int

    @property
    def length(self) -> int:
        """Tokens of a row that the model reads."""
        return self.config.sequence_length

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.length

    def flops_per_token(self, attended: float) -> float:
        """Arithmetic of a token, forward and backward; `attended` is the share of a row that it
        reads on average: a half under a causal mask, all if masked keys count too.

        6 for each weight of a matrix that multiplies (embedding lookups do not), and 12 a layer,
        channel and position read (Chowdhery et al. 2022, appendix B).
        """
        c = self.config
        head = c.vocab_size * c.hidden_size
        norms = c.layers * (2 * c.hidden_size + (2 * c.head_width if c.qk_norm else 0))
        tables = head * (1 if c.tie_embeddings else 2)
        blocks = c.parameters - tables - norms - c.hidden_size
        width = c.heads * c.head_width
        return 6.0 * (blocks + head) + 12.0 * c.layers * width * self.length * attended


def shape(hidden: int, layers: int, heads: int, vocabulary: int, rows: int, length: int) -> Shape:
    """A shape with the recipe's defaults for everything else."""
    config = DecoderConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        sequence_length=length,
        tie_embeddings=True,
    )
    return Shape(config, rows)


SHAPES = {
    "mini": shape(32, 1, 2, 1024, 4, 384),
    "tiny": shape(192, 4, 6, 2048, 16, 256),
    "small": shape(256, 4, 4, 4096, 8, 512),
    "medium": shape(512, 8, 8, 8192, 8, 512),
}
"""`mini` only to try a benchmark out."""


def feed_of(shape: Shape, folder: Path) -> Feed:
    """Rows of random documents of 20 to 600 tokens, from a shard on disk as in any stage."""
    draw = np.random.default_rng(0)
    # some tokens often, most seldom: where all are alike nothing can be learnt, and `fit` stops
    often = 1 / np.arange(10, 10 + shape.config.vocab_size)
    often /= often.sum()
    path = folder / "random.shard"
    with ShardWriter(
        path, vocab_size=shape.config.vocab_size, tokenizer_sha256=NO_TOKENIZER
    ) as out:
        for length in draw.integers(20, 600, size=1_000):
            ids = draw.choice(shape.config.vocab_size, size=length, p=often)
            out.add(ids, np.ones(length))
    shard = Shard.open(path)
    return Feed(
        [Part(name="random", shard=shard, share=1.0)],
        tokens=shard.tokens * 9 // 10,
        row_length=shape.length + 1,
        pad_id=0,
        seed=0,
        stage="bench",
    )


@dataclass
class Ours:
    """`fit`, which asks for each batch: that is where it is timed, and where others take turns."""

    shape: Shape
    feed: Feed
    stepper: Stepper
    folder: Path
    steps: int = 0
    """Of a turn; a step before it, in caches that others left, is not counted."""
    between: Callable[[], None] = field(default=lambda: None)
    """What happens before each turn."""
    turns: list[float] = field(default_factory=list)
    """Seconds of a step, the mean of each turn."""
    uncounted: int = UNCOUNTED
    first_step_at: float = math.nan
    """The wall clock when the first step of all was over."""
    _began: float = 0.0

    def batch(self, step: int) -> Batch:
        """As `stages.learning` makes it."""
        place = (step - self.uncounted) % (self.steps + 1)
        if step == 1 and math.isnan(self.first_step_at):
            self.first_step_at = time.time()
        if step >= self.uncounted and place == 0:
            self._end(step)
            self.between()
        elif step > self.uncounted and place == 1:
            self._began = time.perf_counter()
        rows = self.shape.rows
        found = self.feed.at((np.arange(rows) + step * rows) % len(self.feed))
        return Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, f"step {step}")

    def _end(self, step: int) -> None:
        if step > self.uncounted:
            self.turns.append((time.perf_counter() - self._began) / self.steps)

    def evaluated(self, step: int) -> Evaluation:
        """No validation, only the end of the last turn."""
        self._end(step)
        return Evaluation(losses={"none": 0.0})

    def run(self, turns: int, steps: int) -> list[float]:
        """Seconds of a step in each of so many turns of one training run."""
        train = Train()
        self.turns, self.steps = [], steps
        whole = self.uncounted + turns * (steps + 1)
        settings = Settings(
            steps=whole,
            schedule=Schedule(tokens=whole * self.shape.tokens, warmup_tokens=0, decay_tokens=0),
            tokens_per_step=self.shape.tokens,
            learning_rate=train.learning_rate,
            embedding_learning_rate=train.embedding_learning_rate,
            matrix_learning_rate=train.matrix_learning_rate,
            weight_decay=train.weight_decay,
            clip=train.clip,
            evaluate_at=frozenset([whole]),
            checkpoint_every_s=math.inf,
        )
        work = self.folder / "fit"
        work.mkdir()
        with Ledger(work, "bench", mode="quiet") as ledger:
            fit(
                self.stepper,
                self.batch,
                settings,
                scratch=False,
                evaluate=self.evaluated,
                checkpoints=Checkpoints(work / "state"),
                ledger=ledger,
            )
        shutil.rmtree(work)
        return self.turns


def serve(name: str, rounds: int, seconds: float, folder: Path) -> None:
    """Says when it is ready; then a turn for each line, and what it came to."""
    keep_freed_memory()
    compute = choose(math.inf)
    chosen = SHAPES[name]
    model = Decoder(chosen.config).start(seeded(0)).to(compute.device).train()
    stepper = Stepper(model, NextToken(), compute)
    fitting = Ours(chosen, feed_of(chosen, folder), stepper, folder, uncounted=2)
    (step_s,) = fitting.run(1, 1)
    steps = max(1, round(seconds / step_s))
    if UNCOUNTED * step_s < LONGEST_WARM_UP_S:
        fitting.uncounted = UNCOUNTED

    def tell() -> None:
        took = fitting.turns[-1] * steps
        print(json.dumps({"seconds": took, "trained": steps * chosen.tokens}), flush=True)

    def between() -> None:
        if fitting.turns:
            tell()
        else:
            ready = {
                "first_step_s": round(fitting.first_step_at - began(), 2),
                "threads": torch.get_num_threads(),
                "compute": str(compute),
                "bf16": compute.dtype is torch.bfloat16,
                "without": list(compute.without),
            }
            print(json.dumps(ready), flush=True)
        if not sys.stdin.readline():
            raise SystemExit(0)

    fitting.between = between
    fitting.run(rounds, steps)
    tell()


def began() -> float:
    """When this process was started, on the wall clock; only its parent can know."""
    return float(os.environ.get("BENCH_BEGAN", "nan"))


def main() -> int:
    """Parses and trains."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--shape", choices=SHAPES, required=True)
    about.add_argument("--rounds", type=int, required=True)
    about.add_argument("--seconds", type=float, required=True, help="of a turn, about")
    asked = about.parse_args()
    with tempfile.TemporaryDirectory(prefix="train-ours-") as folder:
        serve(asked.shape, asked.rounds, asked.seconds, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
