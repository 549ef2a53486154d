"""How each stage that trains will compute, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from matura.core.errors import RecipeError
from matura.core.ledger import Ledger
from matura.ladder.recipe import Recipe
from matura.ladder.show import StageSeen
from matura.stages.horizon import flops_so_far
from matura.stages.parts import Train
from matura.stages.stage import Context, StageKind

if TYPE_CHECKING:
    from matura.learn.compute import Compute
    from matura.models.decoder import DecoderConfig


def ways_of(
    recipe: Recipe, seen: Mapping[str, StageSeen], config: DecoderConfig, hardware: str
) -> list[tuple[StageKind, Train, Compute]]:
    """How each stage that trains will compute: the choice that training itself makes."""
    from matura.learn.compute import choose

    model: Any = SimpleNamespace(config=config)
    found: list[tuple[StageKind, Train, Compute]] = []
    for index, stage in enumerate(recipe.stages):
        train = getattr(stage, "train", None)
        if not isinstance(train, Train):
            continue
        context = Context(
            seed=recipe.seed,
            tokenizer=recipe.tokenizer,
            model=recipe.model,
            start=None,
            earlier={below.name: below for below in recipe.stages[:index]},
            ledger=Ledger(mode="quiet"),
        )
        compute = choose(flops_so_far(seen[stage.name].tokens, context, model))
        if hardware == "cpu":
            compute = replace(compute, device="cpu")
        found.append((stage, train, compute))
    if not found:
        raise RecipeError("the recipe has no stage that trains")
    return found
