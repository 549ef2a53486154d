"""Signatures that stay in their file, read row by row.

A memory map would do without this, but its pages count as memory of the process, and the kernel
brings in up to a megabyte around each row: 1,024 rows here and there were 425 MB.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np

from matura.core.errors import DataError
from matura.data.hashed import Ids
from matura.data.lines import reason
from matura.data.minhash import Signatures

LARGE_BYTES = 2**26
"""Maps smaller than this are left as they are: looking into them is faster."""


class Stored:
    """Rows of little-endian 32-bit numbers in a file, from its start on."""

    def __init__(self, file: IO[bytes], count: int, places: int) -> None:
        self._file = file
        self.shape = (count, places)

    def take(self, rows: Ids, axis: int = 0) -> Signatures:
        """Copies of those rows, as numpy's `take` gives them.

        Raises:
            DataError: the file cannot be read, or ends early.
        """
        assert axis == 0
        found = np.empty((len(rows), self.shape[1]), dtype="<u4")
        if not found.size:
            return found
        raw = found.data.cast("B")
        size, handle = found.itemsize * self.shape[1], self._file.fileno()
        # what stands together is read together
        first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        ends = np.append(first[1:], len(rows))
        try:
            for start, end, row in zip(
                first.tolist(), ends.tolist(), rows[first].tolist(), strict=True
            ):
                part = raw[start * size : end * size]
                if os.preadv(handle, [part], row * size) != len(part):
                    raise DataError(f"{self._file.name}: ends before row {row + end - start}")
        except OSError as problem:
            raise DataError(f"{self._file.name}: {reason(problem)}") from None
        return found.astype(np.uint32, copy=False)


def rows_of(signatures: Signatures | Stored) -> Any:
    """What gives rows by `take(numbers, axis=0)`: the same, or the file of a large memory map."""
    if not isinstance(signatures, np.memmap) or signatures.nbytes < LARGE_BYTES:
        return signatures
    path = signatures.filename
    if not isinstance(path, str | Path) or signatures.offset or signatures.dtype != np.dtype("<u4"):
        return signatures
    file = Path(path).open("rb")  # noqa: SIM115 - closed with what reads it
    stored = Stored(file, *signatures.shape)
    weakref.finalize(stored, file.close)
    return stored
