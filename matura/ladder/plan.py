"""What a climb will take, before it is made: steps, time, memory, disk and money.

Counts follow from the recipe and a sample of its data; times from `calibrate`. Earlier exams are
counted again after every stage, for they are sat again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger
from matura.data.mixture import SHARE_SLACK
from matura.ladder.calibrate import Speed, batch_rows, calibrate, shape_of
from matura.ladder.hardware import HERE, SHEETS, by_sheet
from matura.ladder.papers import Paper, papers
from matura.ladder.recipe import Recipe
from matura.ladder.show import StageSeen, planned
from matura.ladder.trial import Trial, try_out
from matura.stages.evaluating import VALIDATION_ROWS
from matura.stages.horizon import flops_so_far, often, plan_fit
from matura.stages.parts import Train
from matura.stages.stage import Context, StageKind

if TYPE_CHECKING:
    from matura.learn.compute import Compute
    from matura.models.decoder import DecoderConfig

STARTUP_S = 2.5
"""Starting Python and torch, checking the folder, writing the first records."""
STAGE_S = 1.0
"""Loading, laying out rows, hashing inputs and what was made: apart from what is listed."""
ROWS_FILLED = 0.985
"""Of a packed row's tokens; measured 0.97 to 0.999."""
ENOUGH_PER_PARAMETER = 20.0
"""Tokens: Hoffmann et al. 2022; a base far below stays weak (PITFALLS C-28)."""
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
    disk_bytes: int
    seen: Mapping[str, float] = field(default_factory=dict)
    """How often each source's items are seen, replayed ones included."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return sum(self.seconds.values())


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

    @property
    def cost(self) -> float | None:
        """Money, in the price's own currency."""
        return None if self.price_per_hour is None else self.seconds / 3600 * self.price_per_hour

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            **asdict(self),
            "stages": [{**asdict(stage), "total_s": stage.total_s} for stage in self.stages],
            "tokens": sum(stage.tokens for stage in self.stages),
            "flops": sum(stage.flops for stage in self.stages),
            "cost": self.cost,
        }


def plan(
    recipe: Recipe,
    *,
    hardware: str = HERE,
    price_per_hour: float | None = None,
    disk: Path = Path(),
    ledger: Ledger | None = None,
    compiling: bool = False,
) -> Plan:
    """The whole plan; nothing is written but in a temporary folder.

    Raises:
        RecipeError: no such hardware, shares that the data cannot fill, or a patience that could
            never end a stage early.
        DataError: a source is wrong, or yields nothing.
    """
    if hardware not in (HERE, "cpu", *SHEETS):
        known = did_you_mean(hardware, (HERE, "cpu", *SHEETS))
        raise RecipeError(f"--hardware {hardware}: not known{known}")
    if price_per_hour is not None and not price_per_hour >= 0:
        raise RecipeError(f"--price {price_per_hour}: expected a number from 0 up")
    ledger = ledger or Ledger(mode="quiet")
    began = time.monotonic()
    with TemporaryDirectory(prefix="matura-plan-") as folder:
        ledger.say("plan: reading a sample of every source")
        trial = try_out(recipe, Path(folder))
        seen = {stage.name: planned(recipe, stage, trial) for stage in recipe.stages}
        config = shape_of(recipe, trial.template.tokenizer.vocab_size)
        ways = _ways(recipe, seen, config, hardware)
        ledger.say("plan: timing a few steps and answers")
        if hardware in SHEETS:
            speed = by_sheet(hardware, recipe, config)
        else:
            speed = calibrate(recipe, trial, ways, Path(folder), hardware, compiling=compiling)
        sheets = papers(recipe, trial)
        stages = tuple(_stages(recipe, trial, seen, config, speed, sheets, ways))
    disk_bytes = sum(stage.disk_bytes for stage in stages)
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
        disk_bytes=disk_bytes,
        price_per_hour=price_per_hour,
        warnings=(
            *_seen_too_often(recipe, seen),
            *_warnings(recipe, seen, config, disk_bytes, speed, disk),
        ),
    )


def _ways(
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
    yield StagePlan(
        "tokenizer", "tokenizer", 0, 0, 0, 0, (), (), 0.0, False, seconds, _TOKENIZER_BYTES
    )
    computes = {stage.name: compute for stage, _, compute in ways}
    warm: set[tuple[int, bool]] = set()
    earlier: list[tuple[str, str, int]] = []
    for stage in recipe.stages:
        own = [(stage.name, exam.exam, exam.n) for exam in stage.exams]
        names = [name for _, name, _ in own]
        again = [sat for sat in earlier if sat[1] not in names]
        train = getattr(stage, "train", None)
        if isinstance(train, Train):
            yield _stage(
                recipe, stage, train, trial, seen[stage.name], config, speed, sheets,
                computes[stage.name], warm, [*own, *again],
            )  # fmt: skip
        earlier = [*again, *own]


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
    warm: set[tuple[int, bool]],
    sat: Sequence[tuple[str, str, int]],
) -> StagePlan:
    length, rows = recipe.model.sequence_length, batch_rows(train, recipe)
    feed_rows = max(1, round(seen.tokens / ((length + 1) * ROWS_FILLED)))
    settings = plan_fit(train, feed_rows, rows, length, stage=stage.name)
    evaluations = len(settings.evaluate_at)
    kind = (rows, compute.compiled)
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
    model_bytes = 4 * config.parameters
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
        flops=6.0 * config.parameters * seen.tokens
        + 6.0 * config.layers * config.hidden_size * length * seen.tokens,
        compiled=compute.compiled,
        seconds={
            "data": sum(tried.seconds for tried in data),
            "training": training,
            "evaluating": evaluations * (sources * VALIDATION_ROWS * speed.validation_row + select),
            "saving": saves * speed.save,
            "exams": sum(sheets[owner, name].seconds(n, speed) for owner, name, n in sat),
            "rest": STAGE_S,
        },
        disk_bytes=round(
            model_bytes
            + CHECKPOINTS_KEPT * STATE_TIMES * model_bytes
            + TOKEN_BYTES * sum(tried.tokens for tried in data)
            + 2e3 * sum(n for _, _, n in sat)
            + _TOKENIZER_BYTES
        ),
        seen={part.name: part.seen for part in seen.parts},
    )


def _seen_too_often(recipe: Recipe, seen: Mapping[str, StageSeen]) -> Iterator[str]:
    """What will be refused, what is learnt by heart, and epochs that leave no room for the rest."""
    for stage in recipe.stages:
        limits = [part.max_repeats for part in stage.mixture]
        for replay in stage.replay:
            below = next(kind for kind in recipe.stages if kind.name == replay.stage)
            limits += [replay.max_repeats] * len(below.mixture)
        found = seen[stage.name]
        fine: dict[str, float] = {}
        for part, limit in zip(found.parts, limits, strict=True):
            if part.seen > limit * (1 + SHARE_SLACK):
                yield (
                    f"{stage.name}: {part.name} is to be seen {part.seen:.1f} times, max_repeats "
                    f"is {limit:g}: it will be refused; give it more data or a smaller share"
                )
            else:
                fine[part.name] = part.seen
        yield from (f"{stage.name}: {line}" for line in often(fine))
        train = getattr(stage, "train", None)
        if isinstance(train, Train) and train.epochs is not None:
            for name, why in train.complaints(found.tokens):
                yield f"{stage.name}: train.{name}: {why}: it will be refused"


def _warnings(
    recipe: Recipe,
    seen: Mapping[str, StageSeen],
    config: DecoderConfig,
    disk_bytes: int,
    speed: Speed,
    disk: Path,
) -> Iterator[str]:
    """What will be refused, or had better be known before hours are spent."""
    if isinstance(getattr(recipe.stages[0], "train", None), Train):
        each = seen[recipe.stages[0].name].tokens / config.parameters
        if each < ENOUGH_PER_PARAMETER / 2:
            yield (
                f"{recipe.stages[0].name}: {each:.1f} tokens for each parameter; general language "
                f"takes about {ENOUGH_PER_PARAMETER:.0f}, so expect a narrow model"
            )
    place = next(part for part in (disk, *disk.absolute().parents) if part.is_dir())
    free = shutil.disk_usage(place).free
    if free < disk_bytes:
        yield f"{disk}: {disk_bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
    room = SHEETS[speed.hardware].memory_bytes if speed.hardware in SHEETS else memory_there()
    if room and speed.memory_bytes > room:
        yield (
            f"{speed.memory_bytes / 1e9:.1f} GB of memory are needed, {room / 1e9:.1f} GB are "
            "there: smaller batch_tokens or a smaller model"
        )


def memory_there() -> float:
    """Bytes this machine could still hand out; 0 where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024.0
    except OSError:
        return 0.0
    return 0.0
