"""Everything a run is, in one folder: safetensors for tensors, JSON for the rest. No pickle
anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from matura.core.errors import StoreError
from matura.core.store import Folder
from matura.learn.optim import Optimizer
from matura.learn.watch import check_finite
from matura.models.decoder import Decoder

WEIGHTS, OPTIMIZER, REST = "weights.safetensors", "optimizer.safetensors", "state.json"


def write(
    folder: Path, model: Decoder, optimizer: Optimizer, rest: Mapping[str, Any], step: int
) -> None:
    """The whole state into `folder`.

    Raises:
        RedLine: something in it is not finite.
    """
    weights = own_weights(model)
    check_finite(weights, step)
    check_finite(optimizer.state(), step)
    save_file(weights, folder / WEIGHTS)
    save_file({n: t.contiguous() for n, t in optimizer.state().items()}, folder / OPTIMIZER)
    whole = {**rest, "optimizer_steps": optimizer.step_count}
    (folder / REST).write_text(json.dumps(whole, indent=1, sort_keys=True), encoding="utf-8")


def read(folder: Folder, model: Decoder, optimizer: Optimizer) -> dict[str, Any]:
    """Model and optimizer back to what was written; the rest is returned.

    Raises:
        StoreError: the state is of another model, or lacks a piece.
    """
    read_weights(folder.file(WEIGHTS), model)
    try:
        rest = json.loads(folder.file(REST).read_text(encoding="utf-8"))
        optimizer.restore(load_file(folder.file(OPTIMIZER)), int(rest["optimizer_steps"]))
    except (KeyError, TypeError, SafetensorError, ValueError, RuntimeError) as problem:
        raise StoreError(f"{folder.path}: this state cannot be resumed: {problem}") from problem
    return dict(rest)


def read_weights(path: Path, model: Decoder) -> None:
    """The model's weights from a file.

    Raises:
        StoreError: names or shapes differ.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as problem:
        raise StoreError(f"{path}: no readable safetensors file: {problem}") from problem
    own = own_weights(model)
    if found.keys() != own.keys():
        raise StoreError(f"{path}: weights differ in {sorted(found.keys() ^ own.keys())[:5]}")
    with torch.no_grad():
        for name, weight in own.items():
            if weight.shape != found[name].shape:
                raise StoreError(
                    f"{path}: {name} is {tuple(found[name].shape)}, expected {tuple(weight.shape)}"
                )
            weight.copy_(found[name])


def own_weights(model: Decoder) -> dict[str, Tensor]:
    """The parameters that learn by name, a tied head left out, as safetensors wants it."""
    return {name: w.detach() for name, w in model.named_parameters() if w.requires_grad}
