"""FAULTS A3: a power cut at any moment, which loses or keeps whatever was not synced, leaves the
old or the new, never a mix.

What a disk must keep is what was fsynced: a file's bytes by its own fsync, a name by that of its
folder. Everything else is kept or lost here as a drawn disk likes: names one by one, a rename
whole; bytes all, none or a part of them.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from dying import CHANGES, ON_DISK

from matura.core.disk import replace_atomically
from matura.core.errors import StoreError
from matura.core.store import Checkpoints, Folder, publish, work_place

Names = dict[str, int]
DRAWS = 12


class Disk:
    """What lies below a folder now, what of that would survive, and every moment in between."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.kept_names: dict[int, Names] = {}
        self.kept_bytes: dict[int, bytes] = {}
        self.moments: list[dict[str, Any]] = []
        self._sync = os.fsync
        for here, _, files in os.walk(root):  # what was there before is old, and safe
            self.kept_names[os.stat(here).st_ino] = names_in(Path(here))
            for name in files:
                path = Path(here, name)
                self.kept_bytes[path.stat().st_ino] = path.read_bytes()
        self.note()
        patch.setattr(os, "fsync", self.fsync)

    def fsync(self, handle: int) -> None:
        """The system's, and from now on that is safe."""
        self._sync(handle)
        path, inode = Path(os.readlink(f"/proc/self/fd/{handle}")), os.fstat(handle).st_ino
        if path.is_dir():
            self.kept_names[inode] = names_in(path)
        else:
            self.kept_bytes[inode] = path.read_bytes()

    def note(self) -> None:
        """One more moment at which the power may go."""
        names, content = {}, {}
        for here, _, files in os.walk(self.root):
            names[os.stat(here).st_ino] = names_in(Path(here))
            for name in files:
                path = Path(here, name)
                content[path.stat().st_ino] = path.read_bytes()
        kept = {"kept_names": dict(self.kept_names), "kept_bytes": dict(self.kept_bytes)}
        moment = {"names": names, "bytes": content, **kept}
        if not self.moments or moment != self.moments[-1]:
            self.moments.append(moment)

    def during(self, work: Callable[[], object]) -> None:
        """Does `work`, and notes every moment of it."""

        def watch(frame: FrameType, event: str, called: Any) -> None:
            if event != "c_return":
                return
            owner = getattr(called, "__self__", None)
            module = getattr(called, "__module__", None) or type(owner).__module__
            if module in ON_DISK and called.__name__ in CHANGES:
                sys.setprofile(None)
                self.note()
                sys.setprofile(watch)

        sys.setprofile(watch)
        try:
            work()
        finally:
            sys.setprofile(None)
        self.note()

    def after_a_cut(self, folder: Path, seed: int = 0) -> Iterator[tuple[int, Path]]:
        """What could lie there when the power is back: the moment's number, and a folder."""
        every = {ino: raw for moment in self.moments for ino, raw in moment["bytes"].items()}
        top = self.root.stat().st_ino
        for number, moment in enumerate(self.moments):
            for draw in range(DRAWS):
                chance = random.Random(f"{seed}/{number}/{draw}")
                kept = {0: 0.0, 1: 1.0}.get(draw, 0.5)  # all is lost, all is kept, or by chance

                def keeps(chance: random.Random = chance, kept: float = kept) -> bool:
                    return chance.random() < kept

                place = folder / f"{number}-{draw}"
                self._write(place, top, moment, every, keeps, chance)
                yield number, place

    def _write(
        self,
        place: Path,
        inode: int,
        moment: dict[str, Any],
        every: dict[int, bytes],
        keeps: Callable[[], bool],
        chance: random.Random,
    ) -> None:
        place.mkdir()
        old = moment["kept_names"].get(inode, {})
        for name, inner in surviving(old, moment["names"].get(inode, old), keeps).items():
            if inner in moment["names"] or inner in moment["kept_names"]:
                self._write(place / name, inner, moment, every, keeps, chance)
                continue
            safe = moment["kept_bytes"].get(inner, b"")
            now = moment["bytes"].get(inner, every.get(inner, safe))
            torn = now[: chance.randrange(len(now) + 1)] if safe != now else now
            (place / name).write_bytes(now if keeps() else chance.choice([safe, torn]))


def surviving(old: Names, new: Names, keeps: Callable[[], bool]) -> Names:
    """The names of a folder of which each change since the last sync is kept or lost."""
    found = dict(old)
    for name, inode in new.items():
        if old.get(name) == inode or not keeps():
            continue
        found[name] = inode
        for before, other in old.items():  # a rename is one change
            if other == inode and new.get(before) != inode:
                found.pop(before, None)
    for name in old.keys() - new.keys():
        if old[name] not in new.values() and keeps():
            found.pop(name, None)
    return found


def names_in(folder: Path) -> Names:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_a_folder_is_whole_or_absent(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = ram / "disk" / "base@1"
    work = work_place(final)
    (work / "model" / "deep").mkdir(parents=True)
    (work / "model" / "a").write_bytes(b"weights" * 9)
    (work / "model" / "deep" / "b").write_bytes(b"more")
    disk = Disk(ram / "disk", monkeypatch)
    for path in (work, work / "model", work / "model" / "deep"):
        disk.kept_names[path.stat().st_ino] = {}  # nothing in it is safe yet
    disk.kept_bytes.clear()
    disk.during(lambda: publish(work, final, {"asked": 1}))
    monkeypatch.undo()
    (ram / "cut").mkdir()
    found = []
    for number, place in disk.after_a_cut(ram / "cut"):
        if (place / "base@1").exists():
            assert Folder.open(place / "base@1").record["asked"] == 1
        found.append((number, (place / "base@1").exists()))
    assert {there for _, there in found} == {True, False}
    last = len(disk.moments) - 1
    assert all(there for number, there in found if number == last)
    assert last > 8


def test_a_checkpoint_is_the_old_or_the_new(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting those that are too old is no danger to the others."""

    def spelled(step: int) -> Callable[[Path], None]:
        return lambda work: (work / "tensors").write_bytes(bytes([step]) * 100) and None

    state = Checkpoints(ram / "disk", keep=2)
    for step in (1, 2):
        state.save(step, spelled(step))
    disk = Disk(ram / "disk", monkeypatch)
    disk.during(lambda: state.save(3, spelled(3)))
    monkeypatch.undo()
    (ram / "cut").mkdir()
    seen = set()
    for number, place in disk.after_a_cut(ram / "cut"):
        cut = Checkpoints(place, keep=2)
        newest = cut.newest()
        assert newest.folder is not None
        assert newest.refused == ()
        assert newest.folder.bytes("tensors") == bytes([newest.step]) * 100
        assert len(cut.steps()) >= 2
        for step in cut.steps():
            Folder.open(cut.at(step))
        if number == len(disk.moments) - 1:
            assert newest.step == 3
        seen.add(newest.step)
    assert seen == {2, 3}


def test_a_file_is_the_old_or_the_new(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ram / "disk").mkdir()
    path = ram / "disk" / "file.json"
    replace_atomically(path, 1)
    disk = Disk(ram / "disk", monkeypatch)
    disk.during(lambda: replace_atomically(path, 2222))
    monkeypatch.undo()
    (ram / "cut").mkdir()
    said = {
        (number, (place / "file.json").read_bytes())
        for number, place in disk.after_a_cut(ram / "cut")
    }
    assert {text for _, text in said} == {b"1\n", b"2222\n"}
    assert {text for number, text in said if number == len(disk.moments) - 1} == {b"2222\n"}


def test_the_drawn_disk_finds_what_is_not_synced(
    ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder published without a single fsync is torn in some way or lost."""
    final = ram / "disk" / "base@1"
    work = work_place(final)
    work.mkdir(parents=True)
    (work / "a").write_bytes(b"weights" * 9)
    disk = Disk(ram / "disk", monkeypatch)
    disk.kept_names[work.stat().st_ino] = {}
    disk.kept_bytes.clear()
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    disk.during(lambda: publish(work, final, {"asked": 1}))
    monkeypatch.undo()
    (ram / "cut").mkdir()
    torn = 0
    for _, place in disk.after_a_cut(ram / "cut"):
        if (place / "base@1").exists():
            try:
                Folder.open(place / "base@1")
            except StoreError:
                torn += 1
    assert torn > 3
