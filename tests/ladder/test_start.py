"""A recipe goes on from an open model: one line stands for its shape, its tokenizer and a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import foreign
from jsonschema import Draft202012Validator
from tiny import shape, some_ids, spread

from matura.core.errors import RecipeError
from matura.core.ledger import Ledger
from matura.ladder import said
from matura.ladder.climb import climb
from matura.ladder.models import find
from matura.ladder.recipe import load, loads, schema, spell
from matura.ladder.start import RATES
from matura.models import hf
from matura.models.special_rows import grown
from matura.text.folder import template_in, tokenizer_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stock folder as it comes from elsewhere: Qwen2 in bf16, more rows than tokens."""
    open_model(tmp_path / "open")
    return tmp_path / "open"


def open_model(at: Path, form: str = "chatml", **more: Any) -> None:
    foreign(at, form)
    ids = tokenizer_in(at).vocab_size
    model = spread(shape(layers=2, vocab_size=ids + 9, biases="inputs", **more), seed=2)
    told = (at / "generation_config.json").read_bytes()
    hf.save(model, at, bos_id=None, stop_ids=(), pad_id=None)
    (at / "generation_config.json").write_bytes(told)


def chats(at: Path) -> Path:
    """Forty short conversations."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"say {n}"},
                {"role": "assistant", "content": "cat"},
            ]
        }
        for n in range(400)
    ]
    at.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return at


def recipe_text(folder: Path | str, tmp_path: Path, model: str = "", stage: str = "") -> str:
    return f"""\
name: on-top
model: {{from: "{folder}"{model}}}
stages:
  - name: chat
    kind: sft
    mixture: [{{source: {{kind: jsonl, path: "{chats(tmp_path / "chats.jsonl")}"}}, share: 1.0}}]
    train: {{tokens: 2000, batch_tokens: 256, evaluations: 2{stage}}}
"""


def test_one_line_stands_for_shape_tokenizer_and_stage(folder: Path, tmp_path: Path) -> None:
    recipe = loads(recipe_text(folder, tmp_path, ", sequence_length: 48"))
    assert [(stage.name, stage.kind) for stage in recipe.stages] == [
        ("given", "given"),
        ("chat", "sft"),
    ]
    assert (recipe.model.hidden_size, recipe.model.sequence_length) == (32, 48)
    assert (recipe.tokenizer.kind, recipe.tokenizer.dialect) == ("hf", "hf")
    train = recipe.stages[1].train  # type: ignore[attr-defined]
    assert {name: getattr(train, name) for name in RATES} == RATES
    assert loads(spell(recipe)) == recipe
    own = loads(recipe_text(folder, tmp_path, stage=", learning_rate: 1e-3"))
    assert own.stages[1].train.learning_rate == 1e-3  # type: ignore[attr-defined]
    assert own.model.sequence_length == 64
    validator = Draft202012Validator(schema())
    file = tmp_path / "r.yaml"
    file.write_text(recipe_text(folder, tmp_path))
    assert load(file, ["model.sequence_length=32"]).model.sequence_length == 32
    small = {"name": "x", "model": {"from": "a"}, "stages": [{"kind": "sft", "name": "a"}]}
    assert validator.is_valid(small)
    assert not validator.is_valid(small | {"model": {"hidden_size": 8}})


def test_a_model_in_the_hubs_cache_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        RecipeError, match=r"model\.from: o/small: neither a folder nor in the hub's"
    ):
        loads(recipe_text("o/small", tmp_path))
    kept = tmp_path / "cache" / "models--o--small"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    open_model(kept / "snapshots" / "abc")
    given = loads(recipe_text("o/small", tmp_path)).stages[0]
    assert given.model == kept / "snapshots" / "abc"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "stage", "message"),
    [
        (", hidden_size: 8", "", "r:2: model.from: hidden_size: a model that is gone on from"),
        (", sequence_length: 65", "", "r:2: model.from: sequence_length 65: .*only 64"),
        ("", ", learning_rat: 1", r"r:7: stages\[0\]\.train\.learning_rat: .*learning_rate"),
        ("", ", patience: 1", r"r:7: stages\[0\]\.train\.patience"),
    ],
)
def test_errors_name_the_files_own_lines(
    model: str, stage: str, message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        loads(recipe_text(folder, tmp_path, model, stage), where="r")


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for broken, message in (
        (str(tmp_path / "none"), "none: no such folder"),
        (str(tmp_path), "no model; expected"),
    ):
        with pytest.raises(RecipeError, match=message):
            loads(recipe_text(broken, tmp_path))
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"model_type": "gpt2"}))
    with pytest.raises(RecipeError, match=r"model\.from: .*'gpt2' is not supported"):
        loads(recipe_text(folder, tmp_path))
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(RecipeError, match="pickled weights are not read"):
        loads(recipe_text(folder, tmp_path))


@pytest.mark.slow
def test_a_chat_stage_stands_on_an_open_model(folder: Path, tmp_path: Path) -> None:
    recipe = loads(recipe_text(folder, tmp_path))
    climbed = climb(recipe, tmp_path / "runs", ledger=Ledger(mode="quiet"))
    assert climbed.made == ("tokenizer@1", "given@1", "chat@1")
    again = climb(recipe, tmp_path / "runs", ledger=Ledger(mode="quiet"))
    assert again.made == ()
    model = climbed.run / "chat@1" / "model"
    config = json.loads((model / "config.json").read_text())
    assert config["model_type"] == "qwen2"
    before, after = hf.load(folder), hf.load(model)
    moved = {
        name: float((weight - after.get_parameter(name)).detach().abs().max())
        for name, weight in before.named_parameters()
    }
    assert all(0 < by < 0.1 for by in moved.values()), moved
    generation = json.loads((model / "generation_config.json").read_text())
    assert generation["temperature"] == 0.7
    template = template_in(folder)
    assert set(generation["eos_token_id"]) == template.stop_ids
    assert template_in(model).jinja() == template.jinja()
    found = find(climbed.run)
    assert found.speaks == "chat"
    answer = said.generate(found, prompt="say 3", max_tokens=4, use_tools=False)
    assert answer["prompt_ids"] == list(
        template.prompt(said.read_messages('[{"role":"user","content":"say 3"}]'))
    )
    assert find(folder).speaks == "chat"
    assert find(climbed.run / "given@1").speaks == "chat"


@pytest.mark.slow
def test_transformers_reads_what_was_trained(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    recipe = loads(recipe_text(folder, tmp_path))
    run = climb(recipe, tmp_path / "runs", ledger=Ledger(mode="quiet")).run
    at = run / "chat@1" / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(at, local_files_only=True).eval()
    ids = some_ids(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, hf.load(at)(ids), rtol=0, atol=1e-4)
    rows = [{"role": "user", "content": "say 3"}]
    spoken = transformers.AutoTokenizer.from_pretrained(at, local_files_only=True)
    want = spoken.apply_chat_template(
        rows, tokenize=True, return_dict=False, add_generation_prompt=True
    )
    asked = said.read_messages(json.dumps(rows))
    assert tuple(want) == template_in(at).prompt(asked)


@pytest.mark.slow
def test_a_base_model_is_given_a_dialect(tmp_path: Path) -> None:
    """Some tags on reserved rows, others on new ones: weighed, reported, and no other row moves."""
    at = tmp_path / "base"
    open_model(at, "headers")
    config = json.loads((at / "tokenizer_config.json").read_text())
    (at / "tokenizer_config.json").write_text(
        json.dumps({name: value for name, value in config.items() if name != "chat_template"})
    )
    assert find(at).speaks == "text"
    text = recipe_text(at, tmp_path) + "tokenizer: {dialect: matura}\n"
    run = climb(loads(text), tmp_path / "runs", ledger=Ledger(mode="quiet")).run
    own, given = tokenizer_in(at), template_in(run / "given@1" / "model")
    assert given.name == template_in(run / "chat@1" / "model").name == "matura"
    told = json.loads((run / "given@1" / "record.json").read_text())["numbers"]["tags"]
    assert len(told["new"]) == 13
    assert (told["rows_before"], told["rows"]) == (own.vocab_size + 9, own.vocab_size + 9)
    before = hf.load(at).lm_head.weight
    after = hf.load(run / "given@1" / "model").lm_head.weight
    moved = (before != after).any(dim=1).nonzero().flatten().tolist()
    new = {given.tokenizer.control[tag] for tag in told["new"]}
    assert set(moved) == new
    assert len({tuple(after[id].tolist()) for id in new}) == 13


def test_a_model_grows_rows_that_are_no_likelier_than_others() -> None:
    small = spread(shape(biases="inputs"))
    large = grown(small, 60)
    assert grown(large, 50) is large
    ids = some_ids(2, 9)
    with torch.no_grad():
        found = large(ids)
        torch.testing.assert_close(found[..., :48], small(ids))
        mean = small(ids).mean(-1, keepdim=True).expand(2, 9, 12)
        torch.testing.assert_close(found[..., 48:], mean, rtol=1e-4, atol=1e-4)
