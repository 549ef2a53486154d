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
        """Between 0 and 1; never 0 before the end, so that no step is wasted."""
        if seen_tokens < self.warmup_tokens:
            return (seen_tokens + 1) / (self.warmup_tokens + 1)
        left = self.tokens - seen_tokens
        if left < self.decay_tokens:
            return self.final + (1 - self.final) * max(left, 0) / self.decay_tokens
        return 1.0
