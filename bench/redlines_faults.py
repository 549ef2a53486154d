"""What goes wrong in training, at a known step of a tiny run: the faults of `redlines.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import torch
from redlines_scene import Fading, Fault, Scene, batch_of
from torch import Tensor

from matura.learn.batch import Batch
from matura.learn.loop import seeded
from matura.learn.optim import Optimizer

# The faults, each a function that changes a scene. `onset` is the step at which it begins.


def rates_of_nothing(scene: Scene, onset: int) -> None:
    """F1: every learning rate is 0 from the start."""
    scene.settings = replace(
        scene.settings, learning_rate=0, embedding_learning_rate=0, matrix_learning_rate=0
    )


def fades(scene: Scene, onset: int) -> None:
    """F1: the schedule returns 0."""
    _factor(scene, onset, 0.0)


def too_fast(scene: Scene, onset: int) -> None:
    """F7: 300 times the learning rate."""
    _factor(scene, onset, 300.0)


def _factor(scene: Scene, onset: int, factor: float) -> None:
    old = scene.settings.schedule
    faded = Fading(old.tokens, old.warmup_tokens, old.decay_tokens, old.final)
    for name, value in (
        ("onset", onset),
        ("other", factor),
        ("per_step", scene.settings.tokens_per_step),
    ):
        object.__setattr__(faded, name, value)
    scene.settings = replace(scene.settings, schedule=faded)


def never_updated(scene: Scene, onset: int) -> None:
    """F2: the optimizer lacks a matrix."""

    def made(optimizer: Optimizer) -> None:
        del optimizer.parameters["model.layers.1.mlp.down_proj.weight"]

    scene.made = made


def detached(scene: Scene, onset: int) -> None:
    """F2: nothing reaches a matrix any more."""
    weight = scene.model.get_parameter("model.layers.1.mlp.down_proj.weight")

    def gradients(step: int, seen: int, total: float, divisor: float) -> float:
        if step >= onset:
            weight.grad = None
        return total

    scene.gradients = gradients


def same_batch(scene: Scene, onset: int) -> None:
    """F8: the loader returns one batch for ever."""
    scene.batches = lambda step: batch_of(scene.shape, min(step, onset))


def same_three(scene: Scene, onset: int) -> None:
    """F8: it returns three in turn, their rows in another order."""

    def batches(step: int) -> Batch:
        if step < onset:
            return batch_of(scene.shape, step)
        found = batch_of(scene.shape, onset + step % 3)
        order = torch.randperm(len(found.ids_BL), generator=seeded(step))
        return replace(
            found,
            ids_BL=found.ids_BL[order],
            weights_BL=found.weights_BL[order],
            segments_BL=found.segments_BL[order],
        )

    scene.batches = batches


def _gradient(scene: Scene, when: Callable[[int, int], bool], value: float) -> None:
    weight = scene.model.get_parameter("model.layers.0.mlp.down_proj.weight")

    def gradients(step: int, seen: int, total: float, divisor: float) -> float:
        if when(step, seen):
            assert weight.grad is not None
            weight.grad[0, 0] = value
        return total

    scene.gradients = gradients


def nan_once(scene: Scene, onset: int) -> None:
    """F9: a NaN in the gradient, whenever that batch is computed."""
    _gradient(scene, lambda step, seen: step == onset, math.nan)


def nan_for_ever(scene: Scene, onset: int) -> None:
    """F9: from then on always."""
    _gradient(scene, lambda step, seen: step >= onset, math.nan)


def nan_by_mistake(scene: Scene, onset: int) -> None:
    """F11: a NaN that is not there when the batch is computed once more."""
    _gradient(scene, lambda step, seen: step == onset and seen == 0, math.nan)


def infinite(scene: Scene, onset: int) -> None:
    """F10: the loss of one micro-batch is infinite."""

    def gradients(step: int, seen: int, total: float, divisor: float) -> float:
        return math.inf if step == onset else total

    scene.settings = replace(scene.settings, micro_rows=1)
    scene.gradients = gradients


def two_spikes(scene: Scene, onset: int) -> None:
    """F16: a loss of 50, and one of 8 five steps later."""
    told = {onset: 50.0, onset + 5: 8.0}

    def gradients(step: int, seen: int, total: float, divisor: float) -> float:
        return told[step] * divisor if step in told else total

    scene.gradients = gradients


def one_token(scene: Scene, onset: int) -> None:
    """F15: a batch of one token."""
    _repeated(scene, onset, 1)


def one_phrase(scene: Scene, onset: int) -> None:
    """F15: a batch in which each row says five tokens over and over."""
    _repeated(scene, onset, 5)


def _repeated(scene: Scene, onset: int, period: int) -> None:
    def batches(step: int) -> Batch:
        found = batch_of(scene.shape, step)
        if step == onset:
            draw = torch.randint(scene.shape.vocab, (len(found.ids_BL), period))
            many = -(-found.ids_BL.shape[1] // period)
            found.ids_BL.copy_(draw.repeat(1, many)[:, : found.ids_BL.shape[1]])
            found.segments_BL.fill_(1)
        return found

    scene.batches = batches


def flipped(tensor: Tensor, place: int, bit: int) -> None:
    """Flips one bit of one fp32 number, in place."""
    words = tensor.detach().view(-1).view(torch.int32)
    words[place % len(words)] ^= 1 << bit


def flip_of(what: str, bit: int) -> Fault:
    """F11: a bit of a weight, or of the optimizer's state, flips between two steps."""

    def fault(scene: Scene, onset: int) -> None:
        usual = scene.batches
        done: list[int] = []

        def batches(step: int) -> Batch:
            if step == onset and not done:
                done.append(step)
                name = "model.layers.1.mlp.down_proj.weight"
                place = Random(scene.shape.seed).randrange(10_000)
                if what == "weight":
                    flipped(scene.model.get_parameter(name), place, bit)
                else:
                    name = "model.norm.weight" if what == "variance" else name
                    flipped(scene.optimizers[0].buffers[f"{what}.{name}"], place, bit)
            return usual(step)

        scene.batches = batches

    return fault


def flip_in_activation(bit: int) -> Fault:
    """F11: a bit flips in what one layer hands on, once; the second time it is well."""

    def fault(scene: Scene, onset: int) -> None:
        place = Random(scene.shape.seed).randrange(10_000)
        done: list[int] = []
        now = {"step": -1}
        usual = scene.batches

        def batches(step: int) -> Batch:
            now["step"] = step
            return usual(step)

        def hook(module: torch.nn.Module, given: Any, made: Tensor) -> Tensor:
            if now["step"] == onset and not done:
                done.append(onset)
                changed = made.clone()
                flipped(changed, place, bit)
                return made + (changed - made).detach()
            return made

        scene.batches = batches
        scene.model.model.layers[0].register_forward_hook(hook)

    return fault


BITS = (30, 23, 10)
"""Of an fp32 number: the highest of the exponent, the lowest, and one of the fraction."""
FAULTS: dict[str, Fault] = {
    "F1 rates of 0": rates_of_nothing,
    "F1 schedule gives 0": fades,
    "F2 not in the optimizer": never_updated,
    "F2 detached": detached,
    "F7 lr x 300": too_fast,
    "F8 same batch": same_batch,
    "F8 three in turn": same_three,
    "F9 NaN once": nan_once,
    "F9 NaN for ever": nan_for_ever,
    "F10 infinite micro-batch": infinite,
    "F11 NaN by mistake": nan_by_mistake,
    "F15 one token": one_token,
    "F15 one phrase": one_phrase,
    "F16 two spikes": two_spikes,
    **{
        f"F11 {what}, bit {bit}": flip_of(what, bit)
        for what in ("weight", "momentum", "variance")
        for bit in BITS
    },
    **{f"F11 activation, bit {bit}": flip_in_activation(bit) for bit in BITS},
}
FROM_THE_START = ("F1 rates of 0", "F2 not in the optimizer")
HARMLESS = tuple(f"F11 activation, bit {bit}" for bit in BITS)
"""One number in one step: a norm bounds whatever it is, so as a rule it moves one position's loss
and nothing tells it from a batch of its own. How far it moves the losses is measured as well."""
STOPS = ("F1 ", "F2 ", "F7 ", "F8 ", "F9 NaN for ever")
"""Beginnings of the names of faults that last and must end a run; it goes on after the others."""
