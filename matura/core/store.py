"""Folders that are whole or absent. A folder is made beside its place; `record.json`, with the
sha256 and size of every other file, is written last; then one rename puts the folder in its place.

So the record is the proof: whatever has none is work in progress, and whatever differs from its
record is corrupt and never used.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from matura.core.disk import (
    GONE,
    WORK,
    delete,
    parse_json,
    replace_atomically,
    spell_json,
    sweep,
    sync_folder,
    telling,
)
from matura.core.errors import StoreError

SCHEMA = 2
"""1 was without the record's own hash; such folders are read as they are."""
RECORD = "record.json"
RECORD_LIMIT_BYTES = 64_000_000
_ADDRESS = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)@(?P<attempt>[1-9][0-9]*)")
_STEP = re.compile(r"step-([0-9]{8,})")


@dataclass(frozen=True)
class Folder:
    """A whole folder: its record, and its files as the record knows them."""

    path: Path
    record: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, *, hashes: Literal["all", "when read"] = "all") -> Folder:
        """The folder, after comparing what lies there with its record.

        `when read` checks names and sizes now and a file's hash when `bytes` or `json` reads it.

        Raises:
            StoreError: not there, no record, a bad record, or a file that is missing, extra, cut,
                changed or not a plain file; the message names the file.
        """
        if not path.is_dir():
            raise StoreError(f"{path}: {'not a folder' if path.exists() else 'not there'}")
        record_path = path / RECORD
        if record_path.is_symlink() or not record_path.is_file():
            raise StoreError(f"{record_path}: not there, so the folder is not whole")
        with telling(record_path, "read"):
            if record_path.stat().st_size > RECORD_LIMIT_BYTES:
                raise StoreError(f"{record_path}: too large for a record")
            record = parse_json(record_path.read_bytes(), record_path)
        folder = cls(path, record)
        files = _checked_files(record, record_path)
        with telling(path, "read"):
            sizes = dict(_plain_files(path))
        for name in sorted(files.keys() | sizes.keys()):
            if name not in sizes:
                raise StoreError(f"{path / name}: missing, but in the record")
            if name not in files:
                raise StoreError(f"{path / name}: not in the record")
            if sizes[name] != files[name]["bytes"]:
                raise StoreError(
                    f"{path / name}: {sizes[name]} bytes, the record says {files[name]['bytes']}"
                )
            if hashes == "all":
                folder._check(name, sha256_of(path / name))
        return folder

    def file(self, name: str) -> Path:
        """The path of a file of the folder.

        Raises:
            StoreError: the folder has none of that name.
        """
        if name not in self.record["files"]:
            raise StoreError(f"{self.path / name}: not in the record")
        return self.path / name

    def bytes(self, name: str) -> bytes:
        """A file's content, its hash checked.

        Raises:
            StoreError: no such file, or its content is not what was recorded.
        """
        with telling(self.path / name, "read"):
            content = self.file(name).read_bytes()
        self._check(name, hashlib.sha256(content).hexdigest())
        return content

    def json(self, name: str) -> Any:
        """The value in a JSON file of the folder, its hash checked.

        Raises:
            StoreError: no such file, a changed one, or no JSON.
        """
        return parse_json(self.bytes(name), self.path / name)

    def sha256(self, name: str) -> str:
        """The recorded hash of a file of the folder."""
        self.file(name)
        return str(self.record["files"][name]["sha256"])

    def _check(self, name: str, sha256: str) -> None:
        recorded = self.record["files"][name]["sha256"]
        if sha256 != recorded:
            raise StoreError(
                f"{self.path / name}: corrupt, its sha256 is {sha256[:12]}…, "
                f"the record says {recorded[:12]}…"
            )


def sha256_of(path: Path) -> str:
    """The hex sha256 of a file's content.

    Raises:
        StoreError: it cannot be read.
    """
    with telling(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(work: Path, final: Path, record: Mapping[str, Any]) -> Folder:
    """Makes `work` a whole folder at `final`: swept, all fsynced, the record last, then renamed.

    Raises:
        StoreError: something stands at `final`, `work` holds a link, or the disk refuses; `work`
            stays as it was but for leftovers, and publishing it again is safe.
    """
    if clash := {"files", "schema", "sha256"} & record.keys():
        raise StoreError(f"{final}: a record's {sorted(clash)} are written by the store")
    if final.exists() or final.is_symlink():
        raise StoreError(f"{final}: already there; a whole folder is never written over")
    sweep(work)
    with telling(work, "publish"):
        files = {name: {"sha256": "", "bytes": size} for name, size in sorted(_plain_files(work))}
        for name in files:
            with (work / name).open("rb") as file:
                files[name]["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
        for here, _, _ in os.walk(work, topdown=False):
            sync_folder(Path(here))
    whole = {"schema": SCHEMA, **record, "files": files}
    whole["sha256"] = _own_sha256(whole)
    replace_atomically(work / RECORD, whole)
    return place(Folder(work, whole), final)


def place(folder: Folder, final: Path) -> Folder:
    """Puts a folder that is whole already, but still at its work place, where it belongs.

    Raises:
        StoreError: something stands there, or the disk refuses.
    """
    with telling(final, "rename to"):
        os.rename(folder.path, final)
        sync_folder(final.parent)
    return Folder(final, folder.record)


def _plain_files(root: Path, below: str = "") -> Iterator[tuple[str, int]]:
    """Each file's name as POSIX path and its size, without the record at the top."""
    with os.scandir(root / below) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _plain_files(root, f"{name}/")
            elif not entry.is_file(follow_symlinks=False):
                kind = "a link" if entry.is_symlink() else "no plain file"
                raise StoreError(f"{root / name}: {kind}; a folder holds plain files only")
            elif name != RECORD:
                yield name, entry.stat(follow_symlinks=False).st_size


def _checked_files(record: object, where: Path) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise StoreError(f"{where}: a record is an object, not {type(record).__name__}")
    if record.get("schema") not in (1, SCHEMA) or isinstance(record["schema"], bool):
        raise StoreError(
            f"{where}: schema {record.get('schema')!r}, this version of Matura reads 1 to {SCHEMA}"
        )
    if record["schema"] > 1 and record.get("sha256") != _own_sha256(record):
        raise StoreError(f"{where}: corrupt, its content is not what its own sha256 says")
    files = record.get("files")
    if not isinstance(files, dict):
        raise StoreError(f"{where}: 'files' must be an object")
    for name, entry in files.items():
        path = PurePosixPath(name)
        bad = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name
        if bad or path.as_posix() != name or name in (".", RECORD):
            raise StoreError(f"{where}: files[{name!r}]: not a path inside the folder")
        sha256, size = (
            (entry.get("sha256"), entry.get("bytes")) if isinstance(entry, dict) else (0, 0)
        )
        if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise StoreError(f"{where}: files[{name!r}].sha256: not a sha256 in hex")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise StoreError(f"{where}: files[{name!r}].bytes: not a size")
    return files


def _own_sha256(record: Mapping[str, Any]) -> str:
    """The hex sha256 of a record without its own hash, however it is indented."""
    return hashlib.sha256(spell_json({**record, "sha256": ""})).hexdigest()


def address(name: str, attempt: int) -> str:
    """How an attempt of a stage is called, on disk and in records."""
    return f"{name}@{attempt}"


def parse_address(spelled: str) -> tuple[str, int]:
    """The stage's name and the attempt's number.

    Raises:
        StoreError: not of the form `name@1`.
    """
    found = _ADDRESS.fullmatch(spelled)
    if not found:
        raise StoreError(f"{spelled!r}: not an attempt; expected a name like 'base@1'")
    return found["name"], int(found["attempt"])


def attempts(root: Path, name: str) -> list[int]:
    """The numbers of the stage's published attempts, ascending; by number, never by file time."""
    if not root.is_dir():
        return []
    with telling(root, "list"):
        found = [_ADDRESS.fullmatch(path.name) for path in root.iterdir() if path.is_dir()]
    return sorted(int(hit["attempt"]) for hit in found if hit and hit["name"] == name)


def latest(root: Path, name: str) -> Path | None:
    """Where the stage's current attempt lies: the newest that was not declined.

    Raises:
        StoreError: a newer one's record cannot be read; an older one is never taken in its stead.
    """
    for number in reversed(attempts(root, name)):
        path = root / address(name, number)
        if recorded(path).get("adopted") is not False:
            return path
    return None


def recorded(path: Path) -> Mapping[str, Any]:
    """An attempt's record as it stands there, its files not looked at; empty if it has none.

    Raises:
        StoreError: it cannot be read.
    """
    record_path = path / RECORD
    if record_path.is_symlink() or not record_path.is_file():
        return {}  # opening the folder says what is wrong
    with telling(record_path, "read"):
        raw = record_path.read_bytes()
    record = parse_json(raw, record_path)
    return record if isinstance(record, dict) else {}


def work_place(final: Path) -> Path:
    """Where the folder is made that will stand at `final`: beside it, so one rename is enough."""
    return final.with_name(final.name + WORK)


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint that is whole, and one line for each newer one that was refused."""

    folder: Folder | None
    step: int
    refused: tuple[str, ...]


class Checkpoints:
    """The folders `step-00000123` below `state/`, whole or absent; the newest whole one wins."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        if keep < 1:
            raise StoreError(f"{folder}: at least one checkpoint must be kept")
        self.folder = folder
        self.keep = keep

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending; ordered by step, never by file time."""
        if not self.folder.is_dir():
            return []
        with telling(self.folder, "list"):
            found = [_STEP.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir()]
        return sorted(int(hit[1]) for hit in found if hit)

    def at(self, step: int) -> Path:
        """Where the checkpoint of that step lies, or would."""
        return self.folder / f"step-{step:08d}"

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        record: Mapping[str, Any] | None = None,
        *,
        spare: Collection[int] = (),
    ) -> Folder:
        """Publishes what `write` puts into the folder it is given, then forgets the older ones.

        The last `keep` and the steps in `spare` (the best so far) stay. A whole checkpoint of the
        same step is kept as it is: a run is a function of its recipe, so both hold the same.

        Raises:
            StoreError: the disk refuses; all older checkpoints are still there.
        """
        final, work = self.at(step), work_place(self.at(step))
        with telling(self.folder, "make"):
            self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        if final.exists():
            try:
                return Folder.open(final)
            except StoreError:
                delete(final)
        try:
            with telling(work, "write"):
                work.mkdir()
                write(work)
            saved = publish(work, final, {"step": step, **(record or {})})
        except StoreError:
            shutil.rmtree(work, ignore_errors=True)  # on a full disk it would stand in the way
            raise
        for old in [old for old in self.steps() if old <= step][: -self.keep]:
            if old not in spare:
                delete(self.at(old))
        return saved

    def forget_after(self, step: int) -> None:
        """Deletes what was saved beyond a step: the run goes on from there, and otherwise."""
        for later in reversed(self.steps()):
            if later > step:
                delete(self.at(later))

    def newest(self) -> Newest:
        """The newest whole checkpoint; `folder` is None and `step` 0 if none was ever saved.

        Raises:
            StoreError: there are checkpoints, and not one is whole: never silently a fresh start.
        """
        refused: list[str] = []
        for step in reversed(self.steps()):
            try:
                return Newest(Folder.open(self.at(step)), step, tuple(refused))
            except StoreError as problem:
                refused.append(str(problem))
        if refused:
            raise StoreError(f"{self.folder}: no checkpoint is whole: {refused[0]}")
        return Newest(None, 0, ())


def leftovers(root: Path) -> list[Path]:
    """Folders in a run folder that are being made or deleted, or were when somebody was killed."""
    if not root.is_dir():
        return []
    with telling(root, "list"):
        return sorted(path for path in root.iterdir() if path.name.endswith((WORK, GONE)))
