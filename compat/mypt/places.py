"""Where the documents' names lie: configurations, checkpoints, and the tokenizer of both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from matura.core.disk import WORK
from matura.core.errors import RecipeError, StoreError
from matura.core.leaves import did_you_mean
from matura.ladder.models import CONFIG, TOKENIZER, Found, find
from matura.text.dialects import DIALECTS
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

CHECKPOINTS = Path("checkpoints")
OURS = Path(__file__).parent
GPT2 = "gpt2"
READY, GOLD = "_sft_ready", "_gold"


def file_named(path: Path) -> Path:
    """The file as it is named, here or, for `configs/…`, beside these scripts.

    Raises:
        RecipeError: it is in neither place.
    """
    for place in (path, OURS / path):
        if place.is_file():
            return place
    folder = OURS / path.parent
    near = [p.name for p in folder.iterdir()] if folder.is_dir() and not path.is_absolute() else []
    raise RecipeError(f"{path}: no such file{did_you_mean(path.name, near) if near else ''}")


@dataclass(frozen=True)
class Base:
    """The model to start from."""

    found: Found
    notice: str = ""
    """What was read into its name."""
    tags: str = "weighted"
    """Whether its control tags are still to get a meaning: a value of `Sft.tags`."""


def checkpoint(name: str) -> Base:
    """The model called `name`: in `checkpoints/`, or a path to a run, a stage or a folder.

    `X_sft_ready` is X whose tags get their meaning when training starts; `X_gold` is X, which is
    its own best checkpoint.

    Raises:
        RecipeError: there is none.
        StoreError: it is damaged.
    """
    for place in (CHECKPOINTS / name, Path(name)):
        if place.is_dir():
            found = find(place)
            ready = name.endswith(READY) or _has_chatted(found)
            return Base(found, tags="as they are" if ready else "weighted")
    for ending, meaning in (
        (READY, "its tags get their meaning when training starts"),
        (GOLD, "a finished model is its own best checkpoint"),
    ):
        bare = name.removesuffix(ending)
        if bare != name and (CHECKPOINTS / bare).is_dir():
            base = checkpoint(bare)
            return Base(base.found, f"{name}: taken for {bare}: {meaning}", base.tags)
    there = [p.name for p in CHECKPOINTS.iterdir()] if CHECKPOINTS.is_dir() else []
    known = did_you_mean(name, [n for n in there if not n.startswith(".")]) if there else ""
    raise RecipeError(
        f"{CHECKPOINTS / name}: no such model{known}; a first one is made by `matura run RECIPE`, "
        "and its stage's folder (runs/…/base@1) can be given instead of a name"
    )


def _has_chatted(found: Found) -> bool:
    return found.stage is not None and found.speaks == "chat"


def template_for(tokenization: str) -> tuple[Template, str]:
    """What to count and write tokens with, and which that is in words.

    `gpt2`, the documents' default, is the one tokenizer that all models in `checkpoints/` share;
    where there is none, bytes with MyPT's tags. Anything else is a model.

    Raises:
        RecipeError: the models do not share one, or there is no such model.
    """
    if tokenization != GPT2:
        found = checkpoint(tokenization).found
        return found.template(), f"the tokenizer of {found.name}"
    tokenizers = shared_tokenizers()
    if len(tokenizers) > 1:
        raise RecipeError(
            f"the models in {CHECKPOINTS} have {len(tokenizers)} tokenizers; say whose with "
            f"--tokenization MODEL (such as {', '.join(str(p) for p in tokenizers.values())})"
        )
    for model in tokenizers.values():
        return Template(Tokenizer.load(model)), f"the tokenizer of {model}"
    return Template(Tokenizer.bytes_only("mypt")), (
        f"bytes, one token each, and MyPT's tags: there is no GPT-2 vocabulary here and no model "
        f"in {CHECKPOINTS}"
    )


def shared_tokenizers() -> dict[str, Path]:
    """A folder for each tokenizer that the models in `checkpoints/` have, by its hash."""
    tokenizers: dict[str, Path] = {}
    for folder in sorted(CHECKPOINTS.glob("*")):
        for model in (folder / "model", folder):
            if folder.suffix != WORK and _ours(model):
                tokenizers.setdefault(Tokenizer.load(model).sha256, model)
                break
    return tokenizers


def _ours(model: Path) -> bool:
    """Whether a tokenizer that Matura saved lies there."""
    if not (model / TOKENIZER).is_file() or not (model / CONFIG).is_file():
        return False
    try:
        said = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise StoreError(f"{model}: no readable tokenizer_config.json: {problem}") from problem
    return isinstance(said, dict) and "matura" in said


LEGACY = DIALECTS["mypt-legacy"]
"""Reads both forms of the documents' prompts, `</myPT_user>` and `<myPT_eot>`."""
