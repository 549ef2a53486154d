"""Three hundred malformed files of every kind that is read: three hundred errors, each with file,
line and reason, and every good row around a bad one kept where `data check` goes on.

The tables of `test_malformed` and `test_bad_input` are part of the count; what is made here is
JSON's syntax, UTF-8, text, shards with markers, and packed or columnar files that were cut or hit.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_bad_input import CHAT_ROWS, FILES, PROMPT_ROWS, TEXT_ROWS
from test_malformed import CASES

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.check import check
from matura.data.source import Source
from matura.data.sources.folder import Folder
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.marked import MarkedShards
from matura.data.sources.parquet import Parquet
from matura.data.sources.text import Text

GIVEN = Given(rng=rng(0))
GOOD = [f'{{"text": "good row {n} é"}}'.encode() for n in range(6)]

SYNTAX: dict[str, tuple[bytes, str]] = {
    "no value": (b'{"text": }', "bad JSON at column 10"),
    "no key": (b'{: "a"}', "bad JSON at column 2"),
    "no colon": (b'{"text" "a"}', "bad JSON at column 9"),
    "two colons": (b'{"text":: "a"}', "bad JSON at column 9"),
    "equals sign": (b'{"text"= "a"}', "bad JSON at column 8"),
    "semicolon": (b'{"text": "a"; "b": 1}', "bad JSON at column 13"),
    "no comma": (b'{"text": "a" "b": 1}', "bad JSON at column 14"),
    "two commas": (b'{"text": "a",, "b": 1}', "bad JSON"),
    "comma first": (b'{, "text": "a"}', "bad JSON at column 2"),
    "bare key": (b'{text: "a"}', "bad JSON at column 2"),
    "bare value": (b'{"text": a}', "bad JSON at column 10"),
    "undefined": (b'{"text": undefined}', "bad JSON at column 10"),
    "None": (b'{"text": None}', "bad JSON at column 10"),
    "True": (b'{"text": "a", "b": True}', "bad JSON at column 20"),
    "half of true": (b'{"text": "a", "b": tru}', "bad JSON at column 20"),
    "octal": (b'{"text": "a", "b": 012}', "bad JSON at column 21"),
    "hexadecimal": (b'{"text": "a", "b": 0x1f}', "bad JSON at column 21"),
    "plus": (b'{"text": "a", "b": +1}', "bad JSON at column 20"),
    "dot first": (b'{"text": "a", "b": .5}', "bad JSON at column 20"),
    "dot last": (b'{"text": "a", "b": 5.}', "bad JSON at column 21"),
    "no exponent": (b'{"text": "a", "b": 1e}', "bad JSON at column 21"),
    "minus alone": (b'{"text": "a", "b": -}', "bad JSON at column 20"),
    "minus infinity": (b'{"text": "a", "b": -Infinity}', "-Infinity is not JSON"),
    "a comment": (b'{"text": "a" /* why */}', "bad JSON at column 14"),
    "a hash": (b'{"text": "a"} # why', "bad JSON at column 15"),
    "an f-string": (b'{"text": f"a"}', "bad JSON at column 10"),
    "bytes": (b'{"text": b"a"}', "bad JSON at column 10"),
    "a tuple": (b'{"text": ("a")}', "bad JSON at column 10"),
    "two texts": (b'{"text": "a" + "b"}', "bad JSON at column 14"),
    "hex escape": (rb'{"text": "\x41"}', "bad JSON at column 11"),
    "short escape": (rb'{"text": "\u12"}', "bad JSON"),
    "bad digits": (rb'{"text": "\uZZZZ"}', "bad JSON"),
    "octal escape": (rb'{"text": "\101"}', "bad JSON at column 11"),
    "raw return": (b'{"text": "a\rb"}', "bad JSON at column 12"),
    "raw escape": (b'{"text": "a\x1bb"}', "bad JSON at column 12"),
    "low surrogate": (rb'{"text": "\udc00"}', r"'text' holds \udc00"),
    "surrogates swapped": (rb'{"text": "\udc00\ud800"}', r"'text' holds \udc00"),
    "no-break space": ('{"text":\u00a0"a"}'.encode(), "bad JSON at column 9"),
    "curly quotes": ("{“text”: “a”}".encode(), "bad JSON at column 2"),
    "a mark inside": (b'\xef\xbb\xbf{"text": "a"}', "bad JSON"),
    "true": (b"true", "expected a JSON object {...}, found true/false"),
    "text": (b'"text"', "found text"),
    "a fraction": (b"1.5", "found a number"),
    "true text": (b'{"text": true}', "'text' must be text, not true/false"),
    "object text": (b'{"text": {"a": "b"}}', "'text' must be text, not an object"),
    "capital key": (b'{"Text": "a"}', "no 'text', only ['Text']"),
    "spaced key": (b'{"text ": "a"}', "no 'text', only ['text ']"),
    "nothing in it": (b"{}", "no 'text', only []"),
    "id is null": (b'{"text": "a", "id": null}', "'id' must be text or a whole number, not null"),
    "id is true": (b'{"text": "a", "id": true}', "'id' must be text or a whole number, not"),
}
BROKEN: dict[str, bytes] = {  # what no UTF-8 holds
    "lone continuation": b"\x80",
    "last continuation": b"\xbf",
    "two cut to one": b"\xc3",
    "three cut to one": b"\xe2",
    "three cut to two": b"\xe2\x82",
    "four cut to three": b"\xf0\x9f\x98",
    "overlong slash": b"\xc0\xaf",
    "overlong in three": b"\xe0\x80\xaf",
    "overlong in four": b"\xf0\x80\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond the last plane": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "never a byte": b"\xfe",
    "latin-1": "café".encode("latin-1"),
    "Windows-1252": "“a”".encode("cp1252"),
    "Shift-JIS": "日本".encode("shift-jis"),
}


@dataclass(frozen=True)
class Case:
    """A file, what reads it, and what must be said of it."""

    name: str
    content: bytes
    source: Callable[[Path], Source]
    line: int | None
    """None where damage has no line."""
    said: str
    good: int | None = None
    """Rows that `check` finds good beside the bad one; None where the whole file is lost."""


def _jsonl(path: Path) -> Source:
    return Jsonl(path=path, format="text")


def rows() -> Iterator[Case]:
    """One bad row among good ones, in lines and in one array."""
    bad = {name: (raw, said) for name, (raw, said) in SYNTAX.items()}
    for name, raw in BROKEN.items():
        bad[f"utf-8 {name}"] = (b'{"text": "a' + raw + b'"}', "is not valid UTF-8")
        bad[f"utf-8 key {name}"] = (b'{"k' + raw + b'": 1, "text": "a"}', "is not valid UTF-8")
    for place, (name, (raw, said)) in enumerate(bad.items()):
        before, after = GOOD[: place % 4], GOOD[3:]
        lines = [*before, raw, *after]
        yield Case(
            f"{name}.jsonl",
            b"\n".join(lines),
            _jsonl,
            len(before) + 1,
            said,
            len(before) + len(after),
        )
        if raw.count(b'"') % 2 or b"\r" in raw or name in ("two colons", "two commas"):
            continue  # where the array's next item starts would be a guess
        yield Case(
            f"{name}.json",
            b"[\n" + b",\n".join(lines) + b"\n]\n",
            _jsonl,
            len(before) + 2,
            said,
            len(before) + len(after),
        )


def texts() -> Iterator[Case]:
    """Text that is none, as lines, as a file, and in a shard with markers."""
    marks = b"==== DOC START ====\nSOURCE: a | PATH: b\n====\n%s\n==== DOC END ====\n"
    for name, raw in BROKEN.items():
        content = b"first\nsecond " + raw + b" end\nthird\n"
        yield Case(f"{name}.lines.txt", content, lambda p: Text(path=p), 2, "is not valid UTF-8")
        yield Case(f"{name}.txt", content, lambda p: Folder(path=p), 2, "is not valid UTF-8")
        yield Case(
            f"{name}.marked.txt",
            marks % b"fine" + marks % content,
            lambda p: MarkedShards(path=p),
            10,
            "is not valid UTF-8",
            1,
        )
    for name, raw in {
        "UTF-16": "text".encode("utf-16"),
        "UTF-16, big end first": b"\xfe\xff\0t\0e",
        "UTF-32, big end first": b"\0\0\xfe\xff\0\0\0t",
    }.items():
        yield Case(f"{name}.txt", raw, lambda p: Folder(path=p), None, "expected UTF-8")
        yield Case(f"{name}.jsonl", raw, _jsonl, None, "expected UTF-8")
    yield Case("nul.txt", b"a\nb\0c\n", lambda p: Folder(path=p), 2, "a NUL byte")
    yield Case("nul.lines.txt", b"a\nb\nc\0\n", lambda p: Text(path=p), 3, "a NUL byte")
    for name, content, line, said in (
        (
            "no end",
            marks % b"a" + b"==== DOC START ====\nSOURCE: a | PATH: b\n====\nx",
            6,
            "no '===",
        ),
        ("no start", b"==== DOC START ====x\n", 1, "expected '==== DOC START"),
        (
            "no metadata",
            b"==== DOC START ====\nsource: a\n====\nx\n==== DOC END ====\n",
            2,
            "SOURCE",
        ),
        (
            "no rule",
            b"==== DOC START ====\nSOURCE: a | PATH: b\nx\n==== DOC END ====\n",
            3,
            "'===='",
        ),
        ("text between", marks % b"a" + b"stray\n" + marks % b"b", 6, "'stray'"),
        ("start twice", b"==== DOC START ====\n" * 2, 2, "SOURCE"),
        ("nothing follows", b"==== DOC START ====\n", 1, "found the end"),
    ):
        yield Case(f"{name}.marked.txt", content, lambda p: MarkedShards(path=p), line, said)


def _zst(raw: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as packed:
        packed.write(raw)
    return bytes(out.getvalue())


def _parquet(texts: list[str]) -> bytes:
    out = io.BytesIO()
    made = pa.table({"text": pa.array(texts, pa.string())})
    pq.write_table(made, out, row_group_size=500)
    return out.getvalue()


def files() -> Iterator[Case]:
    """Files that were cut off: never a short success."""
    draw = rng(0, "noise")
    noise = [f"row {n} {draw.getrandbits(160):x}" for n in range(3000)]
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in noise)
    array = b"[" + lines.rstrip().replace(b"\n", b",\n") + b"]\n"
    packed = {
        "jsonl.gz": (gzip.compress(lines, mtime=0), _jsonl, ""),
        "jsonl.zst": (_zst(lines), _jsonl, ""),
        "json": (array, _jsonl, "the file ends inside its array"),
        "parquet": (_parquet(noise), lambda p: Parquet(path=p), "damaged or no Parquet file"),
        "txt.gz": (gzip.compress("\n".join(noise).encode(), mtime=0), lambda p: Text(path=p), ""),
    }
    for ending, (raw, source, said) in packed.items():
        for eighth in range(1, 16):
            cut = raw[: len(raw) * eighth // 16]
            yield Case(f"cut at {eighth}.{ending}", cut, source, None, said or "ends early")
        tail = {"json": 2}.get(ending, 1)
        yield Case(f"a byte less.{ending}", raw[:-tail], source, None, said or "ends early")
    for ending, empty in (
        ("jsonl", b""),
        ("blank.jsonl", b"\n\n \r\n"),
        ("json", b"[]"),
        ("blank.json", b" [ \n ] \n"),
        ("jsonl.gz", gzip.compress(b"", mtime=0)),
        ("jsonl.zst", _zst(b"")),
    ):
        yield Case(f"empty.{ending}", empty, _jsonl, None, "no rows")
    yield Case("empty.txt", b"", lambda p: Text(path=p), None, "no text")
    yield Case("blank.txt", b" \n\t\n", lambda p: Folder(path=p), None, "no text")
    yield Case("empty.parquet", b"", lambda p: Parquet(path=p), None, "damaged or no Parquet")
    yield Case("no rows.parquet", _parquet([]), lambda p: Parquet(path=p), None, "no rows with")
    bomb = gzip.compress(b'{"text": "' + b"a" * 20_000_000 + b'"}', mtime=0)
    yield Case("bomb.jsonl.gz", bomb, _jsonl, 1, "line longer than 16,777,216 bytes")
    bomb = gzip.compress(b'[{"text": "' + b"a" * 20_000_000 + b'"}]', mtime=0)
    yield Case("bomb.json.gz", bomb, _jsonl, 1, "item longer than 16,777,216 bytes")


def what_is_read(source: Source) -> tuple[list[str], str]:
    """The texts up to the end or the first error, and what that says."""
    found: list[str] = []
    try:
        for thing in source.read(GIVEN):
            assert isinstance(thing, Document)
            found.append(thing.text)
    except DataError as problem:
        return found, str(problem)
    return found, ""


CASES_HERE = [*rows(), *texts(), *files()]


def test_there_are_more_than_three_hundred_that_differ() -> None:
    contents = {case.content for case in CASES_HERE}
    assert len({case.name for case in CASES_HERE}) == len(CASES_HERE)
    elsewhere = {bad for _, bad, _ in CASES.values()}
    tables = (TEXT_ROWS, CHAT_ROWS, PROMPT_ROWS)
    elsewhere |= {str(row) for table in tables for row, _ in table.values()}
    elsewhere |= {str(content) for _, content, _ in FILES.values()}
    assert len(contents) >= 300
    assert len(elsewhere) >= 125


@pytest.mark.parametrize("case", CASES_HERE, ids=lambda case: case.name)
def test_it_is_one_error_and_the_good_rows_are_kept(tmp_path: Path, case: Case) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content)
    read, message = what_is_read(case.source(path))
    assert message.startswith(f"{path}:" if case.line is None else f"{path}:{case.line}: ")
    assert case.said in message
    assert message.isprintable()
    report = check(path, format="text" if ".json" in case.name else None)
    assert len(report.errors) == 1
    assert not report.errors_left_out
    if case.good is not None:
        assert report.errors == [message]
        assert report.counts["documents"] == case.good
        assert len(read) <= case.good


def test_many_bad_rows_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = [raw for raw, _ in SYNTAX.values()]
    rows = [row for pair in zip(bad, GOOD * 9, strict=False) for row in pair]
    path.write_bytes(b"\n".join(rows))
    report = check(path, format="text")
    assert [error.split(": ")[0] for error in report.errors] == [
        f"{path}:{number}" for number in range(1, len(rows), 2)
    ]
    assert report.counts["documents"] == len(bad)
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None, "b", None, "c"] * 3}), table)
    report = check(table)
    assert report.counts["documents"] == 9
    assert [error.split(": ")[0] for error in report.errors] == [
        f"{table}:{5 * group + row}" for group in range(3) for row in (2, 4)
    ]


CHECKED_ZST = base64.b85decode(
    "D77#B1ZX7$073^95uiQb%)i0^|0*P@G`-*NDHvc1?R_oFM@?zhCEm)%S-a1w@0(MKK2d!Qs$RaZImWE7a`Q8{_d2^d="
    "9Jf0Fa-%Cx|N;_iUkrLYa$@wU~)nRCa4imwXgphuoYVa5xihvg!l#`OG{G#N|zv|(u-5dgk<uRp6FyEp11&s8iWmWNB"
)
"""Twenty rows as the `zstd` command packs them: with a checksum, which pyarrow leaves out."""


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_a_flipped_bit_is_an_error_or_harmless(tmp_path: Path, ending: str) -> None:
    rows = [f"row {n} of twenty, {n * 7919 % 1000}" for n in range(20)]
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in rows)
    packed = gzip.compress(lines, mtime=0) if ending.endswith("gz") else CHECKED_ZST
    path, noticed = tmp_path / f"a.{ending}", 0
    for place in range(len(packed)):
        for bit in (place % 8, (place + 3) % 8):
            harmed = bytearray(packed)
            harmed[place] ^= 1 << bit
            path.write_bytes(harmed)
            found, problem = what_is_read(Jsonl(path=path))
            assert found == rows or problem.startswith(str(path))
            noticed += bool(problem)
    assert noticed > 1.8 * len(packed)
