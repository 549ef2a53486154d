"""A stage says which of its sources hold the same documents, before it is trained."""

from __future__ import annotations

import json
from pathlib import Path

from matura.core.ledger import Ledger
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.repetition import Repetition
from matura.stages.learning import make_data
from matura.stages.parts import ModelSpec, Part, TokenizerSpec
from matura.stages.pretrain import Pretrain
from matura.stages.stage import Context
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

TEMPLATE = Template(Tokenizer.bytes_only("matura"))


class Heard(Ledger):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(None, "", mode="quiet")
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def rows(path: Path, texts: list[str]) -> Jsonl:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Jsonl(path=path, format="text")


def test_what_two_sources_hold_is_said_and_recorded(tmp_path: Path) -> None:
    pages = [f"page {n} tells of river {n * 7}" for n in range(120)]
    stage = Pretrain(
        name="base",
        mixture=(
            Part(source=rows(tmp_path / "a.jsonl", pages), name="books", share=0.4),
            Part(source=rows(tmp_path / "b.jsonl", pages[60:]), name="web", share=0.4),
            Part(source=Repetition(tokens=2_000), name="runs", share=0.2),
        ),
    )
    ledger = Heard()
    context = Context(
        seed=0,
        tokenizer=TokenizerSpec(vocab_size=512),
        model=ModelSpec(hidden_size=32, layers=2, heads=2, sequence_length=64),
        start=None,
        earlier={},
        ledger=ledger,
    )
    counts = make_data(stage, tmp_path / "data", TEMPLATE, context)
    (told,) = counts["web"]["shared"]
    assert told["documents"] == counts["web"]["shards"]["train"]["examples"]
    assert (told["first"], told["share"]) == ("books", 1.0)
    assert "shared" not in counts["books"]
    (mind,) = [line for line in ledger.said if "mind:" in line]
    assert mind.startswith(f"base: mind: web has {told['documents']} documents (100.0% of its")
