"""Red lines that show only over many steps: nothing is learnt, or what was learnt is gone.

What is *not* a red line, and never stops a run: a loss that falls slowly, an old source that is
half forgotten, an answer in the wrong case or to an unknown wording, a wrong answer now and then.
So every line needs both a level that no healthy run stands at and, where time can heal it, the same
again later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from matura.core.errors import RedLine
from matura.models.decoder import Decoder
from matura.models.pieces import whole

WINDOWS = (150, 300, 600)
"""Steps that are looked back on, as far as there are so many: stuck is who is flat in all of them.
A run has at least the first number before it can be called stuck."""
LOOK_EVERY = 10
FALL = 0.001
"""Share of the loss that it must fall by, from the window's second third to its last, not to be
flat."""
NOISE = 1.0
"""Standard errors that it must fall by besides. A loss of 10.6 with noise 0.05 that falls by 0.001
a step is not stuck then, and random labels are."""
SURELY = 0.02
"""Share of the loss that it surely does not fall by: what is too noisy to tell is not flat."""
SURE = 2.0
"""Standard errors that make it sure."""
NO_BETTER = 0.98
"""Of the unigram entropy: whoever does not even get here knows no more than which tokens are
common."""
HIGH = 0.3
"""Share of ln V below which no loss counts as stuck: a few answers repeated have little entropy."""
CHANCE = 0.9
"""Share of ln V from which a loss counts as chance: 9.7 of a vocabulary of 50,257."""
LOST = 0.5
"""Part of what separates a loss from chance that must be gone: forgetting without any replay cost a
2M base 0.26 of it (LOG 2026-11-20)."""
LOST_LEAST = 0.13
"""And the least rise as a share of ln V, for models that never were far from chance: 1 nat at 2,048
ids."""
IN_A_ROW = 5
"""Steps so bad in a row: a batch of another kind comes alone."""
ENOUGH = 20
"""Steps before their median is a level to compare with."""
LOUD = 30.0
"""Times the median norm from which an embedding row is loud."""
RATE_UP = 0.5
"""Share of the full learning rate from which steps count: warming up, nothing may move yet."""


@dataclass
class RedLines:
    """The slow detectors of one run; `state` survives a restart."""

    vocab_size: int
    unigram: float | None = None
    """Entropy in nats of the trained tokens, if it is known."""
    recent: list[float] = field(default_factory=list)
    over: int = 0
    """Steps in a row that were far worse than the recent ones."""
    lowest: dict[str, float] = field(default_factory=dict)
    """Lowest loss of each source that was measured in this stage."""
    rows: tuple[int, int] | None = None
    """Zero and loud embedding rows at the start."""

    @property
    def chance(self) -> float:
        """The loss of knowing nothing."""
        return math.log(self.vocab_size)

    def begin(self, model: Decoder, losses: Mapping[str, float]) -> None:
        """Remembers what the model was before its first step."""
        self.rows = odd_rows(model)
        self.lowest = dict(losses)

    def step(self, step: int, name: str, loss: float, rate: float) -> None:
        """Raises RedLine if learning has stopped, or has come undone."""
        if rate < RATE_UP and not self.recent:
            return
        if self._far_worse(loss):
            self.over += 1
            if self.over >= IN_A_ROW:
                usual = median(self.recent[-WINDOWS[0] :])
                raise RedLine(
                    f"lost what it had learnt: step {step}, {name}: {self.over} steps in a row at "
                    f"{loss:.3f}, {usual:.3f} before; try a lower learning rate, or look at what "
                    "was done to the weights"
                )
            return  # what is rejected never enters the window
        self.over = 0
        self.recent = [*self.recent[1 - WINDOWS[-1] :], loss]
        if step % LOOK_EVERY == LOOK_EVERY - 1:
            self._check_stuck(step, name)

    def _far_worse(self, loss: float) -> bool:
        if len(self.recent) < ENOUGH:
            return False
        return self._is_lost(loss, median(self.recent[-WINDOWS[0] :]))

    def _is_lost(self, loss: float, before: float) -> bool:
        return loss - before > max(LOST * (self.chance - before), LOST_LEAST * self.chance)

    def _check_stuck(self, step: int, name: str) -> None:
        windows = [window for window in WINDOWS if len(self.recent) >= window]
        if not windows or not all(_flat(self.recent[-window:]) for window in windows):
            return
        now = median(self.recent[-WINDOWS[0] // 3 :])
        known = CHANCE * self.chance if self.unigram is None else NO_BETTER * self.unigram
        if now < max(known, HIGH * self.chance):
            return
        against = (
            f"chance is {self.chance:.3f}"
            if self.unigram is None
            else f"knowing only how common each token is gives {self.unigram:.3f}"
        )
        raise RedLine(
            f"not learning: step {step}, {name}: the loss has stood at {now:.3f} for "
            f"{windows[-1]} steps ({against}); are the labels random or shuffled, or the learning "
            "rates far off?"
        )

    def evaluation(
        self,
        step: int,
        model: Decoder,
        losses: Mapping[str, float],
        flags: Mapping[str, str],
        before: Mapping[str, str],
    ) -> None:
        """Raises RedLine if a source's loss, the embeddings or the behaviour is beyond repair.

        `flags` are what the answers show, by detector, and `before` those of the evaluation before:
        one that is there both times stops the run.
        """
        for name, loss in losses.items():
            at_best = self.lowest.get(name)
            if at_best is not None and self._is_lost(loss, at_best):
                raise RedLine(
                    f"lost basic language: step {step}, {name}: validation loss {loss:.3f}, "
                    f"{at_best:.3f} at best (chance {self.chance:.3f}): are the embeddings whole?"
                )
        for name, loss in losses.items():
            self.lowest[name] = min(loss, self.lowest.get(name, loss))
        zero, loud = odd_rows(model)
        zero_then, loud_then = self.rows or (0, 0)
        if zero > zero_then or loud > loud_then:
            raise RedLine(
                f"embeddings broken: step {step}: {zero} rows of zeros ({zero_then} at the start), "
                f"{loud} rows more than {LOUD:g} times as long as usual ({loud_then} at the start)"
            )
        for name in flags.keys() & before.keys():
            raise RedLine(f"{name}: step {step}, and the evaluation before: {flags[name]}")

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {
            "recent": list(self.recent),
            "over": self.over,
            "lowest": dict(self.lowest),
            "rows": None if self.rows is None else list(self.rows),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state."""
        self.recent, self.over = [float(loss) for loss in state["recent"]], int(state["over"])
        self.lowest = {str(name): float(loss) for name, loss in state["lowest"].items()}
        rows = state["rows"]
        self.rows = None if rows is None else (int(rows[0]), int(rows[1]))


def _flat(losses: list[float]) -> bool:
    """Whether losses no longer fall, as far as their noise lets one tell."""
    third = len(losses) // 3
    early, late = losses[third:-third], losses[-third:]  # what is common is learnt before
    now = median(late)
    fall = median(early) - now
    # of a median, from the median deviation; the difference of two
    error = 1.4826 * median(abs(loss - now) for loss in late) * 1.2533 * math.sqrt(2 / third)
    return fall < max(FALL * now, NOISE * error) and fall + SURE * error < SURELY * now


def odd_rows(model: Decoder) -> tuple[int, int]:
    """How many embedding rows are nothing but zeros, and how many are far longer than usual."""
    with torch.no_grad():
        norms = whole(model.model.embed_tokens.weight).norm(dim=1)
        usual = norms.median()
        return int((norms == 0).sum()), int((norms > LOUD * usual).sum())
