"""Training on chats: packed rows beside padded ones and beside trl's SFTTrainer, turn by turn.

The same conversations, rendered once, the same shape and the same trained tokens for all; each
contender is a process of its own that trains when it is told to and sleeps while others do. trl
lives in `.venv-trl`, which the first use makes from the package registry.

    .venv/bin/python bench/sft.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timing
from contender import Contender, environment
from problems import problems
from sft_ours import SHARD, rows_of
from train import llama
from train_ours import SHAPES, Shape

from matura.core.rng import rng
from matura.core.types import Conversation, Given
from matura.data.sources.jsonl import Jsonl
from matura.learn.compute import choose
from matura.text.shards import Shard, ShardWriter
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
ENVIRONMENT = ROOT / ".venv-trl"
CONSTRAINTS, TRL = ROOT / "constraints.txt", BENCH / "sft_trl.txt"
DIALECT = "matura"
CONVERSATIONS = 3_000
ROUNDS = 7
PACKED, PADDED = "packed", "padded"
TRL_PADDED = "trl_padded"
TRL_PACKED = ("trl_packed", "trl_packed_rows")
"""trl lays a packed micro-batch end to end in one row: all rows of a step in one, or one at a time
with as many micro-batches."""


@dataclass(frozen=True)
class Chats:
    """What all train on, in a folder."""

    folder: Path
    shape: Shape
    pad_id: int
    read: int
    kept: int
    """Those that fit into a row."""
    tokens: int
    trained: int
    """Of an epoch: tokens that count, and something stands before them."""
    packed_rows: int

    @property
    def each_step(self) -> int:
        """Conversations in a step of packed rows, so that padded steps learn from as many."""
        return max(1, round(self.shape.rows * self.kept / self.packed_rows))


def prepare(folder: Path, shape: Shape, conversations: Sequence[Conversation]) -> Chats:
    """Renders the conversations and writes them for either side."""
    texts = ("\n".join(turn.content for turn in talk.messages) for talk in conversations)
    tokenizer = Tokenizer.train(texts, vocab_size=shape.config.vocab_size, dialect=DIALECT)
    tokenizer.save(folder / "tokenizer")
    template = Template(tokenizer)
    examples = [e for e in template.render_many(conversations) if len(e.ids) <= shape.length]
    with (
        ShardWriter(
            folder / SHARD, vocab_size=shape.config.vocab_size, tokenizer_sha256=tokenizer.sha256
        ) as out,
        (folder / "rows.jsonl").open("w", encoding="utf-8") as lines,
    ):
        for example in examples:
            out.add(example.ids, example.weights)
            both = zip(example.ids, example.weights, strict=True)
            labels = [number if weight else -100 for number, weight in both]
            row = {"input_ids": list(example.ids), "labels": labels}
            lines.write(json.dumps(row) + "\n")
    (folder / "shape.json").write_text(json.dumps(llama(shape)), encoding="utf-8")
    shard = Shard.open(folder / SHARD)
    packed = rows_of(shard, PACKED, shape.length + 1, template.pad_id)
    return Chats(
        folder=folder,
        shape=shape,
        pad_id=template.pad_id,
        read=len(conversations),
        kept=len(examples),
        tokens=sum(len(example.ids) for example in examples),
        trained=sum(sum(weight != 0 for weight in example.weights[1:]) for example in examples),
        packed_rows=len(packed),
    )


def commands(
    chats: Chats, rounds: int, seconds: float, trl_python: Path | None
) -> dict[str, list[str]]:
    """How each contender is started."""
    turns = [f"--rounds={rounds}", f"--seconds={seconds}"]
    found: dict[str, list[str]] = {}
    name = next(name for name, shape in SHAPES.items() if shape == chats.shape)
    for mode, rows in ((PACKED, chats.shape.rows), (PADDED, chats.each_step)):
        start = [sys.executable, str(BENCH / "sft_ours.py"), str(chats.folder), mode]
        found[mode] = [*start, f"--shape={name}", f"--rows={rows}", f"--pad={chats.pad_id}", *turns]
    if trl_python is None:
        return found
    wide = choose(0.0).dtype.itemsize == 2
    rows = chats.shape.rows
    for contender, mode, batch, accumulate in (
        (TRL_PADDED, PADDED, chats.each_step, 1),
        (TRL_PACKED[0], PACKED, rows, 1),
        (TRL_PACKED[1], PACKED, 1, rows),
    ):
        start = [str(trl_python), str(BENCH / "sft_trl.py"), str(chats.folder), mode]
        batches = [f"--batch={batch}", f"--accumulate={accumulate}", f"--bf16={int(wide)}"]
        found[contender] = [*start, *batches, *turns]
    return found


def measure(
    chats: Chats, started: Mapping[str, Sequence[str]], rounds: int
) -> dict[str, Contender]:
    """All turns of all contenders."""
    surroundings = os.environ | {
        "HF_HOME": str(chats.folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(Contender(name, command, surroundings))
            for name, command in started.items()
        }
        for _ in range(rounds):
            for contender in found.values():
                contender.turn()
    return found


def report(chats: Chats, found: Mapping[str, Contender]) -> dict[str, Any]:
    """What the turns come to."""
    ours = found[PACKED]
    rate = {name: statistics.median(each.rates) for name, each in found.items()}
    ratios = {f"ratio_{PADDED}": timing.ratio(ours.rates, found[PADDED].rates)}
    if TRL_PADDED in found:
        better = max(TRL_PACKED, key=rate.__getitem__)
        ratios["ratio_trl_padded"] = timing.ratio(ours.rates, found[TRL_PADDED].rates)
        ratios["ratio_trl_packed"] = timing.ratio(ours.rates, found[better].rates)
    return {
        **{name: round(value, 2) for name, value in ratios.items()},
        "trained_share": round(ours.share("trained"), 4),
        "fill": round(ours.share("read"), 4),
        "trained_tok_s": {name: round(value) for name, value in rate.items()},
        "epoch_s": {name: round(chats.trained / value, 1) for name, value in rate.items()},
        "trained_shares": {name: round(each.share("trained"), 4) for name, each in found.items()},
        "fills": {name: round(each.share("read"), 4) for name, each in found.items()},
        "conversations": chats.kept,
        "left_out": chats.read - chats.kept,
        "tokens_each": round(chats.tokens / chats.kept, 1),
        "trained_each": round(chats.trained / chats.kept, 1),
        "conversations_a_step": chats.each_step,
        "rounds": {name: [round(value) for value in each.rates] for name, each in found.items()},
        "compute": {name: each.ready["compute"] for name, each in found.items()},
        "threads": {name: each.ready["threads"] for name, each in found.items()},
        "machine": timing.here(),
    }


def conversations_of(path: Path | None, count: int) -> Iterator[Conversation]:
    """The file's first so many, or made-up ones."""
    if path is None:
        yield from problems(count, 0)
        return
    given = Given(rng=rng(0, "bench", "sft"))
    for item in Jsonl(path=path, limit=count).read(given):
        if not isinstance(item, Conversation):
            raise SystemExit(f"{path}: expected conversations, found {type(item).__name__}")
        yield item


def main() -> int:
    """Parses, measures, prints."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--shape", choices=SHAPES, default="small")
    about.add_argument("--file", type=Path, help="conversations, JSON lines; made up if absent")
    about.add_argument("--conversations", type=int, default=CONVERSATIONS)
    about.add_argument("--seconds", type=float, default=210.0, help="of measuring, all together")
    about.add_argument("--rounds", type=int, default=ROUNDS)
    about.add_argument("--without-trl", action="store_true", help="only ours; installs nothing")
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    python = None if asked.without_trl else environment(ENVIRONMENT, TRL, CONSTRAINTS)
    with tempfile.TemporaryDirectory(prefix="sft-") as folder:
        talks = list(conversations_of(asked.file, asked.conversations))
        chats = prepare(Path(folder), SHAPES[asked.shape], talks)
        count = 2 if python is None else 3 + len(TRL_PACKED)
        each_s = asked.seconds / asked.rounds / count
        found = measure(chats, commands(chats, asked.rounds, each_s, python), asked.rounds)
        numbers = {"shape": asked.shape, **report(chats, found)}
    if asked.json:
        print(json.dumps(numbers))
        return 0
    print(f"{asked.shape}: {numbers['conversations']:,} chats, {numbers['trained_each']} trained")
    print(f"{'':18}{'trained tokens/s':>18}{'of positions':>14}{'filled':>9}{'an epoch':>11}")
    for name, rate in numbers["trained_tok_s"].items():
        share, fill = numbers["trained_shares"][name], numbers["fills"][name]
        print(f"{name:18}{rate:>18,}{share:>14.1%}{fill:>9.1%}{numbers['epoch_s'][name]:>9,} s")
    for name in (key for key in numbers if key.startswith("ratio_")):
        print(f"packed against {name.removeprefix('ratio_')}: {numbers[name]:.2f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
