"""The tensors of a Hugging Face folder: one safetensors file, or several with an index.

Read one by one and never all at once, so that a model in bf16 takes little more room than its fp32
weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from matura.core.errors import StoreError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
STORED = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
HEADER_LIMIT_BYTES = 1_000_000
"""Of one file: room for 8,000 tensors; an 8B model has 300. More only takes time and memory."""
_OS_ERROR = re.compile(r"\(os error ([0-9]+)\)")


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """One safetensors file. Written by other hands than Python's, so what the disk says comes as
    an error of theirs.

    Raises:
        StoreError: the disk refuses; nothing half-written stays.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except (OSError, SafetensorError) as problem:
        path.unlink(missing_ok=True)
        number = _OS_ERROR.search(str(problem))
        why = os.strerror(int(number[1])) if number else str(problem)
        raise StoreError(f"{path}: cannot write: {why}") from problem


def open_tensors(path: Path) -> Any:
    """A safetensors file, its header read and checked: a context manager.

    Raises:
        StoreError: it is none, or has more header than any model needs.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > HEADER_LIMIT_BYTES:
            raise StoreError(
                f"{path}: no readable weights: its header has {size:,} bytes, more than "
                f"{HEADER_LIMIT_BYTES:,}"
            )
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as problem:
        raise StoreError(f"{path}: no readable weights: {_short(problem)}") from problem


def _short(problem: Exception) -> str:
    """What it says in one line, without all of what it was given."""
    said = " ".join(str(problem).split())
    return said if len(said) <= 300 else said[:300] + "…"


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights; the first is the index, where there is one.

    Raises:
        StoreError: there are none, or the index is wrong.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            pickles = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
            if pickles:
                raise StoreError(
                    f"{folder / pickles[0]}: pickled weights are not read, for a pickle can run "
                    "any code; convert them where you trust them: load the model with "
                    "`transformers` and call save_pretrained(FOLDER), which writes safetensors"
                )
        return [folder / WEIGHTS]
    return [folder / INDEX, *(folder / name for name in sorted({*_index(folder).values()}))]


def _index(folder: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    path = folder / INDEX
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise StoreError(f"{path}: no readable index of weights: {problem}") from problem
    found = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(found, dict) or not found:
        raise StoreError(f"{path}: has no weight_map that names a file for each tensor")
    for name, file in found.items():
        plain = isinstance(file, str) and file.endswith(".safetensors")
        if not plain or Path(file).name != file or "\\" in file:
            raise StoreError(
                f"{path}: {name} lies in {file!r}; expected a .safetensors file of this folder"
            )
    return found


class Tensors:
    """The tensors by name, each read when it is asked for. A context: it holds the files open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, tuple[Path, Any]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Tensors:
        """Opens every file.

        Raises:
            StoreError: one is missing or broken, or they are not what the index says.
        """
        with ExitStack() as opened:
            self._open(opened)
            self._stack = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes them."""
        self._stack.close()

    def _open(self, opened: ExitStack) -> None:
        files = weight_files(self.folder)
        where = _index(self.folder) if files[0].name == INDEX else None
        for path in files[1:] if where else files:
            handle = opened.enter_context(open_tensors(path))
            for name in list(handle.keys()):
                if where is not None and where.get(name) != path.name:
                    told = f"in {where[name]}" if name in where else "nowhere"
                    raise StoreError(f"{path}: holds {name}, which by {INDEX} lies {told}")
                self._files[name] = (path, handle)
        for name, file in (where or {}).items():
            if name not in self._files:
                raise StoreError(f"{self.folder / file}: lacks {name}, which {INDEX} says it holds")

    def names(self) -> set[str]:
        """What there is."""
        return {*self._files}

    def file(self, name: str) -> Path:
        """Where a tensor lies; for one that is nowhere, where it should."""
        return self._files[name][0] if name in self._files else weight_files(self.folder)[0]

    def read(self, name: str) -> Tensor:
        """The tensor, fp32.

        Raises:
            StoreError: it cannot be read, or is of another type than weights are.
        """
        path, handle = self._files[name]
        try:
            found: Tensor = handle.get_tensor(name)
        except (OSError, SafetensorError) as problem:
            raise StoreError(f"{path}: {name} cannot be read: {problem}") from problem
        if found.dtype not in STORED:
            raise StoreError(
                f"{path}: {name} is stored as {str(found.dtype).removeprefix('torch.')}; expected "
                "bf16, fp16 or fp32"
            )
        return found.float()


def weights_sha256(folder: Path) -> str:
    """The hash of the weights' file, or of all of them: what a score is proved against.

    Raises:
        StoreError: one cannot be read.
    """
    hashes = [_sha256(path) for path in weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise StoreError(f"{path}: no readable weights: {problem}") from problem
