"""`prepare_chat_sft`: a chat file split by content and tokenised, in MyPT's files.

The folder holds `train.jsonl` and `val.jsonl`, which training reads, and the same as tokens:
`tokens.bin`, `mask.bin` and `episodes.idx` of each split, which other programs of MyPT's look for.
A folder is whole or absent.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compat.mypt.places import GPT2, template_for
from compat.mypt.rows import Row, read_rows
from compat.mypt.telling import Command, share_between_0_and_1
from matura.cli import out
from matura.core.disk import WORK, delete, replace_atomically, sync_tree, telling
from matura.core.errors import DataError, RecipeError
from matura.core.rng import fraction
from matura.core.store import sha256_of
from matura.data.build import Built, build
from matura.data.sources.prepared import TRAIN, VALIDATION, Prepared
from matura.data.tokens import METADATA, STATE
from matura.text.shards import Shard
from matura.text.template import Template

PREPARE = Command(
    "prepare_chat_sft.py",
    "A chat file split by content, tokenised and masked.",
    "matura data check FILE.jsonl",
    "shows what is in it; a recipe reads it as it is: source: {kind: jsonl, path: FILE.jsonl}, "
    "with the tokenizer of its own model",
)
SCHEMA = "episode_indexed_sft_v1"


def prepare(arguments: Sequence[str] | None = None) -> int:
    """`--input --output_dir (or --output) --val_split --tokenization`."""
    parser = PREPARE.parser()
    parser.add_argument("--input", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--output_dir", "--output", type=Path, required=True)
    parser.add_argument("--val_split", default="0.1", help="share of payloads kept for validation")
    parser.add_argument("--tokenization", default=GPT2, help="whose tokenizer: a model")
    return PREPARE.run(parser, _prepare, arguments)


def _prepare(asked: argparse.Namespace) -> None:
    share = share_between_0_and_1(asked.val_split)
    template, written_in = template_for(asked.tokenization)
    final: Path = asked.output_dir
    if _holds_something_else(final):
        raise RecipeError(f"{final}: is there and was not prepared from a chat file; nothing done")
    rows, twice = _distinct(read_rows(asked.input))
    train, held = _divided(rows, share, asked.input)
    work = final.with_name(final.name + WORK)
    with telling(work, "make"):
        if work.exists():
            delete(work)
        work.mkdir(parents=True)
    for name, part in ((TRAIN, train), (VALIDATION, held)):
        replace_atomically(work / f"{name}.jsonl", b"".join(row.raw + b"\n" for row in part))
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        built = build(
            Prepared(path=work),
            name="chat",
            template=template,
            folder=Path(scratch),
            seed=0,
            stage="prepare",
        )
        _write_episodes(built, work)
    about = _about(built, template, written_in)
    about |= {
        "input": {"path": asked.input.as_posix(), "sha256": sha256_of(asked.input)},
        "rows": len(rows) + twice,
        "dropped": {**built.dropped, **({"duplicate": twice} if twice else {})},
        "val_split": {"asked": share, "got": len(held) / len(rows), "by": "payload"},
    }
    replace_atomically(work / STATE, _state(template, written_in))
    replace_atomically(work / METADATA, about)
    sync_tree(work)
    if final.exists():
        delete(final)
    with telling(final, "rename to"):
        work.rename(final)
    _say(final, about, written_in)


def _holds_something_else(folder: Path) -> bool:
    if not folder.exists() or (folder / METADATA).is_file():
        return False
    return not folder.is_dir() or any(folder.iterdir())


def _distinct(rows: Any) -> tuple[list[Row], int]:
    """Each row once, and how many were there before."""
    kept: dict[str, Row] = {}
    count = 0
    for row in rows:
        count += 1
        kept.setdefault(row.key, row)
    return list(kept.values()), count - len(kept)


def _divided(rows: Sequence[Row], share: float, path: Path) -> tuple[list[Row], list[Row]]:
    """Training and validation, no payload in both; the hash of the payload decides."""
    places = {row.group: fraction(row.group, "mypt val_split") for row in rows}
    if len(places) < 2:
        raise DataError(f"{path}: one payload cannot be split into training and validation")
    in_order = sorted(places, key=lambda group: places[group])
    held = {group for group in in_order if places[group] < share}
    held = (held or {in_order[0]}) - {in_order[-1]}
    return (
        [row for row in rows if row.group not in held],
        [row for row in rows if row.group in held],
    )


def _write_episodes(built: Built, work: Path) -> None:
    """The shards as MyPT's files: ids, a mask of 0 and 1, and where each episode lies."""
    for name, path in ((TRAIN, built.train), (VALIDATION, built.validation)):
        shard = Shard.open(path)
        lengths = shard.lengths.astype("<u8")
        starts = np.concatenate([np.zeros(1, "<u8"), np.cumsum(lengths, dtype="<u8")[:-1]])
        folder = work / name
        folder.mkdir()
        np.asarray(shard.ids).astype("<u4").tofile(folder / "tokens.bin")
        (np.asarray(shard.weights) != 0).astype("u1").tofile(folder / "mask.bin")
        np.stack([starts, lengths], axis=1).astype("<u8").tofile(folder / "episodes.idx")


def _about(built: Built, template: Template, written_in: str) -> dict[str, Any]:
    sizes = {TRAIN: built.shards["train"], VALIDATION: built.shards["validation"]}
    return {
        "schema": SCHEMA,
        "dtype": "uint32",
        "episodes": {name: info.examples for name, info in sizes.items()},
        "tokens": {name: info.tokens for name, info in sizes.items()},
        "trained_tokens": {name: info.trained_tokens for name, info in sizes.items()},
        "mask_ratio": built.trained_share,
        "longest_episode": built.lengths["most"],
        "tokenizer": {"sha256": template.tokenizer.sha256, "is": written_in},
        "first": built.first,
    }


def _state(template: Template, written_in: str) -> dict[str, Any]:
    tokenizer = template.tokenizer
    return {
        "is": written_in,
        "dialect": tokenizer.dialect,
        "vocab_size": tokenizer.vocab_size,
        "sha256": tokenizer.sha256,
        "control": dict(tokenizer.control),
    }


def _say(final: Path, about: dict[str, Any], written_in: str) -> None:
    PREPARE.tell(f"tokens are {written_in}; training writes them anew with its own model's")
    episodes, dropped = about["episodes"], about["dropped"]
    out.line(
        f"{final}: {episodes[TRAIN]:,} episodes for training, {episodes[VALIDATION]:,} for "
        f"validation ({about['val_split']['got']:.1%}, no payload in both), "
        f"{about['mask_ratio']:.0%} of tokens trained; dropped: "
        + (", ".join(f"{count} {why}" for why, count in dropped.items()) or "none")
    )
    out.line(f"  first: {about['first']!r}")
