"""What is looked at while a stage learns: validation loss by source, its exams on items of their
own, its eval prompts, and whether any of it is a red line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.errors import DataError
from matura.core.store import sha256_of
from matura.core.types import Score
from matura.data.mixture import once
from matura.stages.prompts import Asking, Prompt
from matura.stages.redlines import behaviour, check_parent
from matura.stages.selection import selecting
from matura.stages.stage import Context, StageKind
from matura.talk.tool import toolbox
from matura.text.shards import Shard
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.learn.batch import Batch
    from matura.learn.run import Evaluation
    from matura.learn.step import Stepper

VALIDATION_ROWS = 32
"""Rows per source that validation reads: 8,000 tokens, under a second, and steady enough to
rank."""
ROWS_AT_ONCE = 16


class Evaluating:
    """One stage's evaluations; none of them changes anything that training depends on."""

    def __init__(
        self,
        stage: StageKind,
        stepper: Stepper,
        template: Template,
        context: Context,
        work: Path,
        validation: Mapping[str, Shard],
        *,
        prompts: Sequence[Prompt] = (),
        seen_a_step: float = 0.0,
    ) -> None:
        self.stage, self.stepper, self.template = stage, stepper, template
        self.context = context
        self.seen_a_step = seen_a_step
        """How often each of the stage's own items is learnt from in one step."""
        self._batches = list(
            _batches(validation, context.model.sequence_length + 1, template.pad_id)
        )
        self._heard: list[Score] = []
        self._select = selecting(
            stage, stepper.model, template, context.seed, work / "data", self._heard.extend
        )
        self._asking = Asking(prompts, work, toolbox()) if prompts else None

    def evaluate(self, step: int) -> Evaluation:
        """What the model is worth after that many steps.

        Raises:
            DataError: no source has a validation loss.
        """
        from matura.learn.run import Evaluation

        losses = self.losses()
        if not losses:
            raise DataError(f"{self.stage.name}: no source has a validation loss")
        self._heard.clear()
        exam, notes = self._select()
        flags: dict[str, str] = {}
        if self.stage.kind != "pretrain":
            flags = behaviour(self._heard, steps=step, seen=step * self.seen_a_step)
        if self._asking is not None:
            self._ask(self._asking, step)
        return Evaluation(losses=losses, exam=exam, notes=notes, flags=flags)

    def begin(self, parent: Path | None) -> dict[str, float]:
        """What the replayed sources cost before the first step, held to the record of the parent
        whose weights these are; None where they are not.

        Raises:
            RedLine: the weights are not the parent's.
        """
        losses = self.losses("replay:")
        if parent is not None and self.context.start is not None:
            check_parent(self.stage.name, parent, self.context.start, losses)
        return losses

    def losses(self, prefix: str = "") -> dict[str, float]:
        """Mean nats of each source whose name begins so."""
        totals: dict[str, list[float]] = {}
        for name, batch in self._batches:
            if name.startswith(prefix):
                loss = self.stepper.measure(batch)
                sums = totals.setdefault(name, [0.0, 0.0])
                sums[0] += float(loss.total)
                sums[1] += float(loss.weight)
        return {name: total / weight for name, (total, weight) in totals.items() if weight}

    def _ask(self, asking: Asking, step: int) -> None:
        from matura.talk.sampler import TorchSampler

        model = self.stepper.model
        was_training = model.training
        model.eval()
        asking.ask(step, TorchSampler(model, self.template), self.context.ledger)
        model.train(was_training)


def prompts_for_record(path: Path | None, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Which prompts were asked; nothing if none were."""
    if path is None:
        return {}
    told = {"path": path.as_posix(), "sha256": sha256_of(path), "prompts": len(prompts)}
    return {"eval_prompts": told}


def _batches(
    validation: Mapping[str, Shard], row_length: int, pad_id: int
) -> Iterator[tuple[str, Batch]]:
    """The same rows of each source's validation split at every evaluation."""
    from matura.learn.batch import Batch

    for name, shard in validation.items():
        feed = once(shard, name=name, row_length=row_length, pad_id=pad_id)
        found = feed.at(range(min(VALIDATION_ROWS, len(feed))))
        whole = Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, name)
        for part in whole.split(ROWS_AT_ONCE):
            yield name, part
