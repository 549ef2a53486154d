"""Folders of text shards that are whole or absent: made beside their place, and renamed.

So a command that was killed is run again as it was, and a folder that is there is done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matura.core.disk import sync_folder, telling
from matura.core.errors import DataError
from matura.core.lock import RunLock
from matura.core.store import work_place

MADE = "made"


def refuse_taken(folder: Path, report: str) -> None:
    """Nothing is written over: `folder` may be empty at most.

    Raises:
        DataError: it holds what was made before, or anything else.
    """
    if (folder / report).exists():
        raise DataError(f"{folder / report}: made already; name an empty folder")
    if folder.is_file():
        raise DataError(f"{folder}: is a file; name a folder")
    if old := next(folder.glob("shard-*.txt"), None):
        raise DataError(f"{old}: there are shards already; name an empty folder")
    if folder.is_dir() and (other := next(folder.iterdir(), None)):
        raise DataError(f"{other}: is there already; name an empty folder")


@contextmanager
def at_once(folder: Path, report: str) -> Iterator[Path]:
    """A folder to write into, which stands at `folder` once the block has ended. Its parent has
    room for what only the making needs. What an error or a kill leaves is never taken for whole.

    Raises:
        DataError: `folder` is taken.
        StoreError: somebody else is making it, or the disk refuses.
    """
    refuse_taken(folder, report)
    work = work_place(folder)
    with telling(work, "make"):
        work.mkdir(parents=True, exist_ok=True)
    with RunLock(work):
        try:
            refuse_taken(folder, report)  # again, as another process may have just made it
            made = work / MADE
            shutil.rmtree(made, ignore_errors=True)
            with telling(made, "make"):
                made.mkdir()
            yield made
            sync_folder(made)
            with telling(folder, "rename to"):
                os.rename(made, folder)
                sync_folder(folder.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
