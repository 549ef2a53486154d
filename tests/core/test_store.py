"""Folders are whole or absent, whatever is killed, cut, flipped or in the way."""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from dying import at_call, dies_at

from matura.core.disk import preflight, replace_atomically, spell_json, sweep
from matura.core.errors import StoreError
from matura.core.store import (
    RECORD,
    Checkpoints,
    Folder,
    attempts,
    latest,
    leftovers,
    parse_address,
    publish,
    work_place,
)


def filled(work: Path, text: str = "weights") -> Path:
    (work / "model" / "deep").mkdir(parents=True)
    (work / "model" / "a.bin").write_bytes(text.encode() * 50)
    (work / "model" / "deep" / "b.json").write_text(json.dumps({"text": text}))
    (work / "empty").write_bytes(b"")
    return work


def whole(root: Path, name: str = "base@1") -> Folder:
    return publish(filled(work_place(root / name)), root / name, {"asked": {"seed": 0}})


def test_a_published_folder_opens_and_knows_its_files(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    again = Folder.open(tmp_path / "base@1")
    assert again.record == folder.record
    assert sorted(again.record["files"]) == ["empty", "model/a.bin", "model/deep/b.json"]
    assert again.record["files"]["empty"]["bytes"] == 0
    assert again.json("model/deep/b.json") == {"text": "weights"}
    assert not work_place(tmp_path / "base@1").exists()
    with pytest.raises(StoreError, match=r"base@1/nothing: not in the record"):
        again.bytes("nothing")


def test_killed_at_every_call_of_publishing(ram: Path) -> None:
    """FAULTS A2: the folder is whole or absent, and publishing again always succeeds."""
    number, killed = 0, True
    while killed:
        root = ram / str(number)
        final = root / "base@1"
        filled(work_place(final))
        killed = dies_at(number, lambda f=final: publish(work_place(f), f, {"asked": 1}))
        if final.exists():
            assert not work_place(final).exists()
        else:
            publish(work_place(final), final, {"asked": 1})
        assert Folder.open(final).record["asked"] == 1
        assert leftovers(root) == []
        number += 1
    assert number > 15  # it really died at many places


def test_killed_at_every_call_of_saving_a_checkpoint(ram: Path) -> None:
    """FAULTS A1, A10: an old or the new checkpoint opens, and never fewer than the kept ones."""
    number, killed = 0, True
    while killed:
        state = Checkpoints(ram / str(number), keep=2)
        for step in (1, 2):
            state.save(step, lambda work, s=step: spelled(work, s), {"loss": 1.0})
        killed = dies_at(number, lambda s=state: s.save(3, lambda work: spelled(work, 3)))
        found = state.newest()
        assert found.step in (2, 3)
        assert found.refused == ()
        assert found.folder is not None
        assert found.folder.json("step.json") == found.step
        assert len(state.steps()) >= 2
        for step in state.steps():
            Folder.open(state.at(step))
        state.save(4, lambda work: spelled(work, 4))
        assert state.steps() == [found.step, 4]
        assert {path.name for path in state.folder.iterdir()} == {
            state.at(step).name for step in state.steps()
        }
        number += 1
    assert number > 20


def spelled(work: Path, step: int) -> None:
    replace_atomically(work / "step.json", step)
    (work / "tensors").write_bytes(bytes([step]) * 100)


def test_killed_at_every_call_of_replacing_a_file(ram: Path) -> None:
    path = ram / "file.json"
    number, killed = 0, True
    while killed:
        path.write_bytes(b"1\n")
        killed = dies_at(number, lambda: replace_atomically(path, 2))
        assert path.read_bytes() in (b"1\n", b"2\n")
        number += 1
    assert path.read_bytes() == b"2\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_refusing_disk_is_one_line_and_leaves_the_old(ram: Path, code: int) -> None:
    """FAULTS A4: at every call; the error names a path, old checkpoints stay, no leftover stays."""

    def refuse() -> None:
        met.append(number)
        raise OSError(code, os.strerror(code))

    number, said, met = 0, [], [-1]
    while met[-1] == number - 1:  # until a save ends before its n-th call
        state = Checkpoints(ram / f"{number}")
        state.save(1, lambda work: spelled(work, 1))
        sys.setprofile(at_call(number, refuse))
        try:
            state.save(2, lambda work: spelled(work, 2))
        except StoreError as problem:
            said.append(str(problem))
        finally:
            sys.setprofile(None)
        found = state.newest()
        assert found.step in (1, 2)
        assert [path for path in state.folder.iterdir() if path.name.endswith(".work")] == []
        number += 1
    assert len(said) > 10
    for line in said:
        assert line.startswith(str(ram))
        assert line.endswith(os.strerror(code))
        assert "\n" not in line


def test_all_is_synced_before_the_record_and_the_folder_after_the_rename(tmp_path: Path) -> None:
    """FAULTS A3: what a power cut could reorder is fsynced in between."""
    final = tmp_path / "base@1"
    work = filled(work_place(final))
    seen: list[str] = []

    def watch(frame: FrameType, event: str, called: Any) -> None:
        name = getattr(called, "__name__", "")
        if event == "c_call" and called in (os.fsync, os.replace, os.rename):
            handles = [v for v in frame.f_locals.values() if isinstance(v, int)]
            handles += [
                v.fileno() for v in frame.f_locals.values() if hasattr(v, "fileno") and not v.closed
            ]
            paths = [os.readlink(f"/proc/self/fd/{handle}") for handle in handles]
            seen.append(f"{name} {paths[-1] if name == 'fsync' else ''}".strip())

    sys.setprofile(watch)
    publish(work, final, {})
    sys.setprofile(None)
    record = seen.index(f"fsync {work / RECORD}.tmp")
    for name in ("model/a.bin", "model/deep/b.json", "empty", "model/deep", "model", ""):
        assert f"fsync {work / name}".rstrip("/") in seen[:record], name
    assert seen[record:] == [
        f"fsync {work / RECORD}.tmp",
        "replace",
        f"fsync {work}",
        "rename",
        f"fsync {tmp_path}",
    ]


def test_a_bit_flipped_anywhere_is_found(tmp_path: Path) -> None:
    """FAULTS A5: in any file, and in the record."""
    folder = whole(tmp_path)
    stream = random.Random(0)
    for name in ["model/a.bin", "model/deep/b.json"] * 20:
        path = folder.path / name
        good = path.read_bytes()
        bad = bytearray(good)
        bad[stream.randrange(len(bad))] ^= 1 << stream.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(StoreError, match=rf"{name}: corrupt, its sha256"):
            Folder.open(folder.path)
        lazily = Folder.open(folder.path, hashes="when read")
        with pytest.raises(StoreError, match=rf"{name}: corrupt"):
            lazily.bytes(name)
        path.write_bytes(good)
    Folder.open(folder.path)


def test_missing_extra_cut_and_grown_files_are_named(tmp_path: Path) -> None:
    """FAULTS A6."""
    folder = whole(tmp_path)
    path = folder.path / "model/a.bin"
    good = path.read_bytes()
    for content, reason in (
        (b"", "0 bytes, the record says 350"),
        (good[:-1], "349 bytes"),
        (good + b"x", "351 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=rf"model/a.bin: {reason}"):
            Folder.open(folder.path, hashes="when read")
    path.unlink()
    with pytest.raises(StoreError, match=r"model/a.bin: missing, but in the record"):
        Folder.open(folder.path)
    path.write_bytes(good)
    (folder.path / "model" / "extra").write_bytes(b"")
    with pytest.raises(StoreError, match=r"model/extra: not in the record"):
        Folder.open(folder.path)


def entry(**changes: object) -> dict[str, object]:
    return {"sha256": "0" * 64, "bytes": 1} | changes


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (b"{", r"record.json:1: not JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 100_000, "record.json: nested too deeply"),
        (b"[]", "a record is an object, not list"),
        ({"schema": 3, "files": {}}, "schema 3, this version of Matura reads 1 to 2"),
        ({"schema": 2, "files": {}}, "corrupt, its content is not what its own sha256 says"),
        ({"schema": True, "files": {}}, "schema True"),
        ({"files": {}}, "schema None"),
        ({"schema": 1}, "'files' must be an object"),
        ({"schema": 1, "files": {"../x": entry()}}, r"files\['../x'\]: not a path inside"),
        ({"schema": 1, "files": {"/etc/passwd": entry()}}, "not a path inside"),
        ({"schema": 1, "files": {"a/../b": entry()}}, "not a path inside"),
        ({"schema": 1, "files": {"./a": entry()}}, "not a path inside"),
        ({"schema": 1, "files": {"": entry()}}, "not a path inside"),
        ({"schema": 1, "files": {"a\\b": entry()}}, "not a path inside"),
        ({"schema": 1, "files": {RECORD: entry()}}, "not a path inside"),
        ({"schema": 1, "files": {"a": entry(sha256="abc")}}, r"files\['a'\].sha256"),
        ({"schema": 1, "files": {"a": entry(bytes=-1)}}, r"files\['a'\].bytes"),
        ({"schema": 1, "files": {"a": entry(bytes="1")}}, r"files\['a'\].bytes"),
        ({"schema": 1, "files": {"a": None}}, r"files\['a'\].sha256"),
    ],
)
def test_bad_records_are_refused(tmp_path: Path, record: Any, named: str) -> None:
    """FAULTS A7."""
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    (tmp_path / "base@1").mkdir()
    (tmp_path / "base@1" / RECORD).write_bytes(raw)
    with pytest.raises(StoreError, match=named) as problem:
        Folder.open(tmp_path / "base@1")
    assert str(problem.value).startswith(str(tmp_path / "base@1" / RECORD))


def test_any_flipped_bit_of_a_record_is_told_as_the_record_s(tmp_path: Path) -> None:
    """Else a flip in the record is blamed on a file that is well, or not seen at all."""
    folder = whole(tmp_path)
    path = folder.path / RECORD
    good = path.read_bytes()
    for bit in range(0, 8 * len(good), 5):
        content = bytearray(good)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(StoreError) as problem:
            Folder.open(folder.path)
        assert str(problem.value).startswith(str(path)), content[bit // 8 - 9 : bit // 8 + 9]
    path.write_bytes(good)
    assert Folder.open(folder.path).record == folder.record


def test_a_folder_from_before_records_had_a_hash_is_read(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    old = {name: value for name, value in folder.record.items() if name != "sha256"}
    (folder.path / RECORD).write_text(json.dumps(old | {"schema": 1}))
    assert Folder.open(folder.path).record["asked"] == {"seed": 0}


def test_links_are_refused(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    path = folder.path / "model/a.bin"
    (tmp_path / "outside").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match=r"model/a.bin: a link"):
        Folder.open(folder.path)
    work = filled(tmp_path / "b.work")
    (work / "link").symlink_to("/etc")
    with pytest.raises(StoreError, match=r"link: a link"):
        publish(work, tmp_path / "b@1", {})
    assert not (tmp_path / "b@1").exists()


def test_wrong_paths_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no: not there"):
        Folder.open(tmp_path / "no")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file: not a folder"):
        Folder.open(tmp_path / "file")
    (tmp_path / "bare").mkdir()
    with pytest.raises(StoreError, match=r"record.json: not there, so the folder is not whole"):
        Folder.open(tmp_path / "bare")
    whole(tmp_path)
    with pytest.raises(StoreError, match="already there"):
        publish(filled(tmp_path / "x.work"), tmp_path / "base@1", {})
    with pytest.raises(StoreError, match="written by the store"):
        publish(tmp_path / "x.work", tmp_path / "base@2", {"files": {}})


def test_leftovers_of_inner_writers_are_not_published(tmp_path: Path) -> None:
    work = filled(tmp_path / "b.work")
    (work / "data.tmp").write_bytes(b"half")
    (work / ".shard.123").write_bytes(b"half")
    filled(work / "state" / "step-00000007.work")
    filled(work / "state" / "step-00000001.gone")
    folder = publish(work, tmp_path / "b@1", {})
    assert sorted(folder.record["files"]) == ["empty", "model/a.bin", "model/deep/b.json"]


def test_attempts_go_by_number(tmp_path: Path) -> None:
    """FAULTS A13: never by file time."""
    assert latest(tmp_path / "absent", "base") is None
    for attempt in (10, 2, 1):
        (tmp_path / f"base@{attempt}").mkdir()
    for other in ("base@11.work", "base@12.gone", "base2@99", "base@x", "base@0"):
        (tmp_path / other).mkdir()
    (tmp_path / "base@77").write_text("a file is no attempt")
    assert attempts(tmp_path, "base") == [1, 2, 10]
    assert latest(tmp_path, "base") == tmp_path / "base@10"
    assert parse_address("base@10") == ("base", 10)
    with pytest.raises(StoreError, match=r"'\.\./x@1': not an attempt"):
        parse_address("../x@1")


def test_checkpoints_fall_back_and_say_so(tmp_path: Path) -> None:
    state = Checkpoints(tmp_path / "state", keep=3)
    assert state.newest().folder is None
    for step in (5, 20, 100):
        state.save(step, lambda work, s=step: spelled(work, s))
    (state.at(100) / "tensors").write_bytes(b"torn")
    found = state.newest()
    assert found.step == 20
    assert "step-00000100/tensors" in found.refused[0]
    state.save(100, lambda work: spelled(work, 100))  # reached again, the torn one is replaced
    assert state.newest().step == 100
    for step in state.steps():
        (state.at(step) / RECORD).write_text("{")
    with pytest.raises(StoreError, match="no checkpoint is whole"):
        state.newest()


def test_the_best_checkpoint_is_spared(tmp_path: Path) -> None:
    state = Checkpoints(tmp_path, keep=1)
    for step in range(1, 6):
        state.save(step, lambda work, s=step: spelled(work, s), spare={2})
    assert state.steps() == [2, 5]


def test_json_takes_no_nan_and_any_text() -> None:
    with pytest.raises(StoreError, match="not spellable as JSON"):
        spell_json({"loss": float("nan")})
    assert json.loads(spell_json("Gr\u00fc\u00dfe")) == "Gr\u00fc\u00dfe"
    assert json.loads(spell_json("half \ud83d")) == "half \ud83d"


def test_preflight_tells_before_hours_are_spent(tmp_path: Path) -> None:
    """FAULTS A12."""
    preflight(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"file: is a file, a folder was expected"):
        preflight(tmp_path / "file" / "run")
    with pytest.raises(StoreError, match=r"GB are needed"):
        preflight(tmp_path, need_bytes=10**18)
    with pytest.raises(StoreError, match=r"cannot write in this folder"):
        preflight(Path("/proc/matura"))


@pytest.mark.skipif(os.getuid() != 0, reason="becoming nobody takes root")
def test_preflight_without_permission(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == "root" and parent != Path("/") and parent != Path("/tmp"):
            parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match="Permission denied"):
            preflight(tmp_path / "mine")
    finally:
        os.seteuid(0)


def test_sweep_says_what_it_took(tmp_path: Path) -> None:
    (tmp_path / "a.tmp").write_text("")
    filled(tmp_path / "b.gone")
    (tmp_path / "keep").write_text("")
    assert sorted(path.name for path in sweep(tmp_path)) == ["a.tmp", "b.gone"]
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
