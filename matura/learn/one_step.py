"""One step of a run: batch, gradient and update, each looked at before the next is made.

A step whose batch is passed over counts, and learns nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from matura.core.errors import RedLine
from matura.core.ledger import Ledger
from matura.learn.batch import Batch
from matura.learn.gathering import shards_of
from matura.learn.guard import Setback
from matura.learn.optim import update_ratio, update_ratios
from matura.learn.run import Run
from matura.learn.settings import Settings
from matura.learn.sight import check_sight
from matura.learn.step import Stepper

CLOSELY, NOW_AND_THEN = 20, 10
"""How far a step moves the weights is measured in the first steps and then every tenth: it takes
4 % of a step at 2M parameters, and what freezes a model does so from the start."""


def make_step(run: Run, stepper: Stepper, batch: Batch, settings: Settings, ledger: Ledger) -> None:
    """One update, with every red line looked at before it; or none, if the batch is passed over.

    Raises:
        RedLine: the run must stop.
        Setback: the state is bad.
    """
    began = time.monotonic()
    if run.back_from is not None:
        _tell(run, ledger, run.back_from)
        run.back_from = None
    if run.step in run.guard.passing:
        _pass_over(run, ledger, {"line": "passed over", "why": run.guard.passing[run.step]})
        return
    batch = batch.to(run.model.device)
    weight = float(batch.target_weights_BT.abs().sum())
    run.watch.batch(run.step, batch.name, weight)
    if why := run.repeats.look(run.step, batch):
        told = f"step {run.step}, {batch.name}: {why}"
        _pass_over(run, ledger, run.guard.leave_out(run.step, "repeated text", told))
        return
    if not run.room.settled:
        run.room.exact = run.team.exact
        sharing = shards_of(len(batch.ids_BL)) if run.team.exact else run.team.size
        how = stepper.settle(batch, micro_rows=settings.micro_rows, sharing=sharing)
        run.team.alike(stepper)
        ledger.say(f"{ledger.stage}: {how}")
    if not run.watch.begun:
        check_sight(stepper, batch, settings.micro_rows)
    found = _computed(run, stepper, batch, weight, settings, ledger)
    while run.room.found:
        why, did = run.room.found.pop(0)
        event = {"step": run.step, "line": "out of memory", "why": why, "done": did}
        if event not in run.guard.events:
            run.guard.events.append(event)
        _tell(run, ledger, event)
    if found is None:
        return
    loss, grad_norm = found
    factor = settings.schedule.factor(run.step * settings.tokens_per_step)
    run.watch.loss(run.step, batch.name, loss, grad_norm)
    run.watch.gradients(run.step, batch.name, run.optimizer.norms)
    run.lines.step(run.step, batch.name, loss, factor)
    run.guard.accept(loss, grad_norm)
    values = {"loss": loss, "grad_norm": grad_norm, "rate": factor}
    run.whole = False
    values |= _updated(run, batch.name, factor)
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
        notes={"loss": loss},
    )
    run.step = done
    run.pace.step(ledger)


def _computed(
    run: Run, stepper: Stepper, batch: Batch, weight: float, settings: Settings, ledger: Ledger
) -> tuple[float, float] | None:
    """The batch's mean loss and gradient norm, its gradient being left to be applied; None if it
    was passed over.

    Raises:
        RedLine: the machine makes mistakes, or too much was passed over.
        Setback: the state is bad.
    """
    step = run.step

    def once() -> tuple[float, float]:
        total = run.team.gradients(
            stepper, batch, weight, micro_rows=settings.micro_rows, step=step
        )
        return total / weight, run.optimizer.clip(settings.clip)

    loss, norm = once()
    if not run.watch.begun and math.isfinite(loss) and math.isfinite(norm):
        run.watch.loss(step, batch.name, loss, norm)  # it stops where a spike would be passed over
    odd = run.guard.spikes.odd(step, loss, norm)
    if changed := run.untouched.changed(run.model, run.optimizer):
        line, why = changed
        told = f"before step {step}: {why}: something besides training wrote into them"
        if odd and odd[0] == "non-finite values":
            line, told = odd[0], f"step {step}, {batch.name}: {odd[1]}; {told}"
        if run.team.size > 1:  # it is one process that saw it, and all must go back or none
            raise RedLine(f"{line}: {told}")
        raise Setback(line, step, told)
    if odd is None:
        return loss, norm
    run.optimizer.drop()
    loss, norm = once()
    again = run.guard.spikes.odd(step, loss, norm)
    if again is None:
        _tell(run, ledger, run.guard.mistaken(step, batch.name, *odd))
        return loss, norm
    run.optimizer.drop()
    _pass_over(run, ledger, run.guard.pass_over(step, batch.name, *again))
    return None


def _updated(run: Run, name: str, factor: float) -> dict[str, float]:
    """Applies the gradient; how far that moved the weights, all and by group, in the steps where it
    is measured.

    Raises:
        RedLine: several updates moved nothing.
        Setback: it moved them out of range.
    """
    step = run.step
    watched = step < CLOSELY or step % NOW_AND_THEN == 0
    learning = run.optimizer.parameters
    before = {name: p.detach().clone() for name, p in learning.items()} if watched else {}
    run.optimizer.step(factor)
    run.untouched.after(run.model, run.optimizer)
    if not watched:
        if factor == 0:
            run.watch.update(step, name, 0.0)
        return {}
    after = {name: p.detach() for name, p in learning.items()}
    moved = update_ratio(before.values(), after.values(), run.team.added)
    if not math.isfinite(moved):
        told = f"step {step}, {name}: the update is {moved} times the weights"
        raise Setback("non-finite values", step, told, range(step, step + 1))
    run.watch.update(step, name, moved)
    if why := run.guard.spikes.update(moved, factor):
        told = f"step {step}, {name}: {why}"
        raise Setback("update spike", step, told, range(step, step + 1))
    groups = update_ratios(before, after, run.team.added)
    return {"update": moved, **{f"update/{group}": ratio for group, ratio in groups.items()}}


def _pass_over(run: Run, ledger: Ledger, event: Mapping[str, Any]) -> None:
    """A step that counts, and learns nothing."""
    _tell(run, ledger, event)
    run.step += 1


def _tell(run: Run, ledger: Ledger, event: Mapping[str, Any]) -> None:
    """What happened, in the row of the step that is made now."""
    done = event.get("done", "passed over")
    at = event.get("step", run.step)
    ledger.row(run.step, {"event": done, "line": event["line"], "at": at, "why": event["why"]})
    if "done" in event and not str(event["done"]).startswith("back"):
        ledger.say(f"{ledger.stage}: {event['line']}: {event['why']}; {done}")
