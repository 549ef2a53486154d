"""Machines one might rent, by their data sheets, for plans made elsewhere: nothing is measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.ladder.among import Among
from matura.ladder.calibrate import Kind, Speed, batch_rows
from matura.ladder.recipe import Recipe
from matura.stages.horizon import learning as learnt
from matura.stages.parts import Train

if TYPE_CHECKING:
    from matura.models.decoder import DecoderConfig

HERE = "here"
"""This machine, measured."""


@dataclass(frozen=True)
class Sheet:
    """One accelerator."""

    flops: float
    """Dense bf16 operations a second."""
    bytes_per_s: float
    memory_bytes: float
    dollars_per_hour: float | None = None
    """What renting one costs, where there is a source for it."""


# Vendors' data sheets: dense bf16 without sparsity, memory bandwidth, memory.
SHEETS: Mapping[str, Sheet] = {
    "rtx-3090": Sheet(71e12, 0.94e12, 24e9),
    "rtx-4090": Sheet(165e12, 1.01e12, 24e9),
    "a100": Sheet(312e12, 2.0e12, 80e9),
    # 24 dollars an hour for eight: Karpathy 2025 (nanochat); rents differ and change
    "h100": Sheet(989e12, 3.35e12, 80e9, 3.0),
    "h200": Sheet(989e12, 4.8e12, 141e9),
}
UTILISATION = 0.35
"""Of the peak, that small dense models reach in plain PyTorch; 0.3 to 0.5 is usual."""
LAUNCH_S = 8e-6
"""Least time of one operation on a GPU."""
OPERATIONS = 60
"""Of one layer forwards; backwards takes twice as many."""
WARMUP_S = 40.0
"""Compiling for a GPU."""
DISK_BYTES_PER_S = 500e6
CONTEXT_BYTES = 1_000_000_000
"""Of the driver, its libraries and their kernels on one GPU."""


@dataclass(frozen=True)
class Machine:
    """Accelerators of one kind that share each batch evenly."""

    name: str
    count: int
    sheet: Sheet

    @property
    def dollars_per_hour(self) -> float | None:
        """Rent of all of them."""
        each = self.sheet.dollars_per_hour
        return None if each is None else each * self.count


def machine_named(name: str) -> Machine | None:
    """The machine of that name, `h100` or `8xh100`; None if it is this one.

    Raises:
        RecipeError: no such machine.
    """
    if name in (HERE, "cpu"):
        return None
    found = re.fullmatch(r"(?:([1-9][0-9]{0,3})x)?(.+)", name)
    kind = found[2] if found else name
    if found is None or kind not in SHEETS:
        known = did_you_mean(kind, (HERE, "cpu", *SHEETS))
        raise RecipeError(f"--hardware {name}: not known{known}")
    return Machine(name, int(found[1] or 1), SHEETS[kind])


def by_sheet(
    machine: Machine, recipe: Recipe, config: DecoderConfig, *, shard: bool = False
) -> Speed:
    """The speed to be expected of a machine that is not here, and what each of its accelerators
    holds, with replicas or its share of the weights."""
    sheet, count = machine.sheet, machine.count
    launches = config.layers * OPERATIONS * LAUNCH_S
    per_token = 2.0 * config.parameters / (sheet.flops * UTILISATION)
    step: dict[Kind, float] = {}
    warmup: dict[Kind, float] = {}
    for stage in recipe.stages:
        train = getattr(stage, "train", None)
        if isinstance(train, Train):
            rows = batch_rows(train, recipe)
            tokens = rows * recipe.model.sequence_length / count
            for compiled in (False, True):
                # a compiled step starts about a third of the operations
                least = 3 * launches * (0.35 if compiled else 1.0)
                kind = (rows, compiled, train.lora)
                # forwards, back through it, and once more for what frozen weights do not need
                step[kind] = max((3 if train.lora is None else 2) * per_token * tokens, least)
                warmup[kind] = WARMUP_S if compiled else 1.0
    weights_bytes = 4.0 * config.parameters
    first, others, again = _memory(machine, recipe, config, Among(count, shard))
    if again:  # each layer forwards once more
        step = {kind: seconds * 4 / 3 for kind, seconds in step.items()}
    return Speed(
        hardware=machine.name,
        measured=False,
        compute=f"{machine.name} by its data sheet, {UTILISATION:.0%} of its peak"
        + ("" if count == 1 else ", each batch shared evenly")
        + (", layers computed again for the gradient" if again else ""),
        step=step,
        warmup=warmup,
        validation_row=max(per_token * recipe.model.sequence_length, launches / 16),
        read_token=per_token,
        say_step=max(launches, weights_bytes / sheet.bytes_per_s),
        say_row=per_token,
        save=0.05 + 4 * weights_bytes / DISK_BYTES_PER_S,
        memory_bytes=first,
        others_bytes=others,
    )


def _memory(
    machine: Machine, recipe: Recipe, config: DecoderConfig, among: Among
) -> tuple[int, int, bool]:
    """The most that the first of the accelerators and each other one holds in any stage, in the way
    that training would choose, and whether any stage computes layers again."""
    from matura.learn.footprint import held
    from matura.learn.room import FILLS, SPARE, cuts

    first, others, again = 0, 0, False
    for stage in recipe.stages:
        if not isinstance(train := getattr(stage, "train", None), Train):
            continue
        learning = learnt(train, config)
        rows = math.ceil(batch_rows(train, recipe) / among.processes)
        room = machine.sheet.memory_bytes - CONTEXT_BYTES
        busy = FILLS["cuda"] // recipe.model.sequence_length
        for cut in cuts(rows, train.micro_rows, train.recompute, None, busy):
            found = held(
                config,
                cut.of(rows),
                recipe.model.sequence_length,
                learning=learning,
                processes=among.processes,
                shard=among.shard,
                size=2,
                compiled=True,
                recompute=cut.recompute,
            )
            if found.standing + (found.training - found.standing) * SPARE <= room:
                break
        # a model is read into main memory before it is shared out
        first = max(first, CONTEXT_BYTES + max(found.training, found.looking))
        others = max(others, CONTEXT_BYTES + found.training)
        again = again or cut.recompute
    return first, others, again
