"""The contract of every source, and what `stdlib` and `folder` promise."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pyarrow import table
from pyarrow.parquet import write_table

from matura.core.errors import DataError
from matura.core.leaves import leaves
from matura.core.record import plain
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data import sources
from matura.data.preparation import Found, NewTokenizer, Wanted, prepare
from matura.data.source import Source
from matura.data.sources.folder import Folder
from matura.data.sources.stdlib import Stdlib, topics
from matura.text.tokenizer import Tokenizer

KINDS = leaves(sources, Source)  # type: ignore[type-abstract]  # only concrete ones are found
CODEC = Tokenizer.bytes_only("matura")


def given() -> Given:
    return Given(rng=rng(0, "test"), tokenizer=CODEC)


@pytest.fixture
def settings_of(tmp_path: Path) -> dict[str, dict[str, object]]:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "a.txt").write_text("some text\n")
    marks = "==== DOC START ====\nSOURCE: a | PATH: b\n====\none\n==== DOC END ====\n"
    (tmp_path / "marked.txt").write_text(marks)
    (tmp_path / "prepared").mkdir()
    (tmp_path / "OPUS-A/v1/mono").mkdir(parents=True)
    (tmp_path / "OPUS-A/v1/mono/en.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    (tmp_path / "datasets/a/b").mkdir(parents=True)
    (tmp_path / "datasets/a/b/README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "datasets/a/b/rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    write_table(table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    (tmp_path / "prepared/train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "some").mkdir()
    for number in range(9):
        (tmp_path / f"some/{number}.txt").write_text(f"{number} " * 9)
    texts = (Found("some", Folder(path=tmp_path / "some")),)
    prepare(tmp_path / "corpus", Wanted(texts, NewTokenizer(vocab_size=300)))
    return {
        "corpus": {"path": tmp_path / "corpus"},
        "jsonl": {"path": tmp_path / "a.jsonl"},
        "folder": {"path": tmp_path},
        "prepared": {"path": tmp_path / "prepared"},
        "stdlib": {"max_bytes": 100_000},
        "repetition": {"tokens": 3000},
        "parquet": {"path": tmp_path / "a.parquet"},
        "marked": {"path": tmp_path / "marked.txt"},
        "text": {"path": tmp_path / "a.txt"},
        "opus": {"corpus": "A", "language": "en", "version": "v1", "base": str(tmp_path)},
        "hub": {"id": "a/b", "endpoint": str(tmp_path)},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_reads_the_same_twice(
    kind: str, settings_of: dict[str, dict[str, object]]
) -> None:
    source = KINDS[kind].model_validate({"kind": kind, **settings_of[kind]})
    first = list(source.read(given()))
    assert first
    assert first == list(source.read(given()))
    assert len({thing.id for thing in first}) == len(first)
    again = KINDS[kind].model_validate(plain(source))  # a recipe's spelling is enough to make it
    assert again == source
    assert KINDS[kind].__doc__


def test_stdlib_is_unchanged_text_in_the_order_of_paths() -> None:
    import textwrap

    documents = {document.id: document for document in Stdlib().read(given())}
    assert isinstance(documents["stdlib/textwrap.py"], Document)
    raw = Path(textwrap.__file__).read_bytes()
    assert documents["stdlib/textwrap.py"].text.encode() == raw
    assert not [id for id in documents if "/test/" in id or "site-packages" in id]
    files = [id for id in documents if "#" not in id]
    assert files == sorted(files)
    assert len(files) > 300


def test_stdlib_cap_picks_by_content() -> None:
    small = [document.id for document in Stdlib(max_bytes=200_000).read(given())]
    large = [document.id for document in Stdlib(max_bytes=2_000_000).read(given())]
    sizes = sum(len(d.text.encode()) for d in Stdlib(max_bytes=200_000).read(given()))
    assert 150_000 < sizes <= 200_000
    assert len(small) < len(large)
    assert len({id.split("/")[1][0] for id in large}) > 8  # not only the first of the alphabet


def test_stdlib_prose_has_the_reference_and_no_code() -> None:
    prose = [document.id for document in Stdlib(parts=("prose",)).read(given())]
    assert all(id.endswith((".txt", ".rst")) or "#" in id for id in prose)
    assert topics("x = 1\ntopics = {'if': 'The if' ' statement', 'n': 3}") == {
        "if": "The if statement"
    }
    assert topics("x = 1") == {}


def test_folder_keeps_every_byte_and_the_order_of_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    content = "\ufeffif x:\r\n\tpass  \r\n\r\n  ü\u2028".encode()
    (tmp_path / "b" / "a.py").write_bytes(content)
    (tmp_path / "a.md").write_bytes(b"# A")
    (tmp_path / "a.bin").write_bytes(b"\0")
    (tmp_path / ".git" / "a.txt").write_bytes(b"no")
    found = list(Folder(path=tmp_path).read(given()))
    assert [document.id for document in found] == ["a.md", "b/a.py"]
    assert found[1].text.encode() == content.removeprefix(b"\xef\xbb\xbf")
    assert CODEC.decode(CODEC.encode(found[1].text)) == found[1].text
    lf = list(Folder(path=tmp_path, newlines="lf").read(given()))
    assert lf[1].text == "if x:\n\tpass  \n\n  ü\u2028"


def test_folder_reads_other_encodings_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt:1: byte 4"):
        list(Folder(path=path).read(given()))
    assert next(Folder(path=path, encoding="latin-1").read(given())).text == "café"
