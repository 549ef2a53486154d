"""What every stage that trains does, from sources to a model folder: build, mix, fit, save."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.disk import replace_atomically
from matura.core.errors import StoreError
from matura.core.store import Checkpoints
from matura.data import too_long
from matura.data.build import build
from matura.data.mixture import Feed
from matura.data.source import about
from matura.stages.beginning import begin, inherited
from matura.stages.evaluating import Evaluating, prompts_for_record
from matura.stages.horizon import (
    exposures,
    fit_of,
    flops_so_far,
    laid_out,
    often,
    plan_fit,
    resolved,
    weights_of,
)
from matura.stages.leaks import exam_index, found_text, leaks, refuse_leaks
from matura.stages.lora import Lora, leave, paced
from matura.stages.overlap import note_shared
from matura.stages.parts import Train
from matura.stages.prompts import load as load_prompts
from matura.stages.ready import Data, Ready
from matura.stages.redlines import check_data, unigram_nats
from matura.stages.stage import Context, Made, StageKind
from matura.text.folder import template_in
from matura.text.shards import Shard
from matura.text.template import Template

if TYPE_CHECKING:
    from matura.learn.loop import Fitted
    from matura.models.decoder import Decoder

BUILT = "built.json"
"""Counts of the data in `data/`; written last, so that it tells whole data from half-made."""


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
    from matura.learn.gold import Gold
    from matura.learn.loop import fit
    from matura.learn.redlines import RedLines
    from matura.learn.team import Team

    prompts = () if stage.eval_prompts is None else load_prompts(stage.eval_prompts)
    team = context.team or Team()
    ready = prepare(stage, train, work, parents, context, weigh_tags=weigh_tags)
    template, data, feed, rows = ready.template, ready.data, ready.feed, ready.rows
    stepper, settings, notes = ready.stepper, ready.settings, dict(ready.notes)
    model, report = stepper.model, feed.report()
    look = Evaluating(
        stage,
        team.onlooker(stepper),
        template,
        context,
        work,
        data.validation,
        prompts=prompts,
        seen_a_step=_seen_a_step(data, report, settings.steps),
    )
    fitted = fit(
        stepper,
        ready.batch,
        settings,
        scratch=context.start is None,
        evaluate=look.evaluate,
        checkpoints=Checkpoints(work / "state"),
        ledger=context.ledger,
        gold=Gold(stage.gold.mean_rise_at_most, stage.gold.source_rise_at_most),
        lines=RedLines(model.config.vocab_size, unigram_nats(data.parts)),
        begin=lambda: look.begin(None if weigh_tags else parents.get(context.start or "")),
        team=team,
        inherits=ready.inherits,
    )
    extra = {**notes, **prompts_for_record(stage.eval_prompts, prompts)}
    model = team.whole(model)
    if team.done():
        extra |= _save(model, template, work, train.lora, context, parents)
    if fitted.steps < settings.steps:
        report = feed.report(fitted.steps * rows)
    read = report["tokens"] * fitted.steps * rows / report["rows"]  # padding is not counted
    return Made(
        tokens=round(read),
        shares={name: part["share_got"] for name, part in report["parts"].items()},
        numbers=_numbers(fitted, data, report)
        | {"parameters": model.config.parameters, "compute": str(ready.compute)}
        | extra,
    )


def _numbers(fitted: Fitted, data: Data, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says of the training."""
    return {
        "mixture": report,
        "data": data.counts,
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "gold": dict(fitted.gold),
        "memory": dict(fitted.memory),
        "validation": fitted.best.losses,
    }


def prepare(
    stage: StageKind,
    train: Train,
    work: Path,
    parents: Mapping[str, Path],
    context: Context,
    *,
    weigh_tags: bool,
    sized: int | None = None,
) -> Ready:
    """All that the training needs, its data in `work` made if they were not yet; no step is taken.

    `sized` are the tokens that will be trained on, where that is not the stage's horizon.

    Raises:
        DataError: a source is wrong or yields nothing.
    """
    from matura.learn.compute import choose, keep_freed_memory
    from matura.learn.noise import Noise
    from matura.learn.objectives.next_token import NextToken
    from matura.learn.step import Stepper, yet_to_compile
    from matura.learn.team import Team

    template = template_in(parents["tokenizer"] / "model")
    team = context.team or Team()
    team.ready(context.order, lambda: make_data(stage, work / "data", template, context))
    data = gather(stage, train, work, parents, context, template)
    team.same("data", " ".join(part.shard.sha256[:12] for part in data.parts))
    own = data.parts[: len(stage.mixture)]
    check_data(stage.name, template, own)
    tokens = resolved(stage.name, train, own, context.model.sequence_length + 1)
    feed = _feed(stage, data, tokens, template, context)
    _tell(stage, context, data, feed.report())
    keep_freed_memory()
    model, notes = begin(stage.name, context, parents, template, train, weigh_tags=weigh_tags)
    inherits, taken = inherited(stage.name, context, parents, train, notes)
    here = flops_so_far(tokens, context, model)
    compute = choose(here if sized is None else 6.0 * model.config.parameters * sized)
    team.place(model, compute.device)
    wait = "; the first step is compiled first, up to a minute" if yet_to_compile(compute) else ""
    context.ledger.say(f"{stage.name}: training on {compute}{wait}")
    noise = Noise(train.neftune, context.seed, stage.name) if train.neftune else None
    stepper = Stepper(model, NextToken(), compute, noise)
    rows = max(1, train.batch_tokens // context.model.sequence_length)
    settings = plan_fit(train, len(feed), rows, context.model.sequence_length, stage=stage.name)
    settings = paced(settings, train.lora, model.config)
    return Ready(
        template,
        data,
        feed,
        rows,
        train.positions,
        compute,
        stepper,
        settings,
        notes | taken,
        inherits,
    )


def _feed(stage: StageKind, data: Data, tokens: int, template: Template, context: Context) -> Feed:
    """The rows of the stage's training."""
    return Feed(
        data.parts,
        tokens=tokens,
        row_length=context.model.sequence_length + 1,
        pad_id=template.pad_id,
        seed=context.seed,
        stage=stage.name,
    )


def _seen_a_step(data: Data, report: Mapping[str, Any], steps: int) -> float:
    """How often the most frequent of the stage's own sources is learnt from in one step."""
    own = (times for name, times in exposures(report).items() if name in data.counts)
    return max(own) / steps


def _save(
    model: Decoder,
    template: Template,
    work: Path,
    lora: Lora | None,
    context: Context,
    parents: Mapping[str, Path],
) -> dict[str, Any]:
    """The model and its tokenizer as one Hugging Face folder; with LoRA, the adapter beside it, and
    what the record says of it."""
    model.to("cpu").eval()
    if lora is None or context.start is None:
        _write(model, template, work / "model")
        return {}
    base = parents[context.start] / "model"
    save = partial(_write, model, template)
    return {"lora": leave(model, lora, work, base=base, seed=context.seed, save=save)}


def _write(model: Decoder, template: Template, folder: Path) -> None:
    from matura.models import hf

    hf.save(
        model,
        folder,
        bos_id=template.bos_id,
        stop_ids=tuple(sorted(template.stop_ids)),
        pad_id=template.pad_id,
        generation=template.generation,
    )
    template.tokenizer.save(folder)


def gather(
    stage: StageKind,
    train: Train,
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
    counts = make_data(stage, folder, template, context)
    own = tokenizer_hash(template)
    parts = [
        laid_out(
            part.title,
            Shard.open(folder / f"{part.title}.train.shard", own),
            part.share,
            kind=stage.kind,
            train=train,
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
            parts.append(
                laid_out(
                    title,
                    shard,
                    share,
                    kind=context.earlier[replay.stage].kind,
                    train=train,
                    max_repeats=replay.max_repeats,
                )
            )
            validation[title] = Shard.open(data / f"{name}.validation.shard", own)
    return Data(tuple(parts), validation, counts)


def make_data(
    stage: StageKind, folder: Path, template: Template, context: Context
) -> dict[str, Any]:
    """What of each source stands in `folder` as shards, made if it was not yet.

    Raises:
        DataError: a source is wrong or yields nothing.
    """
    if not (folder / BUILT).exists():
        counts: dict[str, Any] = {}
        writing = template.weighing(weights_of(stage))
        items = None
        if any(found_text(part.source) for part in stage.mixture):
            items = exam_index(context.exams, template, context.seed)
        for part in stage.mixture:
            context.ledger.say(f"{stage.name}: reading {part.title}")
            refuse_leaks(part.source, items)
            made = build(
                part.readable,
                name=part.title,
                template=writing,
                folder=folder,
                seed=context.seed,
                stage=stage.name,
                without=items,
                fit=fit_of(part, stage.kind, context.model),
            )
            if line := too_long.told(made.too_long):
                context.ledger.say(f"{stage.name}: {part.title}: {line}")
            for line in leaks(made.examined):
                context.ledger.say(f"{stage.name}: {part.title}: {line}")
            counts[part.title] = {**made.as_dict(), **about(part.source), "share": part.share}
        note_shared(stage, folder, counts, context.ledger.say)
        replace_atomically(folder / BUILT, counts)
    return _built(folder)


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
    for warning in often(exposures(report)):
        context.ledger.say(f"{stage.name}: mind: {warning}")
