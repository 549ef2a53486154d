"""A recipe can start with a corpus's own tokenizer, and then nothing is encoded twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from matura.core.errors import NotHereError, RecipeError
from matura.core.ledger import Ledger
from matura.data.build import build
from matura.data.preparation import Found, NewTokenizer, Wanted, prepare
from matura.data.sources.corpus import Corpus
from matura.data.sources.jsonl import Jsonl
from matura.ladder.recipe import Recipe, loads, schema, spell
from matura.ladder.scale import scaled
from matura.ladder.trial import try_out
from matura.stages.stage import Context
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

RECIPE = """
name: own
tokenizer: {tokenizer}
model: {{hidden_size: 32, layers: 2, heads: 2, sequence_length: 64}}
stages:
  - name: base
    kind: pretrain
    mixture: [{{source: {{kind: corpus, path: {path}}}, share: 1.0}}]
    train: {{tokens: 4000, batch_tokens: 256}}
"""


@pytest.fixture
def corpus(ram: Path) -> Path:
    texts = (" ".join(f"word{n * 20 + k} and" for k in range(20)) for n in range(120))
    (ram / "rows.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    source = Jsonl(path=ram / "rows.jsonl")
    prepare(ram / "corpus", Wanted((Found("rows", source),), NewTokenizer(vocab_size=310)))
    return ram / "corpus"


def recipe(corpus: Path, tokenizer: str) -> Recipe:
    return loads(RECIPE.format(tokenizer=tokenizer, path=corpus))


def made(found: Recipe, work: Path) -> Tokenizer:
    context = Context(
        seed=found.seed,
        tokenizer=found.tokenizer,
        model=found.model,
        start=None,
        earlier={},
        ledger=Ledger(None, "", mode="quiet"),
    )
    found.tokenizer_stage.make(work, {}, context)
    return Tokenizer.load(work / "model")


def test_shards_are_taken_over_as_they_are(corpus: Path, ram: Path) -> None:
    found = recipe(corpus, f"{{path: {corpus}}}")
    own = Tokenizer.load(corpus / "tokenizer")
    assert (found.tokenizer.vocab_size, found.tokenizer.dialect) == (own.vocab_size, "matura")
    assert loads(spell(found)) == found
    tokenizer = made(found, ram / "made")
    assert tokenizer.sha256 == own.sha256
    told = build(
        Corpus(path=corpus),
        name="rows",
        template=Template(tokenizer),
        folder=ram / "data",
        seed=0,
        stage="base",
    )
    (theirs,) = Corpus(path=corpus).shards("train")
    np.testing.assert_array_equal(Shard.open(told.train).ids, theirs.ids)
    assert try_out(found, ram).template.tokenizer.sha256 == own.sha256
    assert found.tokenizer_stage.inputs()["given tokenizer"].keys() == {"tokenizer.json"}
    assert scaled(found, 0.01)["tokenizer"]["vocab_size"] == own.vocab_size


def test_another_tokenizer_than_the_recipe_says_is_refused(corpus: Path, ram: Path) -> None:
    found = recipe(corpus, f"{{path: {corpus}, vocab_size: 999}}")
    with pytest.raises(RecipeError, match=r"vocab_size \d+ \(the recipe's is 999\)"):
        made(found, ram / "made")


def test_one_that_is_not_here_is_planned_by_what_is_said_of_it(corpus: Path, ram: Path) -> None:
    with pytest.raises(RecipeError, match=r"no tokenizer; .* without it, give its vocab_size too"):
        recipe(corpus, "{path: nowhere}")
    found = recipe(corpus, "{path: nowhere, vocab_size: 400}")
    with pytest.raises(NotHereError, match="nowhere: no tokenizer"):
        made(found, ram / "made")
    planned = try_out(found, ram, "stand in").template.tokenizer
    assert planned.vocab_size == 400


def test_an_editor_asks_for_a_path_or_a_size(corpus: Path) -> None:
    check = Draft202012Validator(schema())
    value = {
        "name": "own",
        "model": {"hidden_size": 32, "layers": 2, "heads": 2, "sequence_length": 64},
        "stages": [{"name": "base", "kind": "pretrain"}],
    }
    for tokenizer, complaints in (({"path": "x"}, 0), ({"vocab_size": 300}, 0), ({}, 1)):
        wrong = [
            error
            for error in check.iter_errors({**value, "tokenizer": tokenizer})
            if list(error.path)[:1] == ["tokenizer"]
        ]
        assert len(wrong) == complaints, wrong
