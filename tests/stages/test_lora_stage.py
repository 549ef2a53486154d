"""LoRA in a recipe: what it may say, what a stage with it leaves behind, and that this is what
`peft` makes of the same folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import model_folder, recipe_text
from safetensors.torch import load_file
from test_training_stages import context, made, plain_arithmetic, sha256_of_stage, without_exams
from tiny import spread
from transformers import AutoModelForCausalLM

from matura.core.errors import RecipeError, StoreError
from matura.core.record import plain
from matura.core.store import Checkpoints
from matura.ladder.plan import plan
from matura.ladder.recipe import Recipe, loads, spell
from matura.learn.checkpoint import WEIGHTS
from matura.learn.loop import seeded
from matura.models import adapter, hf
from matura.models.lora import attach
from matura.models.shape import DecoderConfig
from matura.stages.horizon import flops_per_token, learning
from matura.stages.lora import ADAPTER, TARGETS, Lora, leave
from matura.stages.parts import Train
from matura.stages.stage import Made
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

__all__ = ["plain_arithmetic"]  # a fixture, used by every test here

LORA = "{rank: 4, alpha: 8, targets: [q_proj, v_proj, down_proj]}"


def text(folder: Path, lora: str = LORA, *more: str) -> str:
    """A base of text, and a chat stage of adapters on it."""
    written = recipe_text(folder).rstrip()
    old = "train: {tokens: 6000, batch_tokens: 256}"
    assert old in written
    return written.replace(old, f"train: {{tokens: 6000, batch_tokens: 256, lora: {lora}}}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    few = [f"stages.{name}.train.tokens=2500" for name in ("base", "chat")]
    return loads(text(folder), few)


# What a recipe may say


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ("{targets: [q_prj]}", "unknown target 'q_prj' (did you mean 'q_proj'?)"),
        ("{targets: [lm_head]}", "'lm_head' takes no adapter"),
        ("{targets: [embed_tokens]}", "'embed_tokens' takes no adapter"),
        ("{targets: [q_proj, q_proj]}", "'q_proj' twice"),
        ("{targets: []}", "is neither 'all' nor a list"),
        ("{targets: q_proj}", "is neither 'all' nor a list"),
        ("{targets: [in_proj]}", "'in_proj' is of convolutions"),
        ("{rank: 0}", "rank: should be greater than 0"),
        ("{alpha: -1}", "alpha: should be greater than 0"),
        ("{dropout: 0.1}", "unknown key"),
        ("{targts: all}", "unknown key (did you mean 'targets'?)"),
    ],
)
def test_what_makes_no_sense_is_named(lora: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as problem:
        loads(text(tmp_path, lora))
    assert said in str(problem.value)
    assert "stages[1].train.lora" in str(problem.value)


def test_the_first_stage_has_nothing_to_adapt(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stages\[0\]\.train\.lora: no stage below"):
        loads(text(tmp_path), ["stages.base.train.lora={}"])


def test_frozen_weights_do_not_decay(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="weight_decay: is of weights, which are frozen"):
        loads(text(tmp_path), ["stages.chat.train.weight_decay=0.1"])


def test_all_are_those_that_the_model_has() -> None:
    lora = Lora()
    assert lora.names(convolutions=True) == TARGETS
    assert {*TARGETS} - {*lora.names(convolutions=False)} == {"in_proj", "out_proj"}


def test_a_stage_without_it_is_what_it_always_was(recipe: Recipe) -> None:
    """Runs made before there was LoRA are not to be made again."""
    base, chat = (plain(stage)["train"] for stage in recipe.stages)
    assert "lora" not in base
    assert chat["lora"] == {
        "rank": 4,
        "alpha": 8.0,
        "targets": ["q_proj", "v_proj", "down_proj"],
        "learning_rate": None,
    }
    assert loads(spell(recipe)) == recipe


def test_the_rate_is_the_given_one_or_higher_for_narrow_models() -> None:
    def rate(width: int, **more: Any) -> float:
        shape = {"vocab_size": 9, "layers": 1, "heads": 1, "kv_heads": 1, "sequence_length": 8}
        return Lora(**more).rate(DecoderConfig(**shape, hidden_size=width))

    assert rate(2000) == pytest.approx(5e-4)
    assert 2.5e-3 < rate(192) < 4e-3
    assert rate(192, learning_rate=0.01) == 0.01
    assert Train().lora is None


# What it takes


def test_frozen_weights_take_no_gradient_of_their_own() -> None:
    shape = {"vocab_size": 99, "layers": 2, "heads": 4, "kv_heads": 2, "sequence_length": 64}
    config = DecoderConfig(**shape, hidden_size=32)
    whole, lora = Train(), Train(lora=Lora(rank=2, targets=("q_proj",)))
    assert learning(whole, config) == config.parameters
    assert learning(lora, config) == 2 * 2 * (32 + 32)
    saved = flops_per_token(whole, config, 64) - flops_per_token(lora, config, 64)
    assert saved == 2 * config.parameters - 6 * learning(lora, config)


@pytest.mark.slow
def test_a_plan_tells_what_learns(tmp_path: Path) -> None:
    found = plan(loads(text(tmp_path)))
    _, base, adapted = found.stages
    assert base.trained_parameters == found.parameters
    assert adapted.trained_parameters == 4 * 2 * (32 + 32 + 32 + 32 + 128 + 32)
    assert adapted.disk["adapter"] == 4 * adapted.trained_parameters
    assert adapted.disk["checkpoints"] < base.disk["checkpoints"] / 3
    assert adapted.flops / adapted.tokens < base.flops / base.tokens


# What a stage leaves behind


Climbed = tuple[Path, Made]


@pytest.fixture(scope="module")
def climbed(recipe: Recipe, folder: Path) -> Climbed:
    """The folder that holds the base's stage and the chat's, and what the chat's came to."""
    Tokenizer.bytes_only("matura").save(folder / "tokenizer@1" / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATURA_DTYPE", "float32")
        patch.setenv("MATURA_COMPILE", "0")
        made(recipe, 0, folder / "base", {"tokenizer": folder / "tokenizer@1"})
        return folder, chat(recipe, folder, "chat")


def chat(recipe: Recipe, folder: Path, name: str, **more: Any) -> Made:
    parents = {"tokenizer": folder / "tokenizer@1", "base": folder / "base"}
    return made(recipe, 1, folder / name, parents, **more)


@pytest.mark.slow
def test_adapter_merged_model_and_record(recipe: Recipe, climbed: Climbed) -> None:
    folder, found = climbed
    told = found.numbers["lora"]
    assert told["merged"]["largest_difference"] <= told["merged"]["allowed"] == 1e-4
    assert (told["base_sha256"], told["rank"]) == (sha256_of_stage(folder / "base"), 4)
    at = Checkpoints(folder / "chat" / "state")
    learnt = load_file(at.at(max(at.steps())) / WEIGHTS)
    assert told["trained_parameters"] == sum(tensor.numel() for tensor in learnt.values())
    size = (folder / "chat" / ADAPTER / adapter.WEIGHTS).stat().st_size
    assert told["adapter_bytes"] == size < (folder / "chat/model/model.safetensors").stat().st_size
    model = hf.load(folder / "chat" / "model")
    old = hf.load(folder / "base" / "model")
    moved = {
        name.rpartition(".")[0].rpartition(".")[2]
        for (name, weight), was in zip(model.named_parameters(), old.parameters(), strict=True)
        if not torch.equal(weight, was)
    }
    assert moved == {"q_proj", "v_proj", "down_proj", "embed_tokens"}  # the tags' rows


@pytest.mark.slow
def test_peft_makes_the_merged_model_of_the_same_folders(recipe: Recipe, climbed: Climbed) -> None:
    """Control tags were given a meaning in this stage: their rows have to come along."""
    peft = pytest.importorskip("peft")
    folder, _ = climbed
    merged = hf.load(folder / "chat" / "model")
    ids = torch.arange(merged.config.vocab_size).view(-1, 19)  # every id, so every tag
    stock = AutoModelForCausalLM.from_pretrained(folder / "base" / "model", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(stock, folder / "chat" / ADAPTER)
    with torch.no_grad():
        wanted = merged(ids)
        torch.testing.assert_close(theirs(ids).logits, wanted, rtol=0, atol=1e-4)
        own = adapter.load(folder / "chat" / ADAPTER, folder / "base" / "model")
        torch.testing.assert_close(own(ids), wanted, rtol=0, atol=1e-4)
    with pytest.raises(StoreError, match="belongs to the model"):
        adapter.load(folder / "chat" / ADAPTER, folder / "chat" / "model")


@pytest.mark.slow
def test_an_interrupted_twin_is_the_same(recipe: Recipe, climbed: Climbed) -> None:
    folder, whole = climbed
    twin = chat(recipe, folder, "twin", stop=5)
    assert twin == whole
    for name in (f"{ADAPTER}/{adapter.WEIGHTS}", "model/model.safetensors"):
        assert (folder / "twin" / name).read_bytes() == (folder / "chat" / name).read_bytes()


@pytest.mark.slow
def test_a_try_killed_while_it_saved_leaves_nothing_old(recipe: Recipe, climbed: Climbed) -> None:
    folder, whole = climbed
    work = folder / "killed"
    shutil.copytree(folder / "chat", work)
    shutil.rmtree(work / "model")
    for name in (ADAPTER, "model.unchecked"):
        (work / name).mkdir(exist_ok=True)
        (work / name / "torn").write_text("half")
    kind = without_exams(recipe.stages[1])
    parents = {"tokenizer": folder / "tokenizer@1", "base": folder / "base"}
    assert kind.make(work, parents, context(recipe, 1)) == whole
    assert not list(work.rglob("torn"))
    assert not (work / "model.unchecked").exists()
    assert sha256_of_stage(work) == sha256_of_stage(folder / "chat")


def test_a_merged_model_that_says_something_else_never_exists(tmp_path: Path) -> None:
    template = Template(Tokenizer.bytes_only("matura"))
    base = model_folder(tmp_path / "base", template)
    model = hf.load(base)
    attach(model, rank=2, alpha=4, targets=("q_proj",), generator=seeded(0))

    def save(folder: Path) -> None:
        hf.save(spread(model.config), folder, bos_id=None, stop_ids=(1,), pad_id=None)

    with pytest.raises(StoreError, match="logits are off by up to"):
        leave(model, Lora(rank=2, targets=("q_proj",)), tmp_path, base=base, seed=0, save=save)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_later_stage_goes_on_from_the_merged_model(recipe: Recipe, climbed: Climbed) -> None:
    """Once more with adapters: these stand on the merged model."""
    folder, _ = climbed
    parents = {name: folder / name for name in ("base", "chat")}
    again = recipe.stages[1].model_copy(update={"name": "again", "exams": ()})
    longer = recipe.model_copy(update={"stages": (*recipe.stages, again)})
    (folder / "again").mkdir()
    parents["tokenizer"] = folder / "tokenizer@1"
    found = again.make(folder / "again", parents, context(longer, 2))
    told = json.loads((folder / "again" / ADAPTER / "base.json").read_text())
    assert told["weights_sha256"] == sha256_of_stage(folder / "chat")
    assert found.numbers["lora"]["base_sha256"] == sha256_of_stage(folder / "chat")
    assert "trainable_token_indices" not in json.loads(
        (folder / "again" / ADAPTER / "adapter_config.json").read_text()
    )
