"""What will be trained, or was: the mixture with its token counts, and one batch of it.

The batch is the first that training reads, made by the same code; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from matura.ladder.sourced import SourceSeen, counted, source_seen
from matura.ladder.transcript import RECIPE, rows
from matura.ladder.trial import Trial, Tried, try_out
from matura.stages.given import Given
from matura.stages.horizon import horizon, laid_out, policy_of
from matura.stages.parts import Train
from matura.stages.stage import StageKind
from matura.text.folder import template_in
from matura.text.pack import Counted, pieces
from matura.text.shards import Shard
from matura.text.template import Template

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
    source: SourceSeen | None = None
    """The source's own report; None for what is replayed."""

    @property
    def seen(self) -> float:
        """How often its items are seen."""
        return self.tokens / max(1, self.tokens_available)


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

    def counts(self) -> dict[str, int]:
        """Tokens that are trained, only read, and padding; and how many segments there are."""
        pairs = [
            pair
            for rows in zip(self.weights, self.segments, strict=True)
            for pair in zip(*rows, strict=True)
        ]
        padding = sum(not segment for _, segment in pairs)
        trained = sum(weight != 0 for weight, _ in pairs)
        return {
            "trained": trained,
            "read only": len(pairs) - trained - padding,
            "padding": padding,
            "segments": sum(len(set(row) - {0}) for row in self.segments),
        }


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
            "stages": [asdict(stage) for stage in self.stages],
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
            batch=_batch(
                chosen,
                parts,
                recipe,
                trial.template,
                min(planned(recipe, chosen, trial).tokens, _reach(parts)),
            ),
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
    given = {kind.name for kind in recipe.stages if isinstance(kind, Given)}
    with_data = [kind.name for kind in recipe.stages if kind.name in made and kind.mixture]
    with_data = [name for name in with_data if name not in given]
    if not with_data or "tokenizer" not in made:
        raise StoreError(f"{run}: no stage is made yet; show its recipe instead")
    chosen = _stage(recipe, stage, with_data[-1])
    if chosen.name not in made:
        raise StoreError(f"{run}: {chosen.name} is not made yet; made are {', '.join(with_data)}")
    template = template_in(made["tokenizer"].path / "model")
    parts = _trained_parts(run, made[chosen.name], chosen, recipe, template)
    asked = _mixture(made[chosen.name])["tokens_asked"]
    return Shown(
        name=run.resolve().name,
        vocab_size=template.tokenizer.vocab_size,
        sampled=False,
        stages=tuple(
            _kept(kind, made[kind.name]) if kind.name in given else _made(kind, made[kind.name])
            for kind in recipe.stages
            if kind.name in (*with_data, *given) and kind.name in made
        ),
        batch=_batch(chosen, parts, recipe, template, int(asked)),
        template=template,
    )


def _stage(recipe: Recipe, name: str | None, otherwise: str) -> StageKind:
    stages = {stage.name: stage for stage in recipe.stages}
    if name is not None and name not in stages:
        raise RecipeError(f"--stage {name}: no such stage{did_you_mean(name, stages)}")
    return stages[name or otherwise]


def train_of(stage: StageKind) -> Train:
    """How the stage trains; as usual, where it says nothing."""
    train = getattr(stage, "train", None)
    return train if isinstance(train, Train) else Train()


def planned(recipe: Recipe, stage: StageKind, trial: Trial) -> StageSeen:
    """A stage with its parts and replays before it is trained."""
    train = train_of(stage)
    tried = [trial.parts[stage.name, part.title] for part in stage.mixture]
    fits = [_sample_cut(one, recipe, stage.kind, train) for one in tried]
    sizes = [_teachable(one, cut) for one, cut in zip(tried, fits, strict=True)]
    shares = [part.share for part in stage.mixture]
    own = list(zip(shares, sizes, strict=True))
    total = horizon(train, own) if hasattr(stage, "train") else 0
    parts = [
        PartSeen(
            part.title,
            part.share,
            None,
            round(part.share * total),
            size,
            one.trained_share,
            one.exact,
            source_seen(one.counted, {"dropped": cut.dropped, "cut": cut.cut}),
        )
        for part, one, cut, size in zip(stage.mixture, tried, fits, sizes, strict=True)
    ]
    for replay in stage.replay:
        below = next(kind for kind in recipe.stages if kind.name == replay.stage)
        whole = sum(part.share for part in below.mixture)
        for part in below.mixture:
            one = trial.parts[below.name, part.title]
            share = replay.share * part.share / whole
            parts.append(
                PartSeen(
                    f"replay:{replay.stage}.{part.title}",
                    share,
                    None,
                    round(share * total),
                    _teachable(one, _sample_cut(one, recipe, below.kind, train)),
                    one.trained_share,
                    one.exact,
                )
            )
    return StageSeen(stage.name, stage.kind, total, tuple(parts))


def _sample_cut(tried: Tried, recipe: Recipe, kind: str, train: Train) -> Counted:
    """What of a sample fits into rows, and what does not."""
    _, counted = pieces(
        tried.shard.lengths,
        recipe.model.sequence_length + 1,
        policy_of(kind),
        weights=np.asarray(tried.shard.weights),
        min_tokens=train.min_tokens,
    )
    return counted


def _teachable(tried: Tried, cut: Counted) -> int:
    """Tokens of the whole training split that rows can hold, as far as the sample tells."""
    return round(tried.tokens * cut.tokens_kept / max(1, cut.tokens_in))


def _mixture(folder: Folder) -> Mapping[str, Any]:
    """What a stage's record says of its mixture.

    Raises:
        StoreError: nothing.
    """
    try:
        return dict(folder.record["numbers"]["mixture"])
    except (KeyError, TypeError) as problem:
        raise StoreError(f"{folder.path}: its record has no {problem} of a mixture") from problem


def _made(stage: StageKind, folder: Folder) -> StageSeen:
    """A stage's parts as its record has them."""
    try:
        numbers = folder.record["numbers"]
        mixture: Mapping[str, Any] = _mixture(folder)["parts"]
        built = counted(folder.path)
        parts = tuple(
            PartSeen(
                name,
                float(part["share_asked"]),
                float(part["share_got"]),
                int(part["tokens"]),
                int(part["tokens_available"]),
                part["trained_tokens"] / max(1, part["tokens"]),
                exact=True,
                source=source_seen(built[name], part) if name in built else None,
            )
            for name, part in mixture.items()
        )
        return StageSeen(stage.name, stage.kind, int(numbers["tokens"]), parts)
    except (KeyError, TypeError) as problem:
        raise StoreError(f"{folder.path}: its record has no {problem} of a mixture") from problem


def _kept(stage: StageKind, folder: Folder) -> StageSeen:
    """What is given, of which nothing was trained on here."""
    parts = tuple(
        PartSeen(
            name,
            float(told["share"]),
            None,
            0,
            int(told["shards"]["train"]["tokens"]),
            float(told["trained_share"]),
            exact=True,
            source=source_seen(told, {}),
        )
        for name, told in counted(folder.path).items()
    )
    return StageSeen(stage.name, stage.kind, 0, parts)


def sampled_parts(recipe: Recipe, stage: StageKind, trial: Trial) -> Iterator[FeedPart]:
    """The stage's parts and replays as samples, as often repeated as it takes."""
    for part in planned(recipe, stage, trial).parts:
        owner, title = _owner(part.name, stage)
        shard = trial.parts[owner, title].shard
        yield _feed_part(part, shard, owner, recipe, stage)


def _owner(name: str, stage: StageKind) -> tuple[str, str]:
    """The stage that made a part's data, and what it calls them."""
    if not name.startswith("replay:"):
        return stage.name, name
    owner, _, title = name.removeprefix("replay:").partition(".")
    return owner, title


def _feed_part(
    part: PartSeen, shard: Shard, owner: str, recipe: Recipe, stage: StageKind
) -> FeedPart:
    kind = next(below.kind for below in recipe.stages if below.name == owner)
    train = train_of(stage)
    return laid_out(part.name, shard, part.share_asked, kind=kind, train=train, max_repeats=1e9)


def _trained_parts(
    run: Path, folder: Folder, stage: StageKind, recipe: Recipe, template: Template
) -> list[FeedPart]:
    """The shards that the stage was trained on, with the shares it asked for."""
    parts = []
    for seen in _made(stage, folder).parts:
        place = folder.path
        owner, title = _owner(seen.name, stage)
        if owner != stage.name:
            at = folder.record.get("asked", {}).get("parents", {}).get(owner)
            found = run / at if at else latest(run, owner)
            if found is None:
                raise StoreError(f"{run}: {owner}, which {stage.name} replays, is not there")
            place = found
        shard = Shard.open(place / "data" / f"{title}.train.shard", template.tokenizer.sha256)
        parts.append(_feed_part(seen, shard, owner, recipe, stage))
    return parts


def _reach(parts: Sequence[FeedPart]) -> int:
    """Tokens that samples can make up: they need not hold as many as the stage trains on."""
    return max(1, round(4 * min(part.shard.tokens / part.share for part in parts)))


def _batch(
    stage: StageKind,
    parts: Sequence[FeedPart],
    recipe: Recipe,
    template: Template,
    tokens: int,
) -> BatchSeen:
    """The first rows of the stage."""
    feed = Feed(
        parts,
        tokens=max(1, tokens),
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
