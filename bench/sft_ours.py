"""One of the two that `sft.py` times of ours: `fit` on packed or on padded rows, a turn for each
line it reads.

Alone in its process, as the peers are in theirs. A turn is what `train.py` counts as one; what it
came to is printed as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from train_ours import LEAST_STEPS, SHAPES, UNCOUNTED, Ours, Shape

from matura.data.mixture import Feed, once
from matura.learn.compute import choose, keep_freed_memory
from matura.learn.loop import seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.step import Stepper
from matura.models.decoder import Decoder
from matura.text.pack import Rows, lay_out
from matura.text.shards import Shard

SHARD = "chats.shard"


class Padded:
    """Rows of one conversation each, the rest padding: what packing is measured against."""

    def __init__(self, shard: Shard, row_length: int, pad_id: int) -> None:
        self.row_length, self.pad_id = row_length, pad_id
        self._examples = [shard.example(index) for index in range(len(shard))]

    def __len__(self) -> int:
        return len(self._examples)

    def at(self, indexes: Sequence[int] | npt.NDArray[Any]) -> Rows:
        """As a feed's."""
        groups = [np.array([index]) for index in indexes]
        return lay_out(self._examples, groups, self.row_length, self.pad_id)


def rows_of(shard: Shard, mode: str, row_length: int, pad_id: int) -> Feed | Padded:
    """Every conversation once; those longer than a row are not there any more."""
    if mode == "padded":
        return Padded(shard, row_length, pad_id)
    return once(shard, name="chats", row_length=row_length, pad_id=pad_id, policy="drop")


class Counts:
    """Trained tokens, tokens and positions of each row, so that a turn's are a sum."""

    def __init__(self, feed: Feed | Padded) -> None:
        found = feed.at(np.arange(len(feed)))
        self.trained_N = np.count_nonzero(found.weights_NL, axis=1)
        self.read_N = np.count_nonzero(found.segments_NL, axis=1)
        self.row_length = found.ids_NL.shape[1]

    def of(self, first_step: int, steps: int, rows: int) -> dict[str, int]:
        """Of the batches of so many steps."""
        which = (np.arange(rows * steps) + first_step * rows) % len(self.trained_N)
        return {
            "trained": int(self.trained_N[which].sum()),
            "read": int(self.read_N[which].sum()),
            "positions": len(which) * self.row_length,
        }


def serve(folder: Path, mode: str, shape: Shape, pad_id: int, rounds: int, seconds: float) -> None:
    """Says when it is ready; then a turn for each line, and what it came to."""
    keep_freed_memory()
    compute = choose(math.inf)
    feed = rows_of(Shard.open(folder / SHARD), mode, shape.length + 1, pad_id)
    counts = Counts(feed)
    model = Decoder(shape.config).start(seeded(0)).to(compute.device).train()
    own = folder / mode
    own.mkdir()
    fitting = Ours(shape, cast(Feed, feed), Stepper(model, NextToken(), compute), own)
    (step_s,) = fitting.run(1, 2)
    steps = max(LEAST_STEPS, round(seconds / step_s))

    def tell() -> None:
        turn = len(fitting.turns) - 1
        first = UNCOUNTED + turn * (steps + 1) + 1
        took = {"seconds": fitting.turns[-1] * steps}
        print(json.dumps(took | counts.of(first, steps, shape.rows)), flush=True)

    def between() -> None:
        if fitting.turns:
            tell()
        else:
            ready = {"threads": torch.get_num_threads(), "compute": str(compute)}
            print(json.dumps(ready), flush=True)
        if not sys.stdin.readline():
            raise SystemExit(0)

    fitting.between = between
    fitting.run(rounds, steps)
    tell()


def main() -> int:
    """Parses and trains."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("folder", type=Path)
    about.add_argument("mode", choices=["padded", "packed"])
    about.add_argument("--shape", choices=SHAPES, required=True)
    about.add_argument("--rows", type=int, required=True, help="of a step")
    about.add_argument("--pad", type=int, required=True, help="the id that fills rows up")
    about.add_argument("--rounds", type=int, required=True)
    about.add_argument("--seconds", type=float, required=True, help="of a turn, about")
    asked = about.parse_args()
    chosen = replace(SHAPES[asked.shape], rows=asked.rows)
    serve(asked.folder, asked.mode, chosen, asked.pad, asked.rounds, asked.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
