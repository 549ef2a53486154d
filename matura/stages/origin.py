"""A model that was made elsewhere, as a recipe goes on from it: where it lies, and whether it is
what the recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matura.core.disk import read_json
from matura.core.errors import DataError, NotHereError, RecipeError
from matura.core.store import RECORD, Checkpoints
from matura.stages.parts import ModelSpec, TokenizerSpec
from matura.text.folder import tokenizer_in
from matura.text.imported import ImportedTokenizer, is_imported
from matura.text.taught import speaking
from matura.text.tokenizer import Tokenizer

STATE = "state"
MODEL, WEIGHTS, CONFIG, TOKENIZER = "model", "model.safetensors", "config.json", "tokenizer.json"
TOLD = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")
"""What says how to speak with a model that somebody else made."""


def model_folder(path: Path) -> Path:
    """Where the Hugging Face folder of a given model lies.

    Raises:
        NotHereError: there is nothing.
        DataError: there is something else.
    """
    if not path.exists():
        raise NotHereError(
            f"{path}: no such folder; a model to go on from is made by `matura run RECIPE`, and is "
            "one of its stages (runs/NAME/STAGE@1)"
        )
    for folder in (path / MODEL, path):
        weighed = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
        if weighed and all((folder / name).is_file() for name in (CONFIG, TOKENIZER)):
            return folder
    if stages := sorted(at.parent.name for at in path.glob(f"*@*/{RECORD}")):
        raise DataError(f"{path}: a run; name the stage to go on from: {', '.join(stages)}")
    raise DataError(f"{path}: no model; expected {CONFIG}, {TOKENIZER} and {WEIGHTS}")


def model_files(folder: Path) -> tuple[str, ...]:
    """The files that make a given model what it is."""
    weights = sorted(found.name for found in folder.glob("model*.safetensors*"))
    told = [name for name in TOLD if (folder / name).is_file()] if is_imported(folder) else []
    return (CONFIG, TOKENIZER, *weights, *told)


def tokenizer_of(path: Path, dialect: str | None = None) -> Tokenizer:
    """A given model's tokenizer; one that somebody else made may be given another dialect.

    Raises:
        DataError: it is of a kind that is not known here, or has no room for the dialect.
    """
    found = tokenizer_in(model_folder(path))
    if dialect is None or dialect == found.dialect or not isinstance(found, ImportedTokenizer):
        return found
    return speaking(found, dialect)


def spec_of(path: Path, dialect: str | None = None) -> tuple[ModelSpec, TokenizerSpec]:
    """A given model's shape and tokenizer, as a recipe spells them.

    Raises:
        StoreError: it is of a make that Matura does not know, or its weights are pickled.
    """
    from matura.models import hf

    folder = model_folder(path)
    hf.weight_files(folder)
    shape, tokenizer = hf.read_config(folder), tokenizer_of(path, dialect)
    fields = {name for name, field in ModelSpec.model_fields.items() if not field.exclude}
    told: dict[str, Any] = {name: getattr(shape, name) for name in fields}
    model = ModelSpec(
        **told | {"head_dim": shape.head_width, "intermediate_size": shape.inner_width}
    )
    return model, TokenizerSpec(
        kind="hf" if isinstance(tokenizer, ImportedTokenizer) else "bpe",
        vocab_size=tokenizer.vocab_size,
        dialect=tokenizer.dialect,
        split=tokenizer.cut,
        spare=tokenizer.spare,
    )


def refuse_other_shape(stage: str, path: Path, asked: ModelSpec) -> None:
    """Holds a given model to the recipe's `model`; rows may be shorter than it reads.

    Raises:
        RecipeError: its shape is another.
    """
    from matura.models.decoder import DecoderConfig

    found, _ = spec_of(path)
    spelled = asked.model_dump() | {"kv_heads": asked.kv_heads or asked.heads, "vocab_size": 1}
    shape = DecoderConfig(**spelled)
    whole = spelled | {"head_dim": shape.head_width, "intermediate_size": shape.inner_width}
    other = [
        f"{name} {there} (the recipe's is {whole[name]})"
        for name, there in found.model_dump().items()
        if (there < whole[name] if name == "sequence_length" else there != whole[name])
    ]
    if other:
        raise RecipeError(
            f"{stage}: the model in {path} has {', '.join(other)}; say so in the recipe's 'model', "
            "or give another"
        )


def refuse_other_tokenizer(path: Path, asked: TokenizerSpec) -> None:
    """Holds a given model's tokenizer to the recipe's `tokenizer`.

    Raises:
        RecipeError: it is another: tokens of the one mean nothing to a model of the other.
    """
    _, found = spec_of(path, asked.dialect)
    other = [
        f"{name} {getattr(found, name)!r} (the recipe's is {getattr(asked, name)!r})"
        for name in ("kind", "vocab_size", "dialect", "split", "spare")
        if getattr(found, name) != getattr(asked, name)
    ]
    if other:
        raise RecipeError(
            f"tokenizer: that of the model in {path} has {', '.join(other)}; say so in the "
            "recipe's 'tokenizer', or give another model"
        )


def state_of(path: Path, way_out: str) -> tuple[Path, int]:
    """The checkpoint of the step whose weights a stage's model has, and that step; `path` is the
    stage's folder or its model's.

    Raises:
        NotHereError: there is none, or it is of adapters; ends with the way out.
    """
    folder = model_folder(path)
    numbers = record_of(path).get("numbers", {})
    step = numbers.get("best_step")
    if "lora" in numbers:
        raise NotHereError(f"{path}: its optimizer was that of adapters; {way_out}")
    found = Checkpoints(folder.parent / STATE).at(step if isinstance(step, int) else 0)
    if folder.name != MODEL or not found.is_dir():
        raise NotHereError(
            f"{path}: no state of the step that the model is of ({found} is not there); {way_out}"
        )
    assert isinstance(step, int)
    return found, step


def record_of(path: Path) -> dict[str, Any]:
    """What a stage's record says; nothing for a model without one."""
    folder = model_folder(path)
    place = folder.parent / RECORD if folder.name == MODEL else folder / RECORD
    return dict(read_json(place)) if place.is_file() else {}
