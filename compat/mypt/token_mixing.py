"""`mix_tokenized_datasets`: new token files with a stated share of old ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from compat.mypt.telling import Command, share_between_0_and_1
from matura.cli.mixing import say
from matura.core.errors import RecipeError
from matura.data.mixing import Wanted, mix

MIX = Command(
    "mix_tokenized_datasets.py",
    "Token folders with a share of replayed ones.",
    "matura run recipes/induction-750m.yaml",
    "a stage's replay: [{stage: wiki, share: 0.10}] needs no copy, with its own loss; "
    "`matura data mix` makes the copy, of any number of folders",
)
RATIO = "0.10"


def mix_tokens(arguments: Sequence[str] | None = None) -> int:
    """`--domain_dir --replay_dir --replay2_dir --replay_ratio --replay2_ratio --output_dir`."""
    parser = MIX.parser()
    parser.add_argument("--domain_dir", type=Path, required=True)
    parser.add_argument("--replay_dir", type=Path, required=True)
    parser.add_argument("--replay2_dir", type=Path)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--replay_ratio", help=f"share of the result ({RATIO})")
    parser.add_argument("--replay2_ratio", help="share of the result")
    parser.add_argument("--replay_tokens", type=int, help="instead of its ratio")
    parser.add_argument("--replay2_tokens", type=int, help="instead of its ratio")
    parser.add_argument(
        "--include_replay_val", action="store_true", help="always done: every part keeps its own"
    )
    parser.add_argument("--seed", type=int, default=42)
    return MIX.run(parser, _mix, arguments)


def _mix(asked: argparse.Namespace) -> None:
    second = asked.replay2_ratio is not None or asked.replay2_tokens is not None
    if (asked.replay2_dir is not None) != second:
        raise RecipeError("--replay2_dir goes together with --replay2_ratio or --replay2_tokens")
    parts = [
        Wanted(asked.domain_dir),
        _replayed(asked.replay_dir, asked.replay_ratio, asked.replay_tokens, RATIO),
    ]
    if asked.replay2_dir is not None:
        parts.append(_replayed(asked.replay2_dir, asked.replay2_ratio, asked.replay2_tokens, None))
    if missing := [part.path for part in parts if not part.path.is_dir()]:
        raise RecipeError(
            f"{', '.join(map(str, missing))}: no such folder; token folders come from "
            "fetch_and_prepare_phase1_5.py"
        )
    say(asked.output_dir, mix(parts, asked.output_dir, seed=asked.seed))


def _replayed(path: Path, ratio: str | None, tokens: int | None, usual: str | None) -> Wanted:
    if tokens is not None:
        if ratio is not None:
            raise RecipeError(f"{path}: both a ratio and tokens are given; one decides")
        if tokens < 1:
            raise RecipeError(f"{path}: {tokens} tokens; expected at least 1")
        return Wanted(path, tokens=tokens)
    return Wanted(path, share=share_between_0_and_1(ratio or usual or ""))
