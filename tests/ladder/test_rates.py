"""`matura lr`: the same tries each time, a suggestion with its reason, and a run left as it was."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pretend import recipe_text

from matura.core.errors import DriftError, RecipeError
from matura.core.ledger import Ledger
from matura.ladder.climb import climb
from matura.ladder.rates import Suggestion, Sweep, diverged, end_of, factors_between, find, suggest
from matura.ladder.recipe import Recipe, load, loads, spell
from matura.learn.sweep import Tried
from matura.report.sweep import drawing

FACTORS = (0.3, 3.0, 1e30)
"""The last one breaks any model."""


@dataclass(frozen=True)
class Made:
    """A recipe and its run, climbed up to the base."""

    recipe: Recipe
    run: Path


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_COMPILE", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("rates")
    path = folder / "r.yaml"
    path.write_text(recipe_text(folder))
    recipe = load(path, ["stages.base.exams=[]"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATURA_COMPILE", "0")
        climb(recipe, folder / "runs", until="base", ledger=Ledger(mode="quiet"))
    return Made(recipe, folder / "runs" / recipe.name)


@pytest.fixture(scope="module")
def found(made: Made) -> Sweep:
    return swept(made.recipe, made.run, "base")


def swept(recipe: Recipe, run: Path, stage: str, steps: int = 10) -> Sweep:
    ledger = Ledger(stage=stage, mode="quiet")
    return find(recipe, run, stage, factors=FACTORS, steps=steps, ledger=ledger)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_divergence_is_a_result(found: Sweep) -> None:
    few, more, broken = found.tried
    assert len(few.losses) == len(more.losses) == 10
    assert few.losses[0] == more.losses[0] == broken.losses[0]  # one start, one first batch
    assert end_of(more) < end_of(few) < few.losses[0]  # type: ignore[operator]
    assert diverged(broken)
    assert all(math.isfinite(loss) for loss in broken.losses)
    assert found.suggestion.factor == 0.3
    assert "one step back" in found.suggestion.why
    assert found.start == "from scratch"
    assert found.sets()[0] == f"stages.base.train.matrix_learning_rate={0.3 * 0.02:g}"
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["tried"][2]["diverged"]


def test_the_same_again_and_nothing_touched(made: Made, found: Sweep, tmp_path: Path) -> None:
    before = contents(made.run)
    again = swept(made.recipe, made.run, "base")
    assert [one.losses for one in again.tried] == [one.losses for one in found.tried]
    assert contents(made.run) == before
    nowhere = swept(made.recipe, tmp_path / "no-run", "base", 5)
    assert not (tmp_path / "no-run").exists()
    assert len(nowhere.tried[0].losses) == 5


def test_a_later_stage_goes_on_from_the_one_below(made: Made, tmp_path: Path) -> None:
    before = contents(made.run)
    found = swept(made.recipe, made.run, "chat", 5)
    assert found.start.startswith("base@")
    assert contents(made.run) == before
    with pytest.raises(RecipeError, match=r"goes on from .* not made .*--until base"):
        swept(made.recipe, tmp_path / "none", "chat")
    other = made.recipe.model_copy(update={"seed": 8})
    with pytest.raises(DriftError, match="seed"):
        swept(other, made.run, "chat")


def test_adapters_have_one_rate_of_their_own(made: Made) -> None:
    recipe = loads(spell(made.recipe), ["stages.chat.train.lora={rank: 2}"])
    found = swept(recipe, made.run, "chat", steps=4)
    assert found.rates.keys() == {"lora.learning_rate"}
    assert [len(one.losses) for one in found.tried[:2]] == [4, 4]
    assert found.tried[0].losses[0] == found.tried[1].losses[0]
    (told,) = replace(found, suggestion=Suggestion(0.5, "half")).sets()
    lora = loads(spell(recipe), [told]).stages[1].train.lora  # type: ignore[attr-defined]
    rate = found.rates["lora.learning_rate"] * 0.5
    assert lora.learning_rate == pytest.approx(rate, rel=1e-2)


def test_stages_without_a_rate(made: Made) -> None:
    with pytest.raises(RecipeError, match=r"no such stage.*did you mean 'base'"):
        swept(made.recipe, made.run, "bas")
    with pytest.raises(RecipeError, match="'tokenizer' has no learning rate"):
        swept(made.recipe, made.run, "tokenizer")


def tried(factor: float, end: float | None) -> Tried:
    if end is None:
        return Tried(factor, (5.0, 5.5), "step 2: loss nan")
    return Tried(factor, (5.0, *[end] * 9), None)


@pytest.mark.parametrize(
    ("ends", "factor", "words"),
    [
        ([4.0, 3.0, 3.5], 2.0, "ends lowest, at 3.000"),
        ([4.0, 3.5, 3.0, None], 2.0, "×4 ends lowest, at 3.000, but ×8 diverged: one step back"),
        ([4.0, 3.5, 3.0, 6.0], 2.0, "one step back"),  # worse than it began
        ([4.0, 3.0, 3.5, None], 2.0, "ends lowest"),
        ([3.0, None, None], 1.0, "nothing lower was tried"),
        ([4.0, 3.5, 3.0], 4.0, "nothing higher was tried"),
        ([3.0, 3.5, 4.0], 1.0, "nothing lower was tried"),
        ([None, None, None], None, "every factor diverged"),
    ],
)
def test_the_suggestion(ends: list[float | None], factor: float | None, words: str) -> None:
    said = suggest([tried(2.0**number, end) for number, end in enumerate(ends)])
    assert said.factor == factor
    assert words in said.why


def test_no_rate_is_suggested_that_a_recipe_may_not_say() -> None:
    rates = {"matrix_learning_rate": 0.02, "embedding_learning_rate": 0.03}
    found = Sweep("r", "s", "x", 2, 8, "c", rates, (), Suggestion(100.0, ""), 0)
    assert found.sets() == [
        "stages.s.train.matrix_learning_rate=1",
        "stages.s.train.embedding_learning_rate=3",
    ]


def test_factors() -> None:
    assert factors_between(0.125, 8, 7) == (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    for low, high, count in ((0.0, 1.0, 3), (2.0, 1.0, 3), (math.nan, 1.0, 3), (1.0, 2.0, 2)):
        with pytest.raises(RecipeError):
            factors_between(low, high, count)


def test_the_plot_is_whole_by_itself(found: Sweep) -> None:
    root = ElementTree.fromstring(drawing(found))
    crosses = [e for e in root.iter() if e.get("class") == "cross"]
    chosen = [e for e in root.iter() if e.get("class") == "chosen"]
    assert (len(crosses), len(chosen)) == (1, 1)
    assert "href" not in drawing(found)
    all_bad = Sweep(
        "r<", "s", "x", 2, 8, "c", {}, (tried(1.0, None),) * 3, Suggestion(None, "&"), 0
    )
    ElementTree.fromstring(drawing(all_bad))
