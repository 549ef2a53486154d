"""`fit`: the one training loop. It sees batches and an objective, never a source, an exam or a
conversation.

Step k reads batch k, a pure function of k, so a run that was killed goes on exactly where it
stood: the loss of every later step is bit-equal on CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from matura.core.errors import RedLine, StoreError
from matura.core.ledger import Ledger
from matura.core.store import Checkpoints, Folder
from matura.learn import checkpoint
from matura.learn.arithmetic import arithmetic
from matura.learn.batch import Batch
from matura.learn.gathering import shards_of
from matura.learn.gold import Gold
from matura.learn.guard import Guard, Setback
from matura.learn.optim import update_ratio, update_ratios
from matura.learn.pace import Pace
from matura.learn.redlines import RedLines
from matura.learn.room import Recompute, stopped_short
from matura.learn.run import Evaluation, Run, known, spell
from matura.learn.schedule import Schedule
from matura.learn.sight import check_sight
from matura.learn.spikes import Spikes
from matura.learn.step import Stepper
from matura.learn.team import Team
from matura.learn.watch import Watch
from matura.models.lora import frozen_sha256

CLOSELY, NOW_AND_THEN = 20, 10
"""How far a step moves the weights is measured in the first steps and then every tenth: it takes
4 % of a step at 2M parameters, and what freezes a model does so from the start."""


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
    """Rows computed at once; as many as fit into memory if absent."""
    recompute: Recompute = "auto"
    """Whether layers are computed again for the gradient, which saves memory; if it must be."""
    patience: int | None = None
    """Evaluations in a row without a new best after which a run ends early."""
    good_every: int = 500
    """Steps between states that are kept to go back to, if something goes wrong."""


@dataclass(frozen=True)
class Fitted:
    """How a run ended; the model holds the best weights."""

    steps: int
    best_step: int
    best: Evaluation
    last: Evaluation
    gold: Mapping[str, Any] = field(default_factory=dict)
    """Why each evaluated step was taken or not."""
    events: tuple[Mapping[str, Any], ...] = ()
    """What went wrong on the way, and what was done about it."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """How batches were cut at the end."""


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
    team: Team | None = None,
) -> Fitted:
    """Trains the stepper's model and leaves the best weights in it; goes on from the newest
    checkpoint.

    `begin` measures, before the first step, what the sources cost that must not be forgotten.

    What goes wrong on the way is passed over or gone back from, and told in rows with an `event`.

    Raises:
        RedLine: something went wrong that must stop it; nothing bad was saved.
        StoreError: a checkpoint is of another run, or the disk refuses.
    """
    run = _begun(stepper, settings, scratch, gold, lines, team)
    run.resume(checkpoints, ledger)
    batches = run.pace.reading(batches)
    saved_s = time.monotonic()
    try:
        if run.gold.start is None:
            run.begin(run.team.look(lambda: {} if begin is None else dict(begin())))
        run.watch.learns(run.model, run.optimizer)
        while run.step < settings.steps and not _tired(run, settings):
            run.team.at("reading the batch", run.step)
            try:
                _step(run, stepper, batches(run.step), settings, ledger)
                if run.step in settings.evaluate_at or run.step == settings.steps:
                    _evaluate(run, evaluate, ledger)
            except Setback as found:
                run.go_back(found, checkpoints, ledger)
                continue
            run.whole = True
            ends = run.step == settings.steps or _tired(run, settings)
            run.saver.check()
            pause_s = run.saver.pause_s(settings.checkpoint_every_s)
            late = run.team.due(time.monotonic() - saved_s > pause_s)
            if run.step == run.best_step or run.step % settings.good_every == 0:
                run.save_good(checkpoints, ledger)
            elif late or ends:
                run.save(checkpoints, ledger)
            else:
                continue
            saved_s = time.monotonic()
        run.saver.wait()
    except RedLine as problem:
        line, _, why = str(problem).partition(": ")
        ledger.row(run.step, {"event": "stopped", "line": line, "at": run.step, "why": why})
        raise
    except (MemoryError, RuntimeError) as problem:
        stopped_short(problem)
        raise
    except KeyboardInterrupt:
        if run.whole:
            run.save(checkpoints, ledger)
            run.saver.wait()
        raise
    finally:
        run.saver.rest()
        ledger.clear()
    run.tell_early(settings.steps, ledger)
    if run.best is None or run.last is None:
        raise StoreError(f"{checkpoints.folder}: the run ended without an evaluation")
    if run.best_step != run.step:
        checkpoint.read_weights(Folder.open(checkpoints.at(run.best_step)), run.model)
    events = tuple(run.guard.events)
    return Fitted(
        run.step, run.best_step, run.best, run.last, run.gold.report(), events, run.room.told()
    )


def _begun(
    stepper: Stepper,
    settings: Settings,
    scratch: bool,
    gold: Gold | None,
    lines: RedLines | None,
    team: Team | None,
) -> Run:
    """A run before its first step."""
    model, stepper.room.recompute = stepper.model, settings.recompute
    vocab_size = model.config.vocab_size
    team = team or Team()
    optimizer = team.optimizer(
        model,
        matrix_learning_rate=settings.matrix_learning_rate,
        learning_rate=settings.learning_rate,
        embedding_learning_rate=settings.embedding_learning_rate,
        weight_decay=settings.weight_decay,
        muon_dtype=stepper.compute.dtype,  # bf16 products are slow where they are emulated
    )
    return Run(
        model,
        optimizer,
        Watch(vocab_size, scratch),
        gold or Gold(),
        lines or RedLines(vocab_size),
        Guard(Spikes(vocab_size, settings.clip), settings.steps),
        team,
        room=stepper.room,
        base=frozen_sha256(model),
        arithmetic=arithmetic(stepper.compute, team),
        pace=Pace(on_cpu=stepper.compute.device == "cpu"),
    )


def _step(run: Run, stepper: Stepper, batch: Batch, settings: Settings, ledger: Ledger) -> None:
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


def _tired(run: Run, settings: Settings) -> bool:
    """Whether the best evaluation is too long ago to go on."""
    return settings.patience is not None and run.waited >= settings.patience


def _evaluate(run: Run, evaluate: Callable[[int], Evaluation], ledger: Ledger) -> None:
    """Measures the model, without touching anything training depends on, and remembers the best.

    Raises:
        RedLine: what was measured must stop the run.
        Setback: it must not, for the run went back just before and may do so once more.
    """
    ledger.clear()
    found = known(run.team.look(lambda: spell(evaluate(run.step))))
    before = {} if run.last is None else run.last.flags
    try:
        run.lines.evaluation(run.step, run.model, found.losses, found.flags, before)
    except RedLine as problem:
        run.guard.measured(run.step, str(problem))
        raise
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


def seeded(seed: int) -> torch.Generator:
    """A torch generator at that seed."""
    return torch.Generator().manual_seed(seed % 2**63)
