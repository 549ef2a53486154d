"""An adapter as PEFT's folder: `peft` puts it on the stock base model, and so do we.

Rows of the embedding and the head that are not the base's (control tags that were given a meaning
before training) lie in it too, as PEFT's `trainable_token_indices`: without them the adapter would
stand on a base that is nowhere on disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from matura.core.errors import StoreError
from matura.models import hf
from matura.models.decoder import Decoder
from matura.models.lora import adapted, attach, linears
from matura.models.weights import Tensors, open_tensors, save_tensors, weights_sha256

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
ROWS = ".token_adapter.trainable_tokens_delta"
ROWS_OF = ("embed_tokens", "lm_head")
"""Matrices of which some rows may differ from the base's."""


def save(model: Decoder, folder: Path, *, base: Path) -> None:
    """The adapters of `model` into `folder`; `base` is the folder of the model they stand on.

    Raises:
        StoreError: what is frozen in the model is not what lies in `base`, or the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: one for name, _, one in adapted(model)}
    rows = dict(_other_rows(model, base))
    tensors = {name: matrix.detach().cpu().contiguous() for name, matrix in _matrices(model)}
    tensors |= {f"{PREFIX}{name}{ROWS}": values for name, (_, values) in rows.items()}
    save_tensors(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    one = next(iter(found.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": Path(os.path.relpath(base, folder)).as_posix(),
        "r": one.rank,
        "lora_alpha": one.alpha,
        "lora_dropout": 0.0,
        "target_modules": _spelled_targets(model, [*found]),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    if rows:
        config["trainable_token_indices"] = {
            name.rpartition(".")[2]: ids for name, (ids, _) in rows.items()
        }
    _write(folder / CONFIG, config)
    _write(folder / BASE, {"weights_sha256": weights_sha256(base)})


def load(folder: Path, base: Path) -> Decoder:
    """The base model with the adapter on it.

    Raises:
        StoreError: the adapter was trained on another base, or one of both is broken.
    """
    config, told = _read(folder / CONFIG), _read(folder / BASE)
    here = weights_sha256(base)
    if told.get("weights_sha256") != here:
        raise StoreError(
            f"{folder}: this adapter belongs to the model with weights "
            f"{str(told.get('weights_sha256'))[:12]}…, and {base} has {here[:12]}…"
        )
    model = hf.load(base)
    try:
        with open_tensors(folder / WEIGHTS) as file:
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        _attach(model, config)
        _fill(model, config, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as problem:
        raise StoreError(f"{folder}: no readable adapter of {base}: {problem}") from problem
    return model


def _attach(model: Decoder, config: Mapping[str, Any]) -> None:
    spelled = {*config["target_modules"]}
    targets = {
        name.rpartition(".")[2]
        for name, _ in linears(model)
        if _is_target(hf.their_name(name, model.config), spelled)
    }
    if config["peft_type"] != "LORA" or config.get("use_rslora") or config.get("use_dora"):
        raise ValueError("only plain LoRA is read")
    attach(
        model,
        rank=int(config["r"]),
        alpha=float(config["lora_alpha"]),
        targets=targets,
        generator=torch.Generator(),
    )


def _fill(model: Decoder, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    own = dict(_matrices(model))
    rows = {
        f"{PREFIX}{name}{ROWS}": (weight, config["trainable_token_indices"][short])
        for name, short, weight in _row_matrices(model)
        if short in (config.get("trainable_token_indices") or {})
    }
    if other := sorted(tensors.keys() ^ (own.keys() | rows.keys())):
        raise ValueError(f"tensors differ in {other[:5]}")
    with torch.no_grad():
        for name, weight in own.items():
            if tensors[name].shape != weight.shape:
                raise ValueError(f"{name} is {tuple(tensors[name].shape)}")
            weight.copy_(tensors[name])
        for name, (weight, ids) in rows.items():
            weight[torch.tensor(ids)] = tensors[name]


def _other_rows(model: Decoder, base: Path) -> Iterator[tuple[str, tuple[list[int], Tensor]]]:
    """Of each matrix that has rows which are not the base's: which, and what they are.

    Raises:
        StoreError: something else of what is frozen differs.
    """
    may = {f"{name}.weight" for name, _, _ in _row_matrices(model)}
    with Tensors(base) as found:
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                continue
            mine = weight.detach().cpu()
            theirs = found.read(hf.their_name(name, model.config))
            if torch.equal(mine, theirs):
                continue
            if name not in may:
                raise StoreError(f"{base}: {name} is not what the adapter was trained on")
            ids = (mine != theirs).any(dim=1).nonzero().flatten()
            yield name.removesuffix(".weight"), (ids.tolist(), mine[ids].contiguous())


def _row_matrices(model: Decoder) -> Iterator[tuple[str, str, Tensor]]:
    """Full name, short name and weight of what may have other rows; a tied head has none of its
    own."""
    yield "model.embed_tokens", ROWS_OF[0], model.model.embed_tokens.weight
    if not model.config.tie_embeddings:
        yield "lm_head", ROWS_OF[1], model.lm_head.weight


def _spelled_targets(model: Decoder, names: list[str]) -> list[str]:
    """The targets as people write them, `q_proj`; or each module's whole name, where the short one
    would mean others too (LFM2 has two kinds of `out_proj`)."""
    theirs = [hf.their_name(name, model.config) for name in names]
    short = {name.rpartition(".")[2] for name in theirs}
    every = [hf.their_name(name, model.config) for name, _ in linears(model)]
    meant = [name for name in every if _is_target(name, short)]
    return sorted(short) if sorted(meant) == sorted(theirs) else sorted(theirs)


def _is_target(name: str, spelled: set[str]) -> bool:
    return name in spelled or name.rpartition(".")[2] in spelled


def _matrices(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Each adapter's matrices under the names that PEFT gives them."""
    for name, _, one in adapted(model):
        theirs = PREFIX + hf.their_name(name, model.config)
        yield theirs + DOWN, one.down
        yield theirs + UP, one.up


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise StoreError(f"{path}: not readable: {problem}") from problem
    if not isinstance(found, dict):
        raise StoreError(f"{path}: expected an object")
    return found


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
