"""`fetch_and_prepare_phase1_5`: needs the network and the cleaners, and says so."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from compat.mypt.telling import Command
from matura.core.errors import RecipeError

FETCH = Command(
    "fetch_and_prepare_phase1_5.py",
    "Eight public sources, downloaded, cleaned and tokenised.",
    "matura run RECIPE",
    "source: {kind: folder, path: …} or {kind: jsonl, path: …} reads text that is already here",
)


def fetch(arguments: Sequence[str] | None = None) -> int:
    """Takes the documented options and refuses with exit code 2."""
    parser = FETCH.parser()
    parser.add_argument("--sources_file", type=Path, required=True)
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--total_tokens", type=int, default=3_500_000_000)
    parser.add_argument("--skip_download", action="store_true")
    parser.add_argument("--sources", nargs="+")
    return FETCH.run(parser, _refuse, arguments)


def _refuse(asked: argparse.Namespace) -> None:
    what = "the cleaners of raw corpora" if asked.skip_download else "fetching from hubs"
    which = f" ({', '.join(asked.sources)})" if asked.sources else ""
    raise RecipeError(
        f"{asked.sources_file}: {what}{which} is not in this version; `matura data gather` will do "
        "it. Nothing was fetched and nothing written"
    )
