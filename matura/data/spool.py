"""Documents put aside on disk while all of them are compared: read once, asked for by number.

The files have no name, so nothing is left behind however a process ends. They lie where Python
puts temporary files (`TMPDIR`) and take as much room as the text, and what the fingerprints take.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from matura.core.errors import DataError
from matura.core.types import Document
from matura.data.dedup import (
    EXACT_BYTES,
    Duplicates,
    Fingerprints,
    Found,
    StoredFingerprints,
    duplicates_of,
)
from matura.data.dedup import fingerprints as made
from matura.data.hashed import Ids
from matura.data.lines import reason
from matura.data.stored import Stored

BATCH_BYTES = 2**22
"""Text whose fingerprints are made at once."""
NUMBER_BYTES = 4


class Spool:
    """Documents in the order they were added, with their fingerprints.

    In memory it keeps 8 bytes for each, and one batch.

    Raises:
        DataError: from any method: the disk refuses.
    """

    def __init__(self, settings: Duplicates, folder: Path | None = None) -> None:
        self._settings, self._folder = settings, folder
        files = ExitStack()
        weakref.finalize(self, files.close)
        try:
            self._texts, self._exact, self._signatures = (
                files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - finalized
                for _ in range(3)
            )
        except OSError as problem:
            raise _refused(problem, self._folder) from None
        self._starts = array("q", [0])
        self._waiting: list[str] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, document: Document) -> None:
        """Puts a document aside; only its id and text are kept."""
        name = document.id.encode("utf-8", "surrogatepass")
        text = document.text.encode("utf-8", "surrogatepass")
        self._write(self._texts, len(name).to_bytes(NUMBER_BYTES, "little") + name + text)
        self._starts.append(self._starts[-1] + NUMBER_BYTES + len(name) + len(text))
        self._waiting.append(document.text)
        self._size += len(text)
        if self._size >= BATCH_BYTES:
            self._fingerprint()

    def document(self, number: int) -> Document:
        """One of them; all were added before the first is asked for."""
        start, end = self._starts[number], self._starts[number + 1]
        try:
            raw = os.pread(self._texts.fileno(), end - start, start)
        except OSError as problem:
            raise _refused(problem, self._folder) from None
        size = NUMBER_BYTES + int.from_bytes(raw[:NUMBER_BYTES], "little")
        name = raw[NUMBER_BYTES:size].decode("utf-8", "surrogatepass")
        return Document(text=raw[size:].decode("utf-8", "surrogatepass"), id=name)

    def prints(self) -> Fingerprints | StoredFingerprints:
        """The fingerprints of all, on disk."""
        self._fingerprint()
        for file in (self._texts, self._exact, self._signatures):
            self._flush(file)
        count, places = len(self), self._settings.permutations
        if not count:
            return made([], self._settings)
        exact = np.memmap(self._exact, np.uint8, "r", shape=(count, EXACT_BYTES))
        if not self._settings.near:
            return Fingerprints(exact, np.empty((count, 0), dtype=np.uint32))
        return StoredFingerprints(exact, Stored(self._signatures, count, places))

    def found(self, prints: Fingerprints | StoredFingerprints) -> Found:
        """Which of them are duplicates."""
        return duplicates_of(prints, self._settings, self._texts_of)

    def kept(self, found: Found) -> Iterator[Document]:
        """Those that are no duplicates, in order."""
        return map(self.document, map(int, np.flatnonzero(found.of < 0)))

    def _texts_of(self, numbers: Ids) -> list[str]:
        return [self.document(number).text for number in numbers.tolist()]

    def _fingerprint(self) -> None:
        if self._waiting:
            prints = made(self._waiting, self._settings)
            self._write(self._exact, prints.exact.tobytes())
            self._write(self._signatures, prints.signatures.astype("<u4").tobytes())
            self._waiting, self._size = [], 0

    def _write(self, file: IO[bytes], raw: bytes) -> None:
        try:
            file.write(raw)
        except OSError as problem:
            raise _refused(problem, self._folder) from None

    def _flush(self, file: IO[bytes]) -> None:
        try:
            file.flush()
        except OSError as problem:
            raise _refused(problem, self._folder) from None


def _refused(problem: OSError, folder: Path | None) -> DataError:
    where = folder or tempfile.gettempdir()
    return DataError(f"{where}: no room for documents while they are compared: {reason(problem)}")
