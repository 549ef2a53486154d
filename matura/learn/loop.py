"""`fit`: the one training loop. It sees batches and an objective, never a source, an exam or a
conversation.

Step k reads batch k, a pure function of k, so a run that was killed goes on exactly where it
stood: the loss of every later step is bit-equal on CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from matura.core.errors import StoreError
from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.learn import checkpoint
from matura.learn.batch import Batch
from matura.learn.optim import Optimizer, update_ratio
from matura.learn.schedule import Schedule
from matura.learn.step import Stepper
from matura.learn.watch import Watch
from matura.models.decoder import Decoder

CLOSELY, NOW_AND_THEN = 20, 10
"""How far a step moves the weights is measured in the first steps and then every tenth: it takes
4 % of a step at 2M parameters, and what freezes a model does so from the start."""
TELLS_APART = 0.05
"""Exam scores nearer than this are equal for choosing: it is the standard error of 60 items at 0.8,
and without it a lucky sitting in mid-run beat the finished model."""


@dataclass(frozen=True)
class Evaluation:
    """What the model is worth at one step: mean nats per source, and an exam's score if there is
    one."""

    losses: dict[str, float]
    exam: float | None = None
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[int, float]:
        """Larger is better: by exam first, as far as it can tell, then by mean validation loss."""
        mean = sum(self.losses.values()) / max(len(self.losses), 1)
        return (0 if self.exam is None else round(self.exam / TELLS_APART), -mean)


@dataclass(frozen=True)
class Settings:
    """How a run learns. Token counts are nominal: rows times row length."""

    steps: int
    schedule: Schedule
    tokens_per_step: int
    learning_rate: float
    embedding_learning_rate: float
    matrix_learning_rate: float
    weight_decay: float
    clip: float
    evaluate_at: frozenset[int]
    """Steps after which to evaluate; the last one is always among them."""
    checkpoint_every_s: float
    micro_rows: int | None = None


@dataclass(frozen=True)
class Fitted:
    """How a run ended; the model holds the best weights."""

    steps: int
    best_step: int
    best: Evaluation
    last: Evaluation


@dataclass
class _Run:
    """One run in progress: what its checkpoints hold."""

    model: Decoder
    optimizer: Optimizer
    watch: Watch
    step: int = 0
    best_step: int = -1
    best: Evaluation | None = None
    last: Evaluation | None = None
    whole: bool = True
    """False from an update's first write until the step, and an evaluation due, are accounted for:
    what is saved in between could not be resumed exactly."""

    def rest(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "watch": self.watch.state(),
            "best_step": self.best_step,
            "best": _spell(self.best),
            "last": _spell(self.last),
        }

    def save(self, checkpoints: Checkpoints, ledger: Ledger) -> None:
        ledger.sync()
        checkpoints.save(
            self.step,
            lambda folder: checkpoint.write(
                folder, self.model, self.optimizer, self.rest(), self.step
            ),
            spare={self.best_step},
        )

    def resume(self, checkpoints: Checkpoints, ledger: Ledger) -> None:
        newest = checkpoints.newest()
        for line in newest.refused:
            ledger.say(f"a checkpoint was refused: {line}")
        if newest.folder is None:
            ledger.rewind(-1)
            return
        rest = checkpoint.read(newest.folder, self.model, self.optimizer)
        try:
            self.step = int(rest["step"])
            self.watch.restore(rest["watch"])
            self.best_step = int(rest["best_step"])
            self.best, self.last = _read(rest["best"]), _read(rest["last"])
        except (KeyError, TypeError) as problem:
            raise StoreError(f"{newest.folder.path}: the state lacks {problem}") from problem
        ledger.rewind(self.step - 1)
        ledger.say(f"resuming after step {self.step}")


def fit(
    stepper: Stepper,
    batches: Callable[[int], Batch],
    settings: Settings,
    *,
    scratch: bool,
    evaluate: Callable[[int], Evaluation],
    checkpoints: Checkpoints,
    ledger: Ledger,
) -> Fitted:
    """Trains the stepper's model and leaves the best weights in it; goes on from the newest
    checkpoint.

    Raises:
        RedLine: something went wrong that must stop it; nothing bad was saved.
        StoreError: a checkpoint is of another run, or the disk refuses.
    """
    model = stepper.model
    run = _Run(
        model,
        Optimizer.of(
            model,
            matrix_learning_rate=settings.matrix_learning_rate,
            learning_rate=settings.learning_rate,
            embedding_learning_rate=settings.embedding_learning_rate,
            weight_decay=settings.weight_decay,
            muon_dtype=stepper.compute.dtype,  # bf16 products are slow where they are emulated
        ),
        Watch(model.config.vocab_size, scratch),
    )
    run.resume(checkpoints, ledger)
    saved_s = time.monotonic()
    try:
        while run.step < settings.steps:
            _step(run, stepper, batches(run.step), settings, ledger)
            if run.step in settings.evaluate_at or run.step == settings.steps:
                _evaluate(run, evaluate, ledger)
            run.whole = True
            wanted = run.step in (run.best_step, settings.steps)
            if wanted or time.monotonic() - saved_s > settings.checkpoint_every_s:
                run.save(checkpoints, ledger)
                saved_s = time.monotonic()
    except KeyboardInterrupt:
        if run.whole:
            run.save(checkpoints, ledger)
        raise
    finally:
        ledger.clear()
    if run.best is None or run.last is None:
        raise StoreError(f"{checkpoints.folder}: the run ended without an evaluation")
    if run.best_step != run.step:
        checkpoint.read_weights(checkpoints.at(run.best_step) / checkpoint.WEIGHTS, model)
    return Fitted(run.step, run.best_step, run.best, run.last)


def _step(run: _Run, stepper: Stepper, batch: Batch, settings: Settings, ledger: Ledger) -> None:
    """One update, with every red line looked at before it."""
    began = time.monotonic()
    batch = batch.to(run.model.device)
    weight = float(batch.target_weights_BT.abs().sum())
    run.watch.batch(run.step, batch.name, weight)
    total = stepper.gradients(batch, weight, micro_rows=settings.micro_rows)
    grad_norm = run.optimizer.clip(settings.clip)
    run.watch.loss(run.step, batch.name, total / weight, grad_norm)
    factor = settings.schedule.factor(run.step * settings.tokens_per_step)
    watched = run.step < CLOSELY or run.step % NOW_AND_THEN == 0
    before = [p.detach().clone() for p in run.model.parameters()] if watched else []
    run.whole = False
    run.optimizer.step(factor)
    values = {"loss": total / weight, "grad_norm": grad_norm, "rate": factor}
    if watched:
        values["update"] = update_ratio(before, [p.detach() for p in run.model.parameters()])
        run.watch.update(run.step, batch.name, values["update"])
    seconds = time.monotonic() - began
    done = run.step + 1
    ledger.row(
        run.step,
        values,
        clock={"tokens_per_s": settings.tokens_per_step / seconds},
    )
    ledger.progress(
        done * settings.tokens_per_step,
        settings.steps * settings.tokens_per_step,
        notes={"loss": total / weight},
    )
    run.step = done


def _evaluate(run: _Run, evaluate: Callable[[int], Evaluation], ledger: Ledger) -> None:
    """Measures the model, without touching anything training depends on, and remembers the best."""
    ledger.clear()
    found = evaluate(run.step)
    run.last = found
    if run.best is None or found.rank > run.best.rank:
        run.best, run.best_step = found, run.step
    values = {f"validation/{name}": loss for name, loss in found.losses.items()}
    values |= {f"exam/{name}": value for name, value in found.notes.items()}
    if found.exam is not None:
        values["exam/select"] = found.exam
    ledger.row(run.step - 1, values)
    ledger.say(
        f"{ledger.stage}: step {run.step}: "
        + ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    )


def _spell(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {"losses": evaluation.losses, "exam": evaluation.exam, "notes": evaluation.notes}


def _read(spelled: dict[str, Any] | None) -> Evaluation | None:
    if spelled is None:
        return None
    return Evaluation(spelled["losses"], spelled["exam"], spelled["notes"])


def seeded(seed: int) -> torch.Generator:
    """A torch generator at that seed."""
    return torch.Generator().manual_seed(seed % 2**63)
