"""What every stage that trains does, from sources to a model folder: build, mix, fit, save."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matura.core.disk import replace_atomically
from matura.core.errors import DataError, StoreError
from matura.core.rng import stream_seed
from matura.core.store import Checkpoints
from matura.data.build import build
from matura.data.mixture import Feed, Part, once
from matura.stages.loading import held_out_documents
from matura.stages.parts import Train
from matura.stages.stage import Context, Made, StageKind
from matura.text.pack import Policy
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from matura.learn.batch import Batch
    from matura.learn.loop import Evaluation
    from matura.learn.step import Stepper
    from matura.models.decoder import Decoder

BUILT = "built.json"
"""Counts of the data in `data/`; written last, so that it tells whole data from half-made."""
VALIDATION_ROWS = 32
"""Rows per source that validation reads: 8,000 tokens, under a second, and steady enough to
rank."""


@dataclass(frozen=True)
class Data:
    """A stage's tokens: what it made itself and what it replays."""

    parts: tuple[Part, ...]
    validation: Mapping[str, Shard]
    counts: Mapping[str, Any]


def learn(
    stage: StageKind,
    train: Train,
    work: Path,
    parents: Mapping[str, Path],
    context: Context,
    *,
    weigh_tags: bool,
) -> Made:
    """Trains a stage's model in `work`, going on from whatever is there already."""
    from matura.learn.compute import choose, keep_freed_memory
    from matura.learn.loop import fit
    from matura.learn.objectives.next_token import NextToken
    from matura.learn.step import Stepper
    from matura.models import hf

    template = Template(Tokenizer.load(parents["tokenizer"] / "model"))
    data = gather(stage, work, parents, context, template)
    row_length = context.model.sequence_length + 1
    feed = Feed(
        data.parts,
        tokens=train.tokens,
        row_length=row_length,
        pad_id=template.pad_id,
        seed=context.seed,
        stage=stage.name,
    )
    report = feed.report()
    _tell(stage, context, data, report)
    keep_freed_memory()
    model, notes = _start(context, parents, template, weigh_tags=weigh_tags)
    compute = choose(flops_so_far(train, context, model))
    model.to(compute.device)
    context.ledger.say(f"{stage.name}: training on {compute}")
    stepper = Stepper(model, NextToken(), compute)
    rows = max(1, train.batch_tokens // context.model.sequence_length)
    settings = plan_fit(train, len(feed), rows, context.model.sequence_length)
    fitted = fit(
        stepper,
        _batches(feed, rows),
        settings,
        scratch=context.start is None,
        evaluate=_evaluator(stage, stepper, data, template, row_length, context, work),
        checkpoints=Checkpoints(work / "state"),
        ledger=context.ledger,
    )
    model.to("cpu").eval()
    hf.save(
        model,
        work / "model",
        bos_id=template.bos_id,
        stop_ids=tuple(sorted(template.stop_ids)),
        pad_id=template.pad_id,
    )
    template.tokenizer.save(work / "model")
    shares = {name: part["share_got"] for name, part in report["parts"].items()}
    numbers = {
        "mixture": report,
        "data": data.counts,
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "validation": fitted.best.losses,
        "parameters": model.config.parameters,
        "compute": str(compute),
        **notes,
    }
    read = report["tokens"] * fitted.steps * rows / len(feed)  # padding is not counted
    return Made(tokens=round(read), shares=shares, numbers=numbers)


def plan_fit(train: Train, feed_rows: int, batch_rows: int, sequence_length: int) -> Any:
    """The steps, schedule and evaluations that a stage's settings come to
    (`learn.loop.Settings`)."""
    from matura.learn.loop import Settings
    from matura.learn.schedule import Schedule

    steps = max(1, round(feed_rows / batch_rows))
    per_step = batch_rows * sequence_length
    count = min(train.evaluations, steps)
    return Settings(
        steps=steps,
        schedule=Schedule(
            tokens=steps * per_step,
            warmup_tokens=train.warmup_tokens,
            decay_tokens=round(train.decay * steps * per_step),
        ),
        tokens_per_step=per_step,
        learning_rate=train.learning_rate,
        embedding_learning_rate=train.embedding_learning_rate,
        matrix_learning_rate=train.matrix_learning_rate,
        weight_decay=train.weight_decay,
        clip=train.clip,
        evaluate_at=frozenset(math.ceil(steps * (i + 1) / count) for i in range(count)),
        checkpoint_every_s=train.checkpoint_every_s,
    )


def flops_so_far(train: Train, context: Context, model: Decoder) -> float:
    """Arithmetic of this stage and those below it: whether compiling is earned back in one climb.

    A function of the recipe alone: a resumed stage must compute as the first try did.
    """
    earlier = [getattr(stage, "train", None) for stage in context.earlier.values()]
    tokens = train.tokens + sum(t.tokens for t in earlier if isinstance(t, Train))
    return 6.0 * model.config.parameters * tokens


def gather(
    stage: StageKind,
    work: Path,
    parents: Mapping[str, Path],
    context: Context,
    template: Template,
) -> Data:
    """The stage's shards, made if they are not there yet, and those it replays.

    Raises:
        DataError: a source is wrong or yields nothing.
    """
    folder = work / "data"
    policy: Policy = "split" if stage.kind == "pretrain" else "drop"
    if not (folder / BUILT).exists():
        counts: dict[str, Any] = {}
        for part in stage.mixture:
            context.ledger.say(f"{stage.name}: reading {part.title}")
            made = build(
                part.source,
                name=part.title,
                template=template,
                folder=folder,
                seed=context.seed,
                stage=stage.name,
            )
            counts[part.title] = {**made.as_dict(), "share": part.share}
        replace_atomically(folder / BUILT, counts)
    counts = _built(folder)
    own = tokenizer_hash(template)
    parts = [
        Part(
            name=part.title,
            shard=Shard.open(folder / f"{part.title}.train.shard", own),
            share=part.share,
            policy=policy,
            max_repeats=part.max_repeats,
        )
        for part in stage.mixture
    ]
    validation = {
        part.title: Shard.open(folder / f"{part.title}.validation.shard", own)
        for part in stage.mixture
    }
    for replay in stage.replay:
        data = parents[replay.stage] / "data"
        whole = sum(entry["share"] for entry in _built(data).values())
        for name, entry in _built(data).items():
            title = f"replay:{replay.stage}.{name}"
            share = replay.share * entry["share"] / whole
            shard = Shard.open(data / f"{name}.train.shard", own)
            how: Policy = "split" if context.earlier[replay.stage].kind == "pretrain" else "drop"
            parts.append(
                Part(
                    name=title,
                    shard=shard,
                    share=share,
                    policy=how,
                    max_repeats=replay.max_repeats,
                )
            )
            validation[title] = Shard.open(data / f"{name}.validation.shard", own)
    return Data(tuple(parts), validation, counts)


def tokenizer_hash(template: Template) -> str:
    """What a shard must have been encoded with."""
    return template.tokenizer.sha256


def _built(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / BUILT).read_text(encoding="utf-8")))
    except (OSError, ValueError) as problem:
        raise StoreError(f"{folder / BUILT}: no readable counts: {problem}") from problem


def _tell(stage: StageKind, context: Context, data: Data, report: Mapping[str, Any]) -> None:
    """One line a part: asked, got, how often each item is seen, and what was left out."""
    rows = [
        (
            name,
            f"{part['share_asked']:.3f}",
            f"{part['share_got']:.3f}",
            part["tokens"],
            f"{part['trained_tokens'] / max(part['tokens'], 1):.0%}",
            f"{part['exposures']:.2f}",
            ", ".join(f"{count} {why}" for why, count in part["dropped"].items()) or "none",
        )
        for name, part in report["parts"].items()
    ]
    head = ("part", "share asked", "got", "tokens", "trained", "times seen", "dropped")
    context.ledger.table(f"{stage.name}: mixture", head, rows)


def _start(
    context: Context, parents: Mapping[str, Path], template: Template, *, weigh_tags: bool
) -> tuple[Decoder, dict[str, Any]]:
    """The model to train: fresh, or the parent's with its control tags given a meaning."""
    from matura.learn.loop import seeded
    from matura.models import hf
    from matura.models.decoder import Decoder, DecoderConfig
    from matura.models.special_rows import weigh_tags as weigh

    spec = context.model
    if context.start is None:
        config = DecoderConfig(
            vocab_size=template.tokenizer.vocab_size,
            hidden_size=spec.hidden_size,
            layers=spec.layers,
            heads=spec.heads,
            kv_heads=spec.kv_heads or spec.heads,
            head_dim=spec.head_dim,
            intermediate_size=spec.intermediate_size,
            sequence_length=spec.sequence_length,
            qk_norm=spec.qk_norm,
            tie_embeddings=spec.tie_embeddings,
            rope_theta=spec.rope_theta,
        )
        model = Decoder(config).start(seeded(stream_seed(context.seed, "model", "start")))
    else:
        model = hf.load(parents[context.start] / "model")
    model.train()
    if not weigh_tags:
        return model, {}
    tokenizer = template.tokenizer
    words = {
        tag: [id for word in words for id in tokenizer.encode(word)]
        for tag, words in template.tag_words().items()
        if tag not in (template.bos_id, template.pad_id)
    }
    generator = seeded(stream_seed(context.seed, "model", "tags"))
    report = weigh(model, words, tokenizer.text_vocab_size, generator)
    return model, {"tags_weighted": [vars(row) for row in report]}


def _batches(feed: Feed, rows: int) -> Callable[[int], Batch]:
    """Batch k of a run: rows k * `rows` onwards; a pure function of k."""
    from matura.learn.batch import Batch

    def batch(step: int) -> Batch:
        indexes = (np.arange(rows) + step * rows) % len(feed)
        found = feed.at(indexes)
        name = f"rows {indexes[0]} to {indexes[-1]}"
        return Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, name)

    return batch


def _validation_batches(
    data: Data, row_length: int, pad_id: int, rows: int
) -> Iterator[tuple[str, Batch]]:
    """The same rows of each source's validation split at every evaluation."""
    from matura.learn.batch import Batch

    for name, shard in data.validation.items():
        feed = once(shard, name=name, row_length=row_length, pad_id=pad_id)
        found = feed.at(range(min(VALIDATION_ROWS, len(feed))))
        whole = Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, name)
        for part in whole.split(rows):
            yield name, part


def _evaluator(
    stage: StageKind,
    stepper: Stepper,
    data: Data,
    template: Template,
    row_length: int,
    context: Context,
    work: Path,
) -> Callable[[int], Evaluation]:
    """Measures validation loss per source, and how the stage's exams would go on items of their
    own."""
    from matura.learn.loop import Evaluation
    from matura.stages.selection import selecting

    batches = list(_validation_batches(data, row_length, template.pad_id, rows=16))
    select = selecting(stage, stepper.model, template, context.seed, work / "data")

    def evaluate(step: int) -> Evaluation:
        totals: dict[str, list[float]] = {}
        for name, batch in batches:
            loss = stepper.measure(batch)
            sums = totals.setdefault(name, [0.0, 0.0])
            sums[0] += float(loss.total)
            sums[1] += float(loss.weight)
        losses = {name: total / weight for name, (total, weight) in totals.items() if weight}
        if not losses:
            raise DataError(f"{stage.name}: no source has a validation loss")
        exam, notes = select()
        return Evaluation(losses=losses, exam=exam, notes=notes)

    return evaluate


def held_out_of(folder: Path) -> Sequence[Any]:
    """The held-out documents of a stage folder."""
    return held_out_documents(folder / "data")
