"""A recipe: one file that says what is climbed, from raw text to an examined model; never code.

`load` is the only way in. Its errors name file, line and key, several of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from matura.core.errors import DataError, RecipeError, StoreError
from matura.core.record import Frozen
from matura.ladder import sense, spelling, start
from matura.ladder.lines import Place, Spelled, parse, read
from matura.ladder.lines import spell as spell_yaml
from matura.ladder.scale import scaled
from matura.stages import parent, replays
from matura.stages.dial import filled
from matura.stages.given import given_model
from matura.stages.origin import spec_of
from matura.stages.parts import NAME, ModelSpec, OneOf, TokenizerSpec
from matura.stages.stage import StageKind, stage_kinds
from matura.stages.tokenizer import TokenizerStage

ERRORS_SHOWN = 20


class Gates(Frozen):
    """What closes the way up."""

    forget_at_most: float = Field(default=0.05, ge=0, le=1)
    """How far an earlier exam may fall, unless the exam itself says otherwise."""
    on_fail: Literal["stop", "continue"] = Field(default="stop", exclude=True)
    """`continue` climbs on and still ends with exit code 3; no part of what a stage is."""


class Recipe(Frozen):
    """A tokenizer, a model, and the stages it climbs."""

    model_config = ConfigDict(defer_build=True, title="Matura recipe")

    name: str = Field(pattern=NAME)
    """The run's folder is called after it."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    tokenizer: TokenizerSpec
    model: ModelSpec
    stages: tuple[Annotated[StageKind, OneOf("kind", stage_kinds)], ...] = Field(min_length=1)
    gates: Gates = Gates()

    @model_validator(mode="before")
    @classmethod
    def _turned(cls, given: Any) -> Any:
        return replays.filled(parent.filled(filled(given)))

    @property
    def tokenizer_stage(self) -> TokenizerStage:
        """The stage below all others, which no recipe lists."""
        spec = self.tokenizer
        if (given := given_model(self.stages)) is not None:
            return TokenizerStage(name="tokenizer", bpe=spec, model=given.model)
        if spec.path is not None:
            return TokenizerStage(name="tokenizer", bpe=spec)
        mixture = self.stages[0].mixture if spec.mixture is None else spec.mixture
        return TokenizerStage(name="tokenizer", bpe=spec, mixture=mixture)

    @property
    def ladder(self) -> tuple[StageKind, ...]:
        """Every stage in climbing order, the tokenizer's first."""
        return (self.tokenizer_stage, *self.stages)


def load(path: Path, overrides: Sequence[str] = (), *, scale: float = 1.0) -> Recipe:
    """The recipe in a YAML or JSON file, scaled down if so asked, then with `--set` overrides put
    in: `stages.base.train.tokens=4e6`. What is set is not scaled.

    Raises:
        RecipeError: one line `file:line: place: reason` for each thing that is wrong, or the scale
            is not above 0 and up to 1.
    """
    spelled = read(path)
    if scale == 1:
        return understand(spelled, overrides)
    smaller = replace(spelled, value=scaled(understand(spelled), scale))
    return as_given(understand(smaller, overrides))


def as_given(recipe: Recipe) -> Recipe:
    """The scaled recipe with the shape and the tokenizer of the model it goes on from, where that
    is here: a model has the size it has."""
    given = given_model(recipe.stages)
    if given is None or given.model is None or not given.model.exists():
        return recipe
    model, tokenizer = spec_of(given.model)
    length = min(model.sequence_length, recipe.model.sequence_length)
    kept = {"mixture": recipe.tokenizer.mixture, "corpus_bytes": recipe.tokenizer.corpus_bytes}
    return recipe.model_copy(
        update={
            "model": model.model_copy(update={"sequence_length": length}),
            "tokenizer": tokenizer.model_copy(update=kept),
        }
    )


def loads(text: str, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """The recipe that `text` spells in YAML; otherwise as `load`.

    Raises:
        RecipeError: as `load`, with `where` for the file.
    """
    return understand(parse(text, where), overrides)


def understand(spelled: Spelled, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a file's value means, once overridden.

    Raises:
        RecipeError: as `load`.
    """
    value, origins = spelling.overridden(spelled.value, overrides)
    if not isinstance(value, dict):
        raise RecipeError(f"{spelled.where}:1: a recipe is a mapping with 'name', 'stages' …")
    try:
        value, count = start.expanded(value)
    except (DataError, RecipeError, StoreError) as problem:
        at = ("model", start.FROM)
        raise RecipeError(_located(spelled, origins, at, str(problem))) from None
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as problem:
        found = spelling.complaints(problem, Recipe, value)
    else:
        found = spelling.changed_kinds(value, recipe) or sense.complaints(
            recipe.tokenizer, recipe.model, recipe.stages
        )
        if not found:
            return recipe
    own = [(start.before(place, count), reason) for place, reason in found]
    lines = [_located(spelled, origins, place, reason) for place, reason in own]
    shown = list(dict.fromkeys(lines))[:ERRORS_SHOWN]
    raise RecipeError("\n".join(shown))


def _located(spelled: Spelled, origins: dict[Place, str], place: Place, reason: str) -> str:
    for depth in range(len(place), 0, -1):
        if place[:depth] in origins:
            return f"--set {origins[place[:depth]]}: {spelling.spell_place(place)}: {reason}"
    where = f"{spelled.where}:{spelled.line(place)}"
    return f"{where}: {spelling.spell_place(place)}: {reason}" if place else f"{where}: {reason}"


def spell(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every field of every part, defaults included."""
    return spell_yaml(spelling.whole(recipe))


def schema() -> dict[str, Any]:
    """The JSON Schema of recipes, for editors."""
    whole = Recipe.model_json_schema()
    model = whole["$defs"][ModelSpec.__name__]
    model["properties"][start.FROM] = {"type": "string", "description": start.HELP}
    model.setdefault("anyOf", [{"required": model.pop("required", [])}])
    given = {"required": [start.FROM]}
    model["anyOf"].append(given)
    whole["required"].remove("tokenizer")
    whole["anyOf"] = [{"required": ["tokenizer"]}, {"properties": {"model": given}}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | whole
