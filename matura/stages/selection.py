"""Choosing the best checkpoint by exam, on items that no gate ever asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matura.core.types import Score
from matura.exams.exam import Hall
from matura.stages.loading import held_out_documents
from matura.stages.stage import StageKind
from matura.talk.tool import toolbox
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.models.decoder import Decoder


def selecting(
    stage: StageKind,
    model: Decoder,
    template: Template,
    seed: int,
    data: Path,
    hear: Callable[[Sequence[Score]], None] | None = None,
) -> Callable[[], tuple[float | None, dict[str, float]]]:
    """Sits the stage's exams on validation items: their mean (more is better), and each by name.

    The mean is None where there is no exam to choose by; bits per byte are left to validation loss,
    which measures the same. `hear` is told every answer.
    """
    from matura.talk.sampler import TorchSampler

    exams = [exam for exam in stage.exams if exam.better == "higher"]

    def select() -> tuple[float | None, dict[str, float]]:
        if not exams:
            return None, {}
        hall = Hall(
            sampler=TorchSampler(model, template),
            seed=seed,
            held_out=lambda: held_out_documents(data),
            purpose="select",
            tools=toolbox(),
        )
        was_training = model.training
        model.eval()
        scores = [exam.sit(hall) for exam in exams]
        model.train(was_training)
        if hear is not None:
            hear(scores)
        found = {score.exam: score.overall.score for score in scores}
        return sum(found.values()) / len(found), found

    return select
