"""`mix_sft_jsonl`: chat files one after the other, and what share each really has in the result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compat.mypt.places import GPT2, template_for
from compat.mypt.rows import Row, read_rows
from compat.mypt.telling import Command
from matura.cli import out
from matura.core.disk import replace_atomically, telling
from matura.core.errors import DataError
from matura.core.rng import rng
from matura.data.build import rendered
from matura.text.template import Template

MIX = Command(
    "mix_sft_jsonl.py",
    "Chat files one after the other; it says what share each has, which no option sets.",
    "matura run recipes/curriculum.yaml",
    "a stage's replay: [{stage: echo, share: 0.15}] is a share of tokens, and reached",
)


@dataclass
class Share:
    """What one input brings."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    tokens: int = 0
    trained: int = 0


def mix_jsonl(arguments: Sequence[str] | None = None) -> int:
    """`--inputs --output --shuffle --seed`."""
    parser = MIX.parser()
    parser.add_argument("--inputs", nargs="+", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--tokenization", default=GPT2, help="whose tokenizer counts: a model")
    return MIX.run(parser, _mix, arguments)


def _mix(asked: argparse.Namespace) -> None:
    template, counted_in = template_for(asked.tokenization)
    shares = [_share(path, template) for path in asked.inputs]
    rows = [row for share in shares for row in share.rows]
    twice = len(rows) - len({row.key for row in rows})
    if asked.shuffle:
        rng(asked.seed, "mypt", "mix").shuffle(rows)
    with telling(asked.output, "write"):
        asked.output.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(asked.output, b"".join(row.raw + b"\n" for row in rows))
    MIX.tell(f"tokens counted in {counted_in}")
    examples, tokens, trained = (
        len(rows),
        sum(share.tokens for share in shares),
        sum(share.trained for share in shares),
    )
    out.line(f"{asked.output}: {examples:,} examples, {tokens:,} tokens, {trained:,} trained")
    for share in shares:
        out.line(
            f"  {share.path}: {len(share.rows):,} examples = {len(share.rows) / examples:.1%} of "
            f"examples, {share.tokens / tokens:.1%} of tokens, {share.trained / trained:.1%} of "
            "what is trained"
        )
    if twice:
        out.line(f"  {twice:,} examples stand there more than once")


def _share(path: Path, template: Template) -> Share:
    share = Share(path, list(read_rows(path)))
    for example in rendered(template, [row.thing for row in share.rows]):
        share.tokens += len(example.ids)
        share.trained += len(example.weights) - example.weights.count(0)
    if not share.trained:
        raise DataError(f"{path}: nothing in it can be learnt")
    return share
