"""The weights of a folder in another number type, one file or several, without ever holding all of
them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from matura.models.weights import INDEX, WEIGHTS, Tensors, save_tensors

SHARD_BYTES = 4_000_000_000
"""Tensors of about that much share a file; what is smaller altogether is one file."""


def write_cast(
    source: Path,
    folder: Path,
    dtype: torch.dtype,
    *,
    shard_bytes: int = SHARD_BYTES,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """The tensors of `source` in `folder`, rounded to `dtype`, under the names that
    `transformers` looks for; `told(done, total)` after each.

    Raises:
        StoreError: the source cannot be read, or the disk refuses the tensors.
        OSError: it refuses anything else.
    """
    shards: list[list[str]] = [[]]
    held: dict[str, Tensor] = {}

    def part(number: int) -> Path:
        return folder / f"{number}.part"

    def flush() -> None:
        save_tensors(held, part(len(shards)), metadata={"format": "pt"})
        held.clear()

    with Tensors(source) as tensors:
        names = sorted(tensors.names())
        for done, name in enumerate(names, start=1):
            held[name] = tensors.read(name).to(dtype).contiguous()
            shards[-1].append(name)
            if sum(tensor.nbytes for tensor in held.values()) >= shard_bytes and done < len(names):
                flush()
                shards.append([])
            told(done, len(names))
        flush()
    if len(shards) == 1:
        part(1).rename(folder / WEIGHTS)
        return
    where: dict[str, str] = {}
    for number, inside in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        part(number).rename(folder / file)
        where |= dict.fromkeys(inside, file)
    size = sum((folder / file).stat().st_size for file in {*where.values()})
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
