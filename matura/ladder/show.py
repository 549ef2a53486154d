"""What will be trained, or was: the mixture with its token counts, and one batch of it.

The batch is the first that training reads, made by the same code; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from matura.core.errors import RecipeError, StoreError
from matura.core.leaves import did_you_mean
from matura.core.store import Folder, latest
from matura.data.mixture import Feed
from matura.data.mixture import Part as FeedPart
from matura.ladder.recipe import Recipe, load
from matura.ladder.transcript import RECIPE, rows
from matura.ladder.trial import Trial, try_out
from matura.stages.parts import Train
from matura.stages.stage import StageKind
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

BATCH_ROWS = 4


@dataclass(frozen=True)
class PartSeen:
    """A part of a stage's mixture."""

    name: str
    share_asked: float
    share_got: float | None
    """None before it was trained."""
    tokens: int
    """That the stage sees of it."""
    tokens_available: int
    trained_share: float | None
    """Of its tokens; None for what is replayed from a stage that is only sampled."""
    exact: bool
    """Whether `tokens_available` is counted, not estimated from a sample."""


@dataclass(frozen=True)
class StageSeen:
    """A stage with its parts."""

    name: str
    kind: str
    tokens: int
    parts: tuple[PartSeen, ...]


@dataclass(frozen=True)
class BatchSeen:
    """Rows as training reads them: plain lists."""

    stage: str
    ids: list[list[int]]
    weights: list[list[float]]
    segments: list[list[int]]


@dataclass(frozen=True)
class Shown:
    """All that `show` shows of a recipe or a run."""

    name: str
    vocab_size: int
    sampled: bool
    """Whether counts and the tokenizer come from a sample."""
    stages: tuple[StageSeen, ...]
    batch: BatchSeen
    template: Template

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "sampled": self.sampled,
            "stages": [
                {**vars(stage), "parts": [vars(part) for part in stage.parts]}
                for stage in self.stages
            ],
            "batch": vars(self.batch),
        }


def show_recipe(path: Path, overrides: Sequence[str] = (), stage: str | None = None) -> Shown:
    """A recipe's mixtures and the first batch of one stage, from a sample of its sources.

    Raises:
        RecipeError: the recipe is wrong, or has no such stage.
        DataError: a source is wrong.
    """
    recipe = load(path, overrides)
    chosen = _stage(recipe, stage, recipe.stages[0].name)
    with TemporaryDirectory(prefix="matura-show-") as folder:
        trial = try_out(recipe, Path(folder))
        parts = list(sampled_parts(recipe, chosen, trial))
        return Shown(
            name=recipe.name,
            vocab_size=trial.template.tokenizer.vocab_size,
            sampled=True,
            stages=tuple(planned(recipe, kind, trial) for kind in recipe.stages),
            batch=_batch(chosen, parts, recipe, trial.template, most=_reach(parts)),
            template=trial.template,
        )


def show_run(run: Path, stage: str | None = None) -> Shown:
    """A run's mixtures as they were trained and the first batch of one stage, its last if none
    is named.

    Raises:
        StoreError: no run there, or not one stage of it has data.
        RecipeError: no such stage.
    """
    made = {row.name: row.folder for row in rows(run)}
    recipe = load(run / RECIPE)
    with_data = [kind.name for kind in recipe.stages if kind.name in made and kind.mixture]
    if not with_data or "tokenizer" not in made:
        raise StoreError(f"{run}: no stage is made yet; show its recipe instead")
    chosen = _stage(recipe, stage, with_data[-1])
    if chosen.name not in made:
        raise StoreError(f"{run}: {chosen.name} is not made yet; made are {', '.join(with_data)}")
    template = Template(Tokenizer.load(made["tokenizer"].path / "model"))
    parts = _trained_parts(run, made[chosen.name], chosen, template)
    return Shown(
        name=run.resolve().name,
        vocab_size=template.tokenizer.vocab_size,
        sampled=False,
        stages=tuple(
            _made(kind, made[kind.name]) for kind in recipe.stages if kind.name in with_data
        ),
        batch=_batch(chosen, parts, recipe, template),
        template=template,
    )


def _stage(recipe: Recipe, name: str | None, otherwise: str) -> StageKind:
    stages = {stage.name: stage for stage in recipe.stages}
    if name is not None and name not in stages:
        raise RecipeError(f"--stage {name}: no such stage{did_you_mean(name, stages)}")
    return stages[name or otherwise]


def trained_tokens(stage: StageKind) -> int:
    """How many tokens the stage asks for."""
    train = getattr(stage, "train", None)
    return train.tokens if isinstance(train, Train) else 0


def planned(recipe: Recipe, stage: StageKind, trial: Trial) -> StageSeen:
    """A stage with its parts and replays before it is trained."""
    total = trained_tokens(stage)
    parts = []
    for part in stage.mixture:
        tried = trial.parts[stage.name, part.title]
        parts.append(
            PartSeen(
                part.title,
                part.share,
                None,
                round(part.share * total),
                tried.tokens,
                tried.trained_share,
                tried.exact,
            )
        )
    for replay in stage.replay:
        below = next(kind for kind in recipe.stages if kind.name == replay.stage)
        whole = sum(part.share for part in below.mixture)
        for part in below.mixture:
            tried = trial.parts[below.name, part.title]
            share = replay.share * part.share / whole
            parts.append(
                PartSeen(
                    f"replay:{replay.stage}.{part.title}",
                    share,
                    None,
                    round(share * total),
                    tried.tokens,
                    tried.trained_share,
                    tried.exact,
                )
            )
    return StageSeen(stage.name, stage.kind, total, tuple(parts))


def _made(stage: StageKind, folder: Folder) -> StageSeen:
    """A stage's parts as its record has them."""
    try:
        numbers = folder.record["numbers"]
        mixture: Mapping[str, Any] = numbers["mixture"]["parts"]
        parts = tuple(
            PartSeen(
                name,
                float(part["share_asked"]),
                float(part["share_got"]),
                int(part["tokens"]),
                int(part["tokens_available"]),
                part["trained_tokens"] / max(1, part["tokens"]),
                exact=True,
            )
            for name, part in mixture.items()
        )
        return StageSeen(stage.name, stage.kind, int(numbers["tokens"]), parts)
    except (KeyError, TypeError) as problem:
        raise StoreError(f"{folder.path}: its record has no {problem} of a mixture") from problem


def sampled_parts(recipe: Recipe, stage: StageKind, trial: Trial) -> Iterator[FeedPart]:
    """The stage's parts and replays as samples, as often repeated as it takes."""
    for part in planned(recipe, stage, trial).parts:
        owner, _, title = part.name.removeprefix("replay:").partition(".")
        replayed = part.name.startswith("replay:")
        shard = trial.parts[(owner, title) if replayed else (stage.name, part.name)].shard
        yield FeedPart(part.name, shard, part.share_asked, max_repeats=1e9)


def _trained_parts(
    run: Path, folder: Folder, stage: StageKind, template: Template
) -> list[FeedPart]:
    """The shards that the stage was trained on, with the shares it asked for."""
    parts = []
    for seen in _made(stage, folder).parts:
        place, title = folder.path, seen.name
        if title.startswith("replay:"):
            owner, _, title = title.removeprefix("replay:").partition(".")
            at = folder.record.get("asked", {}).get("parents", {}).get(owner)
            found = run / at if at else latest(run, owner)
            if found is None:
                raise StoreError(f"{run}: {owner}, which {stage.name} replays, is not there")
            place = found
        shard = Shard.open(place / "data" / f"{title}.train.shard", template.tokenizer.sha256)
        parts.append(FeedPart(seen.name, shard, seen.share_asked, max_repeats=1e9))
    return parts


def _reach(parts: Sequence[FeedPart]) -> int:
    """Tokens that samples can make up: they need not hold as many as the stage trains on."""
    return max(1, round(4 * min(part.shard.tokens / part.share for part in parts)))


def _batch(
    stage: StageKind,
    parts: Sequence[FeedPart],
    recipe: Recipe,
    template: Template,
    *,
    most: int | None = None,
) -> BatchSeen:
    """The first rows of the stage."""
    tokens = trained_tokens(stage)
    feed = Feed(
        parts,
        tokens=max(1, min(tokens, most or tokens)),
        row_length=recipe.model.sequence_length + 1,
        pad_id=template.pad_id,
        seed=recipe.seed,
        stage=stage.name,
    )
    found = feed.at(np.arange(min(BATCH_ROWS, feed.rows)))
    return BatchSeen(
        stage.name,
        found.ids_NL.tolist(),
        found.weights_NL.tolist(),
        found.segments_NL.tolist(),
    )
