"""Everything a run is, in one folder: safetensors for tensors, JSON for the rest. No pickle
anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from matura.core.errors import StoreError
from matura.core.store import Folder
from matura.learn.optim import Optimizer
from matura.learn.parts import Parts, part_name
from matura.learn.watch import check_finite
from matura.models.decoder import Decoder
from matura.models.pieces import mine, rows_mine
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
    shares: bool = False,
) -> State:
    """The state as it is now: all of it, or what is `rank`'s among `size` processes: of those that
    have the same weights, some whole tensors; of those that share them out, the rows it has. The
    tensors are the model's own, so another step changes them."""
    files = {}
    for name, tensors in ((WEIGHTS, own_weights(model)), (OPTIMIZER, optimizer.state())):
        own = list(tensors) if shares else list(tensors)[rank::size]
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


def read(folder: Folder, model: Decoder, optimizer: Optimizer) -> dict[str, Any]:
    """Model and optimizer back to what was written; the rest is returned.

    Raises:
        StoreError: the state is of another model, or lacks a piece.
    """
    read_weights(folder, model)
    try:
        rest = json.loads(folder.file(REST).read_text(encoding="utf-8"))
        optimizer.restore(_rows(folder, model), int(rest["optimizer_steps"]))
    except (KeyError, TypeError, SafetensorError, ValueError, RuntimeError) as problem:
        raise StoreError(f"{folder.path}: this state cannot be resumed: {problem}") from problem
    return dict(rest)


def read_weights(folder: Folder, model: Decoder) -> None:
    """The model's weights from a checkpoint.

    Raises:
        StoreError: names, shapes or number types differ.
    """
    path = folder.path / WEIGHTS
    with Parts(folder, WEIGHTS) as found, torch.no_grad():
        own = _learning(model)
        if found.names != own.keys():
            raise StoreError(f"{path}: weights differ in {sorted(found.names ^ own.keys())[:5]}")
        for name, weight in own.items():
            theirs, shape = found.rows(name, rows_mine(weight)), found.shape(name)
            if (tuple(weight.shape), weight.dtype) != (shape, theirs.dtype):
                raise StoreError(
                    f"{path}: {name} is {_kind(shape, theirs.dtype)}, "
                    f"expected {_kind(weight.shape, weight.dtype)}"
                )
            mine(weight).copy_(theirs)


def _rows(folder: Folder, model: Decoder) -> dict[str, Tensor]:
    """What this process has of the optimizer's tensors: of each the rows it has of the weight."""
    rows = {name: rows_mine(weight) for name, weight in _learning(model).items()}
    with Parts(folder, OPTIMIZER) as found:
        return {
            name: found.rows(name, rows.get(name.partition(".")[2], slice(0, found.shape(name)[0])))
            for name in sorted(found.names)
        }


def _kind(shape: Sequence[int], dtype: torch.dtype) -> str:
    return f"{tuple(shape)} in {str(dtype).removeprefix('torch.')}"


def own_weights(model: Decoder) -> dict[str, Tensor]:
    """What this process has of the parameters that learn by name, a tied head left out, as
    safetensors wants it."""
    return {name: mine(weight) for name, weight in _learning(model).items()}


def _learning(model: Decoder) -> dict[str, nn.Parameter]:
    return {name: w for name, w in model.named_parameters() if w.requires_grad}
