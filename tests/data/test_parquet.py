"""Parquet, text and packed files: every row or an error that names the file, never a short
success."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.source import Source
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.opus import Opus
from matura.data.sources.parquet import Parquet, texts
from matura.data.sources.text import Text

GIVEN = Given(rng=rng(0))
TEXTS = [f"line {n}\nof text é\u2028 {'x' * (n % 50)}" for n in range(1000)]


def table(texts: Sequence[object] = TEXTS, **columns: Any) -> pa.Table:
    return pa.table({"text": texts, **columns})


def write(path: Path, made: pa.Table | None = None, **more: Any) -> Path:
    pq.write_table(
        table(n=list(range(len(TEXTS)))) if made is None else made,
        path,
        **{"row_group_size": 300, "write_page_checksum": True, **more},
    )
    return path


def read(source: Source) -> list[tuple[str, str]]:
    found = []
    for thing in source.read(GIVEN):
        assert not hasattr(thing, "messages")
        found.append((thing.id, thing.text))  # type: ignore[union-attr]
    return found


def problem_of(source: Source) -> str:
    with pytest.raises(DataError) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
def test_every_row_in_order(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a.parquet", compression=compression)
    assert read(Parquet(path=path)) == [(f"a.parquet:{n}", t) for n, t in enumerate(TEXTS, 1)]


def test_folders_and_several_files(tmp_path: Path) -> None:
    for name in ("b", "a/c", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path / name / "x.parquet", table([name]))
    (tmp_path / "notes.txt").write_text("none")
    found = read(Parquet(path=tmp_path))
    assert [text for _, text in found] == ["a/c", "b"]
    assert len({id for id, _ in found}) == 2
    several = (tmp_path / "b/x.parquet", tmp_path / "a/c/x.parquet")
    assert [text for _, text in read(Parquet(path=several))] == ["b", "a/c"]
    (tmp_path / "none").mkdir()
    assert "no files ending in .parquet" in problem_of(Parquet(path=tmp_path / "none"))
    assert "no such file" in problem_of(Parquet(path=tmp_path / "n.parquet"))


def test_a_filter_and_kinds_of_text(tmp_path: Path) -> None:
    made = table(
        pa.array(["a", "b", " \n", "d"]).dictionary_encode(),
        language=["py", "js", "py", None],
        good=[True, True, False, None],
        n=[1, 2, 1, 1],
    )
    path = write(tmp_path / "a.parquet", made)

    def kept(field: str, value: object) -> list[str]:
        asked = {"path": path, "filter_field": field, "filter_value": value}
        return [text for _, text in read(Parquet.model_validate(asked))]

    assert [text for _, text in read(Parquet(path=path))] == ["a", "b", "d"]
    assert kept("language", "py") == ["a"]
    assert kept("good", True) == ["a", "b"]
    assert kept("n", 1) == ["a", "d"]
    assert "no rows with text where 'n' is True" in problem_of(
        Parquet(path=path, filter_field="n", filter_value=True)
    )
    assert "no 'lang'" in problem_of(Parquet(path=path, filter_field="lang", filter_value="a"))
    with pytest.raises(ValidationError, match="given together"):
        Parquet(path=path, filter_field="n")
    large = write(tmp_path / "b.parquet", table(pa.array(["a"], pa.large_string())))
    assert len(read(Parquet(path=large))) == 1


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([1, 2], ":1: 'text' must be text, not int64"),
        ([1.5], ":1: 'text' must be text, not double"),
        ([True], ":1: 'text' must be text, not bool"),
        ([b"a"], ":1: 'text' must be text, not binary"),
        ([["a"]], ":1: 'text' must be text, not list"),
        ([None], ":1: 'text' must be text, not null"),
        (["a"] * 500 + [None], ":501: 'text' must be text, not null"),
        (["a", "b" * 300], ":2: 'text' is longer than 200 characters"),
        ([], ": no rows with text"),
        ([""], ": no rows with text"),
    ],
)
def test_a_row_without_text(tmp_path: Path, column: list[object], said: str) -> None:
    made = table(pa.array(column, None if column else pa.string()))
    path = write(tmp_path / "a.parquet", made)
    assert problem_of(Parquet(path=path, row_limit_bytes=200)).startswith(f"{path}{said}")


def test_a_missing_column_and_bad_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.table({"txt": ["a"]}))
    assert f"{path}:1: no 'text', only txt (did you mean 'txt'?)" == problem_of(Parquet(path=path))
    raw = pa.array([b"a", b"\xff\xfe"], pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    path = write(tmp_path / "b.parquet", table(bad))
    assert problem_of(Parquet(path=path)).startswith(f"{path}:2: 'text' is not valid UTF-8")


def test_a_cut_file_is_never_a_short_success(tmp_path: Path) -> None:
    raw = write(tmp_path / "whole.parquet").read_bytes()
    path = tmp_path / "a.parquet"
    cuts = [0, 3, 4, 8, 100, *range(500, len(raw), len(raw) // 40), len(raw) - 8, len(raw) - 1]
    for cut in cuts:
        path.write_bytes(raw[:cut])
        assert problem_of(Parquet(path=path)).startswith(f"{path}: damaged or no Parquet file:")
    path.write_bytes(b"PAR1" + raw[4:-4] + b"PARX")
    assert "damaged" in problem_of(Parquet(path=path))


def test_a_flipped_bit_is_an_error_or_harmless(tmp_path: Path) -> None:
    raw = write(tmp_path / "whole.parquet", table(), write_statistics=False).read_bytes()
    path, noticed = tmp_path / "a.parquet", 0
    places = [place * len(raw) // 150 for place in range(150)]
    for number, place in enumerate(places):
        harmed = bytearray(raw)
        harmed[place] ^= 1 << number % 8
        path.write_bytes(harmed)
        try:
            found = read(Parquet(path=path))
        except DataError:
            noticed += 1
        else:
            assert [text for _, text in found] == TEXTS
    assert noticed > 100


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    rows = texts(path, "text")
    next(rows)
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match="changed while it was read"):
        list(rows)


def test_memory_is_bounded_by_a_batch(tmp_path: Path) -> None:
    long = [f"{n} " + "word " * 20_000 for n in range(400)]  # 40 MB in one row group
    path = write(
        tmp_path / "a.parquet",
        table(long),
        row_group_size=10_000,
        use_dictionary=False,
        write_batch_size=8,
    )
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    most = 0
    for _ in texts(path, "text"):
        most = max(most, pa.total_allocated_bytes() - before)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 25e6
    assert python < 10e6


def packed(path: Path, raw: bytes) -> Path:
    """The bytes in a file, packed as its name says."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(raw, mtime=0))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(raw)
    else:
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_text_by_line_paragraph_and_file(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / name, "\ufeffone\r\ntwo\n \n\n  three\u2028é\n".encode())

    def of(**settings: Any) -> list[tuple[str, str]]:
        return read(Text(path=path, **settings))

    assert of() == [(f"{name}:1", "one\ntwo"), (f"{name}:5", "  three\u2028é")]
    lines = [(f"{name}:1", "one"), (f"{name}:2", "two"), (f"{name}:5", "  three\u2028é")]
    assert of(unit="line") == lines
    assert of(unit="file") == [(f"{name}:1", "one\r\ntwo\n \n\n  three\u2028é\n")]
    assert "longer than 6 bytes" in problem_of(Text(path=path, document_limit_bytes=6))


def test_text_that_is_wrong(tmp_path: Path) -> None:
    for raw, said in (
        (b"a\nb\xff\n", ":2: byte 2 (0xff) is not valid UTF-8"),
        (b"a\nb\0\n", ":2: a NUL byte"),
        (b"", ": no text"),
        (b"\n \n", ": no text"),
        (b"\xff\xfea\0", ": looks like UTF-16"),
    ):
        path = packed(tmp_path / "a.txt", raw)
        for unit in ("line", "paragraph", "file"):
            assert problem_of(Text.model_validate({"path": path, "unit": unit})).startswith(
                f"{path}{said}"
            )


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_packed_lines_that_are_cut_or_damaged(tmp_path: Path, ending: str) -> None:
    rows = b"".join(
        b'{"text": "%d %s"}\n' % (n, os.urandom(20).hex().encode()) for n in range(3000)
    )
    path = packed(tmp_path / f"a.jsonl{ending}", rows)
    raw = path.read_bytes()
    assert len(read(Jsonl(path=path))) == 3000
    for cut in (5, len(raw) // 3, len(raw) - 9, len(raw) - 1):
        path.write_bytes(raw[:cut])
        assert "ends early (a cut-off download?)" in problem_of(Jsonl(path=path))
    path.write_bytes(raw[:20] + bytes(40) + raw[60:])
    assert str(path) in problem_of(Jsonl(path=path))


def test_opus_groups_lines_and_stops_at_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "OPUS-Films/v1/mono/en.txt.gz"
    path.parent.mkdir(parents=True)
    packed(path, b"".join(b"line %d\n\n" % n for n in range(7)))
    films = Opus(corpus="Films", language="en", version="v1", base=str(tmp_path))
    source = films.model_copy(update={"lines_per_document": 3})
    found = read(source)
    assert [id for id, _ in found] == ["Films.en:1", "Films.en:7", "Films.en:13"]
    assert found[0][1] == "line 0\nline 1\nline 2"
    assert found[2][1] == "line 6"
    assert read(source.model_copy(update={"token_budget": 6})) == found[:2]
    assert list(source.inputs()) == [path]
    packed(path, b"\n")
    assert "no text" in problem_of(source)
    with pytest.raises(ValidationError):
        Opus(corpus="../a", language="en", version="v1")
