"""Stages that train: what they plan, and that a real one makes the same model however often it is
interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import recipe_text

from matura.core.errors import StoreError
from matura.core.ledger import Ledger
from matura.exams.format_strict import FormatStrict
from matura.ladder.recipe import Recipe, loads
from matura.models import hf
from matura.models.decoder import Decoder, DecoderConfig
from matura.stages.horizon import flops_so_far, plan_fit
from matura.stages.learning import BUILT
from matura.stages.loading import held_out_documents, sampler_of, template_of
from matura.stages.parts import Train
from matura.stages.selection import selecting
from matura.stages.sft import Sft
from matura.stages.stage import Context, Made, StageKind, stage_kinds
from matura.text.tokenizer import Tokenizer


class Hasty(Ledger):
    """Somebody presses Ctrl-C after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(None, "hasty", mode="quiet")
        self.steps = steps

    def progress(self, *args: Any, **more: Any) -> None:
        """Counts."""
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe of two stages over a small folder of text."""
    return loads(recipe_text(tmp_path))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """The folder of a tokenizer of bytes."""
    Tokenizer.bytes_only("matura").save(tmp_path / "tokenizer@1" / "model")
    return tmp_path / "tokenizer@1"


def context(recipe: Recipe, stage: int = 0, ledger: Ledger | None = None) -> Context:
    """What the ladder tells a stage."""
    earlier = {s.name: s for s in recipe.stages[:stage]}
    return Context(
        seed=recipe.seed,
        tokenizer=recipe.tokenizer,
        model=recipe.model,
        start=recipe.stages[stage - 1].name if stage else None,
        earlier=earlier,
        ledger=ledger or Ledger(None, "", mode="quiet"),
    )


def without_exams(stage: StageKind) -> Any:
    """The stage, for the time an untrained model takes to fail them."""
    return stage.model_copy(update={"exams": ()})


@pytest.fixture(autouse=True)
def plain_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 and no compiler, on every machine."""
    monkeypatch.setenv("MATURA_DTYPE", "float32")
    monkeypatch.setenv("MATURA_COMPILE", "0")


def sha256_of_stage(work: Path) -> str:
    return hf.weights_sha256(work / "model")


def test_every_stage_kind_is_found() -> None:
    assert {"pretrain", "sft"} <= stage_kinds().keys()
    assert "tokenizer" not in stage_kinds()


@pytest.mark.parametrize(
    ("rows", "batch", "evaluations", "steps", "evaluate_at"),
    [
        (1000, 16, 4, 62, {16, 31, 47, 62}),
        (1000, 16, 1, 62, {62}),
        (33, 16, 4, 2, {1, 2}),
        (5, 16, 4, 1, {1}),
        (160, 16, 10, 10, set(range(1, 11))),
    ],
)
def test_a_plan_comes_to_steps_and_evaluations(
    rows: int, batch: int, evaluations: int, steps: int, evaluate_at: set[int]
) -> None:
    """C-43: as many evaluations as asked, or one each step, and always one at the end."""
    train = Train(evaluations=evaluations, warmup_tokens=100, decay=0.25)
    how = plan_fit(train, rows, batch, 64)
    assert (how.steps, how.evaluate_at) == (steps, evaluate_at)
    assert how.tokens_per_step == batch * 64
    assert how.schedule.tokens == steps * batch * 64
    assert how.schedule.decay_tokens == steps * batch * 16
    assert how.schedule.warmup_tokens == 100


def test_each_number_of_train_reaches_the_fit() -> None:
    """C-21: no key is silently ignored."""
    usual = plan_fit(Train(), 1000, 16, 64)
    changed: dict[str, Any] = {
        "learning_rate": 0.1,
        "embedding_learning_rate": 0.1,
        "matrix_learning_rate": 0.1,
        "warmup_tokens": 7,
        "decay": 0.1,
        "weight_decay": 0.1,
        "clip": 0.1,
        "evaluations": 2,
        "patience": 2,
        "checkpoint_every_s": 0.1,
        "micro_rows": 2,
        "recompute": True,
    }
    for name, value in changed.items():
        assert plan_fit(Train(**{name: value}), 1000, 16, 64) != usual, name
    elsewhere = {"tokens", "epochs", "batch_tokens", "order", "min_tokens", "positions", "neftune"}
    elsewhere.add("lora")  # test_lora_stage
    elsewhere |= {"optimizer_state", "parent_rates"}  # test_parent
    assert changed.keys() | elsewhere == Train.model_fields.keys()  # test_mechanics has the others


def test_flops_are_a_function_of_the_recipe_alone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed stage must compute as the first try did, wherever and however it runs."""
    shape = DecoderConfig(
        vocab_size=300, hidden_size=32, layers=2, heads=2, kv_heads=2, sequence_length=64
    )
    model = Decoder(shape)
    base, chat = recipe.stages
    below = flops_so_far(base.train.tokens, context(recipe), model)  # type: ignore[attr-defined]
    both = flops_so_far(chat.train.tokens, context(recipe, 1), model)  # type: ignore[attr-defined]
    assert below == 6.0 * shape.parameters * 4000
    assert both == 6.0 * shape.parameters * (4000 + 6000)
    monkeypatch.setenv("MATURA_COMPILE", "1")
    threads = torch.get_num_threads()
    other = Context(**{**vars(context(recipe, 1)), "ledger": Hasty(1), "seed": 99, "start": None})
    assert flops_so_far(chat.train.tokens, other, model) == both  # type: ignore[attr-defined]
    assert torch.get_num_threads() == threads


def made(
    recipe: Recipe, stage: int, work: Path, parents: dict[str, Path], *, stop: int = 0
) -> Made:
    """The stage's folder; interrupted once, after `stop` steps, if that is not 0."""
    kind = without_exams(recipe.stages[stage])
    work.mkdir(exist_ok=True)
    if stop:
        with pytest.raises(KeyboardInterrupt):
            kind.make(work, parents, context(recipe, stage, Hasty(stop)))
        assert not (work / "model").exists()
    found: Made = kind.make(work, parents, context(recipe, stage))
    return found


def test_two_real_stages_and_an_interrupted_twin(
    recipe: Recipe, tokenizer: Path, tmp_path: Path
) -> None:
    base, chat = tmp_path / "base", tmp_path / "chat"
    first = made(recipe, 0, base, {"tokenizer": tokenizer})
    parents = {"tokenizer": tokenizer, "base": base}
    second = made(recipe, 1, chat, parents)
    mixture = first.numbers["mixture"]  # padding is not counted
    assert mixture["filled"] * first.numbers["steps"] * 260 == pytest.approx(first.tokens, rel=0.01)
    assert first.shares == {"folder": 1.0}
    assert first.numbers["validation"].keys() == {"folder"}
    assert second.shares.keys() == {"echo", "replay:base.folder"}
    assert second.numbers["validation"].keys() == second.shares.keys()  # C-03: replay's too
    assert second.shares["replay:base.folder"] == pytest.approx(0.2, abs=0.1)
    assert len(second.numbers["tags_weighted"]) > 3
    assert "tags_weighted" not in first.numbers
    assert json.loads((chat / "data" / BUILT).read_text())["echo"]["share"] == 0.8
    twin = tmp_path / "twin"
    again = made(recipe, 1, twin, parents, stop=5)
    assert sha256_of_stage(twin) == sha256_of_stage(chat) != sha256_of_stage(base)
    assert again == second
    template = template_of(chat / "model")
    assert template.tokenizer.sha256 == template_of(tokenizer / "model").tokenizer.sha256
    sampler = sampler_of(chat / "model")
    assert sampler.generate([template.prompt([])], max_tokens=3)[0].ids
    assert held_out_documents(base / "data")
    assert {document.text for document in held_out_documents(base / "data")}.isdisjoint(
        document.text for document in held_out_documents(chat / "data")
    )


def test_tags_are_weighted_in_the_first_chat_stage_only(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def spy(*args: object, weigh_tags: bool) -> Made:
        asked.append(weigh_tags)
        return Made(0)

    monkeypatch.setattr("matura.stages.sft.learn", spy)
    chat = recipe.stages[1]
    assert isinstance(chat, Sft)
    second = Context(
        **{**vars(context(recipe, 1)), "earlier": {"base": recipe.stages[0], "c": chat}}
    )
    for tags in ("auto", "weighted", "as they are"):
        stage = chat.model_copy(update={"tags": tags})
        for where in (context(recipe, 1), second):
            stage.make(Path(), {}, where)
    assert asked == [True, False, True, True, False, False]


def test_a_model_smaller_than_its_tokenizer_is_refused(tokenizer: Path) -> None:
    folder = tokenizer / "model"
    shape = DecoderConfig(
        vocab_size=200, hidden_size=8, layers=1, heads=1, kv_heads=1, sequence_length=16
    )
    hf.save(Decoder(shape), folder, bos_id=1, stop_ids=(2,), pad_id=3)
    with pytest.raises(StoreError, match=r"the tokenizer has \d+ ids, the model only 200"):
        sampler_of(folder)


def test_choosing_needs_an_exam_and_changes_no_weight(recipe: Recipe, tokenizer: Path) -> None:
    template = template_of(tokenizer / "model")
    shape = DecoderConfig(
        vocab_size=template.tokenizer.vocab_size,
        hidden_size=16,
        layers=1,
        heads=1,
        kv_heads=1,
        sequence_length=256,
    )
    model = Decoder(shape).start(torch.Generator().manual_seed(0)).train()
    base = recipe.stages[0]  # has bits per byte only, which validation loss measures already
    assert selecting(base, model, template, 0, Path())() == (None, {})
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    exam = FormatStrict(n=200, cap=200)
    stage = base.model_copy(update={"exams": (exam,)})
    score, notes = selecting(stage, model, template, 0, Path())()
    assert (score, notes) == (0.0, {"format_strict": 0.0})
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
