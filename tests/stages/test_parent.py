"""What a stage takes from its parent besides weights: rates as numbers, and the optimizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import recipe_text
from test_training_stages import Hasty, context, plain_arithmetic, sha256_of_stage, without_exams

from matura.core.errors import NotHereError, RecipeError, StoreError
from matura.core.record import plain
from matura.core.store import RECORD, Checkpoints, Folder, publish
from matura.ladder.recipe import Recipe, loads, spell
from matura.learn.checkpoint import REST, read_weights
from matura.learn.optim import Optimizer
from matura.models import hf
from matura.stages.beginning import inherited
from matura.stages.dial import told as dialled
from matura.stages.parent import RATES, rates_of, told
from matura.stages.parts import Train
from matura.stages.stage import Made
from matura.text.tokenizer import Tokenizer

__all__ = ["plain_arithmetic"]  # a fixture, used by every test here

TRAIN = "train: {tokens: 6000, batch_tokens: 256}"
"""Of the chat stage."""
LONGER = "model.sequence_length=128"
"""Rows that hold an echo in bytes."""
USUAL = {name: Train.model_fields[name].default for name in RATES}


def text(folder: Path, train: str) -> str:
    """A base, and a chat stage on it with that for its `train`."""
    written = recipe_text(folder)
    assert TRAIN in written
    return written.replace(TRAIN, f"train: {{tokens: 6000, {train}}}")


def chat(recipe: Recipe, name: str = "chat") -> Train:
    found: Any = next(stage for stage in recipe.stages if stage.name == name)
    train: Train = found.train
    return train


# Rates


@pytest.mark.parametrize("times", [0.8, 0.05, 1, 3])
def test_rates_are_so_many_times_the_parents(times: float, tmp_path: Path) -> None:
    recipe = loads(
        text(tmp_path, f"parent_rates: {times}"),
        ["stages.base.train.learning_rate=7e-4", "stages.base.train.batch_tokens=512"],
    )
    found = chat(recipe)
    parents = USUAL | {"learning_rate": 7e-4}
    for name in RATES:
        assert getattr(found, name) == pytest.approx(times * parents[name], rel=1e-9)
    assert found.batch_tokens == 512
    assert len(json.dumps(plain(found))) < 600  # no 0.024000000000000004


def test_what_is_stated_wins(tmp_path: Path) -> None:
    asked = "parent_rates: 0.5, batch_tokens: 128, matrix_learning_rate: 0.001"
    recipe = loads(text(tmp_path, asked))
    found = chat(recipe)
    assert (found.batch_tokens, found.matrix_learning_rate) == (128, 0.001)
    assert found.learning_rate == 0.5 * USUAL["learning_rate"]
    (line,) = told(recipe.stages)
    assert line.startswith("chat: by 0.5 × base: learning_rate 0.0015, ")
    assert "matrix_learning_rate 0.001 (stated; base gives 0.01)" in line
    assert "batch_tokens 128 (stated; base gives 256)" in line


def test_the_same_numbers_by_hand_are_the_same_stage(tmp_path: Path) -> None:
    """And the resolved recipe holds them, so that it means the same ever after."""
    asked = loads(text(tmp_path, "parent_rates: 0.5, batch_tokens: 256"))
    numbers = ", ".join(f"{name}: {0.5 * usual}" for name, usual in USUAL.items())
    by_hand = loads(text(tmp_path, f"batch_tokens: 256, {numbers}"))
    assert plain(asked.stages[1]) == plain(by_hand.stages[1])
    assert loads(spell(asked)) == asked
    moved = loads(spell(asked), ["stages.base.train.learning_rate=1e-4"])
    assert chat(moved) == chat(asked)


def test_stages_that_take_nothing_are_what_they_always_were(tmp_path: Path) -> None:
    """Runs made before this could be asked are not to be made again."""
    spelled = plain(loads(recipe_text(tmp_path)).stages[1])["train"]
    assert not {"parent_rates", "optimizer_state"} & spelled.keys()
    assert plain(Train(optimizer_state="parent"))["optimizer_state"] == "parent"
    assert not [*told(loads(recipe_text(tmp_path)).stages)]


def test_rates_go_up_the_ladder(tmp_path: Path) -> None:
    third = """
  - name: more
    kind: sft
    mixture: [{source: {kind: echo, max_examples: 300}, share: 1.0}]
    train: {tokens: 6000, parent_rates: 0.5}
"""
    recipe = loads(text(tmp_path, "parent_rates: 0.8") + third)
    assert chat(recipe, "more").learning_rate == pytest.approx(0.4 * USUAL["learning_rate"])
    assert [line.partition(":")[0] for line in told(recipe.stages)] == ["chat", "more"]


def test_the_dial_leaves_such_a_stage_to_its_parent(tmp_path: Path) -> None:
    made = text(tmp_path, "parent_rates: 0.8").replace("tokens: 6000", "tokens: 100000")
    recipe = loads(made, ["model={depth: 2}", "tokenizer.vocab_size=512", "stages.base.train={}"])
    base, found = chat(recipe, "base"), chat(recipe)
    assert base.batch_tokens == found.batch_tokens > 4096
    for name in RATES:
        assert getattr(base, name) != USUAL[name]
        assert getattr(found, name) == pytest.approx(0.8 * getattr(base, name), rel=1e-9)
    assert not [place for place, _, _ in dialled(recipe) if place.startswith("stages.chat")]


# What cannot be taken


@pytest.mark.parametrize("field", ["parent_rates=0.5", "optimizer_state=parent"])
@pytest.mark.parametrize(
    ("stage", "also", "said"),
    [
        ("base", (), "no stage below makes a model"),
        ("chat", ("stages.chat.train.lora={}",), "adapters have .* of their own"),
    ],
)
def test_what_makes_no_sense_is_named(
    field: str, stage: str, also: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    name = field.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"train\.{name}: {said}"):
        loads(recipe_text(tmp_path), [f"stages.{stage}.train.{field}", *also])


@pytest.mark.parametrize("field", ["parent_rates: 0.5", "optimizer_state: parent"])
def test_adapters_below_leave_nothing_to_take(field: str, tmp_path: Path) -> None:
    third = f"""
  - name: more
    kind: sft
    mixture: [{{source: {{kind: echo, max_examples: 300}}, share: 1.0}}]
    train: {{tokens: 6000, {field}}}
"""
    with pytest.raises(RecipeError, match=r"stages\[2\]\.train\.\w+: chat trains adapters"):
        loads(text(tmp_path, "lora: {}") + third)


# A model that is given


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base stage as a run has it, and a tokenizer beside it."""
    folder = tmp_path_factory.mktemp("run")
    Tokenizer.bytes_only("matura").save(folder / "tokenizer@1" / "model")
    recipe = loads(recipe_text(folder), ["stages.base.train.matrix_learning_rate=0.01", LONGER])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATURA_DTYPE", "float32")
        patch.setenv("MATURA_COMPILE", "0")
        work = folder / "base@1.work"
        work.mkdir()
        stage = without_exams(recipe.stages[0])
        made = stage.make(work, {"tokenizer": folder / "tokenizer@1"}, context(recipe))
    numbers = json.loads(json.dumps(dict(made.numbers), default=str))
    record = {"asked": {"stage": plain(stage)}, "numbers": numbers}
    return publish(work, folder / "base@1", record).path


def given(base: Path, train: str, model: str) -> str:
    return f"""
name: onward
tokenizer: {{kind: bpe, vocab_size: {Tokenizer.bytes_only("matura").vocab_size}, dialect: matura}}
model: {model}
stages:
  - name: chat
    kind: sft
    mixture: [{{source: {{kind: echo, max_examples: 300}}, share: 1.0}}]
    train: {{tokens: 6000, {train}}}
"""


def test_a_given_models_record_has_its_rates(base: Path) -> None:
    recipe = loads(given(base, "parent_rates: 0.5", f"{{from: {base}}}"))
    assert chat(recipe).matrix_learning_rate == 0.005
    assert chat(recipe).batch_tokens == 256
    assert "by 0.5 × given: learning_rate 0.0015" in next(told(recipe.stages))
    assert rates_of(recipe.stages[0]) == {
        **USUAL,
        "matrix_learning_rate": 0.01,
        "batch_tokens": 256,
    }


def test_nobody_guesses_the_rates_of_a_model_without_a_record(base: Path, tmp_path: Path) -> None:
    for file in (base / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RecipeError, match="parent_rates: no record says with what rates given"):
        loads(given(base, "parent_rates: 0.5", f"{{from: {tmp_path}}}"))


# The optimizer


def test_a_given_stage_brings_its_optimizer_along(base: Path, tmp_path: Path) -> None:
    """Without the weights beside it, and as good as the attempt's own."""
    recipe = loads(given(base, "optimizer_state: parent, batch_tokens: 256", f"{{from: {base}}}"))
    stage: Any = recipe.stages[0]
    assert stage.optimizer_state == "copied"
    assert "optimizer_state" not in plain(stage.model_copy(update={"optimizer_state": "left"}))
    assert stage.inputs()["given optimizer"].keys() == {RECORD}
    (tmp_path / "given").mkdir()
    below = {"tokenizer": base.parent / "tokenizer@1"}
    made = stage.make(tmp_path / "given", below, context(recipe))
    assert stage.make(tmp_path / "given", below, context(recipe)) == made
    there = publish(tmp_path / "given", tmp_path / "given@1", {"numbers": dict(made.numbers)}).path
    (file,) = (there / "state").glob("step-*/*.safetensors")
    own, _ = inherited("chat", context(recipe, 1), {"given": there}, chat(recipe), {})
    theirs, _ = inherited("chat", context(recipe, 1), {"given": base}, chat(recipe), {})
    assert own is not None
    assert theirs is not None
    assert file.read_bytes() == (theirs.folder.path / file.name).read_bytes()
    model = hf.load(there / "model")
    optimizer = Optimizer.of(model, matrix_learning_rate=1, learning_rate=1,
                             embedding_learning_rate=1, weight_decay=0)  # fmt: skip
    own.into(optimizer, model)
    assert optimizer.step_count == theirs.updates > 0


def test_a_given_model_without_a_state_is_refused(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "base@1"
    shutil.copytree(base, bare, ignore=shutil.ignore_patterns("state"))
    recipe = loads(given(base, "optimizer_state: parent", f"{{from: {bare}}}"))
    with pytest.raises(NotHereError, match=r"base@1: no state of the step.*optimizer_state: fresh"):
        recipe.stages[0].inputs()
    shape = "{hidden_size: 32, layers: 2, heads: 2, sequence_length: 128}"
    stages = f"stages:\n  - {{name: g, kind: given, model: {base}, optimizer_state: left}}\n"
    left = given(base, "optimizer_state: parent", shape).replace("stages:\n", stages)
    with pytest.raises(RecipeError, match="optimizer_state: g leaves it where it is"):
        loads(left)


def make(base: Path, work: Path, *, state: str = "parent", stop: int = 0) -> Made:
    """The chat stage on that base; interrupted once after `stop` steps, if that is not 0."""
    asked = f"optimizer_state: {state}, batch_tokens: 256, evaluations: 1"
    recipe = loads(text(base.parent, asked), ["stages.chat.train.tokens=2500", LONGER])
    parents = {"tokenizer": base.parent / "tokenizer@1", "base": base}
    stage = without_exams(recipe.stages[1])
    work.mkdir(exist_ok=True)
    if stop:
        with pytest.raises(KeyboardInterrupt):
            stage.make(work, parents, context(recipe, 1, Hasty(stop)))
    made: Made = stage.make(work, parents, context(recipe, 1))
    return made


def test_a_stage_goes_on_with_its_parents_optimizer(base: Path, tmp_path: Path) -> None:
    found = make(base, tmp_path / "chat")
    best = Folder.open(base).record["numbers"]["best_step"]
    assert found.numbers["optimizer_state"] == {
        "of": "base@1",
        "step": best,
        "updates": best,
        "rows_anew": len(found.numbers["tags_weighted"]),
    }
    saved = Checkpoints(tmp_path / "chat" / "state").newest().folder
    assert saved is not None
    assert saved.json(REST)["optimizer_steps"] == best + found.numbers["steps"]
    twin = make(base, tmp_path / "twin", stop=5)
    assert sha256_of_stage(tmp_path / "twin") == sha256_of_stage(tmp_path / "chat")
    assert twin == found
    fresh = make(base, tmp_path / "fresh", state="fresh")
    assert sha256_of_stage(tmp_path / "fresh") != sha256_of_stage(tmp_path / "chat")
    assert "optimizer_state" not in fresh.numbers


def test_it_is_the_state_of_the_very_weights(base: Path) -> None:
    """A model is that of the best step, and so is the state."""
    recipe = loads(text(base.parent, "optimizer_state: parent"))
    found, _ = inherited("chat", context(recipe, 1), {"base": base}, chat(recipe), {})
    assert found is not None
    model, other = hf.load(base / "model"), hf.load(base / "model")
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    read_weights(found.folder, other)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, other.get_parameter(name)), name


def test_a_parent_without_that_state_is_refused(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "base@1"
    shutil.copytree(base, bare, ignore=shutil.ignore_patterns("step-*"))
    recipe = loads(text(base.parent, "optimizer_state: parent"))
    with pytest.raises(StoreError, match=r"base@1: no state of the step.*--rebuild base.*fresh"):
        inherited("chat", context(recipe, 1), {"base": bare}, chat(recipe), {})
