"""Learn from conversations: what the assistant says counts, everything else is read only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from matura.stages.learning import learn
from matura.stages.parts import Train
from matura.stages.stage import Context, Made, StageKind


class Sft(StageKind):
    """One step of the chat curriculum: a lesson or several, with replay of earlier stages."""

    kind: Literal["sft"] = "sft"
    train: Train = Train()
    weights: Literal["plain", "weighted"] = "plain"
    """How much what the assistant says counts. `plain`: everything 1; `weighted`: words 1, thoughts
    and citations 1.5, tool calls and the tags that end a turn 2. What is replayed keeps the weights
    of its own stage."""
    tags: Literal["auto", "weighted", "as they are"] = "auto"
    """Whether control tags start near words that say what they mean; `auto`: in the first chat
    stage."""

    def weighs_tags(self, context: Context) -> bool:
        """See `StageKind.weighs_tags`."""
        first = not any(stage.kind == "sft" for stage in context.earlier.values())
        return self.tags == "weighted" or (self.tags == "auto" and first)

    def make(self, work: Path, parents: Mapping[str, Path], context: Context) -> Made:
        """Trains in `work`; see `StageKind.make`."""
        weigh = self.weighs_tags(context)
        return learn(self, self.train, work, parents, context, weigh_tags=weigh)
