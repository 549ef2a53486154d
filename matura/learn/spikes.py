"""Steps that stand out: a loss, a gradient or an update far above what the run is used to.

What is usual is a median and its median deviation over values that were accepted. A value that is
turned away never enters the window, so a first spike cannot hide a second one.

Everything here is a function of a few numbers of a step: where many processes train together, they
decide alike from the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

WINDOW = 128
"""Accepted values that are looked back on."""
ENOUGH = 20
"""Of them, before their median is a level to compare with."""
ENOUGH_UPDATES = 10
"""Updates are measured in every tenth step only."""
DEVIATIONS = 8.0
"""Median deviations above the median: 5.4 standard deviations, were they normal."""
RISE = 0.25
"""Part of what separates the usual loss from chance that a spike must rise by besides."""
RISE_LEAST = 0.13
"""And the least rise as a share of ln V: healthy batches of few chat rows swing by 1.5 nats."""
TIMES = 10.0
"""Times the usual gradient norm and the limit it is clipped to, or the usual update: when copying
is found the norm rises five times and comes back."""
BLOWN_UP = 2.0
"""Times ln V that no batch costs, whatever came before: random tokens cost a sure model 1.4."""
AGAIN = 6
"""Values turned away one by one within a window: what keeps coming alone is the data."""


@dataclass
class Spikes:
    """The windows of one run; `state` survives a restart."""

    vocab_size: int
    clip: float
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    away: list[int] = field(default_factory=list)
    """Steps that were turned away, within a window of the last."""

    def odd(self, step: int, loss: float, norm: float) -> tuple[str, str] | None:
        """The red line that a step's numbers cross and how, before they are used; None if none."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "non-finite values", f"loss {loss}, gradient norm {norm}"
        chance = math.log(self.vocab_size)
        if loss > BLOWN_UP * chance:
            return "loss spike", f"loss {loss:.3f}, where knowing nothing costs {chance:.3f}"
        usual, far = _level(self.norms)
        most = max(usual + DEVIATIONS * far, TIMES * max(usual, self.clip))
        if len(self.norms) >= ENOUGH and norm > most:
            return "gradient spike", f"gradient norm {norm:.4g}, {usual:.4g} as a rule"
        usual, far = _level(self.losses)
        rise = max(DEVIATIONS * far, RISE * (chance - usual), RISE_LEAST * chance)
        if len(self.losses) >= ENOUGH and loss > usual + rise and not self._keeps_coming(step):
            return "loss spike", f"loss {loss:.3f}, {usual:.3f} as a rule"
        return None

    def _keeps_coming(self, step: int) -> bool:
        return len([then for then in self.away if then > step - WINDOW]) >= AGAIN

    def turn_away(self, step: int) -> None:
        """Remembers that a step was, and nothing else of it."""
        self.away = [then for then in self.away if then > step - WINDOW] + [step]

    def accept(self, loss: float, norm: float) -> None:
        """Takes a step's numbers as usual ones."""
        self.losses = [*self.losses[1 - WINDOW :], loss]
        self.norms = [*self.norms[1 - WINDOW :], norm]

    def update(self, moved: float, factor: float) -> str | None:
        """How an update stands out for its learning rate, a `factor` of the full one; None, and
        taken as a usual one, if it does not."""
        pace = moved / factor if factor else 0.0
        usual, far = _level(self.updates)
        most = max(usual + DEVIATIONS * far, TIMES * usual)
        if len(self.updates) >= ENOUGH_UPDATES and pace > most:
            return f"the update is {moved:.3g} of the weights, {usual * factor:.3g} as a rule"
        self.updates = [*self.updates[1 - WINDOW :], pace]
        return None

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "updates": list(self.updates),
            "away": list(self.away),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state."""
        self.losses = [float(value) for value in state["losses"]]
        self.norms = [float(value) for value in state["norms"]]
        self.updates = [float(value) for value in state["updates"]]
        self.away = [int(step) for step in state["away"]]


def _level(values: list[float]) -> tuple[float, float]:
    """The median and the median deviation; 0 of nothing."""
    if not values:
        return 0.0, 0.0
    usual = median(values)
    return usual, median(abs(value - usual) for value in values)
