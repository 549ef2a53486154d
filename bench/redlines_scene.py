"""A tiny run of some shape, in which a function may change anything: what `redlines.py` runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from matura.core.errors import RedLine
from matura.core.ledger import Ledger, Value
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.compute import Compute
from matura.learn.loop import fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.run import Evaluation
from matura.learn.schedule import Schedule
from matura.learn.settings import Settings
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig

FP32 = Compute("cpu", torch.float32, compiled=False, threads=1)
STEPS, ONSET = 60, 28
"""Of a run with a fault, and where the fault begins."""


class Told(Ledger):
    """A ledger that keeps its rows in memory."""

    def __init__(self) -> None:
        super().__init__(None, "redlines", mode="quiet")
        self.rows: list[tuple[int, dict[str, Value]]] = []

    def row(
        self, step: int, values: Mapping[str, Value], *, clock: Mapping[str, float] | None = None
    ) -> None:
        """Keeps the row."""
        self.rows.append((step, dict(values)))


class Fading(Schedule):
    """A schedule whose factor is another one from a step on."""

    onset: int = 0
    other: float = 0.0
    per_step: int = 1

    def factor(self, seen_tokens: int) -> float:
        """As asked."""
        if seen_tokens >= self.onset * self.per_step:
            return self.other
        return super().factor(seen_tokens)


@dataclass
class Shape:
    """What a tiny run is made of."""

    seed: int = 0
    layers: int = 2
    hidden: int = 32
    vocab: int = 64
    rows: int = 4
    length: int = 24
    tie: bool = False
    rate: float = 1.0
    text: str = "counting"
    steps: int = STEPS
    micro_rows: int | None = None


def model_of(shape: Shape) -> Decoder:
    """A fresh one."""
    config = DecoderConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        layers=shape.layers,
        heads=4,
        kv_heads=2,
        intermediate_size=2 * shape.hidden,
        sequence_length=64,
        qk_norm=True,
        tie_embeddings=shape.tie,
    )
    return Decoder(config).start(seeded(shape.seed))


def batch_of(shape: Shape, step: int) -> Batch:
    """Batch `step`: rows that count by a stride of their own, and other things by kind of text."""
    draw = Random(f"{shape.seed}:{step}")
    size = (shape.rows, shape.length + 1)
    ids, weights = np.zeros(size, dtype=np.int64), np.ones(size, dtype=np.float32)
    segments = np.ones(size, dtype=np.int64)
    noisy = {"noisy": 0.3, "two kinds": 0.5 if step % 17 == 0 else 0.0}.get(shape.text, 0.02)
    for row in range(shape.rows):
        cut = draw.randrange(5, shape.length - 4)
        for start, stop, segment in ((0, cut, 1), (cut, shape.length + 1, 2)):
            first, stride = draw.randrange(shape.vocab), draw.randrange(1, 4)
            line = (first + stride * np.arange(stop - start)) % shape.vocab
            if shape.text == "drill":
                line = (first + np.arange(stop - start) % 3) % shape.vocab
            odd = [draw.random() < noisy for _ in line]
            ids[row, start:stop] = np.where(odd, [draw.randrange(shape.vocab) for _ in line], line)
            weights[row, start] = 0.0
            segments[row, start:stop] = segment
            if shape.text == "chat":
                weights[row, start : (start + stop) // 2] = 0.0
    return Batch.of(ids, weights, segments, f"rows of step {step}")


def settings_of(shape: Shape) -> Settings:
    """Rates at which such a run learns well; evaluated every 20th step."""
    per_step = shape.rows * shape.length
    return Settings(
        steps=shape.steps,
        schedule=Schedule(shape.steps * per_step, 4 * per_step, shape.steps * per_step // 4),
        tokens_per_step=per_step,
        learning_rate=3e-3 * shape.rate,
        embedding_learning_rate=0.03 * shape.rate,
        matrix_learning_rate=0.02 * shape.rate,
        weight_decay=0.01,
        clip=1.0,
        evaluate_at=frozenset(range(20, shape.steps + 1, 20)),
        checkpoint_every_s=1e9,
        micro_rows=shape.micro_rows,
        good_every=50,
    )


@dataclass
class Scene:
    """What a fault may change: it is one function that does so in place."""

    shape: Shape
    model: Decoder
    settings: Settings
    batches: Callable[[int], Batch]
    optimizers: list[Optimizer] = field(default_factory=list)
    gradients: Callable[[int, int, float, float], float] | None = None
    """After a gradient was made, from step, how often it was made for it, total and divisor: the
    total that is told."""
    calls: dict[int, int] = field(default_factory=dict)
    made: Callable[[Optimizer], None] = lambda optimizer: None
    """What is done to the optimizer before the first step."""


class Faulty(Stepper):
    """A stepper whose results a scene may change."""

    scene: Scene

    def gradients(
        self,
        batch: Batch,
        divisor: float,
        *,
        micro_rows: int | None = None,
        step: int = 0,
        first_row: int = 0,
    ) -> float:
        """As usual, and then what goes wrong."""
        total = super().gradients(
            batch, divisor, micro_rows=micro_rows, step=step, first_row=first_row
        )
        if self.scene.gradients is None or not self.scene.optimizers:
            return total
        seen = self.scene.calls[step] = self.scene.calls.get(step, -1) + 1
        return self.scene.gradients(step, seen, total, divisor)


Fault = Callable[[Scene, int], None]


@dataclass
class Found:
    """How a run went."""

    stopped: str | None
    events: list[dict[str, Any]]
    losses: dict[int, float]
    seconds: float = 0.0

    @property
    def first(self) -> tuple[int, str] | None:
        """The step at which something was first noticed, and the red line."""
        if not self.events:
            return None
        event = self.events[0]
        return int(event["at"]), str(event["line"])


def ran(shape: Shape, fault: Fault | None = None, onset: int = ONSET) -> Found:
    """A run to its end, or to where it is stopped."""
    model = model_of(shape)
    scene = Scene(shape, model, settings_of(shape), lambda step: batch_of(shape, step))
    if fault is not None:
        fault(scene, onset)
    stepper = Faulty(model, NextToken(), FP32)
    stepper.scene = scene
    plain = Stepper(model, NextToken(), FP32)

    def evaluate(step: int) -> Evaluation:
        loss = plain.measure(batch_of(shape, 10_000))
        return Evaluation({"held out": float(loss.total / loss.weight)})

    ledger, stopped = Told(), None
    kept = Optimizer.of.__func__  # type: ignore[attr-defined]

    def of(cls: type[Optimizer], model: Decoder, **rates: Any) -> Optimizer:
        made: Optimizer = kept(cls, model, **rates)
        scene.optimizers.append(made)
        scene.made(made)
        return made

    Optimizer.of = classmethod(of)  # type: ignore[assignment, arg-type]
    try:
        with tempfile.TemporaryDirectory() as folder:
            fit(
                stepper,
                lambda step: scene.batches(step),
                scene.settings,
                scratch=True,
                evaluate=evaluate,
                checkpoints=Checkpoints(Path(folder)),
                ledger=ledger,
            )
    except RedLine as problem:
        stopped = str(problem)
    finally:
        Optimizer.of = classmethod(kept)  # type: ignore[assignment]
    events = [{"step": step, **values} for step, values in ledger.rows if "event" in values]
    losses = {step: float(values["loss"]) for step, values in ledger.rows if "loss" in values}
    return Found(stopped, events, losses)
