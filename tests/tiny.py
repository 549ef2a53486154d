"""A model, batches and a run that a test trains in a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matura.core.ledger import Ledger, Value
from matura.core.store import Checkpoints
from matura.learn.batch import Batch
from matura.learn.compute import Compute
from matura.learn.loop import Evaluation, Fitted, fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.schedule import Schedule
from matura.learn.settings import Settings
from matura.learn.step import Stepper
from matura.models.decoder import Decoder, DecoderConfig
from matura.models.pieces import mine

FP32 = Compute("cpu", torch.float32, compiled=False, threads=1)
VOCAB = 48
ROWS, LENGTH = 4, 16


def shape(**more: Any) -> DecoderConfig:
    """A decoder of one layer and a few thousand weights."""
    usual: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "layers": 1,
        "heads": 4,
        "kv_heads": 2,
        "intermediate_size": 48,
        "sequence_length": 64,
    }
    return DecoderConfig(**(usual | more))


def spread(config: DecoderConfig, seed: int = 0) -> Decoder:
    """A decoder with random weights everywhere: a fresh one's layers do nothing yet."""
    model, generator = Decoder(config), seeded(seed)
    with torch.no_grad():
        for weight in model.parameters():
            centre = 1.0 if weight.ndim == 1 else 0.0
            weight.normal_(centre, 0.2, generator=generator)
    return model.eval()


def some_ids(*size: int, seed: int = 0, vocab: int = VOCAB) -> Tensor:
    """Random ids of that size."""
    return torch.randint(vocab, size, generator=seeded(seed))


def numbered(step: int, *, rows: int = ROWS, length: int = LENGTH) -> Batch:
    """Batch `step`: rows that count up by a stride of their own, two examples packed in each."""
    draw = Random(step)
    ids = np.zeros((rows, length + 1), dtype=np.int64)
    weights = np.ones((rows, length + 1), dtype=np.float32)
    segments = np.ones((rows, length + 1), dtype=np.int64)
    for row in range(rows):
        border = draw.randrange(5, length - 4)
        for start, stop, segment in ((0, border, 1), (border, length + 1, 2)):
            first, stride = draw.randrange(VOCAB), draw.randrange(1, 4)
            ids[row, start:stop] = (first + stride * np.arange(stop - start)) % VOCAB
            weights[row, start] = 0.0
            segments[row, start:stop] = segment
    return Batch.of(ids, weights, segments, f"rows of step {step}")


class Noted(Ledger):
    """A ledger that keeps its rows in memory."""

    def __init__(self) -> None:
        super().__init__(None, "tiny", mode="quiet")
        self.rows: list[tuple[int, dict[str, Value]]] = []

    def row(
        self, step: int, values: Mapping[str, Value], *, clock: Mapping[str, float] | None = None
    ) -> None:
        """Keeps the row."""
        self.rows.append((step, dict(values)))

    @property
    def losses(self) -> dict[int, float]:
        """The training loss of each step, as it was noted last."""
        return {step: float(values["loss"]) for step, values in self.rows if "loss" in values}


def settings(steps: int = 20, **more: Any) -> Settings:
    """How the tiny run learns; evaluated every fifth step."""
    per_step = ROWS * LENGTH
    usual = Settings(
        steps=steps,
        schedule=Schedule(steps * per_step, 2 * per_step, steps * per_step // 2),
        tokens_per_step=per_step,
        learning_rate=3e-3,
        embedding_learning_rate=0.03,
        matrix_learning_rate=0.02,
        weight_decay=0.01,
        clip=1.0,
        evaluate_at=frozenset(range(5, steps + 1, 5)),
        checkpoint_every_s=1e9,
    )
    return replace(usual, **more)


def fresh(**more: Any) -> Decoder:
    """The tiny run's model before its first step."""
    return Decoder(shape(qk_norm=True, **more)).start(seeded(3))


def by_validation(model: Decoder, exams: Mapping[int, float] | None = None) -> Any:
    """An evaluation on a batch that no step reads; `exams` are the scores at given steps."""
    stepper = Stepper(model, NextToken(), FP32)

    def evaluate(step: int) -> Evaluation:
        loss = stepper.measure(numbered(10_000))
        exam = None if exams is None else exams[step]
        return Evaluation({"counting": float(loss.total / loss.weight)}, exam, {"seen": step})

    return evaluate


@dataclass
class Outcome:
    """Everything a run shows of itself; two runs are the same exactly when these are equal."""

    losses: dict[int, float]
    weights: dict[str, bytes]
    fitted: Fitted
    rows: list[tuple[int, dict[str, Value]]] = field(compare=False)


def weights_of(model: Decoder) -> dict[str, bytes]:
    """The weights bit by bit, or what this process has of them."""
    return {n: mine(w).numpy().tobytes() for n, w in model.named_parameters()}


def trained(
    folder: Path,
    how: Settings,
    *,
    model: Decoder | None = None,
    batches: Callable[[int], Batch] = numbered,
    evaluate: Callable[[int], Evaluation] | None = None,
    exams: Mapping[int, float] | None = None,
    ledger: Noted | None = None,
    scratch: bool = True,
    **more: Any,
) -> Outcome:
    """A run from fresh objects, as a new process would make them; goes on from what is there."""
    model = fresh() if model is None else model
    ledger = Noted() if ledger is None else ledger
    fitted = fit(
        Stepper(model, NextToken(), FP32),
        batches,
        how,
        scratch=scratch,
        evaluate=evaluate or by_validation(model, exams),
        checkpoints=Checkpoints(folder),
        ledger=ledger,
        **more,
    )
    return Outcome(ledger.losses, weights_of(model), fitted, ledger.rows)


def stops_at(step: int) -> Callable[[int], Batch]:
    """Batches until somebody presses Ctrl-C at that step."""

    def batches(number: int) -> Batch:
        if number == step:
            raise KeyboardInterrupt
        return numbered(number)

    return batches
