"""Machines one might rent, by their data sheets, for plans made elsewhere: nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matura.ladder.calibrate import Speed, batch_rows
from matura.ladder.recipe import Recipe
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


# Vendors' data sheets: dense bf16 without sparsity, memory bandwidth, memory.
SHEETS: Mapping[str, Sheet] = {
    "rtx-3090": Sheet(71e12, 0.94e12, 24e9),
    "rtx-4090": Sheet(165e12, 1.01e12, 24e9),
    "a100": Sheet(312e12, 2.0e12, 80e9),
    "h100": Sheet(989e12, 3.35e12, 80e9),
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


def by_sheet(name: str, recipe: Recipe, config: DecoderConfig) -> Speed:
    """The speed to be expected of a machine that is not here."""
    sheet = SHEETS[name]
    launches = config.layers * OPERATIONS * LAUNCH_S
    per_token = 2.0 * config.parameters / (sheet.flops * UTILISATION)
    step: dict[tuple[int, bool], float] = {}
    warmup: dict[tuple[int, bool], float] = {}
    for stage in recipe.stages:
        train = getattr(stage, "train", None)
        if isinstance(train, Train):
            rows = batch_rows(train, recipe)
            tokens = rows * recipe.model.sequence_length
            for compiled in (False, True):
                # a compiled step starts about a third of the operations
                least = 3 * launches * (0.35 if compiled else 1.0)
                step[rows, compiled] = max(3 * per_token * tokens, least)
                warmup[rows, compiled] = WARMUP_S if compiled else 1.0
    weights_bytes = 4.0 * config.parameters
    activations = 2.0 * 16 * config.layers * config.hidden_size
    tokens = max((rows for rows, _ in step), default=1) * recipe.model.sequence_length
    return Speed(
        hardware=name,
        measured=False,
        compute=f"{name} by its data sheet, {UTILISATION:.0%} of its peak",
        step=step,
        warmup=warmup,
        validation_row=max(per_token * recipe.model.sequence_length, launches / 16),
        read_token=per_token,
        say_step=max(launches, weights_bytes / sheet.bytes_per_s),
        say_row=per_token,
        save=0.05 + 4 * weights_bytes / DISK_BYTES_PER_S,
        memory_bytes=round(5 * weights_bytes + activations * tokens + 1e9),
    )
