"""Text shards: what is written is read again, byte for byte, and damage is named by its line."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.marked import Marked, read_marked, write_marked
from matura.data.sources.marked import MarkedShards

START, END = "==== DOC START ====", "==== DOC END ===="
HEAD = f"{START}\nSOURCE: s | PATH: p\n====\n"
PIECES = [
    START,
    END,
    "====",
    "\\",
    "\n",
    "\r",
    "\r\n",
    " ",
    "\t",
    "SOURCE: a | PATH: b",
    "\ufeff",
    "x",
]
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))
NAMES = st.one_of(st.text(), st.sampled_from(["a | PATH: b", "100%", "%0A", "\r", " ", "a\nb"]))

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Every shard waits for its disk."""


def documents(path: Path) -> list[Document]:
    return list(MarkedShards(path=path).read(Given(rng=rng(0, "test"))))


def shard(folder: Path, text: str) -> Path:
    path = folder / "shard.txt"
    path.write_bytes(text.encode())
    return path


@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Marked, source=NAMES, path=NAMES, text=TEXTS), min_size=1, max_size=4))
def test_any_text_survives(written: list[Marked]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        paths = write_marked(Path(folder), written, shard_bytes=300)
        assert [document for path in paths for document in read_marked(path)] == written
        assert sorted(Path(folder).iterdir()) == paths
        assert documents(Path(folder)) == [Document(text=w.text, id=w.id) for w in written]


def test_shards_are_no_larger_than_asked(tmp_path: Path) -> None:
    written = [Marked("s", str(number), "x" * 100) for number in range(10)]
    written.insert(4, Marked("s", "large", "x" * 1000))
    paths = write_marked(tmp_path, written, shard_bytes=600)
    sizes = [path.stat().st_size for path in paths]
    assert sum(size > 600 for size in sizes) == 1
    assert len(paths) == 5
    assert [path.name for path in paths[:2]] == ["shard-00000.txt", "shard-00001.txt"]
    with pytest.raises(DataError, match="shards already"):
        write_marked(tmp_path, written)


def test_nothing_stays_of_what_broke(tmp_path: Path) -> None:
    def broken() -> Iterator[Marked]:
        yield Marked("s", "p", "x" * 100)
        yield Marked("s", "p", "\ud800")

    with pytest.raises(DataError, match="lone surrogate"):
        write_marked(tmp_path / "out", broken(), shard_bytes=50)
    with pytest.raises(DataError, match="no document"):
        write_marked(tmp_path / "out", [])
    assert not list((tmp_path / "out").iterdir())


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    head = f"\ufeff\r\n{START}\r\nSOURCE: C:\\new | PATH: a%20b\r\n====\r\n"
    (document,) = read_marked(shard(tmp_path, f"{head}Title\r\n====\r\n{END}  \r\n"))
    assert document == Marked("C:\\new", "a%20b", "Title\r\n====")
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(f"{HEAD}{END}".encode()))
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "record.json").write_text("{}")
    assert [found.text for found in documents(tmp_path)] == ["", document.text]


def test_markers_and_metadata_are_never_text(tmp_path: Path) -> None:
    (found,) = documents(shard(tmp_path, f"{HEAD}one\n\ntwo\n\n{END}\n"))
    assert found == Document(text="one\n\ntwo\n", id="s/p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}one\n{END}\n{HEAD}two\n", ":6: no '==== DOC END ====' .* up to line 9"),
        (f"{HEAD}one\n{HEAD}two\n{END}\n", ":1: no '==== DOC END ====' .* up to line 5"),
        (f"{HEAD}one\n{END}\n\nstray\n", ":7: expected '==== DOC START ====', found 'stray'"),
        (f"{END}\n", ":1: expected '==== DOC START ===='"),
        (f"{START}\nSOURCE: s\n====\n{END}\n", ":2: expected 'SOURCE: … | PATH: …', found 'SOURCE"),
        (f"{START}\nSOURCE: s | PATH: p\nbody\n{END}\n", ":3: expected '====', found 'body'"),
        (f"{START}\n", ":1: expected 'SOURCE: .* found the end"),
        ("\n", "no document"),
        (f"{HEAD}{'x' * 3000}\n{END}\n", ":4: line longer than 2,000 bytes"),
        (f"{HEAD}{'x' * 300}\n" + f"{'x' * 300}\n" * 9, ":10: a document of more than 2,000 bytes"),
    ],
)
def test_damage_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    source = MarkedShards(path=shard(tmp_path, text), document_limit_bytes=2000)
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        list(source.read(Given(rng=rng(0, "test"))))


def test_what_is_no_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(f"{HEAD}one\n".encode() + b"caf\xe9\n" + f"{END}\n".encode())
    with pytest.raises(DataError, match=r"a\.txt:5: byte 4"):
        documents(tmp_path)
    path.write_bytes(START.encode() + b"\nSOURCE: \xe9 | PATH: p\n")
    with pytest.raises(DataError, match=r"a\.txt:2: byte 9"):
        documents(tmp_path)


def test_a_folder_without_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no shards"):
        documents(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        documents(tmp_path / "absent.txt")
