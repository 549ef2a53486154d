"""Files as messy as real ones, by one recipe to shards: nothing is lost or mangled."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from matura.data.build import build
from matura.ladder.recipe import load
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

BENCH = Path(__file__).parent.parent.parent / "bench"
MARKS = "*** {} OF THE PROJECT GUTENBERG EBOOK A BOOK ***"
PARAGRAPHS = [f"Chapter {n}.\n\nOn day {n} she wrote\n“{'é' * n}”\tagain.\n" for n in range(300)]
BOOK = "\n\n".join(PARAGRAPHS)
LATIN = "".join(f"Zoë paid {n} £, naïve as ever; the façade\xa0fell.\n\n" for n in range(400))
TALKS = [
    {
        "conversation_id": f"dlg-{n}",
        "instructions": None,
        "utterances": [
            {
                "index": i,
                "speaker": speaker,
                "text": f"{text}, number {n}",
                "annotations": [{"name": "api_call", "value": '{"size": "[large}"}'}],
            }
            for i, (speaker, text) in enumerate(
                [("user", 'a "flat white" please'), ("assistant", "that\\is right?")]
            )
        ],
    }
    for n in range(120)
]
SUMS = [
    {
        "question": f"A box holds {n} eggs and half are sold. How many eggs are left in the box?",
        "answer": f"There are {n}/2 = <<{n}/2={n / 2:g}>>{n / 2:g} eggs.\n#### {n / 2:g}",
    }
    for n in range(150)
]
SUMS += [{"question": "Too short?", "answer": "Yes."}, SUMS[7]]


@pytest.fixture
def mess(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("mess")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A byte-order mark with CRLF and a licence; latin-1; an array of nested rows; annotations."""
    folder = tmp_path / "files"
    for name in ("books", "talk", "sums"):
        (folder / name).mkdir(parents=True)
    start, end = MARKS.format("START"), MARKS.format("END")
    book = f"A title\n\n{start}\n\n{BOOK}\n\n{end}\nfull licence\n".replace("\n", "\r\n")
    (folder / "books/a.txt").write_bytes(b"\xef\xbb\xbf" + book.encode())
    (folder / "books/b.latin1.txt").write_bytes(LATIN.encode("latin-1"))
    talks = json.dumps(TALKS, indent=4, ensure_ascii=False).replace("\n", "\r\n")
    (folder / "talk/c.json").write_bytes(b"\xef\xbb\xbf" + talks.encode())
    rows = "\r\n\r\n".join(json.dumps(row) for row in SUMS)
    (folder / "sums/d.jsonl").write_bytes(rows.encode())
    return folder


def gathered(mess: ModuleType, files: Path, stage: Path) -> tuple[list[Any], dict[str, Any]]:
    """The files as parts of a recipe, built as its stage builds them, and the counts."""
    messes = [mess.mess_of(path) for path in sorted(files.rglob("*.*"))]
    recipe = stage.parent / "mess.json"
    recipe.write_text(json.dumps(mess.recipe_of(messes, 300)))
    tokenizer = Tokenizer.bytes_only("matura")
    tokenizer.save(stage / "model")
    counts = {
        part.title: build(
            part.readable,
            name=part.title,
            template=Template(tokenizer),
            folder=stage / "data",
            seed=0,
            stage="base",
        ).as_dict()
        for part in load(recipe).stages[0].mixture
    }
    return messes, counts


def test_what_went_in_came_out_byte_for_byte(mess: ModuleType, files: Path, tmp_path: Path) -> None:
    stage = tmp_path / "base@1"
    messes, counts = gathered(mess, files, stage)
    book, latin, sums, talk = (mess.compared(m, stage, counts[m.name]) for m in messes)
    for found in (book, latin, talk, sums):
        assert not found.wrong
        assert found.read == found.kept + sum(found.dropped.values())
        assert found.made == found.in_shards + sum(found.left_out.values())
    assert (book.read, book.unchanged, latin.unchanged) == (1, 0, 1)
    assert (talk.read, talk.unchanged, talk.in_shards) == (120, 120, 120)
    assert (sums.read, sums.kept, sums.in_shards) == (152, 151, 150)
    assert sums.dropped == {"qa: too few words": 1}
    assert sums.left_out == {"duplicate": 1}
    texts = {m.name: set(mess.decoded(stage, m.name)) for m in messes}
    assert sum(map(len, texts["a-txt"])) == len(BOOK.replace("\n", "\r\n").encode())
    assert sum(map(len, texts["b-latin1-txt"])) == len(LATIN.encode())
    talked = b'user: a "flat white" please, number 5\nassistant: that\\is right?, number 5'
    assert talked in texts["c-json"]
    assert f"{SUMS[9]['question']}\n{SUMS[9]['answer']}".encode() in texts["d-jsonl"]


def test_the_comparison_notices_what_is_mangled(
    mess: ModuleType, files: Path, tmp_path: Path
) -> None:
    stage = tmp_path / "base@1"
    messes, counts = gathered(mess, files, stage)
    book, latin, sums, talk = messes
    held_out = stage / "data" / "c-json.heldout.jsonl"
    lines = held_out.read_text().splitlines(keepends=True)
    held_out.write_text("".join(lines[1:]))
    assert any(
        "missing" in problem for problem in mess.compared(talk, stage, counts["c-json"]).wrong
    )
    held_out.write_text("".join(lines).replace("white", "whine", 1))
    assert len(mess.compared(talk, stage, counts["c-json"]).wrong) == 2
    sums.path.write_bytes(sums.path.read_bytes().replace(b"<<4/2=2>>", b""))
    assert mess.compared(sums, stage, counts["d-jsonl"]).wrong
    latin.path.write_bytes(latin.path.read_bytes().replace(b"\xeb", b"e", 1))
    assert mess.compared(latin, stage, counts["b-latin1-txt"]).wrong
    book.path.write_bytes(book.path.read_bytes().replace(b"\r\n", b"\n"))
    assert mess.compared(book, stage, counts["a-txt"]).wrong
