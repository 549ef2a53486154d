"""The loss on a set that a stage does not train on, before and after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from matura.data.build import build
from matura.data.mixture import once
from matura.data.sources.prepared import Prepared
from matura.stages.loading import template_of
from matura.text.shards import Shard

ROWS = 32
"""Of a set's validation split, as many as training's own validation reads."""
MUCH = 0.2
"""Share by which a loss may rise before it is said to have."""


def worse(name: str, folder: Path, before: Path, after: Path) -> Iterator[str]:
    """One line on a prepared folder's validation loss under the two models."""
    old, new = _loss(before, folder), _loss(after, folder)
    mind = f", more than {MUCH:.0%} worse: replay it" if new > old * (1 + MUCH) else ""
    yield f"eval set {name}: loss {old:.4f} before, {new:.4f} after{mind}"


def _loss(model_folder: Path, folder: Path) -> float:
    """Nats per trained token of the folder's validation split."""
    from matura.learn.batch import Batch
    from matura.learn.compute import choose
    from matura.learn.objectives.next_token import NextToken
    from matura.learn.step import Stepper
    from matura.models import hf

    template, model = template_of(model_folder), hf.load(model_folder)
    with tempfile.TemporaryDirectory() as scratch:
        built = build(
            Prepared(path=folder),
            name="set",
            template=template,
            folder=Path(scratch),
            seed=0,
            stage="eval_sets",
        )
        shard = Shard.open(built.validation)
        length = model.config.sequence_length + 1
        feed = once(shard, name="set", row_length=length, pad_id=template.pad_id)
        rows = feed.at(range(min(ROWS, len(feed))))
    compute = choose(0.0)
    stepper = Stepper(model.to(compute.device), NextToken(), compute)
    total = weight = 0.0
    for part in Batch.of(rows.ids_NL, rows.weights_NL, rows.segments_NL, "eval set").split(8):
        loss = stepper.measure(part)
        total += float(loss.total)
        weight += float(loss.weight)
    return total / max(weight, 1e-9)
