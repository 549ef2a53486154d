"""`fit`: the one training loop. It sees batches and an objective, never a source, an exam or a
conversation.

Step k reads batch k, a pure function of k, so a run that was killed goes on exactly where it
stood: the loss of every later step is bit-equal on CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from matura.core.errors import StoreError
from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.learn import checkpoint
from matura.learn.batch import Batch
from matura.learn.gold import Gold
from matura.learn.optim import Optimizer, update_ratio
from matura.learn.redlines import RedLines, Untouched
from matura.learn.schedule import Schedule
from matura.learn.sight import check_sight
from matura.learn.step import Stepper
from matura.learn.watch import Watch
from matura.models.decoder import Decoder
from matura.models.lora import frozen_sha256

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
    flags: dict[str, str] = field(default_factory=dict)
    """What is wrong with how the model answers, by red line: one that the next evaluation has too
    stops the run."""

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
    patience: int | None = None
    """Evaluations in a row without a new best after which a run ends early."""


@dataclass(frozen=True)
class Fitted:
    """How a run ended; the model holds the best weights."""

    steps: int
    best_step: int
    best: Evaluation
    last: Evaluation
    gold: Mapping[str, Any] = field(default_factory=dict)
    """Why each evaluated step was taken or not."""


@dataclass
class _Run:
    """One run in progress: what its checkpoints hold."""

    model: Decoder
    optimizer: Optimizer
    watch: Watch
    gold: Gold
    lines: RedLines
    untouched: Untouched = field(default_factory=Untouched)
    step: int = 0
    best_step: int = -1
    best: Evaluation | None = None
    last: Evaluation | None = None
    waited: int = 0
    """Evaluations since the best one."""
    base: str | None = None
    """The hash of what does not learn, which no checkpoint holds."""
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
            "waited": self.waited,
            "gold": self.gold.state(),
            "redlines": self.lines.state(),
            **({} if self.base is None else {"base": self.base}),
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
            self.waited = int(rest["waited"])
            self.gold.restore(rest["gold"])
            self.lines.restore(rest["redlines"])
            if self.base is not None and rest["base"] != self.base:
                raise StoreError(
                    f"{newest.folder.path}: the adapter was trained on another base model"
                )
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
    gold: Gold | None = None,
    lines: RedLines | None = None,
    begin: Callable[[], Mapping[str, float]] | None = None,
) -> Fitted:
    """Trains the stepper's model and leaves the best weights in it; goes on from the newest
    checkpoint.

    `begin` measures, before the first step, what the sources cost that must not be forgotten.

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
        gold or Gold(),
        lines or RedLines(model.config.vocab_size),
        base=frozen_sha256(model),
    )
    run.resume(checkpoints, ledger)
    saved_s = time.monotonic()
    try:
        if run.gold.start is None:
            run.gold.begin({} if begin is None else begin())
            run.lines.begin(model, run.gold.start or {})
        while run.step < settings.steps and not _tired(run, settings):
            _step(run, stepper, batches(run.step), settings, ledger)
            if run.step in settings.evaluate_at or run.step == settings.steps:
                _evaluate(run, evaluate, ledger)
            run.whole = True
            wanted = run.step in (run.best_step, settings.steps) or _tired(run, settings)
            if wanted or time.monotonic() - saved_s > settings.checkpoint_every_s:
                run.save(checkpoints, ledger)
                saved_s = time.monotonic()
    except KeyboardInterrupt:
        if run.whole:
            run.save(checkpoints, ledger)
        raise
    finally:
        ledger.clear()
    if run.step < settings.steps:
        ledger.say(
            f"{ledger.stage}: ends early, after step {run.step} of {settings.steps}: "
            f"{run.waited} evaluations without a better one than at step {run.best_step}"
        )
    if run.best is None or run.last is None:
        raise StoreError(f"{checkpoints.folder}: the run ended without an evaluation")
    if run.best_step != run.step:
        checkpoint.read_weights(checkpoints.at(run.best_step) / checkpoint.WEIGHTS, model)
    return Fitted(run.step, run.best_step, run.best, run.last, run.gold.report())


def _step(run: _Run, stepper: Stepper, batch: Batch, settings: Settings, ledger: Ledger) -> None:
    """One update, with every red line looked at before it."""
    began = time.monotonic()
    batch = batch.to(run.model.device)
    weight = float(batch.target_weights_BT.abs().sum())
    run.watch.batch(run.step, batch.name, weight)
    if run.step == 0:
        check_sight(stepper, batch, settings.micro_rows)
    run.untouched.before(run.step, run.model)
    total = stepper.gradients(batch, weight, micro_rows=settings.micro_rows, step=run.step)
    grad_norm = run.optimizer.clip(settings.clip)
    run.watch.loss(run.step, batch.name, total / weight, grad_norm)
    factor = settings.schedule.factor(run.step * settings.tokens_per_step)
    run.lines.step(run.step, batch.name, total / weight, factor)
    watched = run.step < CLOSELY or run.step % NOW_AND_THEN == 0
    learning = run.optimizer.parameters.values()
    before = [p.detach().clone() for p in learning] if watched else []
    run.whole = False
    run.optimizer.step(factor)
    run.untouched.after(run.model)
    values = {"loss": total / weight, "grad_norm": grad_norm, "rate": factor}
    if watched:
        values["update"] = update_ratio(before, [p.detach() for p in learning])
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


def _tired(run: _Run, settings: Settings) -> bool:
    """Whether the best evaluation is too long ago to go on."""
    return settings.patience is not None and run.waited >= settings.patience


def _evaluate(run: _Run, evaluate: Callable[[int], Evaluation], ledger: Ledger) -> None:
    """Measures the model, without touching anything training depends on, and remembers the best."""
    ledger.clear()
    found = evaluate(run.step)
    before = {} if run.last is None else run.last.flags
    run.lines.evaluation(run.step, run.model, found.losses, found.flags, before)
    run.last = found
    run.waited += 1
    best = None if run.best is None else run.best.rank
    if run.gold.takes(run.step, found.losses, found.exam, found.rank, best):
        run.best, run.best_step, run.waited = found, run.step, 0
    values = {f"validation/{name}": loss for name, loss in found.losses.items()}
    values |= {f"exam/{name}": value for name, value in found.notes.items()}
    if found.exam is not None:
        values["exam/select"] = found.exam
    ledger.row(run.step - 1, values)
    ledger.say(
        f"{ledger.stage}: step {run.step}: "
        + ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    )
    verdict = run.gold.seen[-1]
    if verdict["verdict"] == "refused" or "no step keeps" in verdict["why"]:
        ledger.say(f"{ledger.stage}: step {run.step} is not gold: {verdict['why']}")
    for name, evidence in found.flags.items():
        ledger.say(f"{ledger.stage}: step {run.step}: red line if it stays: {name}: {evidence}")


def _spell(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {
        "losses": evaluation.losses,
        "exam": evaluation.exam,
        "notes": evaluation.notes,
        "flags": evaluation.flags,
    }


def _read(spelled: dict[str, Any] | None) -> Evaluation | None:
    if spelled is None:
        return None
    return Evaluation(spelled["losses"], spelled["exam"], spelled["notes"], spelled["flags"])


def seeded(seed: int) -> torch.Generator:
    """A torch generator at that seed."""
    return torch.Generator().manual_seed(seed % 2**63)
