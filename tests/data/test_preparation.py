"""A corpus: everything read is kept or dropped for a reason, the same bytes whoever made it, and no
kill changes any of them."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from dying import dies_at

from matura.core.errors import DataError, DriftError, RecipeError
from matura.core.rng import rng
from matura.core.store import Folder
from matura.core.types import Document, Given, Split
from matura.data import gathered
from matura.data.build import build
from matura.data.clean.code import Code
from matura.data.clean.prose import Prose
from matura.data.cuts import cuts_of, hashed
from matura.data.dedup import Duplicates
from matura.data.engine import Alone, Processes, engine_named
from matura.data.held import held_out
from matura.data.preparation import Found, NewTokenizer, Wanted, prepare
from matura.data.sources.corpus import Corpus
from matura.data.sources.folder import Folder as Texts
from matura.data.sources.jsonl import Jsonl
from matura.data.split import split_of
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

WORDS = "the quick brown fox jumps over lazy dogs while seven wizards brew strong tea".split()  # noqa: SIM905
TOKENIZER = NewTokenizer(vocab_size=400)


def said(draw: Random, words: int = 60) -> str:
    return " ".join(f"{draw.choice(WORDS)}{draw.randrange(50)}" for _ in range(words)) + "\n"


@pytest.fixture
def tmp_path(ram: Path) -> Path:
    """In memory: parts are fsynced, and nobody's disk is waited for."""
    return ram


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """Prose in files and rows in JSON lines: with copies, near copies, and what is no text."""
    draw = Random(0)
    folder = tmp_path / "prose"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.txt").write_text(said(draw))
    (folder / "copy.txt").write_text((folder / "07.txt").read_text())
    (folder / "near.txt").write_text((folder / "08.txt").read_text() + "and one more\n")
    for name in ("a", "b"):
        rows = [{"text": said(draw), "id": f"{name}{n}"} for n in range(110)]
        rows += [{"text": rows[3]["text"]}, {"text": "  "}, {"text": "a\0b"}]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows_of = Jsonl(path=(tmp_path / "a.jsonl", tmp_path / "b.jsonl"))
    return Wanted(
        (Found("prose", Texts(path=folder), (Prose(),)), Found("rows", rows_of)), TOKENIZER
    )


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and batches so small that there are many of them."""
    monkeypatch.setattr(gathered, "PART_BYTES", 4000)
    monkeypatch.setattr(gathered, "BATCH_CHARS", 1000)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def texts_of(folder: Path, pattern: str) -> list[str]:
    tokenizer = Tokenizer.load(folder / "tokenizer")
    shards = [Shard.open(path, tokenizer.sha256) for path in sorted(folder.glob(pattern))]
    return [tokenizer.decode(s.example(n)[0].tolist()) for s in shards for n in range(len(s))]


def test_what_is_read_is_kept_or_dropped(wanted: Wanted, tmp_path: Path) -> None:
    made = prepare(tmp_path / "corpus", wanted)
    prose, rows = made.record["sources"]["prose"], made.record["sources"]["rows"]
    assert (prose["read"], prose["kept"], rows["read"], rows["kept"]) == (42, 42, 226, 222)
    assert rows["dropped"] == {"text: empty": 2, "text: NUL character": 2}
    assert prose["left_out"] == {"exact duplicate": 1, "near duplicate": 1}
    assert rows["left_out"] == {"exact duplicate": 2}
    assert sum(prose["documents"].values()) == 40
    assert sum(rows["documents"].values()) == 220
    listed = [json.loads(row) for row in (tmp_path / "corpus/duplicates.jsonl").open()]
    assert {"left_out": "prose/copy.txt", "kept": "prose/07.txt", "reason": "exact duplicate"} in (
        listed
    )
    assert {"left_out": "prose/near.txt", "kept": "prose/08.txt", "reason": "near duplicate"} in (
        listed
    )
    assert len(listed) == 4
    assert not (tmp_path / "corpus.work").exists()
    # every kept document is in exactly one place, byte for byte
    kept = Counter(texts_of(tmp_path / "corpus", "*.shard"))
    kept.update(d.text for p in sorted(tmp_path.glob("corpus/*heldout*")) for d in held_out(p))
    read = [path.read_text() for path in sorted((tmp_path / "prose").glob("[0-9]*"))]
    for name in ("a", "b"):
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()[:110]
        read += [json.loads(line)["text"] for line in lines]
    assert kept == Counter(read)
    for split in ("train", "validation"):
        for text in texts_of(tmp_path / "corpus", f"rows.{split}-*.shard"):
            assert split_of(Document(text=text, id="")) == split


def test_shards_are_what_the_template_makes(wanted: Wanted, tmp_path: Path) -> None:
    prepare(tmp_path / "corpus", wanted)
    tokenizer = Tokenizer.load(tmp_path / "corpus" / "tokenizer")
    template = Template(tokenizer)
    shard = Shard.open(tmp_path / "corpus/rows.train-00000.shard", tokenizer.sha256)
    for number in range(len(shard)):
        ids, weights = shard.example(number)
        example = template.document(Document(text=tokenizer.decode(ids.tolist()), id=""))
        assert tuple(ids.tolist()) == example.ids
        assert tuple(weights.tolist()) == example.weights


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_the_same_bytes_whoever_makes_it(wanted: Wanted, tmp_path: Path) -> None:
    alone = prepare(tmp_path / "alone", wanted, engine=Alone())
    many = prepare(tmp_path / "many", wanted, engine=Processes(2))
    # workers have parts of the usual size, and so fewer files: their content is the same
    for pattern in ("prose.train-*", "rows.train-*", "rows.validation-*"):
        assert texts_of(tmp_path / "alone", pattern) == texts_of(tmp_path / "many", pattern)
    for key in ("sources", "tokenizer", "contamination"):
        assert alone.record[key] == many.record[key]
    again = prepare(tmp_path / "again", wanted, engine=Processes(3))
    assert bytes_of(again.path) == bytes_of(many.path)
    assert len(list((tmp_path / "alone").glob("*.shard"))) > len(
        list((tmp_path / "many").glob("*.shard"))
    )


def test_again_is_nothing_to_do_and_other_settings_are_refused(
    wanted: Wanted, tmp_path: Path
) -> None:
    first = prepare(tmp_path / "corpus", wanted)
    stamp = (first.path / "record.json").stat().st_mtime_ns
    prepare(tmp_path / "corpus", wanted)
    assert (first.path / "record.json").stat().st_mtime_ns == stamp
    other = Wanted(wanted.sources, TOKENIZER, Duplicates(near=False))
    with pytest.raises(DriftError, match=r"duplicates\.near: true -> false"):
        prepare(tmp_path / "corpus", other)
    made = prepare(tmp_path / "corpus", other, rebuild="rebuild")
    assert "near duplicate" not in made.record["sources"]["prose"]["left_out"]
    (tmp_path / "prose/00.txt").write_text("something else now\n" * 20)
    with pytest.raises(DriftError, match=r"sources\.prose\.inputs"):
        prepare(tmp_path / "corpus", other)


class Stops(Alone):
    """Ends after so many tasks, as a kill does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def run(self, work: Any, asked: Any) -> Any:
        for result in super().run(work, asked):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield result


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_it_goes_on_where_it_stopped_and_settings_make_parts_anew(
    wanted: Wanted, tmp_path: Path
) -> None:
    whole = bytes_of(prepare(tmp_path / "whole", wanted).path)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "corpus", wanted, engine=Stops(3))
    work = tmp_path / "corpus.work"
    parts = sorted(path.name for path in (work / "gathered").iterdir())
    assert parts[:3] == ["00000-0000", "00000-0001", "00000-0002"]
    stamps = {name: (work / "gathered" / name / "record.json").stat().st_mtime_ns for name in parts}
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "corpus", wanted, engine=Stops(5))
    for name, stamp in stamps.items():
        assert (work / "gathered" / name / "record.json").stat().st_mtime_ns == stamp
    # other settings of one source: its parts alone are made again
    prose, rows = wanted.sources
    changed = Wanted((prose, Found("rows", rows.source, (Prose(),))), TOKENIZER)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "corpus", changed, engine=Stops(4))
    fresh = {
        path.name: (path / "record.json").stat().st_mtime_ns
        for path in (work / "gathered").iterdir()
    }
    assert all(fresh[name] == stamp for name, stamp in stamps.items() if name < "00001")
    assert not any(fresh.get(name) == stamp for name, stamp in stamps.items() if name > "00001")
    assert bytes_of(prepare(tmp_path / "corpus", wanted).path) == whole


def test_damaged_parts_are_made_again(wanted: Wanted, tmp_path: Path) -> None:
    whole = bytes_of(prepare(tmp_path / "whole", wanted).path)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "corpus", wanted, engine=Stops(4))
    part = tmp_path / "corpus.work/gathered/00000-0000"
    raw = bytearray((part / "texts.bin").read_bytes())
    raw[5] ^= 1
    (part / "texts.bin").write_bytes(raw)
    assert bytes_of(prepare(tmp_path / "corpus", wanted).path) == whole


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_kills_change_nothing(wanted: Wanted, tmp_path: Path) -> None:
    """At any call that changes the disk; `bench/corpus.py --kills` kills workers too."""
    whole = bytes_of(prepare(tmp_path / "whole", wanted).path)
    draw, kills = Random(1), 0
    while dies_at(draw.randrange(1, 900), lambda: prepare(tmp_path / "corpus", wanted)):
        kills += 1
        assert kills < 100
        if (tmp_path / "corpus").exists():
            Folder.open(tmp_path / "corpus")
    assert kills > 2
    assert bytes_of(tmp_path / "corpus") == whole
    assert not (tmp_path / "corpus.work").exists()


def dies_once(flag: Path) -> int:
    """Kills its worker the first time."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def dies(flag: Path) -> int:
    """Kills its worker each time."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@pytest.mark.slow
def test_a_dead_worker_loses_and_repeats_nothing(tmp_path: Path) -> None:
    flags = [tmp_path / str(number) for number in range(6)]
    for flag in flags[:2] + flags[3:]:
        flag.touch()
    with Processes(2) as engine:
        found = sorted(place for place, _ in engine.run(dies_once, flags))
        assert found == [0, 1, 2, 3, 4, 5]
        with pytest.raises(DataError, match=r"workers died 4 times in a row.*enough memory for 2"):
            list(engine.run(dies, flags))


@pytest.mark.slow
def test_an_error_of_a_worker_is_the_callers(wanted: Wanted, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    for engine in (Alone(), Processes(2)):
        with pytest.raises(DataError, match=r"b\.jsonl:2: "):
            prepare(tmp_path / "corpus", wanted, engine=engine)
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(RecipeError, match=r"no engine 'rai' .*did you mean 'ray'"):
        engine_named("rai")


def test_too_little_and_nothing_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("only this\n")
    one = Found("one", Texts(path=tmp_path / "a.txt"))
    with pytest.raises(DataError, match=r"one: too little to split: 1 documents .* of 1"):
        prepare(tmp_path / "corpus", Wanted((one,), TOKENIZER))
    none = Found("one", Texts(path=tmp_path / "a.txt"), (Code(),))
    with pytest.raises(DataError, match=r"one: nothing is left of 1 documents: .*too small"):
        prepare(tmp_path / "corpus", Wanted((none,), TOKENIZER))
    with pytest.raises(DataError, match="two sources of that name"):
        prepare(tmp_path / "corpus", Wanted((one, one), TOKENIZER))
    (tmp_path / "c.jsonl").write_text('{"prompt": "hi", "completion": "ho"}\n')
    chats = Found("chats", Jsonl(path=tmp_path / "c.jsonl"))
    with pytest.raises(DataError, match="is a conversation"):
        prepare(tmp_path / "corpus", Wanted((chats,), TOKENIZER))


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"text {number}\n")
    (cut,) = map(hashed, cuts_of([("it", Texts(path=tmp_path))]))
    documents = cut.read()
    next(documents)
    (tmp_path / "0.txt").write_text("another text\n")
    with pytest.raises(DataError, match=r"0\.txt: changed while it was read"):
        list(documents)


def test_pieces_are_cut_by_size_and_lose_nothing(wanted: Wanted) -> None:
    named = [(found.name, found.source) for found in wanted.sources]
    whole, pieces = cuts_of(named), cuts_of(named, cut_bytes=1000)
    assert len(whole) == 2
    assert len(pieces) > 20
    assert [cut.number for cut in pieces] == list(range(len(pieces)))
    assert [d for cut in pieces for d in cut.read()] == [d for cut in whole for d in cut.read()]


def test_evaluation_items_are_left_out_and_told(wanted: Wanted, tmp_path: Path) -> None:
    item = (tmp_path / "prose/03.txt").read_text().split()[5:20]
    (tmp_path / "exam.txt").write_text(" ".join(item) + "\n")
    made = prepare(
        tmp_path / "corpus", Wanted(wanted.sources, TOKENIZER, against=(tmp_path / "exam.txt",))
    )
    prose = made.record["sources"]["prose"]
    assert prose["left_out"]["evaluation item, exact"] == 1
    (hit,) = made.record["contamination"]
    assert hit["document"] == "03.txt"
    assert hit["item"] == "exam.txt:1"
    assert hit["text"].split() == item
    assert not any(" ".join(item) in text for text in texts_of(tmp_path / "corpus", "*.shard"))


def test_a_recipe_trains_on_the_shards_as_they_are(wanted: Wanted, tmp_path: Path) -> None:
    prepare(tmp_path / "corpus", wanted)
    own = Tokenizer.load(tmp_path / "corpus/tokenizer")
    other = Tokenizer.bytes_only("matura")
    source = Corpus(path=tmp_path / "corpus", source="rows")
    built = {
        name: build(
            source,
            name="rows",
            template=Template(tokenizer),
            folder=tmp_path / name,
            seed=0,
            stage="base",
        )
        for name, tokenizer in (("own", own), ("other", other))
    }
    record = Folder.open(tmp_path / "corpus").record["sources"]["rows"]
    for name, tokenizer in (("own", own), ("other", other)):
        assert built[name].kept == record["documents"]
        assert built[name].held_out is not None
        shard = Shard.open(built[name].train, tokenizer.sha256)
        decoded = [tokenizer.decode(shard.example(n)[0].tolist()) for n in range(len(shard))]
        assert decoded == texts_of(tmp_path / "corpus", "rows.train-*.shard")
    copied = Shard.open(built["own"].train)
    assert copied.tokens == record["tokens"]["train"]
    assert built["own"].trained_share == built["own"].shards["train"].trained_tokens / copied.tokens
    assert built["own"].first.startswith("<|begin|>")
    assert built["own"].lengths["most"] == int(copied.lengths.max())
    np.testing.assert_array_equal(
        copied.ids[: copied.tokens], Shard.open(tmp_path / "corpus/rows.train-00000.shard").ids
    )
    splits: tuple[Split, ...] = ("train", "validation", "exam")
    for split in splits:
        given = Given(rng=rng(0), tokenizer=own, split=split)
        assert len(list(source.read(given))) == record["documents"][split]
    with pytest.raises(DataError, match=r"no source 'row' \(did you mean 'rows'"):
        list(Corpus(path=tmp_path / "corpus", source="row").read(Given(rng=rng(0))))
    with pytest.raises(DataError, match=r"not there.*matura data prepare"):
        list(Corpus(path=tmp_path / "none").read(Given(rng=rng(0))))
