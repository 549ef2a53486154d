"""A file that is not whole yet, and the journal that says whose bytes it holds.

Every so often the bytes are made durable and their count and hash are noted. After a `kill -9` only
what was noted is built on, and only if it still has that hash: a power cut may leave a file longer
than what was written to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from matura.core.disk import read_json, replace_atomically, telling
from matura.core.errors import StoreError

PART = ".part"
JOURNAL = ".part.json"
JOURNAL_BYTES = 64 * 2**20
"""How much a kill costs at most; a note costs an fsync."""
BLOCK_BYTES = 2**20


@contextmanager
def locked(final: Path) -> Iterator[BinaryIO]:
    """The unfinished file beside `final`, open for this caller alone; others wait.

    Raises:
        StoreError: it cannot be opened.
    """
    path = Partial.path_of(final)
    while True:
        with telling(path, "open"), path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                yield file
                return
        # Whoever held it finished and renamed it: another file, or none, has the name now.


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), there)


class Partial:
    """The beginning of a download. `bytes` are here; `total` are to be, where that is known."""

    def __init__(self, final: Path, file: BinaryIO, url: str) -> None:
        self.path = self.path_of(final)
        self.journal = final.with_name(final.name + JOURNAL)
        self._file, self._url = file, url
        self._clear()

    @staticmethod
    def path_of(final: Path) -> Path:
        """Where the unfinished file lies."""
        return final.with_name(final.name + PART)

    def _clear(self) -> None:
        self.bytes, self._noted = 0, 0
        self.total: int | None = None
        self.etag: str | None = None
        self.next_url: str | None = None
        self._modified: str | None = None
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the bytes that are here, in hex."""
        return self._hash.hexdigest()

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.total is not None and self.bytes == self.total

    @property
    def validator(self) -> str | None:
        """What If-Range may say; a weak ETag promises no equal bytes, so it is not used."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self._modified

    def belongs(
        self, *, etag: str | None, modified: str | None, total: int | None, next_url: str | None
    ) -> None:
        """Notes what the server says of the file the bytes are of; `total` in bytes."""
        self.etag, self._modified, self.total, self.next_url = etag, modified, total, next_url

    def write(self, block: bytes) -> None:
        """Appends.

        Raises:
            StoreError: the disk refuses.
        """
        with telling(self.path, "write"):
            self._file.write(block)
        self._hash.update(block)
        self.bytes += len(block)
        if self.bytes - self._noted >= JOURNAL_BYTES:
            self.save()

    def end(self) -> None:
        """The server said that this was all."""
        self.total = self.bytes

    def sync(self) -> int:
        """Makes the bytes durable; returns the file's time of change in nanoseconds.

        Raises:
            StoreError: the disk refuses.
        """
        with telling(self.path, "write"):
            self._file.flush()
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_mtime_ns

    def save(self) -> None:
        """Makes what is here something to build on.

        Raises:
            StoreError: the disk refuses.
        """
        self.sync()
        note = {
            "url": self._url,
            "etag": self.etag,
            "modified": self._modified,
            "next_url": self.next_url,
            "total": self.total,
            "bytes": self.bytes,
            "sha256": self.sha256,
        }
        replace_atomically(self.journal, note)
        self._noted = self.bytes

    def restart(self) -> None:
        """Throws away what is here.

        Raises:
            StoreError: the disk refuses.
        """
        with telling(self.path, "write"):
            self._file.flush()
            self._file.truncate(0)
            self.journal.unlink(missing_ok=True)
        self._clear()

    def forget(self) -> None:
        """Removes the unfinished file and its journal.

        Raises:
            StoreError: the disk refuses.
        """
        with telling(self.path, "delete"):
            self.path.unlink(missing_ok=True)
            self.journal.unlink(missing_ok=True)

    def restore(self) -> None:
        """Takes up what an earlier caller left, if the journal vouches for it; else starts over.

        Raises:
            StoreError: the disk refuses.
        """
        note = self._note()
        if note is None or not self._rehash(note["bytes"], note["sha256"]):
            self.restart()
            return
        self.bytes = self._noted = note["bytes"]
        self.belongs(
            etag=note["etag"],
            modified=note["modified"],
            total=note["total"],
            next_url=note["next_url"],
        )
        with telling(self.path, "write"):
            self._file.truncate(self.bytes)

    def _note(self) -> dict[str, Any] | None:
        """The journal, if it is one and of this URL."""
        if not self.journal.is_file():
            return None
        try:
            note = read_json(self.journal)
        except StoreError:
            return None
        kinds: dict[str, tuple[type, ...]] = {
            "url": (str,),
            "sha256": (str,),
            "bytes": (int,),
            "total": (int, type(None)),
            **dict.fromkeys(("etag", "modified", "next_url"), (str, type(None))),
        }
        if not isinstance(note, dict) or note.keys() != kinds.keys() or note["url"] != self._url:
            return None
        fits = all(isinstance(note[key], kind) for key, kind in kinds.items())
        return note if fits and 0 < note["bytes"] <= (note["total"] or note["bytes"]) else None

    def _rehash(self, size: int, sha256: str) -> bool:
        """Whether the first `size` bytes are those that were noted."""
        self._hash = hashlib.sha256()
        left = size
        with telling(self.path, "read"):
            self._file.seek(0)
            while left and (block := self._file.read(min(left, BLOCK_BYTES))):
                self._hash.update(block)
                left -= len(block)
        return left == 0 and self.sha256 == sha256
