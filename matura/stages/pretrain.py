"""Learn from every token: raw text, or anything rendered as documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from matura.stages.learning import learn
from matura.stages.parts import Train
from matura.stages.stage import Context, Made, StageKind


class Pretrain(StageKind):
    """A base model, or more training of one on other text (induction strengthening, a new
    domain)."""

    kind: Literal["pretrain"] = "pretrain"
    train: Train = Train()

    def make(self, work: Path, parents: Mapping[str, Path], context: Context) -> Made:
        """Trains in `work`; see `StageKind.make`."""
        return learn(self, self.train, work, parents, context, weigh_tags=False)
