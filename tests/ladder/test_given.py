"""A recipe goes on from a model that was made elsewhere, replays what it was trained on, is planned
where neither is at hand, and climbed smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretend import Pretended, model_folder, pretend

from matura.core.errors import DataError, DriftError, NotHereError, RecipeError
from matura.core.ledger import Ledger
from matura.core.store import Folder
from matura.data.mixing import Wanted, mix
from matura.ladder.climb import climb
from matura.ladder.drawn import drawn_plan
from matura.ladder.lineage import traced
from matura.ladder.plan import plan
from matura.ladder.recipe import load
from matura.ladder.scale import _spelled
from matura.ladder.show import show_run
from matura.stages.origin import model_folder as place_of
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"
INDUCTION = RECIPES / "induction-750m.yaml"
QUIET = Ledger(mode="quiet")
RECIPE = """
name: on
tokenizer: {{kind: bpe, vocab_size: 285, dialect: matura, spare: 16}}
model: {{hidden_size: 32, layers: 2, heads: 2, qk_norm: true, sequence_length: 64}}
stages:
  - name: wiki
    kind: given
    mixture: [{{source: {{kind: prepared, path: {data}}}, share: 1.0, name: old}}]
  - name: domain
    kind: given
    model: {model}
    mixture: [{{source: {{kind: folder, path: {text}}}, share: 1.0, name: own}}]
  - name: more
    kind: pretrain
    mixture: [{{source: {{kind: folder, path: {text}}}, share: 0.8, name: new}}]
    replay: [{{stage: wiki, share: 0.15}}, {{stage: domain, share: 0.05}}]
    train: {{tokens: 6000, batch_tokens: 320, evaluations: 2}}
    exams: [{{exam: induction, at_least: 0.0, n: 200, cap: 200, select_n: 8}}]
gates: {{on_fail: continue}}
"""


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_COMPILE", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pretended:
    return pretend(tmp_path_factory.mktemp("given"))


def tokens(path: Path, low: int, count: int = 3000) -> Path:
    for split, some in (("train", count), ("val", 300)):
        (path / split).mkdir(parents=True)
        ids = np.arange(some) * 7 % 90 + low
        ids.astype("<u4").tofile(path / split / "a.bin")
    (path / "dataset_metadata.json").write_text('{"dtype": "uint32"}')
    return path


def spelled(made: Pretended, folder: Path, **changed: Any) -> Path:
    """The recipe on the pretended run's base, with token folders mixed of two."""
    if not (folder / "mixed").exists():
        parts = [Wanted(tokens(folder / "wiki", 10)), Wanted(tokens(folder / "news", 100), 0.25)]
        mix(parts, folder / "mixed")
    values = {
        "data": folder / "mixed",
        "model": made.run / "base@1",
        "text": made.run.parents[1] / "text",
    }
    path = folder / "on.yaml"
    path.write_text(RECIPE.format(**values | changed))
    return path


@pytest.fixture(scope="module")
def climbed(made: Pretended, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("climbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATURA_COMPILE", "0")
        climb(load(spelled(made, folder)), folder / "runs", ledger=QUIET)
    return folder


def test_the_model_is_taken_with_its_tokenizer_and_is_the_runs_own(
    made: Pretended, climbed: Path
) -> None:
    run = climbed / "runs/on"
    theirs, ours = made.run / "base@1/model", run / "domain@1/model"
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert Tokenizer.load(run / "tokenizer@1/model").sha256 == Tokenizer.load(theirs).sha256
    assert Tokenizer.load(run / "more@1/model").sha256 == Tokenizer.load(theirs).sha256
    assert not (run / "wiki@1/model").exists()


def test_where_tokens_come_from_is_traced_through_every_hop(climbed: Path) -> None:
    whence = Folder.open(climbed / "runs/on/more@1").record["lineage"]
    assert whence["asked"] == pytest.approx(
        {"more/new": 0.8, "wiki/old/wiki": 0.1125, "wiki/old/news": 0.0375, "domain/own": 0.05},
        abs=1e-4,
    )
    assert whence["got"].keys() == whence["asked"].keys()
    assert sum(whence["got"].values()) == pytest.approx(1)
    # what the given model had seen before it came here, by its own record
    assert whence["model_tokens"]["domain:base/folder"] == 4000
    assert whence["licences"] == {"more/new": "own", "wiki/old": "own", "domain/own": "own"}


def test_shares_asked_and_got_are_recorded(climbed: Path) -> None:
    numbers = Folder.open(climbed / "runs/on/more@1").record["numbers"]
    for part in numbers["mixture"]["parts"].values():
        assert part["share_got"] == pytest.approx(part["share_asked"], abs=0.03)
    assert numbers["data"]["new"]["licence"] == "own"


def test_what_is_given_is_shown(climbed: Path) -> None:
    shown = show_run(climbed / "runs/on")
    wiki, domain, more = shown.stages
    assert (wiki.kind, domain.kind, more.kind) == ("given", "given", "pretrain")
    assert wiki.parts[0].tokens_available > 3000
    assert wiki.parts[0].source is not None
    assert "licence: own" in list(wiki.parts[0].source.lines())


def test_the_same_again_is_there_already_and_another_model_is_refused(
    made: Pretended, climbed: Path, tmp_path: Path
) -> None:
    again = climb(load(spelled(made, climbed)), climbed / "runs", ledger=QUIET)
    assert again.made == ()
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (made.run / "base@1/model").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    moved_recipe = load(spelled(made, climbed, model=moved))
    assert climb(moved_recipe, climbed / "runs", ledger=QUIET).made == ()  # the same, elsewhere
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(bytes(weights))
    with pytest.raises(DriftError, match=r"inputs\.given model\.model\.safetensors"):
        climb(moved_recipe, climbed / "runs", ledger=QUIET)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.layers=3", "layers 2 .the recipe's is 3"),
        ("model.sequence_length=257", "sequence_length 256 .the recipe's is 257"),
        ("tokenizer.spare=8", "spare 16 .the recipe's is 8"),
        ("tokenizer.vocab_size=400", "vocab_size 285 .the recipe's is 400"),
    ],
)
def test_a_model_of_another_shape_or_tokenizer_is_refused_before_the_first_step(
    made: Pretended, tmp_path: Path, change: str, said: str
) -> None:
    """FAULTS E10."""
    recipe = load(spelled(made, tmp_path), [change])
    with pytest.raises(RecipeError, match=said):
        climb(recipe, tmp_path / "runs", ledger=QUIET)
    with pytest.raises(RecipeError, match=said):
        plan(recipe, hardware="a100")


def test_tokens_of_another_tokenizer_are_refused_before_the_first_step(
    made: Pretended, tmp_path: Path
) -> None:
    """FAULTS E10."""
    foreign = tokens(tmp_path / "foreign", 5000)
    with pytest.raises(DataError, match="written by another tokenizer"):
        climb(load(spelled(made, tmp_path, data=foreign)), tmp_path / "runs", ledger=QUIET)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["stages.wiki.mixture=[]"], "give a 'model', or a 'mixture'"),
        (["stages.wiki.exams=[{exam: induction}]"], "'exams' and 'tokens' are of a model"),
        (["stages.domain.replay=[{stage: wiki, share: 0.1}]"], "nothing is replayed"),
        (["stages.wiki.model=runs/x/base@1"], "a second model is given"),
        (["stages.wiki.mixture.0.share=0.5"], "the shares sum to 0.5, not to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    made: Pretended, tmp_path: Path, changes: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        load(spelled(made, tmp_path), changes)


def test_where_a_model_lies(made: Pretended, tmp_path: Path) -> None:
    assert place_of(made.run / "base@1") == made.run / "base@1/model"
    assert place_of(made.run / "base@1/model") == made.run / "base@1/model"
    with pytest.raises(DataError, match=r"a run; name the stage to go on from: base@1, chat@1"):
        place_of(made.run)
    with pytest.raises(NotHereError, match="no such folder"):
        place_of(tmp_path / "nothing")
    with pytest.raises(DataError, match="no model; expected config"):
        place_of(tmp_path)


@pytest.mark.slow
def test_a_recipe_is_planned_without_network_and_without_its_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The derived numbers of MyPT's phase 1.5."""
    monkeypatch.setenv("MATURA_OFFLINE", "1")
    monkeypatch.setenv("MATURA_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    found = plan(load(INDUCTION), hardware="a100", price_per_hour=1.8, disk=tmp_path)
    *_, stage = found.stages
    assert found.parameters == pytest.approx(763e6, rel=0.01)
    assert stage.epoch_tokens == pytest.approx(4.02e9, rel=2e-3)
    assert stage.epoch_steps == pytest.approx(327_000, rel=2e-3)
    assert stage.tokens == pytest.approx(1.5 * stage.epoch_tokens, rel=1e-6)
    assert stage.steps == pytest.approx(491_000, rel=0.02)
    assert stage.evaluations == 245
    assert stage.batch_tokens == 12 * 1024
    assert found.cost == pytest.approx(found.seconds / 3600 * 1.8)
    assert stage.disk["downloads"] == pytest.approx(4 * 3.8e9, rel=0.01)
    assert stage.disk["tokens"] == pytest.approx(6 * 3.5e9, rel=0.01)
    assert len(found.absent) == 11
    assert "induction: codeparrot: planned from its token_budget of 1.09B tokens" in found.absent
    assert any(
        w.startswith("domain: its model saw 2.4 tokens for each parameter") for w in found.warnings
    )
    told = json.loads(json.dumps(found.as_dict()))["stages"][-1]
    assert told["epoch_steps"] == stage.epoch_steps
    assert told["seen"]["replay:wiki.wiki90"] == pytest.approx(0.4, abs=0.01)
    assert drawn_plan(found)
    with pytest.raises(NotHereError, match="checkpoints/domain_v5"):
        climb(load(INDUCTION), tmp_path / "runs", ledger=QUIET)


def test_a_source_that_does_not_say_its_size_cannot_be_planned(
    made: Pretended, tmp_path: Path
) -> None:
    recipe = load(spelled(made, tmp_path, data=tmp_path / "nowhere"))
    with pytest.raises(NotHereError, match="nowhere: no such folder"):
        plan(recipe, hardware="a100")


def test_scaling_keeps_what_is_taught_and_shrinks_what_costs() -> None:
    whole, small = load(INDUCTION), load(INDUCTION, scale=1e-4)
    assert small.name == "induction-750m-at-1e-4"
    for one, other in zip(whole.stages, small.stages, strict=True):
        assert [part.share for part in one.mixture] == [part.share for part in other.mixture]
        assert [part.clean for part in one.mixture] == [part.clean for part in other.mixture]
        assert (one.replay, one.exams, one.gold) == (other.replay, other.exams, other.gold)
    before, after = whole.stages[-1].train, small.stages[-1].train  # type: ignore[attr-defined]
    assert after.tokens == pytest.approx(6.03e5, rel=2e-3)
    assert after.epochs is None
    assert after.warmup_tokens == pytest.approx(before.warmup_tokens * 1e-4, rel=0.01)
    assert after.learning_rate == before.learning_rate
    budgets = [part.source.token_budget for part in small.stages[-1].mixture]  # type: ignore[union-attr]
    assert budgets[0] == 109_200
    assert small.model.hidden_size < 300
    assert small.tokenizer.vocab_size < 4000
    assert load(INDUCTION, scale=1.0) == whole


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", [0.5, 0.01, 1e-4])
def test_every_recipe_can_be_scaled(path: Path, scale: float) -> None:
    small, whole = load(path, scale=scale), load(path)
    assert small.model.hidden_size <= whole.model.hidden_size
    assert len(small.stages) == len(whole.stages)


def test_what_is_set_is_not_scaled_and_a_given_model_keeps_its_size(
    made: Pretended, tmp_path: Path
) -> None:
    path = spelled(made, tmp_path)
    small = load(path, ["stages.more.train.tokens=5000"], scale=0.1)
    assert small.stages[-1].train.tokens == 5000  # type: ignore[attr-defined]
    assert small.model.hidden_size == 32
    assert small.tokenizer.vocab_size == 285
    elsewhere = model_folder(tmp_path / "model", Template(Tokenizer.bytes_only("matura")))
    assert load(path, [f"stages.domain.model={elsewhere}"], scale=0.1).model.qk_norm
    for wrong in (0.0, -1.0, 2.0):
        with pytest.raises(RecipeError, match="--scale"):
            load(path, scale=wrong)


def test_a_scale_is_spelled_as_a_name_may_be() -> None:
    names = {1e-4: "1e-4", 0.5: "5e-1", 0.0025: "25e-4", 0.125: "125e-3"}
    assert {scale: _spelled(scale) for scale in names} == names


def test_traced_shares_sum_to_what_was_there() -> None:
    found = traced({"a": 0.6, "b": 0.4}, {"a": {"x": 1.0, "y": 3.0}, "b": {}})
    assert found == pytest.approx({"a/x": 0.15, "a/y": 0.45, "b": 0.4})
