"""What a climb will take, before it is made: steps, time, memory, disk and money.

Counts follow from the recipe and a sample of its data; times from `calibrate`. Earlier exams are
counted again after every stage, for they are sat again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from matura.core.errors import NotHereError, RecipeError
from matura.core.ledger import Ledger, spell_count
from matura.ladder.among import ALONE, Among, among
from matura.ladder.calibrate import Kind, Speed, batch_rows, calibrate, shape_of
from matura.ladder.hardware import HERE, by_sheet, machine_named
from matura.ladder.papers import Paper, papers
from matura.ladder.recipe import Recipe
from matura.ladder.show import StageSeen, planned
from matura.ladder.trial import Trial, try_out
from matura.ladder.warnings import few_tokens, seen_too_often, too_large, too_long_ones
from matura.ladder.ways import ways_of
from matura.stages import parent
from matura.stages.dial import ROWS_FILLED, told
from matura.stages.evaluating import VALIDATION_ROWS
from matura.stages.given import Given, given_model
from matura.stages.horizon import flops_per_token, horizon, learning, plan_fit
from matura.stages.origin import refuse_other_shape
from matura.stages.parts import Train
from matura.stages.stage import StageKind

if TYPE_CHECKING:
    from matura.learn.compute import Compute
    from matura.models.decoder import DecoderConfig

STARTUP_S = 2.5
"""Starting Python and torch, checking the folder, writing the first records."""
STAGE_S = 1.0
"""Loading, laying out rows, hashing inputs and what was made: apart from what is listed."""
CHECKPOINTS_KEPT = 3
"""The last two and the best."""
STATE_TIMES = 2.5
"""A checkpoint's size in weights: they, Muon's one moment or AdamW's two, and some."""
_TOKENIZER_BYTES = 400_000
TOKEN_BYTES = 6
"""On disk: an id of two bytes and a weight of four."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take."""

    name: str
    kind: str
    tokens: int
    steps: int
    batch_rows: int
    evaluations: int
    exams: tuple[str, ...]
    exams_again: tuple[str, ...]
    """Of earlier stages."""
    flops: float
    compiled: bool
    seconds: Mapping[str, float]
    """By what it is spent on: data, training, evaluating, saving, exams, rest."""
    disk: Mapping[str, int]
    """Bytes by what they are: downloads, tokens, model, checkpoints, rest."""
    seen: Mapping[str, float] = field(default_factory=dict)
    """How often each source's items are seen, replayed ones included."""
    epoch_tokens: int = 0
    """After how many tokens its own data are seen once, replay on top by its share."""
    batch_tokens: int = 0
    trained_parameters: int = 0
    """All of the model's, or its adapters'."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return sum(self.seconds.values())

    @property
    def disk_bytes(self) -> int:
        """All of it."""
        return sum(self.disk.values())

    @property
    def epoch_steps(self) -> int:
        """The steps of an epoch, were every row full."""
        return round(self.epoch_tokens / max(1, self.batch_tokens))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, what follows from others included."""
        told = {name: getattr(self, name) for name in ("total_s", "disk_bytes", "epoch_steps")}
        return asdict(self) | told


@dataclass(frozen=True)
class Turned:
    """A place that a model's depth speaks of."""

    place: str
    value: Any
    derived: Any
    """What the depth gives; another value was stated."""


@dataclass(frozen=True)
class Plan:
    """What a whole climb will take."""

    recipe: str
    parameters: int
    vocab_size: int
    hardware: str
    measured: bool
    compute: str
    calibration_s: float
    stages: tuple[StagePlan, ...]
    seconds: float
    memory_bytes: int
    disk_bytes: int
    price_per_hour: float | None
    warnings: tuple[str, ...]
    absent: tuple[str, ...] = ()
    """What is not here, and what was taken for it."""
    dial: tuple[Turned, ...] = ()
    """What follows from the model's depth."""
    inherited: tuple[str, ...] = ()
    """What stages take from those below them."""

    others_bytes: int = 0
    """Memory of each process but the first."""
    among: Among = ALONE

    @property
    def cost(self) -> float | None:
        """Money, in the price's own currency."""
        return self._paid(self.seconds)

    @property
    def data_s(self) -> float:
        """What reading and encoding takes, which no accelerator makes faster."""
        return sum(stage.seconds.get("data", 0.0) for stage in self.stages)

    @property
    def cost_without_data(self) -> float | None:
        """The same if data are made ready before, elsewhere (`matura data prepare`)."""
        return self._paid(self.seconds - self.data_s)

    def _paid(self, seconds: float) -> float | None:
        return None if self.price_per_hour is None else seconds / 3600 * self.price_per_hour

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            **asdict(self),
            "stages": [stage.as_dict() for stage in self.stages],
            "tokens": sum(stage.tokens for stage in self.stages),
            "flops": sum(stage.flops for stage in self.stages),
            "data_s": self.data_s,
            "cost": self.cost,
            "cost_without_data": self.cost_without_data,
        }


def plan(
    recipe: Recipe,
    *,
    hardware: str = HERE,
    price_per_hour: float | None = None,
    disk: Path = Path(),
    ledger: Ledger | None = None,
    compiling: bool = False,
    processes: int | None = None,
    shard: bool = False,
) -> Plan:
    """The whole plan; nothing is written but in a temporary folder. Of several `processes`, memory
    is planned; times are those of one, but for accelerators by data sheet.

    Raises:
        RecipeError: no such hardware or number of processes, shares that the data cannot fill, or a
            patience that could never end a stage early.
        DataError: a source is wrong, or yields nothing.
    """
    rented = machine_named(hardware)
    group = among(processes, shard=shard, accelerators=1 if rented is None else rented.count)
    if price_per_hour is not None and not price_per_hour >= 0:
        raise RecipeError(f"--price {price_per_hour}: expected a number from 0 up")
    ledger = ledger or Ledger(mode="quiet")
    began = time.monotonic()
    with TemporaryDirectory(prefix="matura-plan-") as folder:
        ledger.say("plan: reading a sample of every source")
        trial = try_out(recipe, Path(folder), "stand in")
        seen = {stage.name: planned(recipe, stage, trial) for stage in recipe.stages}
        given = given_model(recipe.stages)
        missing = tuple(_missing(recipe, trial))
        config = shape_of(recipe, recipe.tokenizer.vocab_size if given else trial.vocab_size)
        ways = ways_of(recipe, seen, config, hardware)
        ledger.say("plan: timing a few steps and answers")
        if rented is not None:
            speed = by_sheet(rented, recipe, config, shard=shard)
        else:
            speed = calibrate(
                recipe,
                config,
                trial,
                ways,
                Path(folder),
                hardware,
                compiling=compiling,
                among=group,
            )
        sheets = papers(recipe, trial)
        stages = tuple(_stages(recipe, trial, seen, config, speed, sheets, ways))
    disk_bytes = sum(stage.disk_bytes for stage in stages)
    if price_per_hour is None and rented is not None:
        price_per_hour = rented.dollars_per_hour
    return Plan(
        recipe=recipe.name,
        parameters=config.parameters,
        vocab_size=config.vocab_size,
        hardware=hardware,
        measured=speed.measured,
        compute=speed.compute,
        calibration_s=time.monotonic() - began,
        stages=stages,
        seconds=STARTUP_S + sum(stage.total_s for stage in stages),
        memory_bytes=speed.memory_bytes,
        others_bytes=speed.others_bytes,
        among=group,
        disk_bytes=disk_bytes,
        price_per_hour=price_per_hour,
        warnings=(
            *seen_too_often(recipe, seen),
            *too_long_ones(seen),
            *few_tokens(recipe, seen, config),
            *too_large(disk_bytes, speed, disk, group),
        ),
        absent=missing,
        dial=tuple(Turned(*line) for line in told(recipe)),
        inherited=tuple(parent.told(recipe.stages)),
    )


def _missing(recipe: Recipe, trial: Trial) -> Iterator[str]:
    """A line for each thing that is not here yet, and what the plan took for it.

    Raises:
        RecipeError: a given model is here and is not what the recipe says.
    """
    for stage in recipe.stages:
        if isinstance(stage, Given) and stage.model is not None:
            try:
                refuse_other_shape(stage.name, stage.model, recipe.model)
            except NotHereError:
                yield f"{stage.name}: the model {stage.model}: planned from the recipe's 'model'"
        for part in stage.mixture:
            tried = trial.parts[stage.name, part.title]
            if tried.declared is not None:
                about = f"{spell_count(tried.declared)} tokens"
                yield f"{stage.name}: {part.title}: planned from its token_budget of {about}"


def _stages(
    recipe: Recipe,
    trial: Trial,
    seen: Mapping[str, StageSeen],
    config: DecoderConfig,
    speed: Speed,
    sheets: Mapping[tuple[str, str], Paper],
    ways: Sequence[tuple[StageKind, Train, Compute]],
) -> Iterator[StagePlan]:
    """Every stage's plan in climbing order, the tokenizer's first."""
    seconds = {"data": trial.tokenizer_seconds, "rest": STAGE_S}
    yield _untrained("tokenizer", "tokenizer", seconds, {"model": _TOKENIZER_BYTES})
    computes = {stage.name: compute for stage, _, compute in ways}
    warm: set[Kind] = set()
    earlier: list[tuple[str, str, int]] = []
    for stage in recipe.stages:
        own = [(stage.name, exam.exam, exam.n) for exam in stage.exams]
        names = [name for _, name, _ in own]
        again = [sat for sat in earlier if sat[1] not in names]
        train = getattr(stage, "train", None)
        if isinstance(stage, Given):
            data = [trial.parts[stage.name, part.title] for part in stage.mixture]
            model = {"model": 4 * config.parameters} if stage.has_model else {}
            spent = {
                "data": sum(tried.seconds for tried in data),
                "exams": sum(sheets[at, name].seconds(n, speed) for at, name, n in own),
                "rest": STAGE_S,
            }
            yield _untrained(stage.name, stage.kind, spent, _data_bytes(stage, trial) | model)
        if isinstance(train, Train):
            yield _stage(
                recipe, stage, train, trial, seen[stage.name], config, speed, sheets,
                computes[stage.name], warm, [*own, *again],
            )  # fmt: skip
        earlier = [*again, *own]


def _untrained(
    name: str, kind: str, seconds: Mapping[str, float], disk: Mapping[str, int]
) -> StagePlan:
    """A stage that takes no step."""
    return StagePlan(name, kind, 0, 0, 0, 0, (), (), 0.0, False, seconds, disk)


def _data_bytes(stage: StageKind, trial: Trial) -> dict[str, int]:
    """What is downloaded and what is made of it. Mixing copies nothing: rows point into shards."""
    tried = [(part, trial.parts[stage.name, part.title]) for part in stage.mixture]
    away = sum(one.bytes for part, one in tried if getattr(part.source, "remote", False))
    return {"downloads": away, "tokens": TOKEN_BYTES * sum(one.tokens for _, one in tried)}


def _stage(
    recipe: Recipe,
    stage: StageKind,
    train: Train,
    trial: Trial,
    seen: StageSeen,
    config: DecoderConfig,
    speed: Speed,
    sheets: Mapping[tuple[str, str], Paper],
    compute: Compute,
    warm: set[Kind],
    sat: Sequence[tuple[str, str, int]],
) -> StagePlan:
    length, rows = recipe.model.sequence_length, batch_rows(train, recipe)
    feed_rows = max(1, round(seen.tokens / ((length + 1) * ROWS_FILLED)))
    settings = plan_fit(train, feed_rows, rows, length, stage=stage.name)
    evaluations = len(settings.evaluate_at)
    kind = (rows, compute.compiled, train.lora)
    training = settings.steps * speed.step[kind] + (0.0 if kind in warm else speed.warmup[kind])
    warm.add(kind)
    sources = len(stage.mixture) + sum(
        len(below.mixture) for replay in stage.replay for below in recipe.stages
        if below.name == replay.stage
    )  # fmt: skip
    select = sum(
        sheets[stage.name, exam.exam].seconds(exam.select_n, speed) for exam in stage.exams
    )
    saves = evaluations + training / train.checkpoint_every_s
    own = {exam.exam for exam in stage.exams}
    model_bytes, learnt = 4 * config.parameters, learning(train, config)
    data = [trial.parts[stage.name, part.title] for part in stage.mixture]
    return StagePlan(
        name=stage.name,
        kind=stage.kind,
        tokens=seen.tokens,
        steps=settings.steps,
        batch_rows=rows,
        evaluations=evaluations,
        exams=tuple(exam.exam for exam in stage.exams),
        exams_again=tuple(name for _, name, _ in sat if name not in own),
        flops=flops_per_token(train, config, length) * seen.tokens,
        compiled=compute.compiled,
        seconds={
            "data": sum(tried.seconds for tried in data),
            "training": training,
            "evaluating": evaluations * (sources * VALIDATION_ROWS * speed.validation_row + select),
            "saving": saves * speed.save,
            "exams": sum(sheets[owner, name].seconds(n, speed) for owner, name, n in sat),
            "rest": STAGE_S,
        },
        disk=_data_bytes(stage, trial)
        | {
            "model": model_bytes,
            "checkpoints": round(CHECKPOINTS_KEPT * STATE_TIMES * 4 * learnt),
            **({} if train.lora is None else {"adapter": 4 * learnt}),
            "rest": round(2e3 * sum(n for _, _, n in sat)) + _TOKENIZER_BYTES,
        },
        seen={part.name: part.seen for part in seen.parts},
        epoch_tokens=horizon(
            train.model_copy(update={"epochs": 1.0, "tokens": None}),
            [(part.share_asked, part.tokens_available) for part in seen.parts[: len(data)]],
        ),
        batch_tokens=rows * length,
        trained_parameters=learnt,
    )
