"""Everything a run is, in one folder: safetensors for tensors, JSON for the rest. No pickle
anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from matura.core.errors import StoreError
from matura.core.store import Folder
from matura.learn.optim import Optimizer
from matura.learn.watch import check_finite
from matura.models.decoder import Decoder
from matura.models.weights import save_tensors

WEIGHTS, OPTIMIZER, REST = "weights.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class State:
    """All of a run, or one process's part, ready to be written."""

    files: Mapping[str, Mapping[str, Tensor]]
    """Tensors by the name of the file they go to."""
    rest: str | None
    """Everything else, as JSON; None in all processes but the first."""
    step: int

    def write(self, folder: Path) -> None:
        """Writes it into `folder`.

        Raises:
            RedLine: something in it is not finite.
        """
        for tensors in self.files.values():
            check_finite(tensors, self.step)
        for name, tensors in self.files.items():
            save_tensors({n: tensor.contiguous() for n, tensor in tensors.items()}, folder / name)
        if self.rest is not None:
            (folder / REST).write_text(self.rest, encoding="utf-8")


def state(
    model: Decoder,
    optimizer: Optimizer,
    rest: Mapping[str, Any],
    step: int,
    *,
    rank: int = 0,
    size: int = 1,
) -> State:
    """The state as it is now: all of it, or what is `rank`'s among `size` processes that each write
    whole tensors. The tensors are the model's own, so another step changes them."""
    files = {}
    for name, tensors in ((WEIGHTS, own_weights(model)), (OPTIMIZER, optimizer.state())):
        own = list(tensors)[rank::size]
        files[part_name(name, rank, size)] = {n: tensors[n] for n in own}
    whole = {**rest, "optimizer_steps": optimizer.step_count}
    spelled = json.dumps(whole, indent=1, sort_keys=True) if rank == 0 else None
    return State(files, spelled, step)


def write(
    folder: Path,
    model: Decoder,
    optimizer: Optimizer,
    rest: Mapping[str, Any],
    step: int,
    *,
    rank: int = 0,
    size: int = 1,
) -> None:
    """The state into `folder`, at once.

    Raises:
        RedLine: something in it is not finite.
    """
    state(model, optimizer, rest, step, rank=rank, size=size).write(folder)


def part_name(name: str, rank: int, size: int) -> str:
    """What a process's part of a file is called: `weights-2-of-4.safetensors`."""
    return name if size == 1 else name.replace(".", f"-{rank + 1}-of-{size}.")


def parts(folder: Folder, name: str) -> dict[str, Tensor]:
    """All tensors of a file, in however many parts it was written.

    Raises:
        StoreError: it is not there, a part is missing, or one cannot be read.
    """
    if name in folder.record["files"]:
        return _loaded(folder.file(name))
    stem, suffix = name.split(".")
    counted = re.compile(rf"{stem}-1-of-([0-9]+)\.{suffix}")
    first = [hit for file in folder.record["files"] if (hit := counted.fullmatch(file))]
    if len(first) != 1:
        raise StoreError(f"{folder.path / name}: not in the record")
    size = int(first[0][1])
    found: dict[str, Tensor] = {}
    for rank in range(size):
        found |= _loaded(folder.file(part_name(name, rank, size)))
    return found


def _loaded(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as problem:
        raise StoreError(f"{path}: no readable safetensors file: {problem}") from problem


def read(folder: Folder, model: Decoder, optimizer: Optimizer) -> dict[str, Any]:
    """Model and optimizer back to what was written; the rest is returned.

    Raises:
        StoreError: the state is of another model, or lacks a piece.
    """
    read_weights(folder, model)
    try:
        rest = json.loads(folder.file(REST).read_text(encoding="utf-8"))
        optimizer.restore(parts(folder, OPTIMIZER), int(rest["optimizer_steps"]))
    except (KeyError, TypeError, SafetensorError, ValueError, RuntimeError) as problem:
        raise StoreError(f"{folder.path}: this state cannot be resumed: {problem}") from problem
    return dict(rest)


def read_weights(folder: Folder, model: Decoder) -> None:
    """The model's weights from a checkpoint.

    Raises:
        StoreError: names, shapes or number types differ.
    """
    path, found = folder.path / WEIGHTS, parts(folder, WEIGHTS)
    own = own_weights(model)
    if found.keys() != own.keys():
        raise StoreError(f"{path}: weights differ in {sorted(found.keys() ^ own.keys())[:5]}")
    with torch.no_grad():
        for name, weight in own.items():
            theirs = found[name]
            if (weight.shape, weight.dtype) != (theirs.shape, theirs.dtype):
                raise StoreError(f"{path}: {name} is {_kind(theirs)}, expected {_kind(weight)}")
            weight.copy_(theirs)


def _kind(tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{tuple(tensor.shape)} in {kind}"


def own_weights(model: Decoder) -> dict[str, Tensor]:
    """The parameters that learn by name, a tied head left out, as safetensors wants it."""
    return {name: w.detach() for name, w in model.named_parameters() if w.requires_grad}
