"""One writer per run folder. The kernel drops a lock with its holder: `kill -9` leaves none."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from matura.core.disk import telling
from matura.core.errors import StoreError

LOCK = ".lock"


class RunLock:
    """`with RunLock(folder):` holds the folder for this process; the file says who holds it.

    Raises:
        StoreError: another process holds it; the message names its process id.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        with telling(self.path, "open the lock"):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(handle)
            if not isinstance(problem, BlockingIOError):
                raise StoreError(f"{self.path}: cannot lock: {problem.strerror}") from problem
            raise StoreError(
                f"{self.path.parent}: in use by {holder(self.path.parent)}; "
                "wait until it ends, or stop it"
            ) from None
        try:
            with telling(self.path, "write the lock"):
                note = {"pid": os.getpid(), "host": socket.gethostname()}
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(note).encode(), 0)
        except StoreError:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            # The file stays: unlinked, two others could lock two different files of that name.
            os.close(self._handle)
            self._handle = None


def holder(folder: Path) -> str:
    """Who last took the folder's lock, as words for a message."""
    try:
        note = json.loads((folder / LOCK).read_bytes())
        return f"process {int(note['pid'])} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def held(folder: Path) -> bool:
    """Whether some process holds the folder's lock at this moment."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        # A shared lock: two askers at once never look like a holder to each other.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
