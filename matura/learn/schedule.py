"""How fast to learn when: warm-up, plateau, linear decay; all in tokens, so that the batch size
does not matter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A factor on every learning rate, as a function of tokens already learned from."""

    tokens: int
    warmup_tokens: int
    decay_tokens: int
    """Length of the linear decay at the end."""
    final: float = 0.0
    """The factor where the decay ends."""

    def factor(self, seen_tokens: int) -> float:
        """Between 0 and 1; never 0 before the end, so that no step is wasted.

        Where warm-up and decay overlap the lower one holds, so that the rate never jumps.
        """
        rising = min(1.0, (seen_tokens + 1) / (self.warmup_tokens + 1))
        left = max(self.tokens - seen_tokens, 0)
        if left >= self.decay_tokens:
            return rising
        return min(rising, self.final + (1 - self.final) * left / self.decay_tokens)
