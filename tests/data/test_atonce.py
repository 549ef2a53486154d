"""Folders of text shards are whole or absent, wherever the making of them ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dying import dies_at

from matura.core.errors import DataError, StoreError
from matura.core.lock import RunLock
from matura.data.atonce import at_once, refuse_taken
from matura.data.corpus import COUNTS, clean_into, source_at
from matura.data.dedup import Duplicates
from matura.data.gathered import AsIs
from matura.data.sieve import DUPLICATES, dedup_into


@pytest.fixture
def rows(ram: Path) -> Path:
    path = ram / "rows.jsonl"
    lines = (json.dumps({"text": f"the text of number {n} and a few words more"}) for n in range(9))
    path.write_text("\n".join(lines) + "\n")
    return path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("step", ["clean", "dedup"])
def test_a_kill_leaves_nothing_that_is_taken_for_whole(rows: Path, ram: Path, step: str) -> None:
    """At any call that changes the disk; what is there at the end is what a quiet run makes."""
    out = ram / "out"

    def make(folder: Path) -> None:
        named = [("rows", source_at(rows))]
        if step == "clean":
            clean_into(folder, named, [AsIs()], shard_bytes=200)
        else:
            dedup_into(folder, named, Duplicates(near=False), shard_bytes=200)

    make(ram / "quiet")
    report, kills = COUNTS if step == "clean" else DUPLICATES, 0
    while dies_at(kills * 4, lambda: make(out)):
        kills += 1
        assert not out.exists() or (out / report).exists()
        if out.exists():  # killed after all was done
            break
    assert kills > 3
    assert bytes_of(out) == bytes_of(ram / "quiet")


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with at_once(out, "report.json") as made:  # an empty folder is nobody's
        (made / "report.json").write_text("{}")
    with pytest.raises(DataError, match="made already"):
        refuse_taken(out, "report.json")
    (out / "report.json").rename(out / "thesis.txt")
    with pytest.raises(DataError, match=r"thesis\.txt: is there already"):
        refuse_taken(out, "report.json")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        refuse_taken(tmp_path / "file", "report.json")


def test_two_makers_at_once_are_told(tmp_path: Path) -> None:
    (tmp_path / "out.work").mkdir()
    held = RunLock(tmp_path / "out.work")
    with held, pytest.raises(StoreError, match="in use"), at_once(tmp_path / "out", "report.json"):
        raise AssertionError
