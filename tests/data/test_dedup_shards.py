"""Documents without duplicates, or without evaluation items: as a source that is built from, and as
shards with a report that adds up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data import spool as spooling
from matura.data.build import build, divided_by_content, training_texts
from matura.data.clean.code import Code
from matura.data.cleaner import CleanedSource
from matura.data.corpus import source_at
from matura.data.decontaminate import Index
from matura.data.dedup import Duplicates, likeness
from matura.data.deduped import DedupedSource
from matura.data.sieve import DUPLICATES, ITEMS, decontaminate_into, dedup_into
from matura.data.sources.folder import Folder
from matura.data.sources.jsonl import Jsonl
from matura.data.spool import Spool
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

GIVEN = Given(rng=rng(0))
TEMPLATE = Template(Tokenizer.bytes_only("matura"))
ITEM = "A farmer has twelve grey geese and sells five of them; how many geese are left then?"


def module(n: int, lines: int = 30) -> str:
    """Code that shares little with that of another number."""
    stream = rng(n, "module")
    words = ["".join(stream.choices("abcdefgh", k=6)) for _ in range(3 * lines)]
    return "".join(
        f"{a} = {b}({c}, {n})\n"
        for a, b, c in zip(words[::3], words[1::3], words[2::3], strict=True)
    )


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Sixty modules; three copied, five with a line more."""
    folder = tmp_path / "code"
    folder.mkdir()
    for n in range(60):
        (folder / f"m{n:02}.py").write_text(module(n))
    for n in range(3):
        (folder / f"x{n}.py").write_text(module(n))
    for n in range(3, 8):
        (folder / f"y{n}.py").write_text(module(n) + "print('a line more')\n")
    return folder


def test_a_source_is_read_without_its_duplicates(code: Path, tmp_path: Path) -> None:
    source = DedupedSource(Folder(path=code), Duplicates())
    kept = [document.id for document in source.read(GIVEN)]
    assert kept == [f"m{n:02}.py" for n in range(60)]
    assert (source.counts.read, source.counts.kept) == (68, 60)
    assert source.counts.dropped == {"exact duplicate": 3, "near duplicate": 5}
    exact = DedupedSource(Folder(path=code), Duplicates(near=False))
    assert len(list(exact.read(GIVEN))) == 65
    assert exact.counts.dropped == {"exact duplicate": 3}


def test_a_source_is_cleaned_and_then_compared_as_it_is_built_from(
    code: Path, tmp_path: Path
) -> None:
    """A licence on top hides a copy; what is too small is never compared."""
    (code / "z.py").write_text("# Copyright (c) somebody.\n\n" + module(11))
    (code / "small.py").write_text("x = 1\n")
    source = DedupedSource(CleanedSource(Folder(path=code), (Code(),)), Duplicates())
    assert divided_by_content(source)
    built = build(
        source, name="code", template=TEMPLATE, folder=tmp_path / "data", seed=0, stage="base"
    )
    assert built.cleaned["read"] == 70
    assert built.cleaned["made"] == built.deduped["read"] == 69
    assert built.deduped["dropped"] == {"exact duplicate": 4, "near duplicate": 5}
    assert built.deduped["kept"] == built.read == 60
    assert built.read == sum(built.kept.values()) + sum(built.dropped.values())
    assert built.as_dict()["deduped"] == built.deduped
    texts = list(training_texts(source, name="code", seed=0, stage="base"))
    assert len(texts) == built.kept["train"]


def test_a_source_is_read_once_however_often_it_is_asked_for(code: Path) -> None:
    class Counting:
        kind = "folder"
        times = 0

        def read(self, given: Given) -> Iterator[Document]:
            self.times += 1
            yield from Folder(path=code).read(given)

    source = Counting()
    deduped = DedupedSource(source, Duplicates())
    assert list(deduped.read(GIVEN)) == list(deduped.read(GIVEN))
    assert source.times == 1
    deduped = DedupedSource(source, Duplicates())
    next(deduped.read(GIVEN))
    assert len(list(deduped.read(GIVEN))) == 60


def test_only_text_is_compared(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"prompt": "hi", "completion": "ho"}\n')
    with pytest.raises(DataError, match=r"c\.jsonl:1: is a conversation"):
        list(DedupedSource(Jsonl(path=tmp_path / "c.jsonl"), Duplicates()).read(GIVEN))
    with pytest.raises(DataError, match=r"c\.jsonl:1: is a conversation"):
        dedup_into(tmp_path / "out", [("c", Jsonl(path=tmp_path / "c.jsonl"))], Duplicates())
    assert not list(tmp_path.glob("out*"))


def test_what_is_put_aside_comes_back_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "BATCH_BYTES", 50)
    texts = ["", "a\r\n\0b", "für 中文 🙂", "half \ud800 pair", "x" * 300, "", module(1)]
    given = [Document(text=text, id=f"é{n}:\udc80") for n, text in enumerate(texts)]
    spool = Spool(Duplicates(), tmp_path)
    for document in given:
        spool.add(document)
    prints = spool.prints()
    assert len(spool) == len(prints) == len(texts)
    assert [spool.document(n) for n in (6, 0, 3, 1, 2, 4, 5)] == [
        given[n] for n in (6, 0, 3, 1, 2, 4, 5)
    ]
    assert list(spool.kept(spool.found(prints))) == [*given[:5], given[6]]
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="no room for documents"):
        Spool(Duplicates(), tmp_path / "missing")


def test_shards_hold_what_is_like_nothing_before_and_the_report_adds_up(
    code: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.jsonl"
    rows = [module(n) for n in (5, 70, 71, 70)] + [module(72) + "z = 1\n", module(72)]
    more.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    named = [("code", Folder(path=code)), ("more", Jsonl(path=more))]
    told: list[tuple[str, int]] = []
    report = dedup_into(
        tmp_path / "out", named, Duplicates(), told=lambda name, count: told.append((name, count))
    )
    assert told == [("code", 68), ("more", 6)]
    first, second = report.sources["code"], report.sources["more"]
    assert (first.read, first.kept) == (68, 60)
    assert (second.read, second.kept) == (6, 3)
    assert second.dropped == {"exact duplicate": 2, "near duplicate": 1}
    for tally in report.sources.values():
        assert tally.read == tally.kept + sum(tally.dropped.values())
    kept = list(source_at(tmp_path / "out").read(GIVEN))
    assert [d.id for d in kept[58:]] == [
        "code/m58.py",
        "code/m59.py",
        "more/more.jsonl:2",
        "more/more.jsonl:3",
        "more/more.jsonl:5",
    ]
    assert kept[62].text == rows[4]
    assert report.clusters[0].kept == "code/m05.py"
    assert report.clusters[0].ids == ("code/y5.py", "more/more.jsonl:1")
    assert sum(cluster.duplicates for cluster in report.clusters) == 11
    near = [pair for pair in report.pairs if pair.reason == "near duplicate"]
    assert len(report.pairs) == 10
    assert len(near) == 6
    assert near[0].similarity == min(pair.similarity for pair in near) > 0.8
    five = next(pair for pair in near if pair.dropped == "code/y5.py")
    alike = likeness(module(5), module(5) + "print('a line more')\n", Duplicates())
    assert five.similarity == pytest.approx(alike, abs=1e-3)
    assert "+ \"print('a line more')\"" in five.change
    found = json.loads((tmp_path / "out" / DUPLICATES).read_text())
    assert found["sources"] == {name: tally.as_dict() for name, tally in report.sources.items()}
    assert found["settings"] == {"threshold": 0.8, "ngram": 5, "permutations": 128, "near": True}
    assert found["shards"] == ["shard-00000.txt"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"shard-00000.txt", DUPLICATES}
    again = dedup_into(tmp_path / "again", named, Duplicates())
    assert again == report
    for name in ("shard-00000.txt", DUPLICATES):
        same = (tmp_path / "again" / name).read_bytes()
        assert same == (tmp_path / "out" / name).read_bytes()
    twice = dedup_into(tmp_path / "twice", [("out", source_at(tmp_path / "out"))], Duplicates())
    assert twice.sources["out"].kept == 63


def test_shards_are_not_written_over(code: Path, tmp_path: Path) -> None:
    named = [("code", Folder(path=code))]
    with pytest.raises(DataError, match="code: named twice"):
        dedup_into(tmp_path / "out", named * 2, Duplicates())
    dedup_into(tmp_path / "out", named, Duplicates())
    with pytest.raises(DataError, match="made already"):
        dedup_into(tmp_path / "out", named, Duplicates())
    with pytest.raises(DataError, match="there are shards already"):
        decontaminate_into(tmp_path / "out", named, Index([("item", ITEM)]))


def test_documents_with_an_item_are_left_out_with_what_matched(code: Path, tmp_path: Path) -> None:
    changed = ITEM.upper().replace("GREY ", "").replace(";", ",\n#")
    (code / "held.py").write_text(f"{module(80)}# {ITEM}\n{module(81)}")
    (code / "near.py").write_text(f"{module(82)}# {changed}\n{module(83)}")
    named = [("code", Folder(path=code)), ("held", Folder(path=code / "held.py"))]
    index = Index([("bench:1", ITEM), ("bench:2", "Why?"), ("bench:3", "…")])
    report = decontaminate_into(tmp_path / "out", named, index)
    first, second = report.sources["code"], report.sources["held"]
    assert (first.read, first.kept) == (70, 68)
    assert (second.read, second.kept) == (1, 0)
    for findings in report.sources.values():
        assert findings.read == findings.kept + sum(findings.dropped.values())
    assert (report.items, report.only_whole, report.empty) == (2, 1, ("bench:3",))
    told = json.loads((tmp_path / "out" / ITEMS).read_text())
    hits = told["sources"]["code"]["hits"]
    assert [(hit["document"], hit["item"], hit["rule"]) for hit in hits] == [
        ("held.py", "bench:1", "exact"),
        ("near.py", "bench:1", "near"),
    ]
    assert hits[0]["text"] == ITEM[:-1]
    assert hits[1]["text"].startswith("A FARMER HAS TWELVE GEESE")
    assert told["sources"]["code"]["dropped"] == {
        "evaluation item, exact": 1,
        "evaluation item, near": 1,
    }
    kept = [document.text for document in source_at(tmp_path / "out").read(GIVEN)]
    assert len(kept) == 68
    assert not any("FARMER" in text.upper() for text in kept)
    with pytest.raises(DataError, match=r"each of the 1 documents holds an item"):
        decontaminate_into(tmp_path / "none", named[1:], index)
    assert not list(tmp_path.glob("none*"))


def test_nothing_is_left_behind_where_it_was_put_aside(code: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for number in range(5):
        dedup_into(tmp_path / str(number), [("code", Folder(path=code))], Duplicates())
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2
