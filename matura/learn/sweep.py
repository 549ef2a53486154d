"""The first steps of a training, once for each of several learning rates: same start, same batches.

The surprising thing: a loss that runs away is a result here, not an error, so no red line is looked
at; nothing is kept of any try.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from matura.core.ledger import Ledger
from matura.learn.batch import Batch
from matura.learn.inherited import Inherited
from matura.learn.optim import Optimizer
from matura.learn.schedule import Schedule
from matura.learn.settings import Settings
from matura.learn.step import Stepper


@dataclass(frozen=True)
class Tried:
    """One try."""

    factor: float
    """On every rate."""
    losses: tuple[float, ...]
    """Mean nats of each step's batch, before its update; up to the last finite one."""
    stopped: str | None
    """Why it ended before its last step, if it did."""


def shortened(settings: Settings, steps: int) -> Settings:
    """The same in so many steps: warm-up and decay keep their shares of it."""
    steps = min(steps, settings.steps)
    whole, share = settings.schedule, steps / settings.steps
    schedule = Schedule(
        tokens=steps * settings.tokens_per_step,
        warmup_tokens=round(whole.warmup_tokens * share),
        decay_tokens=round(whole.decay_tokens * share),
        final=whole.final,
    )
    return replace(settings, steps=steps, schedule=schedule)


def sweep(
    stepper: Stepper,
    batches: Callable[[int], Batch],
    settings: Settings,
    factors: Sequence[float],
    ledger: Ledger,
    inherits: Inherited | None = None,
) -> tuple[Tried, ...]:
    """The tries, one for each factor in turn; the model is left as it was found."""
    each = settings.steps * settings.tokens_per_step
    ledger.say(f"{ledger.stage}: {settled(stepper, batches, settings)}")
    found: list[Tried] = []
    for number, factor in enumerate(factors):

        def after(step: int, loss: float, number: int = number, factor: float = factor) -> None:
            done = number * each + step * settings.tokens_per_step
            ledger.progress(done, len(factors) * each, notes={"factor": factor, "loss": loss})

        found.append(
            follow(stepper, batches, settings, factor=factor, after=after, inherits=inherits)
        )
    ledger.clear()
    return tuple(found)


def settled(stepper: Stepper, batches: Callable[[int], Batch], settings: Settings) -> str:
    """Chooses how batches are cut to fit into memory; in words."""
    stepper.room.recompute = settings.recompute
    first = batches(0).to(stepper.model.device)
    return stepper.settle(first, micro_rows=settings.micro_rows)


def follow(
    stepper: Stepper,
    batches: Callable[[int], Batch],
    settings: Settings,
    *,
    factor: float = 1.0,
    after: Callable[[int, float], object],
    inherits: Inherited | None = None,
) -> Tried:
    """One try: steps from the model as it is, which it is again afterwards.

    `after` is called when so many steps were made, with the loss of the last one before its update.
    The optimizer goes on from `inherits`, as the stage's own would.
    """
    model = stepper.model
    start = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    optimizer = Optimizer.of(
        model,
        matrix_learning_rate=settings.matrix_learning_rate * factor,
        learning_rate=settings.learning_rate * factor,
        embedding_learning_rate=settings.embedding_learning_rate * factor,
        weight_decay=settings.weight_decay,
        muon_dtype=stepper.compute.dtype,
    )
    if inherits is not None:
        inherits.into(optimizer, model)
    losses: list[float] = []
    stopped = None
    for step in range(settings.steps):
        loss, norm = _update(stepper, batches(step), optimizer, settings, step)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            stopped = f"step {step}: loss {loss:g}, gradient norm {norm:g}"
            break
        losses.append(loss)
        after(step + 1, loss)
    optimizer.drop()
    model.load_state_dict(start)
    return Tried(factor, tuple(losses), stopped)


def _update(
    stepper: Stepper, batch: Batch, optimizer: Optimizer, settings: Settings, step: int
) -> tuple[float, float]:
    """Loss and gradient norm before the update; none is made where either is not finite."""
    batch = batch.to(stepper.model.device)
    weight = float(batch.target_weights_BT.abs().sum())
    total = stepper.gradients(batch, weight, micro_rows=settings.micro_rows, step=step)
    norm = optimizer.clip(settings.clip)
    if math.isfinite(total) and math.isfinite(norm):
        optimizer.step(settings.schedule.factor(step * settings.tokens_per_step))
    return total / weight, norm
