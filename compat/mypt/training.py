"""`train`: one stage from a checkpoint, as MyPT's options and configurations ask for it.

The stage is one of a recipe that is written here and checked as any other is; it is made in
`checkpoints/NAME`, whole or absent, and goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matura
from compat.mypt.configuring import NO_USE, Config, read_config
from compat.mypt.horizons import Horizon, counted
from compat.mypt.measuring import worse
from compat.mypt.places import CHECKPOINTS, Base, checkpoint, file_named
from compat.mypt.telling import Command
from matura.cli import out
from matura.core.disk import WORK, delete, preflight, read_json, replace_atomically, telling
from matura.core.errors import DriftError, RecipeError
from matura.core.ledger import CLOCK, Ledger
from matura.core.lock import RunLock
from matura.core.record import differences, plain
from matura.core.store import Folder, publish, sha256_of
from matura.data.sources.prepared import Prepared
from matura.ladder.calibrate import shape_of
from matura.ladder.lineage import input_hashes, lineage
from matura.ladder.machine import machine, peak_rss_bytes
from matura.ladder.making import ASKED
from matura.ladder.plan import CHECKPOINTS_KEPT, STATE_TIMES
from matura.ladder.recipe import Recipe, loads
from matura.stages.stage import Context, Made, StageKind

TRAIN = Command(
    "train.py",
    "One stage of training from a checkpoint.",
    "matura run recipes/curriculum.yaml",
    "climbs all stages, each with its replay, and goes up only if its exams are passed; "
    "`matura plan` says before what it takes",
)
OVERRIDES = {
    "max_iters": int,
    "eval_interval": int,
    "learning_rate": float,
    "warmup_iters": float,
    "grad_clip": float,
    "weight_decay": float,
    "batch_size": int,
    "block_size": int,
}
"""Keys of a configuration that are options too."""


@dataclass(frozen=True)
class Asked:
    """All that a model is made from."""

    name: str
    base: Base
    config: Config
    data: Prepared
    prompts: Path | None
    heart: bool
    """Whether examples may be seen so often that they are learnt by heart."""


def train(arguments: Sequence[str] | None = None) -> int:
    """`--model_name --dataset_dir --init_from_model --config_file --eval_prompts_file`."""
    parser = TRAIN.parser()
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--init_from_model", metavar="NAME")
    parser.add_argument("--config_file", type=Path, required=True)
    parser.add_argument("--eval_prompts_file", type=Path)
    parser.add_argument(
        "--allow-overexposure",
        action="store_true",
        help="train for as long as the configuration says, however often that shows each episode",
    )
    for name, kind in OVERRIDES.items():
        parser.add_argument(f"--{name}", type=kind)
    return TRAIN.run(parser, _train, arguments)


def _train(given: argparse.Namespace) -> None:
    asked = _understood(given)
    recipe, horizon = _recipe(asked)
    final = CHECKPOINTS / recipe.stages[0].name
    preflight(CHECKPOINTS, need_bytes=_least_bytes(recipe))
    for line in horizon.told:
        TRAIN.tell(line)
    with RunLock(CHECKPOINTS):
        folder = _made(asked, recipe, final)
    numbers = folder.record["numbers"]
    out.line(f"{final}: {numbers['tokens']:,} tokens, the best step was {numbers['best_step']}")
    for name, loss in numbers["validation"].items():
        out.line(f"  validation loss {name}: {loss:.4f}")
    for line in numbers.get("eval_sets", []):
        out.line(f"  {line}")


def _understood(given: argparse.Namespace) -> Asked:
    overrides = {key: getattr(given, key) for key in OVERRIDES if getattr(given, key) is not None}
    config, useless = read_config(given.config_file, overrides)
    start = given.init_from_model or config.init_from_model
    if start is None:
        raise RecipeError(
            "--init_from_model is missing: a first model is made by `matura run RECIPE`, with its "
            "tokenizer; then its stage's folder (runs/…/base@1) can be named here"
        )
    if useless:
        TRAIN.tell("no use for " + "; ".join(f"{key} ({NO_USE[key]})" for key in useless))
    base = checkpoint(start)
    if base.notice:
        TRAIN.tell(base.notice)
    data = Prepared(path=given.dataset_dir)
    if not data.path.is_dir():
        raise RecipeError(
            f"{data.path}: no such folder; chats come from prepare_chat_sft.py, corpora from "
            "fetch_and_prepare_phase1_5.py"
        )
    prompts = given.eval_prompts_file and file_named(given.eval_prompts_file)
    for path in config.eval_sets.values():
        if not path.is_dir():
            raise RecipeError(f"eval_sets: {path}: no such folder; prepare it or leave it out")
    return Asked(given.model_name, base, config, data, prompts, given.allow_overexposure)


def _recipe(asked: Asked) -> tuple[Recipe, Horizon]:
    """The one stage as a recipe, checked; and what MyPT's iterations come to.

    Raises:
        RecipeError: the name cannot be a stage's, or the settings do not fit together.
    """
    from matura.models import hf

    shape = hf.read_config(asked.base.found.path)
    template = asked.base.found.template()
    config = asked.config
    for said in config.other_shape(shape):
        TRAIN.tell(f"mind: the configuration says {said}; the start model's shape is kept")
    length = min(config.block_size or shape.sequence_length, shape.sequence_length)
    horizon = counted(config, asked.data, template, length, heart=asked.heart)
    chats = asked.data.is_text
    stage: dict[str, Any] = {
        "name": asked.name,
        "kind": "sft" if chats else "pretrain",
        "mixture": [
            {
                "source": plain(asked.data),
                "share": 1.0,
                "name": "data",
                "max_repeats": horizon.max_repeats,
                "lose_at_most": 1.0,  # MyPT leaves out what is too long, however much it is
            }
        ],
        "train": horizon.train,
    }
    if chats:
        stage["tags"] = asked.base.tags
    if asked.prompts is not None:
        stage["eval_prompts"] = asked.prompts.as_posix()
    tokenizer = template.tokenizer
    recipe = {
        "name": "mypt",
        "seed": config.epoch_seed,
        "tokenizer": {
            "vocab_size": tokenizer.vocab_size,
            "dialect": tokenizer.dialect,
            "split": tokenizer.cut,
            "spare": tokenizer.spare,
        },
        "model": {
            "hidden_size": shape.hidden_size,
            "layers": shape.layers,
            "heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "intermediate_size": shape.intermediate_size,
            "sequence_length": length,
            "qk_norm": shape.qk_norm,
            "conv_layers": list(shape.conv_layers),
            "tie_embeddings": shape.tie_embeddings,
            "rope_theta": shape.rope_theta,
        },
        "stages": [stage],
    }
    return loads(json.dumps(recipe), where="train.py"), horizon


def _least_bytes(recipe: Recipe) -> int:
    """What the model and its checkpoints surely take on disk."""
    parameters = shape_of(recipe, recipe.tokenizer.vocab_size).parameters
    return round(4 * parameters * (1 + CHECKPOINTS_KEPT * STATE_TIMES))


def _made(asked: Asked, recipe: Recipe, final: Path) -> Folder:
    """The finished model's folder, made now or before.

    Raises:
        DriftError: a model of that name was made from something else.
    """
    stage = recipe.stages[0]
    told = plain(stage)
    for part in told["mixture"]:
        del part["lose_at_most"]  # changes nothing of what is made; older folders do not have it
    wanted = {
        "stage": told,
        "seed": recipe.seed,
        "model": plain(recipe.model),
        "start": sha256_of(asked.base.found.path / "model.safetensors"),
        "parents": {},
        "inputs": input_hashes(stage.mixture),
    }
    if final.exists():
        folder = Folder.open(final)
        _refuse_drift(final, folder.record.get("asked"), wanted)
        TRAIN.tell(f"{final}: there already")
        return folder
    work = final.with_name(final.name + WORK)
    if work.exists() and not any(work.glob("state/step-*")):
        delete(work)  # nothing was learnt yet
    if (work / ASKED).exists():
        _refuse_drift(work, read_json(work / ASKED), wanted)
    with telling(work, "make"):
        work.mkdir(exist_ok=True)
    replace_atomically(work / ASKED, wanted)
    with Ledger().at(work, stage.name) as pages, _as_parent(asked.base) as parents:
        context = Context(
            seed=recipe.seed,
            tokenizer=recipe.tokenizer,
            model=recipe.model,
            start="start",
            earlier={},
            ledger=pages,
        )
        made = stage.make(work, parents, context)
        record = _record(asked, stage, made, wanted, pages.seconds)
    record["numbers"]["eval_sets"] = [
        line
        for name, path in asked.config.eval_sets.items()
        for line in worse(name, path, asked.base.found.path, work / "model")
    ]
    with telling(work / CLOCK, "remove"):
        (work / CLOCK).unlink(missing_ok=True)
    return publish(work, final, record)


def _refuse_drift(place: Path, then: object, now: Mapping[str, Any]) -> None:
    changes = differences(then, now)
    if changes:
        raise DriftError(
            f"{place} was made from something else: {'; '.join(changes[:5])}. Give another "
            f"--model_name, or delete {place}"
        )


@contextmanager
def _as_parent(base: Base) -> Iterator[dict[str, Path]]:
    """The start model as stages want their parents: a folder with the model in `model/`."""
    with tempfile.TemporaryDirectory() as scratch:
        parent = Path(scratch)
        (parent / "model").symlink_to(base.found.path.resolve(), target_is_directory=True)
        yield {"tokenizer": parent, "start": parent}


def _record(
    asked: Asked, stage: StageKind, made: Made, wanted: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    before = asked.base.found.stage
    return {
        "stage": stage.name,
        "attempt": 1,
        "asked": wanted,
        "lineage": lineage(
            stage, {}, made.shares, made.tokens, before.record["lineage"] if before else None
        ),
        "version": matura.__version__,
        "machine": machine(),
        "numbers": {
            **made.numbers,
            "started_from": asked.base.found.name,
            "seconds": round(seconds, 3),
            "peak_rss_bytes": peak_rss_bytes(),
            "tokens": made.tokens,
        },
    }
