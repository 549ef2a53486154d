"""Tensors that several processes wrote, in as many safetensors files: `weights-2-of-4.safetensors`.

A tensor stands whole in one file, or each file has some of its rows, in order. Which of the two
it is does not matter to who reads: a tensor is what all files have of it, one after the other. Only
the rows that are asked for are read, so a process that needs its share takes no more memory.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from matura.core.errors import StoreError
from matura.core.store import Folder
from matura.models.weights import open_tensors


def part_name(name: str, rank: int, size: int) -> str:
    """What a process's part of a file is called: `weights-2-of-4.safetensors`."""
    return name if size == 1 else name.replace(".", f"-{rank + 1}-of-{size}.")


class Parts:
    """A file of a checkpoint in however many parts it was written; a context manager.

    Raises:
        StoreError: it is not there, a part is missing, or one cannot be read.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.path = folder.path / name
        self._names = _names(folder, name)
        self._paths = [folder.file(part) for part in self._names]
        self._stack = ExitStack()
        self._where: dict[str, list[tuple[Any, int]]] = {}

    def __enter__(self) -> Parts:
        for path in self._paths:
            try:
                file = self._stack.enter_context(open_tensors(path))
                for name in file.keys():  # noqa: SIM118
                    rows = file.get_slice(name).get_shape()[0]
                    self._where.setdefault(name, []).append((file, rows))
            except (SafetensorError, OSError, IndexError) as problem:
                self._stack.close()
                raise StoreError(f"{path}: no readable safetensors file: {problem}") from problem
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        pieces = self._where[name]
        rest = pieces[0][0].get_slice(name).get_shape()[1:]
        return (sum(rows for _, rows in pieces), *rest)

    def rows(self, name: str, wanted: slice) -> Tensor:
        """Some rows of a tensor.

        Raises:
            StoreError: the file ends before them.
        """
        found, begins = [], 0
        for file, rows in self._where[name]:
            start, stop = max(wanted.start - begins, 0), min(wanted.stop - begins, rows)
            if start < stop:
                try:
                    found.append(file.get_slice(name)[start:stop])
                except (SafetensorError, OSError) as problem:
                    raise StoreError(f"{self.path}: {name} cannot be read: {problem}") from problem
            begins += rows
        if not found:
            file, _ = self._where[name][0]
            return torch.empty(0, *self.shape(name)[1:], dtype=file.get_slice(name)[0:0].dtype)
        return found[0] if len(found) == 1 else torch.cat(found)


def _names(folder: Folder, name: str) -> list[str]:
    """The files that are the parts, in order."""
    files = folder.record["files"]
    if name in files:
        return [name]
    stem, suffix = name.split(".")
    counted = re.compile(rf"{stem}-1-of-([0-9]+)\.{suffix}")
    first = [hit for file in files if (hit := counted.fullmatch(file))]
    if len(first) != 1:
        raise StoreError(f"{folder.path / name}: not in the record")
    size = int(first[0][1])
    return [part_name(name, rank, size) for rank in range(size)]
