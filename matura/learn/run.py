"""One run in progress: all that its checkpoints hold, going on from one, and going back to a good
one.

A run goes back only to states that lie at steps the recipe fixes, an evaluation that was the best
so far or every so many steps: where the clock says to save differs from one time to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from matura.core.errors import StoreError
from matura.core.ledger import Ledger
from matura.core.store import Checkpoints
from matura.learn import checkpoint
from matura.learn.arithmetic import LINE, differing
from matura.learn.gold import Gold
from matura.learn.guard import Guard, Setback
from matura.learn.inherited import Inherited
from matura.learn.optim import Optimizer
from matura.learn.pace import Pace
from matura.learn.redlines import RedLines
from matura.learn.repeats import Repeats
from matura.learn.room import Room
from matura.learn.saving import Saver
from matura.learn.team import Team
from matura.learn.untouched import Untouched, bits
from matura.learn.watch import Watch
from matura.models.decoder import Decoder

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


@dataclass
class Run:
    """One run in progress: what its checkpoints hold."""

    model: Decoder
    optimizer: Optimizer
    watch: Watch
    gold: Gold
    lines: RedLines
    guard: Guard
    team: Team = field(default_factory=Team)
    room: Room = field(default_factory=Room)
    base: str | None = None
    """The hash of what does not learn, which no checkpoint holds."""
    arithmetic: Mapping[str, str] = field(default_factory=dict)
    """What decides the last bits, here."""
    pace: Pace = field(default_factory=Pace)
    repeats: Repeats = field(default_factory=Repeats)
    untouched: Untouched = field(default_factory=Untouched)
    saver: Saver = field(default_factory=Saver)
    step: int = 0
    best_step: int = -1
    best: Evaluation | None = None
    last: Evaluation | None = None
    waited: int = 0
    """Evaluations since the best one."""
    good: int | None = None
    """The step of the last good state that was saved; None where only the first one is."""
    good_best: int = -1
    """The best step as that state knew it."""
    whole: bool = True
    """False from an update's first write until the step, and an evaluation due, are accounted for:
    what is saved in between could not be resumed exactly."""
    first: dict[str, Tensor] | None = None
    """The weights before the first step, for as long as there is no other good state."""
    inherits: Inherited | None = None
    """What its optimizer begins with; nothing if absent."""
    back_from: dict[str, Any] | None = None
    """Why the run went back, until the next step's row tells it."""

    def rest(self) -> dict[str, Any]:
        """Everything but the tensors."""
        return {
            "step": self.step,
            "watch": self.watch.state(),
            "best_step": self.best_step,
            "best": spell(self.best),
            "last": spell(self.last),
            "waited": self.waited,
            "gold": self.gold.state(),
            "redlines": self.lines.state(),
            "guard": self.guard.state(),
            "repeats": self.repeats.state(),
            "good": self.good,
            "good_best": self.good_best,
            "arithmetic": dict(self.arithmetic),
            "memory": self.room.told(),
            **({} if self.base is None else {"base": self.base}),
        }

    def save(self, checkpoints: Checkpoints, ledger: Ledger) -> None:
        """Writes the whole state down, in the background; the best so far and the last good one
        stay.

        Raises:
            MaturaError: what the save before failed with.
        """
        team, step = self.team, self.step
        team.settled(self.saver, step)
        team.at("copying the state", step)
        state = checkpoint.state(
            self.model,
            self.optimizer,
            self.rest(),
            step,
            rank=team.rank,
            size=team.size,
            shares=team.shares,
        )
        spare = {self.best_step} | (set() if self.good is None else {self.good, self.good_best})

        replicas = team.size > 1 and not team.shares
        same = bits(self.model, self.optimizer) if replicas else {}

        def publish(state: checkpoint.State) -> None:
            ledger.sync()  # no checkpoint lies there whose rows do not
            team.save(checkpoints, step, state.write, spare, same)

        self.saver.save(state, publish)

    def save_good(self, checkpoints: Checkpoints, ledger: Ledger) -> None:
        """The same, and from now on this is the state to go back to."""
        if self.guard.calm(self.step):
            self.good, self.good_best, self.first = self.step, self.best_step, None
            self.guard.good()
        self.save(checkpoints, ledger)

    def begin(self, losses: Mapping[str, float]) -> None:
        """Remembers what the model was before its first step."""
        self.gold.begin(losses)
        self.lines.begin(self.model, losses)

    def resume(
        self, checkpoints: Checkpoints, ledger: Ledger, inherits: Inherited | None = None
    ) -> None:
        """Goes on from the newest checkpoint that is whole; a fresh run stays as it is, but for
        what its optimizer inherits.

        Raises:
            StoreError: there are checkpoints and none is whole, or one is of another run.
        """
        self.inherits = inherits
        newest = checkpoints.newest()
        for line in newest.refused:
            ledger.say(f"a checkpoint was refused: {line}")
        self.first = {n: w.clone() for n, w in checkpoint.own_weights(self.model).items()}
        if newest.folder is None:
            if self.inherits is not None:
                self.inherits.into(self.optimizer, self.model)
            ledger.rewind(-1)
            return
        rest = checkpoint.read(newest.folder, self.model, self.optimizer)
        self._restore(rest, newest.folder.path)
        try:
            self.guard.restore(rest["guard"])
            self.room.restore(rest["memory"])
            if self.base is not None and rest["base"] != self.base:
                raise StoreError(
                    f"{newest.folder.path}: the adapter was trained on another base model"
                )
        except (KeyError, TypeError) as problem:
            raise StoreError(f"{newest.folder.path}: the state lacks {problem}") from problem
        if self.good is not None:
            self.first = None
        ledger.rewind(self.step - 1)
        ledger.say(f"resuming after step {self.step}")
        self._tell_arithmetic(rest, newest.folder.path, ledger)
        self.team.same("step that is resumed after", str(self.step))

    def tell_early(self, steps: int, ledger: Ledger) -> None:
        """Says that the run ended before its last step, if it did."""
        if self.step < steps:
            ledger.say(
                f"{ledger.stage}: ends early, after step {self.step} of {steps}: "
                f"{self.waited} evaluations without a better one than at step {self.best_step}"
            )

    def _tell_arithmetic(self, rest: Mapping[str, Any], where: object, ledger: Ledger) -> None:
        """Says if what follows is not to the bit what it would have been."""
        then = rest.get("arithmetic")
        if not isinstance(then, dict):
            raise StoreError(f"{where}: the state lacks 'arithmetic'")
        if other := differing(then, self.arithmetic):
            why = f"{other}; from here on equal within rounding, no longer to the bit"
            ledger.say(f"{ledger.stage}: {LINE}: {why}")
            ledger.row(self.step, {"event": "resumed", "line": LINE, "at": self.step, "why": why})

    def _restore(self, rest: Mapping[str, Any], where: object) -> None:
        try:
            self.step = int(rest["step"])
            self.watch.restore(rest["watch"])
            self.best_step = int(rest["best_step"])
            self.best, self.last = _read(rest["best"]), _read(rest["last"])
            self.waited = int(rest["waited"])
            self.gold.restore(rest["gold"])
            self.lines.restore(rest["redlines"])
            self.repeats.restore(rest["repeats"])
            self.good, self.good_best = rest["good"], int(rest["good_best"])
        except (KeyError, TypeError) as problem:
            raise StoreError(f"{where}: the state lacks {problem}") from problem

    def go_back(self, setback: Setback, checkpoints: Checkpoints, ledger: Ledger) -> None:
        """To the last good state, bit by bit; only what is known of the failures stays.

        Raises:
            RedLine: it failed so often that going back again would not help.
            StoreError: the state to go back to cannot be read.
        """
        self.team.settled(self.saver, self.step)
        self.whole = False  # until all of it is the good one
        to = 0 if self.good is None else self.good
        event = self.guard.back(setback, to)
        self.team.share(lambda: checkpoints.forget_after(-1 if self.good is None else to))
        for weight in self.model.parameters():
            weight.grad = None
        if self.good is None:
            self._first_again()
        else:
            newest = checkpoints.newest()
            if newest.folder is None:
                raise StoreError(f"{checkpoints.at(to)}: the good state to go back to is gone")
            rest = checkpoint.read(newest.folder, self.model, self.optimizer)
            self._restore(rest, newest.folder.path)
            self.guard.rewind(rest["guard"])
            self.good = self.step
        self.untouched.forget()
        self.back_from = event
        ledger.rewind(self.step - 1)
        ledger.clear()
        ledger.say(
            f"{ledger.stage}: {setback.line}: {setback.why}; back to the good state of step "
            f"{self.step}" + (f", {len(setback.steps)} steps are left out" if setback.steps else "")
        )
        self.whole = True

    def _first_again(self) -> None:
        if self.first is None:
            raise StoreError("the state before the first step is gone")
        with torch.no_grad():
            for name, weight in checkpoint.own_weights(self.model).items():
                weight.copy_(self.first[name])
            for buffer in self.optimizer.buffers.values():
                buffer.zero_()
        self.optimizer.step_count = 0
        if self.inherits is not None:
            self.inherits.into(self.optimizer, self.model)
        start = self.gold.start or {}
        self.watch = Watch(self.watch.vocab_size, self.watch.scratch)
        self.gold = Gold(self.gold.mean_rise_at_most, self.gold.source_rise_at_most)
        self.lines = RedLines(self.lines.vocab_size, self.lines.unigram)
        self.repeats = Repeats()
        self.step, self.best_step, self.best, self.last, self.waited = 0, -1, None, None, 0
        self.guard.rewind(None)
        self.begin(start)


def spell(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """An evaluation as JSON has it."""
    if evaluation is None:
        return None
    return {
        "losses": evaluation.losses,
        "exam": evaluation.exam,
        "notes": evaluation.notes,
        "flags": evaluation.flags,
    }


def _read(spelled: dict[str, Any] | None) -> Evaluation | None:
    return None if spelled is None else known(spelled)


def known(spelled: dict[str, Any]) -> Evaluation:
    """An evaluation as `spell` spelled it."""
    return Evaluation(spelled["losses"], spelled["exam"], spelled["notes"], spelled["flags"])
