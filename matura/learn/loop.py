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

from matura.core.errors import RedLine, StoreError
from matura.core.ledger import Ledger
from matura.core.store import Checkpoints, Folder
from matura.learn import checkpoint
from matura.learn.arithmetic import arithmetic
from matura.learn.batch import Batch
from matura.learn.gold import Gold
from matura.learn.guard import Guard, Setback
from matura.learn.inherited import Inherited
from matura.learn.one_step import make_step
from matura.learn.pace import Pace
from matura.learn.redlines import RedLines
from matura.learn.room import stopped_short
from matura.learn.run import Evaluation, Run, known, spell
from matura.learn.settings import Settings
from matura.learn.spikes import Spikes
from matura.learn.step import Stepper
from matura.learn.team import Team
from matura.learn.watch import Watch
from matura.models.lora import frozen_sha256


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
    inherits: Inherited | None = None,
) -> Fitted:
    """Trains the stepper's model and leaves the best weights in it; goes on from the newest
    checkpoint.

    `begin` measures first what must not be forgotten; the optimizer goes on from `inherits`.

    What goes wrong on the way is passed over or gone back from, and told in rows with an `event`.

    Raises:
        RedLine: something went wrong that must stop it; nothing bad was saved.
        StoreError: a checkpoint is of another run, or the disk refuses.
    """
    run = _begun(stepper, settings, scratch, gold, lines, team)
    run.resume(checkpoints, ledger, inherits)
    batches = run.pace.reading(batches)
    saved_s = time.monotonic()
    try:
        if run.gold.start is None:
            run.begin(run.team.look(lambda: {} if begin is None else dict(begin())))
        run.watch.learns(run.model, run.optimizer)
        while run.step < settings.steps and not _tired(run, settings):
            run.team.at("reading the batch", run.step)
            try:
                make_step(run, stepper, batches(run.step), settings, ledger)
                if run.step in settings.evaluate_at or run.step == settings.steps:
                    _evaluate(run, evaluate, ledger)
            except Setback as found:
                run.go_back(found, checkpoints, ledger)
                continue
            run.whole = True
            ends = run.step == settings.steps or _tired(run, settings)
            pause_s = run.saver.pause_s(settings.checkpoint_every_s)
            late = run.team.due(time.monotonic() - saved_s > pause_s, run.saver, run.step)
            if run.step == run.best_step or run.step % settings.good_every == 0:
                run.save_good(checkpoints, ledger)
            elif late or ends:
                run.save(checkpoints, ledger)
            else:
                continue
            saved_s = time.monotonic()
        run.team.settled(run.saver, run.step)
    except RedLine as problem:
        line, _, why = str(problem).partition(": ")
        ledger.row(run.step, {"event": "stopped", "line": line, "at": run.step, "why": why})
        raise
    except (MemoryError, RuntimeError) as problem:
        stopped_short(problem)
        raise
    except KeyboardInterrupt:
        if run.whole and run.team.together:
            run.save(checkpoints, ledger)
            run.team.settled(run.saver, run.step)
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
