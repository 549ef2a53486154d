"""Every recipe that is shipped can be looked at and planned: each of its sources is tried out."""

from __future__ import annotations

from pathlib import Path

import pytest

from matura.ladder.recipe import load
from matura.ladder.trial import try_out

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_source_of_a_shipped_recipe_can_be_tried_out(path: Path, tmp_path: Path) -> None:
    """Drills alone are token runs, from which no tokenizer can learn: they were refused."""
    recipe = load(path)
    trial = try_out(recipe, tmp_path, "stand in")
    asked = {(stage.name, part.title) for stage in recipe.stages for part in stage.mixture}
    assert trial.parts.keys() == asked
    assert all(tried.tokens > 0 for tried in trial.parts.values())
