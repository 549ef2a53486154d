"""No found text that is trained on holds an exam's item; what short items say is no leak."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matura.core.errors import DataError
from matura.core.types import Document, Given
from matura.data.build import build, found_text
from matura.data.dedup import Duplicates
from matura.data.preparation import Found, Wanted, prepare
from matura.data.source import Source
from matura.data.sources.corpus import Corpus
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.prepared import Prepared
from matura.exams.bpb import Bpb
from matura.exams.echo import Echo
from matura.exams.induction import Induction
from matura.stages import leaks
from matura.stages.leaks import exam_index
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

TEMPLATE = Template(Tokenizer.bytes_only("matura"))
EXAMS = (Echo(at_least=0.9), Induction(), Bpb(at_most=2.0))


class Listed(Source):
    """Texts as they are given."""

    kind: str = "listed"
    texts: tuple[str, ...]
    path: Path = Path("listed")

    def read(self, given: Given) -> Iterator[Document]:
        yield from (Document(text=text, id=f"{n}") for n, text in enumerate(self.texts))


def built(texts: tuple[str, ...], folder: Path) -> Any:
    return build(
        Listed(texts=texts),
        name="text",
        template=TEMPLATE,
        folder=folder,
        seed=0,
        stage="base",
        without=exam_index(EXAMS, TEMPLATE, 0),
    )


def first_item(words: int) -> str:
    """What an exam's user says in at least so many words."""
    items = leaks._items(EXAMS[0], TEMPLATE, 0)
    return next(text for _, text in items if len(text.split()) >= words)


PAGES = tuple(f"page {n} tells of the river number {n * 7} and of nothing else" for n in range(80))


def test_a_document_that_holds_an_item_is_left_out_and_told_of(tmp_path: Path) -> None:
    item = first_item(6)
    found = built((*PAGES, f"An old page.\n{item.upper()}\nIt goes on."), tmp_path)
    assert found.examined["read"] == found.examined["kept"] + 1 == 81
    assert found.read == found.examined["kept"]
    assert found.read == sum(found.kept.values()) + sum(found.dropped.values())
    assert found.examined["dropped"] == {"evaluation item, exact": 1}
    (hit,) = found.examined["hits"]
    assert hit["document"] == "80"
    assert hit["text"].casefold() == item.casefold().strip(" .?!:'\"`")[: len(hit["text"])]
    said = list(leaks.leaks(found.examined))
    assert said[0] == "of 81 documents left out: 1 evaluation item, exact"
    assert said[1].startswith("80 holds echo/gate/")


def test_what_is_said_everywhere_is_no_leak(tmp_path: Path) -> None:
    index = exam_index(EXAMS, TEMPLATE, 0)
    assert index is not None
    assert len(index) == EXAMS[0].n  # neither runs of tokens nor held-out text are looked for
    texts = tuple(f"{page}. Say hello. Repeat: yes" for page in PAGES)
    assert built(texts, tmp_path).examined["dropped"] == {}


def test_exams_that_say_nothing_look_for_nothing() -> None:
    assert exam_index((Induction(), Bpb(at_most=2.0)), TEMPLATE, 0) is None
    assert list(leaks.leaks({})) == []


def test_a_corpus_that_was_made_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    item = first_item(6)
    monkeypatch.setattr(leaks, "Corpus", Listed)
    index = exam_index(EXAMS, TEMPLATE, 0)
    leaks.refuse_leaks(Listed(texts=PAGES), index)
    leaks.refuse_leaks(SimpleNamespace(kind="lesson"), index)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"80: holds the evaluation item 'echo/gate/.*exact"):
        leaks.refuse_leaks(Listed(texts=(*PAGES, item)), index)


def test_a_corpus_of_the_same_tokenizer_is_looked_into(tmp_path: Path) -> None:
    """Its shards are taken over as ids, and have to be decoded for anything to be found."""
    item = first_item(6)
    leaky = (*PAGES, *(f"{page} {item}" for page in PAGES))  # some are in the training split
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in leaky))
    (tmp_path / "items.txt").write_text(f"{item}\n")
    TEMPLATE.tokenizer.save(tmp_path / "own")
    sources = (Found("text", Jsonl(path=tmp_path / "rows.jsonl")),)
    settings = Duplicates(near=False)
    index = exam_index(EXAMS, TEMPLATE, 0)
    for name, against in (("leaky", ()), ("clean", (tmp_path / "items.txt",))):
        prepare(tmp_path / name, Wanted(sources, tmp_path / "own", settings, against))
    assert Corpus(path=tmp_path / "leaky").tokenizer_sha256 == TEMPLATE.tokenizer.sha256
    with pytest.raises(DataError, match=r"leaky: text\.train-.* item 'echo/gate/.*--against"):
        leaks.refuse_leaks(Corpus(path=tmp_path / "leaky"), index)
    leaks.refuse_leaks(Corpus(path=tmp_path / "clean"), index)


def test_token_folders_are_decoded_and_looked_into(tmp_path: Path) -> None:
    """Whatever holds an item is left out and told of, in training and in validation."""
    item = first_item(6)
    for split, texts in (
        ("train", (*PAGES, f"An old page. {item}")),
        ("val", (*(page.replace("page", "leaf") for page in PAGES[:9]), item.upper())),
    ):
        folder = tmp_path / "tokens" / split
        folder.mkdir(parents=True)
        ids = [[*TEMPLATE.tokenizer.encode(text), TEMPLATE.eos_id] for text in texts]
        np.array([one for some in ids for one in some], "<u4").tofile(
            tmp_path / "tokens" / split / "a.bin"
        )
    told = {"separator": TEMPLATE.eos_id}
    (tmp_path / "tokens" / "dataset_metadata.json").write_text(json.dumps(told))
    source = Prepared(path=tmp_path / "tokens")
    assert found_text(source)
    found = build(
        source,
        name="text",
        template=TEMPLATE,
        folder=tmp_path,
        seed=0,
        stage="base",
        without=exam_index(EXAMS, TEMPLATE, 0),
    )
    assert (found.kept["train"], found.kept["validation"]) == (80, 9)
    assert found.examined["dropped"] == {"evaluation item, exact": 2}
    assert [hit["document"][:7] for hit in found.examined["hits"]] == ["train/a", "val/a.b"]
