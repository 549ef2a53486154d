"""`model: {from: …}`: a recipe that goes on from an open model, as the parts that it stands for.

What it stands for is an ordinary `given` stage in front of the others, that model's shape and
tokenizer, and learning rates of a size that does not destroy what it knows. So whatever reads a
recipe sees nothing new, and `plan` prints what was put in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matura.core.errors import NotHereError, RecipeError
from matura.ladder.lines import Place
from matura.stages.origin import spec_of

FROM, LENGTH = "from", "sequence_length"
HELP = "Go on from an open model: its folder, or OWNER/NAME of the hub where its cache has it."
STAGE = "given"
LONGEST_ROW = 2048
"""Of rows where nobody says: a model that reads 131,072 tokens is not tuned in such rows here."""
RATES = {"learning_rate": 2e-5, "embedding_learning_rate": 2e-5, "matrix_learning_rate": 1e-3}
"""Where nobody says. 2e-5 is what AdamW is usually given for chat tuning at these sizes; Muon moves
each number of a matrix by its rate / sqrt(longer side), which at 1e-3 is as much. The usual rates
are for fresh weights, whose embeddings are 50 times as large as those of open models."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def expanded(value: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The recipe's value without `from`, and how many stages were put in front.

    Raises:
        RecipeError: besides `from` something is said that the model itself says.
        NotHereError: there is no such model.
        MaturaError: it is of a make that Matura does not know.
    """
    model = value.get("model")
    if not isinstance(model, dict) or FROM not in model:
        return dict(value), 0
    if extra := sorted({*model} - {FROM, LENGTH}):
        raise RecipeError(
            f"{', '.join(extra)}: a model that is gone on from has the shape it has; only {LENGTH} "
            "can be given, and shorter"
        )
    path = located(model[FROM])
    told = value.get("tokenizer")
    dialect = told.get("dialect") if isinstance(told, dict) else None
    shape, tokenizer = spec_of(path, dialect if isinstance(dialect, str) else None)
    length = model.get(LENGTH, min(shape.sequence_length, LONGEST_ROW))
    if isinstance(length, int) and length > shape.sequence_length:
        raise RecipeError(f"{LENGTH} {length}: the model reads only {shape.sequence_length}")
    stages = value.get("stages")
    if not isinstance(stages, list):
        raise RecipeError(f"{FROM}: there are no 'stages' to go on with")
    name = STAGE
    while name in [stage.get("name") for stage in stages if isinstance(stage, dict)]:
        name += "-model"
    return {
        **value,
        "model": shape.model_dump(exclude_unset=True) | {LENGTH: length},
        "tokenizer": tokenizer.model_dump() | (told if isinstance(told, dict) else {}),
        "stages": [
            {"name": name, "kind": "given", "model": str(path)},
            *(_gently(stage) for stage in stages),
        ],
    }, 1


def _gently(stage: Any) -> Any:
    """The stage with rates for a model that knows something, where it trains and has none."""
    if not isinstance(stage, dict) or stage.get("kind") not in ("sft", "pretrain"):
        return stage
    train = stage.get("train", {})
    if not isinstance(train, dict) or train.get("parent_rates") is not None:
        return stage
    return {**stage, "train": {**RATES, **train}}


def before(place: Place, count: int) -> Place:
    """Where in the file something stands that stands at `place` now that `count` stages are in
    front of the file's own."""
    if not count or len(place) < 2 or place[0] != "stages" or not isinstance(place[1], int):
        return place
    own = place[1] - count
    return ("stages", own, *place[2:]) if own >= 0 else ("model", FROM)


def located(told: object) -> Path:
    """The folder of a model: itself, or where the hub's cache has it.

    Raises:
        RecipeError: it is no path.
        NotHereError: it is nowhere. Nothing is fetched.
    """
    if not isinstance(told, str) or not told:
        raise RecipeError(f"{told!r}: expected a folder, or a model of the hub as OWNER/NAME")
    path = Path(told).expanduser()
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(told):
        raise NotHereError(f"{told}: no such folder")
    kept = _cache() / f"models--{told.replace('/', '--')}"
    main = kept / "refs" / "main"
    commits = [main.read_text(encoding="utf-8").strip()] if main.is_file() else []
    commits += sorted(at.name for at in kept.glob("snapshots/*"))
    for commit in commits:
        if (kept / "snapshots" / commit / "config.json").is_file():
            return kept / "snapshots" / commit
    raise NotHereError(
        f"{told}: neither a folder nor in the hub's cache ({_cache()}); Matura fetches no models "
        f"by itself: fetch it once with `hf download {told}`"
    )


def _cache() -> Path:
    """Where Hugging Face's own programs keep what they downloaded."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
