"""`mix_tokenized_datasets`: new token files with a stated share of old ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.mypt.telling import Command, share_between_0_and_1
from matura.cli import out
from matura.core.disk import WORK, delete, replace_atomically, sync_tree, telling
from matura.core.errors import DataError, RecipeError
from matura.core.rng import rng
from matura.data.tokens import METADATA, STATE, TokenFolder, Tokens, read_object

MIX = Command(
    "mix_tokenized_datasets.py",
    "Token folders with a share of replayed ones.",
    "matura run recipes/curriculum.yaml",
    "a stage's replay: [{stage: base, share: 0.13}] needs no copy, with its own loss",
)


@dataclass(frozen=True)
class Part:
    """One input and how much of the result it is to be."""

    folder: TokenFolder
    share: float
    tokens: int
    """To be taken from its training files."""
    files: tuple[Path, ...]
    """In the order in which they are taken."""


def mix_tokens(arguments: Sequence[str] | None = None) -> int:
    """`--domain_dir --replay_dir --replay2_dir --replay_ratio --replay2_ratio --output_dir`."""
    parser = MIX.parser()
    parser.add_argument("--domain_dir", type=Path, required=True)
    parser.add_argument("--replay_dir", type=Path, required=True)
    parser.add_argument("--replay2_dir", type=Path)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--replay_ratio", default="0.10", help="share of the result")
    parser.add_argument("--replay2_ratio", help="share of the result")
    parser.add_argument("--seed", type=int, default=42)
    return MIX.run(parser, _mix, arguments)


def _mix(asked: argparse.Namespace) -> None:
    final: Path = asked.output_dir
    if final.exists() and not (final / METADATA).is_file():
        raise RecipeError(f"{final}: is there and is no token folder; nothing done")
    parts = _parts(asked)
    state = _one_tokenizer(parts)
    work = final.with_name(final.name + WORK)
    with telling(work, "make"):
        if work.exists():
            delete(work)
        work.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        got = _copy(part, work / "train", number, _trained(part))
        held = _copy(part, work / "val", number, _whole(part, "val"))
        lines.append(
            {"path": part.folder.path.as_posix(), "asked": part.share, "train": got, "val": held}
        )
    total = sum(line["train"] for line in lines)
    for line in lines:
        line["got"] = line["train"] / total
    about = {"dtype": "uint32", "train_tokens": total, "parts": lines, "seed": asked.seed}
    if state is not None:
        replace_atomically(work / STATE, state)
    replace_atomically(work / METADATA, about)
    sync_tree(work)
    if final.exists():
        delete(final)
    with telling(final, "rename to"):
        work.rename(final)
    out.line(f"{final}: {total:,} tokens for training")
    for line in lines:
        out.line(
            f"  {line['path']}: {line['train']:,} tokens = {line['got']:.2%} "
            f"(asked {line['asked']:.2%}), {line['val']:,} for validation"
        )


def _parts(asked: argparse.Namespace) -> list[Part]:
    """The inputs with what to take of each.

    Raises:
        RecipeError: a folder is not there, or shares leave nothing for what is new.
        DataError: a replayed folder has too few tokens for its share.
    """
    if (asked.replay2_dir is None) != (asked.replay2_ratio is None):
        raise RecipeError("--replay2_dir and --replay2_ratio go together")
    replayed = [(asked.replay_dir, share_between_0_and_1(asked.replay_ratio))]
    if asked.replay2_dir is not None:
        replayed.append((asked.replay2_dir, share_between_0_and_1(asked.replay2_ratio)))
    missing = [path for path in (asked.domain_dir, *(p for p, _ in replayed)) if not path.is_dir()]
    if missing:
        raise RecipeError(
            f"{', '.join(map(str, missing))}: no such folder; token folders come from fetching "
            "and cleaning a corpus, which `matura data gather` will do"
        )
    own = 1 - sum(share for _, share in replayed)
    if own <= 0:
        raise RecipeError("the replayed shares leave nothing for --domain_dir")
    domain = TokenFolder.open(asked.domain_dir)
    new = domain.count("train")
    parts = [Part(domain, own, new, tuple(domain.files("train")))]
    for path, share in replayed:
        folder = TokenFolder.open(path)
        wanted, there = round(new * share / own), folder.count("train")
        if there < wanted:
            raise DataError(
                f"{path}: has {there:,} tokens, a share of {share:.2%} needs {wanted:,}; at most "
                f"{there / (new / own):.2%} can be reached"
            )
        files = folder.files("train")
        rng(asked.seed, "mypt", "mix", path.name).shuffle(files)
        parts.append(Part(folder, share, wanted, tuple(files)))
    return parts


def _one_tokenizer(parts: Sequence[Part]) -> dict[str, Any] | None:
    """What the inputs say about their tokenizer, if they say anything.

    Raises:
        DataError: two of them say different things.
    """
    said = [
        (part.folder.path, read_object(part.folder.path / STATE))
        for part in parts
        if (part.folder.path / STATE).is_file()
    ]
    for path, state in said[1:]:
        if state != said[0][1]:
            raise DataError(f"{path}: written with another tokenizer than {said[0][0]}")
    return said[0][1] if said else None


def _trained(part: Part) -> Iterator[Tokens]:
    """The first files in the part's order, the last one cut, so that the share is exact."""
    left = part.tokens
    for file in part.files:
        ids = part.folder.tokens(file)[:left]
        left -= len(ids)
        if len(ids):
            yield ids


def _whole(part: Part, split: str) -> Iterator[Tokens]:
    return (part.folder.tokens(file) for file in part.folder.files(split))


def _copy(part: Part, folder: Path, number: int, pieces: Iterator[Tokens]) -> int:
    """How many tokens were written; always 4 bytes each, whatever the input's width."""
    folder.mkdir(exist_ok=True)
    written = 0
    for place, ids in enumerate(pieces):
        ids.astype("<u4").tofile(folder / f"part{number}_{place:05d}.bin")
        written += len(ids)
    return written
