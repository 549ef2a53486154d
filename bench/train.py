"""Training speed: Matura's `fit` and a plain `transformers` loop of the same shape, turn by turn.

`fit` is the whole loop as stages run it: rows from a real feed, packed and masked, forward,
backward, clipping, Muon and AdamW, red lines, the ledger. The peers are what a script would be:
`LlamaForCausalLM`, full rows without a mask, clipping, `torch.optim.AdamW`; once in fp32, once
under bf16 autocast. Same batch, sequence, vocabulary, widths, process and threads.

    .venv/bin/python bench/train.py --shape tiny --json
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from torch import Tensor

from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.data.mixture import Feed, Part
from matura.learn.batch import Batch
from matura.learn.compute import choose, keep_freed_memory
from matura.learn.loop import Settings, fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.run import Evaluation
from matura.learn.schedule import Schedule
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig
from matura.stages.parts import Train
from matura.text.shards import Shard, ShardWriter

ROUNDS = 7
LEAST_STEPS = 3
"""In a turn."""
UNCOUNTED = 25
"""First steps of `fit`, which it watches more closely than the thousands that follow."""
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
    "tiny": shape(192, 4, 6, 2048, 16, 256),
    "small": shape(256, 4, 4, 4096, 8, 512),
    "medium": shape(512, 8, 8, 8192, 8, 512),
}


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
    _began: float = 0.0

    def batch(self, step: int) -> Batch:
        """As `stages.learning` makes it."""
        place = (step - UNCOUNTED) % (self.steps + 1)
        if step >= UNCOUNTED and place == 0:
            self._end(step)
            self.between()
        elif step > UNCOUNTED and place == 1:
            self._began = time.perf_counter()
        rows = self.shape.rows
        found = self.feed.at((np.arange(rows) + step * rows) % len(self.feed))
        return Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, f"step {step}")

    def _end(self, step: int) -> None:
        if step > UNCOUNTED:
            self.turns.append((time.perf_counter() - self._began) / self.steps)

    def evaluated(self, step: int) -> Evaluation:
        """No validation, only the end of the last turn."""
        self._end(step)
        return Evaluation(losses={"none": 0.0})

    def run(self, turns: int, steps: int) -> list[float]:
        """Seconds of a step in each of so many turns of one training run."""
        train = Train()
        self.turns, self.steps = [], steps
        whole = UNCOUNTED + turns * (steps + 1)
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


@dataclass
class Plain:
    """A loop around `transformers`' Llama, as one would write it."""

    shape: Shape
    model: Any
    optimizer: torch.optim.Optimizer
    rows: Iterator[Tensor]
    arithmetic: Callable[[], AbstractContextManager[Any]]

    def turn(self, steps: int) -> list[float]:
        """Seconds of each step but the first."""
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            ids_BT = next(self.rows)
            with self.arithmetic():
                loss = self.model(input_ids=ids_BT, labels=ids_BT).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            float(loss.detach())
            times.append(time.perf_counter() - began)
        return times[1:]


def plain(shape: Shape, arithmetic: Callable[[], AbstractContextManager[Any]]) -> Plain:
    """The peer of that shape, freshly made."""
    from transformers import LlamaConfig, LlamaForCausalLM

    c = shape.config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=c.inner_width,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            num_key_value_heads=c.kv_heads,
            max_position_embeddings=c.sequence_length,
            tie_word_embeddings=c.tie_embeddings,
            use_cache=False,
        )
    ).train()
    generator = seeded(1)

    def rows() -> Iterator[Tensor]:
        while True:
            yield torch.randint(c.vocab_size, (shape.rows, shape.length), generator=generator)

    return Plain(shape, model, torch.optim.AdamW(model.parameters(), lr=1e-3), rows(), arithmetic)


def autocast() -> AbstractContextManager[Any]:
    """bf16 where torch thinks it worth while."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def ours(shape: Shape, folder: Path) -> Ours:
    """`fit` computing as a climb long enough to earn compiling back would."""
    keep_freed_memory()
    compute = choose(math.inf)
    model = Decoder(shape.config).start(seeded(0)).to(compute.device).train()
    return Ours(shape, feed_of(shape, folder), Stepper(model, NextToken(), compute), folder)


def measure(shape: Shape, seconds: float, rounds: int, folder: Path) -> dict[str, Any]:
    """All contenders in turn for about `seconds`, what is made first left out."""
    fitting = ours(shape, folder)
    compute = fitting.stepper.compute
    # `choose` may have changed it for machines without bf16; a plain script would not
    precision = torch.get_float32_matmul_precision()
    peers = {"fp32": plain(shape, nullcontext), "bf16": plain(shape, autocast)}
    each_s = seconds / rounds / (1 + len(peers))
    began = time.perf_counter()
    (step_s,) = fitting.run(1, 2)
    first_s = time.perf_counter() - began - (UNCOUNTED + 2) * step_s
    torch.set_float32_matmul_precision("highest")
    found: dict[str, list[float]] = {}
    turns = {name: _turn(peer, each_s) for name, peer in peers.items()}
    turns["gemm_bf16"] = lambda: timing.gemm_gflops(torch.bfloat16)
    turns["gemm_fp32"] = lambda: timing.gemm_gflops(torch.float32)

    def others() -> None:
        torch.set_float32_matmul_precision("highest")
        for name, turn in turns.items():
            found.setdefault(name, []).append(turn())
        torch.set_float32_matmul_precision(precision)

    fitting.between = others
    times = fitting.run(rounds, max(LEAST_STEPS, round(each_s / step_s)))
    found["fit"] = [shape.tokens / step for step in times]
    rate = {name: statistics.median(values) for name, values in found.items()}
    peak = {"bf16": rate.pop("gemm_bf16"), "fp32": rate.pop("gemm_fp32")}
    used = peak["bf16" if compute.dtype is torch.bfloat16 else "fp32"] * 1e9
    return {
        "tok_s": round(rate["fit"]),
        "ratio_fp32": round(timing.ratio(found["fit"], found["fp32"]), 2),
        "ratio_bf16": round(timing.ratio(found["fit"], found["bf16"]), 2),
        "mfu": _three_digits(rate["fit"] * shape.flops_per_token(0.5) / used),
        "mfu_whole_square": _three_digits(rate["fit"] * shape.flops_per_token(1.0) / used),
        "gemm_peak_gflops": {name: round(value) for name, value in peak.items()},
        "transformers_tok_s": {name: round(rate[name]) for name in peers},
        "without": list(compute.without),
        "compute": str(compute),
        "compiling_s": round(max(0.0, first_s), 1),
        "rounds": {name: [round(value) for value in values] for name, values in found.items()},
        "machine": timing.here(),
    }


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def _turn(peer: Plain, seconds: float) -> Callable[[], float]:
    """A turn of about `seconds`, as tokens a second; tried out once to know how many steps."""
    peer.turn(2)
    steps = max(LEAST_STEPS, round(seconds / statistics.fmean(peer.turn(LEAST_STEPS))))
    return lambda: peer.shape.tokens / statistics.fmean(peer.turn(1 + steps))


def main() -> int:
    """Parses, measures, prints."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--shape", choices=SHAPES, default="tiny")
    about.add_argument("--seconds", type=float, default=60.0, help="of measuring, all together")
    about.add_argument("--rounds", type=int, default=ROUNDS)
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        found = measure(SHAPES[asked.shape], asked.seconds, asked.rounds, Path(folder))
    found = {"shape": asked.shape, **found}
    if asked.json:
        print(json.dumps(found))
        return 0
    print(f"{asked.shape}: {found['compute']}")
    print(f"{'matura fit':28}{found['tok_s']:>9,} tokens/s")
    for name, value in found["transformers_tok_s"].items():
        times = found[f"ratio_{name}"]
        print(f"{'transformers, ' + name:28}{value:>9,} tokens/s   fit is {times:.2f} times that")
    for name, value in found["gemm_peak_gflops"].items():
        print(f"{'matrix products, ' + name:28}{value:>9,} GFLOP/s")
    print(f"fit uses {found['mfu']:.0%} of the peak ({found['mfu_whole_square']:.0%} if masked")
    print("positions count as work)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
