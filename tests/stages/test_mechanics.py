"""The options of training: each does what it says, none is silently ignored, and without them
everything is as it always was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_training_stages import Hasty, sha256_of_stage

from matura.core.errors import RecipeError
from matura.core.ledger import Ledger
from matura.core.rng import rng
from matura.data.mixture import Feed
from matura.ladder.climb import asked_of
from matura.ladder.recipe import Recipe, loads, spell
from matura.stages.horizon import horizon, laid_out, often, plan_fit
from matura.stages.parts import TOKENS, Train
from matura.stages.stage import Context, Made
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

RECIPE = """
name: twin
seed: 7
tokenizer: {{kind: bpe, vocab_size: 300, dialect: matura}}
model: {{hidden_size: 32, layers: 2, heads: 2, sequence_length: 64}}
stages:
  - name: base
    kind: pretrain
    mixture: [{{source: {{kind: folder, path: {folder}/text}}, share: 1.0}}]
    train: {{tokens: 2000, batch_tokens: 256}}
  - name: chat
    kind: sft
    mixture: [{{source: {{kind: jsonl, path: {folder}/talk.jsonl}}, share: 0.8}}]
    replay: [{{stage: base, share: 0.2}}]
    train: {{tokens: 2000, batch_tokens: 256, warmup_tokens: 512}}
"""
CHAT = "stages.chat.train."
FEEDS = {  # which piece stands where: measured before there were any options
    "base": "713a6428744b8f817032409721f4634db4acaae0461a47b9ff451ca449807e86",
    "chat": "6e89fa3fc92fe55aa9bac8eaf42befe7a0b5e682f354419b2b452057bef85d57",
}
VALIDATION = {
    "base": {"folder": 4.978098381323161},
    "chat": {"jsonl": 4.260731325311176, "replay:base.folder": 4.20672913618311},
}
"""Measured likewise, on CPU in fp32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little text, 300 conversations about it, and a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("twin")
    draw = rng(5, "twin")
    words = ["".join(draw.choice("abcdefghij") for _ in range(4)) for _ in range(200)]
    (folder / "text").mkdir()
    for number in range(40):
        lines = (" ".join(draw.choice(words) for _ in range(30)) + "." for _ in range(4))
        (folder / "text" / f"{number}.txt").write_text("\n\n".join(lines))
    with (folder / "talk.jsonl").open("w") as out:
        for _ in range(300):
            said = " ".join(draw.choice(words) for _ in range(draw.randint(1, 3)))
            turns = [("user", f"Say {said}"), ("assistant", f"{said}.")]
            row = {"messages": [{"role": role, "content": text} for role, text in turns]}
            out.write(json.dumps(row) + "\n")
    Tokenizer.bytes_only("matura").save(folder / "tokenizer@1" / "model")
    return folder


@pytest.fixture(autouse=True)
def plain_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 and no compiler, on every machine."""
    monkeypatch.setenv("MATURA_DTYPE", "float32")
    monkeypatch.setenv("MATURA_COMPILE", "0")


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    return loads(RECIPE.format(folder=folder), overrides)


def make(
    recipe: Recipe, stage: int, work: Path, folder: Path, base: Path | None = None, stop: int = 0
) -> Made:
    """The stage in `work`; interrupted once after `stop` steps, if that is not 0."""
    parents = {"tokenizer": folder / "tokenizer@1"} | ({"base": base} if base else {})
    work.mkdir(exist_ok=True)

    def context(ledger: Ledger) -> Context:
        return Context(
            seed=recipe.seed,
            tokenizer=recipe.tokenizer,
            model=recipe.model,
            start="base" if base else None,
            earlier={below.name: below for below in recipe.stages[:stage]},
            ledger=ledger,
        )

    if stop:
        with pytest.raises(KeyboardInterrupt):
            recipe.stages[stage].make(work, parents, context(Hasty(stop)))
    return recipe.stages[stage].make(work, parents, context(Ledger(None, "", mode="quiet")))


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    """The base stage, made with no option at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATURA_DTYPE", "float32")
        patch.setenv("MATURA_COMPILE", "0")
        work = folder / "base@1"
        made = make(recipe_of(folder), 0, work, folder)
    (work / "said.json").write_text(json.dumps(dict(made.numbers), default=str))
    return work


def feed_of(recipe: Recipe, stage: int, *parts: tuple[str, Path, float]) -> Feed:
    """The rows of a stage from its shards on disk."""
    template = Template(Tokenizer.bytes_only("matura"))
    train = recipe.stages[stage].train  # type: ignore[attr-defined]
    laid = [
        laid_out(
            name,
            Shard.open(path, template.tokenizer.sha256),
            share,
            kind="pretrain" if "folder" in name else "sft",
            train=train,
            max_repeats=5.0,
        )
        for name, path, share in parts
    ]
    name = recipe.stages[stage].name
    return Feed(laid, tokens=2000, row_length=65, pad_id=template.pad_id, seed=7, stage=name)


def test_without_options_nothing_has_changed(folder: Path, base: Path, tmp_path: Path) -> None:
    """The same pieces in the same rows, and the same model out of them."""
    recipe, chat = recipe_of(folder), tmp_path / "chat"
    made = make(recipe, 1, chat, folder, base)
    text = base / "data" / "folder.train.shard"
    talk = chat / "data" / "jsonl.train.shard"
    feeds = {
        "base": feed_of(recipe, 0, ("folder", text, 1.0)).sha256,
        "chat": feed_of(recipe, 1, ("jsonl", talk, 0.8), ("replay:base.folder", text, 0.2)).sha256,
    }
    assert feeds == FEEDS
    said = json.loads((base / "said.json").read_text())
    assert said["validation"] == pytest.approx(VALIDATION["base"], rel=1e-5)
    assert made.numbers["validation"] == pytest.approx(VALIDATION["chat"], rel=1e-5)


def test_every_option_at_once_and_an_interrupted_twin(
    folder: Path, base: Path, tmp_path: Path
) -> None:
    """Weights, noise, draws, epochs, lengths, positions and patience: a restart changes nothing."""
    recipe = recipe_of(
        folder,
        "stages.chat.weights=weighted",
        CHAT + "tokens=",
        CHAT + "epochs=0.25",
        CHAT + "neftune=50",
        CHAT + "order=random",
        CHAT + "positions=row",
        CHAT + "min_tokens=22",
        CHAT + "patience=2",
    )
    straight, twin = tmp_path / "straight", tmp_path / "twin"
    first = make(recipe, 1, straight, folder, base)
    again = make(recipe, 1, twin, folder, base, stop=4)
    assert sha256_of_stage(straight) == sha256_of_stage(twin)
    assert first == again
    talk = first.numbers["mixture"]["parts"]["jsonl"]
    assert talk["exposures"] == pytest.approx(0.25, rel=0.05)
    assert talk["dropped"]["too short"] > 0
    shard = Shard.open(straight / "data" / "jsonl.train.shard")
    assert set(np.asarray(shard.weights)) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize(
    "override",
    [
        "stages.chat.weights=weighted",
        CHAT + "neftune=5",
        CHAT + "positions=row",
        CHAT + "order=random",
        CHAT + "min_tokens=8",
        CHAT + "patience=2",
        "stages.chat.train={epochs: 2, batch_tokens: 256, warmup_tokens: 512}",
    ],
)
def test_each_option_is_part_of_what_is_asked(folder: Path, override: str) -> None:
    """C-21: another value is another stage, refused as drift; and a recipe spells it whole."""
    where = {"tokenizer": "tokenizer@1", "base": "base@1"}
    usual, changed = (recipe_of(folder, *more) for more in ((), (override,)))
    assert asked_of(usual, 2, where) != asked_of(changed, 2, where)
    assert asked_of(usual, 1, where) == asked_of(changed, 1, where)
    assert asked_of(loads(spell(changed)), 2, where) == asked_of(changed, 2, where)


def test_the_weights_are_made_while_rendering(folder: Path, base: Path, tmp_path: Path) -> None:
    """The same ids; nothing is looked for afterwards."""
    template = Template(Tokenizer.bytes_only("matura"))
    from matura.data.build import build
    from matura.stages.horizon import weights_of

    found: dict[str, Any] = {}
    for preset in ("plain", "weighted"):
        stage = recipe_of(folder, f"stages.chat.weights={preset}").stages[1]
        built = build(
            stage.mixture[0].source,
            name="talk",
            template=template.weighing(weights_of(stage)),
            folder=tmp_path / preset,
            seed=7,
            stage="chat",
        )
        found[preset] = Shard.open(built.train)
    plain, weighted = (found[name] for name in ("plain", "weighted"))
    ids, weights = np.asarray(weighted.ids), np.asarray(weighted.weights)
    np.testing.assert_array_equal(ids, np.asarray(plain.ids))
    np.testing.assert_array_equal(weights != 0, np.asarray(plain.weights) != 0)
    assert set(ids[weights == 2]) == {template.end_of_turn_id}
    assert set(np.asarray(plain.weights)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("given", "tokens", "epochs"),
    [
        ({}, TOKENS, None),
        ({"tokens": 5000}, 5000, None),
        ({"epochs": 2.5}, None, 2.5),
        ({"tokens": None, "epochs": 2}, None, 2.0),
        ({"tokens": 7000, "epochs": None}, 7000, None),
    ],
)
def test_a_horizon_is_tokens_or_epochs(
    given: dict[str, Any], tokens: int | None, epochs: float | None
) -> None:
    train = Train(**given)
    assert (train.tokens, train.epochs) == (tokens, epochs)
    assert Train(**train.model_dump()) == train


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tokens: 2000, epochs: 2", "one of the two; found both"),
        ("tokens: ~", "one of the two; found neither"),
        ("epochs: 0", "greater than 0"),
        ("epochs: .inf", "epochs: should be"),
    ],
)
def test_never_both_and_never_neither(folder: Path, given: str, said: str) -> None:
    text = RECIPE.format(folder=folder).replace("tokens: 2000, batch", f"{given}, batch", 1)
    with pytest.raises(RecipeError) as caught:
        loads(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith("recipe:10: stages[0].train")


def test_epochs_are_of_the_stages_own_data() -> None:
    """Replay comes on top by its share; parts of unlike share are seen so often on average."""
    own = [(0.5, 1000), (0.3, 3000)]
    tokens = horizon(Train(epochs=2.0), own)
    assert tokens == 2 * 4000 / 0.8
    seen = [share * tokens / size for share, size in own]
    assert sum(s * size for s, (_, size) in zip(seen, own, strict=True)) == pytest.approx(8000)
    assert horizon(Train(tokens=123), own) == 123


def test_epochs_too_few_for_the_rest_are_refused(folder: Path, base: Path, tmp_path: Path) -> None:
    recipe = recipe_of(
        folder, "stages.chat.train={epochs: 0.01, batch_tokens: 64, warmup_tokens: 900}"
    )
    with pytest.raises(RecipeError, match=r"chat: train\.warmup_tokens: .*epochs 0\.01 are \d+ to"):
        make(recipe, 1, tmp_path / "chat", folder, base)


def test_more_than_five_times_is_said() -> None:
    """C-09."""
    (line,) = often({"a": 5.0, "b": 5.2, "c": 0.1})
    assert line.startswith("b is seen 5.2 times: more than 5 teaches the examples themselves")


@pytest.mark.parametrize(
    ("patience", "evaluations", "fine"),
    [(1, 3, True), (2, 4, True), (3, 4, False), (1, 2, False), (1, 1, False), (9, 10, False)],
)
def test_patience_that_can_never_fire_is_refused(
    folder: Path, patience: int, evaluations: int, fine: bool
) -> None:
    """C-43: the first evaluation sets the mark, and one at the end ends nothing."""
    more = (f"{CHAT}patience={patience}", f"{CHAT}evaluations={evaluations}")
    train = Train(patience=patience, evaluations=evaluations)
    if fine:
        recipe_of(folder, *more)
        assert plan_fit(train, 1000, 4, 64).patience == patience
        return
    with pytest.raises(RecipeError, match=rf"patience: {patience} can never end it early with"):
        recipe_of(folder, *more)
    with pytest.raises(RecipeError, match=rf"or {patience + 2} evaluations"):
        plan_fit(train, 1000, 4, 64)


def test_patience_is_measured_by_the_steps_there_are() -> None:
    """Asked for ten evaluations, but three steps have only three."""
    train = Train(patience=2, evaluations=10)
    assert plan_fit(train, 1000, 4, 64).patience == 2
    with pytest.raises(RecipeError, match=r"chat: patience: 2 can never .* with 3 eval.*3 steps"):
        plan_fit(train, 12, 4, 64, stage="chat")


def test_no_example_can_be_longer_than_a_row(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"min_tokens: no example of 66 tokens fits into a row"):
        recipe_of(folder, CHAT + "min_tokens=66")
    recipe_of(folder, "stages.base.train.min_tokens=66")  # text is split: long ones stay
