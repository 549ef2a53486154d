"""Durable bytes: written beside their place, fsynced, renamed, and their folder fsynced too.

The last step surprises: on Linux a power cut undoes a rename whose folder was not fsynced.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matura.core.errors import StoreError

TEMPORARY = ".tmp"
"""Ending of a file that is being written."""
GONE = ".gone"
"""Ending of a folder that is being deleted."""
WORK = ".work"
"""Ending of a folder that is being made."""
PROBE = "probe-"
"""Start of a folder that only tries whether the disk takes one."""


@contextmanager
def telling(path: Path, doing: str) -> Iterator[None]:
    """Turns what the operating system refuses into one line that names the path.

    Raises:
        StoreError: instead of any OSError of the block.
    """
    try:
        yield
    except OSError as problem:
        where = problem.filename or path
        raise StoreError(f"{where}: cannot {doing}: {problem.strerror or problem}") from problem


def sync_folder(path: Path) -> None:
    """Makes the names in the folder durable, not only the bytes of its files."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def spell_json(value: object) -> bytes:
    """Indented UTF-8 JSON that ends in a newline; escapes only where a text is not valid Unicode.

    Raises:
        StoreError: for NaN, infinity and anything else JSON cannot spell.
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as problem:
        raise StoreError(f"not spellable as JSON: {problem}") from problem
    try:
        return (text + "\n").encode()
    except UnicodeEncodeError:  # a lone surrogate, from a model's own output
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        StoreError: it cannot be read, or is no JSON; the message names the file and the line.
    """
    with telling(path, "read"):
        raw = path.read_bytes()
    return parse_json(raw, path)


def parse_json(raw: bytes, path: Path) -> Any:
    """The value spelled by `raw`, which came from `path`.

    Raises:
        StoreError: no UTF-8, no JSON, a key given twice, or nested too deeply.
    """
    try:
        return json.loads(raw.decode(), object_pairs_hook=_once)
    except json.JSONDecodeError as problem:
        raise StoreError(f"{path}:{problem.lineno}: not JSON: {problem.msg}") from problem
    except UnicodeDecodeError as problem:
        raise StoreError(f"{path}: not UTF-8 at byte {problem.start}") from problem
    except RecursionError as problem:
        raise StoreError(f"{path}: nested too deeply") from problem
    except ValueError as problem:
        raise StoreError(f"{path}: {problem}") from problem


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def write_durably(path: Path, content: bytes) -> None:
    """Writes and fsyncs one file in place; only for files nobody opens before a later rename."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_atomically(path: Path, content: bytes | object) -> None:
    """The file holds either its old or its new content at every moment, also after a power cut.

    Bytes are written as they are, anything else as JSON.

    Raises:
        StoreError: it could not be written (the old content stays), or is not spellable as JSON.
    """
    raw = content if isinstance(content, bytes) else spell_json(content)
    beside = path.with_name(path.name + TEMPORARY)
    with telling(path, "write"):
        try:
            write_durably(beside, raw)
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def delete(folder: Path) -> None:
    """Removes a folder so that nobody ever sees half of it: renamed first, then taken apart.

    Raises:
        StoreError: it could not be removed.
    """
    gone = folder.with_name(folder.name + GONE)
    with telling(folder, "delete"):
        if gone.exists():
            shutil.rmtree(gone)
        os.rename(folder, gone)
        sync_folder(folder.parent)
        shutil.rmtree(gone)


def sweep(folder: Path) -> list[Path]:
    """Removes what interrupted writers left anywhere below `folder`, and says what it was.

    Leftovers are files whose name starts with a dot or ends in `.tmp`, and folders that end in
    `.work` or `.gone`. Only for whoever may write there: another's unfinished file would go too.

    Raises:
        StoreError: a leftover could not be removed.
    """
    swept: list[Path] = []
    with telling(folder, "clean up"):
        for here, folders, files in os.walk(folder):
            for name in [name for name in folders if name.endswith((GONE, WORK))]:
                folders.remove(name)
                swept.append(Path(here, name))
                shutil.rmtree(swept[-1])
            for name in files:
                if name.endswith(TEMPORARY) or name.startswith("."):
                    swept.append(Path(here, name))
                    swept[-1].unlink()
    return swept


def preflight(folder: Path, *, need_bytes: int = 0) -> None:
    """Tries all that publishing will need, before hours are spent: make, write, rename, delete.

    Raises:
        StoreError: the path is a file, may not be written, knows no rename, or has too little room.
    """
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise StoreError(f"{part}: is a file, a folder was expected")
    probe = folder / f"{PROBE}{os.getpid()}{WORK}"
    moved = probe.with_suffix(GONE)
    with telling(folder, "write in this folder"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.mkdir()
            write_durably(probe / "probe", b"probe")
            os.rename(probe, moved)
            sync_folder(folder)
        finally:
            for left in (probe, moved):
                shutil.rmtree(left, ignore_errors=True)
        free_bytes = shutil.disk_usage(folder).free
    if free_bytes < need_bytes:
        raise StoreError(
            f"{folder}: {need_bytes / 1e9:.2f} GB are needed, {free_bytes / 1e9:.2f} GB are free"
        )


def sync_tree(folder: Path) -> None:
    """Makes everything in a folder survive a power cut.

    Raises:
        StoreError: the disk refuses.
    """
    with telling(folder, "fsync"):
        for here, _, files in os.walk(folder, topdown=False):
            for name in files:
                with Path(here, name).open("rb") as file:
                    os.fsync(file.fileno())
            sync_folder(Path(here))
