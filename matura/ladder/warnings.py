"""What a plan warns of: what will be refused, learnt by heart, too little or too large."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from matura.core.errors import NotHereError
from matura.data import too_long
from matura.data.mixture import SHARE_SLACK
from matura.ladder.among import ALONE, Among
from matura.ladder.calibrate import Speed
from matura.ladder.hardware import machine_named
from matura.ladder.recipe import Recipe
from matura.ladder.show import StageSeen
from matura.stages.given import given_model
from matura.stages.horizon import often
from matura.stages.parts import Train

if TYPE_CHECKING:
    from matura.models.decoder import DecoderConfig

ENOUGH_PER_PARAMETER = 20.0
"""Tokens: Hoffmann et al. 2022; a base far below stays weak."""


def seen_too_often(recipe: Recipe, seen: Mapping[str, StageSeen]) -> Iterator[str]:
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


def too_long_ones(seen: Mapping[str, StageSeen]) -> Iterator[str]:
    """What is longer than a row, what that costs of what is learnt, and whether it will be
    refused."""
    for stage in seen.values():
        for part in stage.parts:
            tally = {} if part.source is None else part.source.too_long
            sample = "" if part.exact else ", of a sample"
            if why := too_long.complaint(tally):
                yield f"{stage.name}: {part.name}{sample}: it will be refused: {why}"
            elif tally:
                yield f"{stage.name}: {part.name}{sample}: {too_long.told(tally)}"


def few_tokens(
    recipe: Recipe, seen: Mapping[str, StageSeen], config: DecoderConfig
) -> Iterator[str]:
    """What a base, trained here or given, has read too little of to be one."""
    first, given = recipe.stages[0], given_model(recipe.stages)
    trains = isinstance(getattr(first, "train", None), Train)
    known = {first.name: seen[first.name].tokens} if trains else {}
    if given is not None:
        try:
            known = {given.name: sum(given.seen_tokens().values())}
        except NotHereError:
            known = {}
    for name, tokens in known.items():
        each = tokens / config.parameters
        if tokens and each < ENOUGH_PER_PARAMETER / 2:
            had = "its model saw " if given else ""
            yield (
                f"{name}: {had}{each:.1f} tokens for each parameter; general language "
                f"takes about {ENOUGH_PER_PARAMETER:.0f}, so expect a "
                + ("weak base, that more training mends only in part" if given else "narrow model")
            )


def too_large(disk_bytes: int, speed: Speed, disk: Path, among: Among = ALONE) -> Iterator[str]:
    """What will be refused, or had better be known before hours are spent."""
    place = next(part for part in (disk, *disk.absolute().parents) if part.is_dir())
    free = shutil.disk_usage(place).free
    if free < disk_bytes:
        yield f"{disk}: {disk_bytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
    rented = machine_named(speed.hardware)
    room = memory_there() if rented is None else rented.sheet.memory_bytes
    needed = speed.memory_bytes
    if rented is None:  # all processes are on this machine
        needed += (among.processes - 1) * speed.others_bytes
    if room and needed > room:
        yield (
            f"{needed / 1e9:.1f} GB of memory are needed, {room / 1e9:.1f} GB are "
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
