"""How fast this machine is at exactly what a recipe asks for: a few real steps, a few real answers.

The surprising thing: compiled steps are reckoned from eager ones unless asked for, since the first
of them takes up to a minute, most of it whatever the model's size.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matura.core.rng import rng, stream_seed
from matura.core.store import Checkpoints
from matura.data.mixture import Feed
from matura.ladder.among import ALONE, Among
from matura.ladder.machine import peak_rss_bytes
from matura.ladder.recipe import Recipe
from matura.ladder.show import sampled_parts
from matura.ladder.trial import Trial
from matura.stages.given import given_model
from matura.stages.lora import Lora, tried_on
from matura.stages.origin import model_folder
from matura.stages.parts import Train
from matura.stages.stage import StageKind

if TYPE_CHECKING:
    from matura.learn.batch import Batch
    from matura.learn.compute import Compute
    from matura.models.decoder import Decoder, DecoderConfig

STEPS_S = 1.5
"""How long the steps of one kind are timed at most, the first left out; never fewer than two."""
MOST_STEPS = 12
STAND_IN_FLOPS = 4e12
"""A step above this (8 s at 0.5e12/s) is timed on fewer layers and scaled up."""
COMPILED_FASTER = 1.6
"""Times, whole step; measured at 192 x 4 layers on 2 cores, as in `learn.compute`."""
COMPILING_S = 20.0
"""Before the first compiled step of a process. 2 cores take 30 to 45 s with nothing cached and 5 to
8 s from the compiler's cache; which it will be is not known, so this stands between."""
SAVED_STEP = 1
RUN_BYTES = 25_000_000
"""What a run holds and a plan does not: TensorBoard's writer, counts of the data, records."""

Kind = tuple[int, bool, Lora | None]
"""Of an update: rows in a batch, whether it is compiled, and the adapters that alone learn."""


@dataclass(frozen=True)
class Speed:
    """What one machine takes for each thing that a climb is made of, in seconds."""

    hardware: str
    measured: bool
    """False where a data sheet speaks instead of a clock."""
    compute: str
    """How the arithmetic is done, in words."""
    step: Mapping[Kind, float]
    """One update, by its kind."""
    warmup: Mapping[Kind, float]
    """What the first update of its kind in a process takes besides."""
    validation_row: float
    read_token: float
    """One token of a prompt, or of text whose likelihood is asked."""
    say_step: float
    """One more token for each of a batch of answers: the part that does not grow with it."""
    say_row: float
    """The part that does, for each answer."""
    save: float
    """One checkpoint."""
    memory_bytes: int
    """The most this process held while it was timed, or the GPU's memory as reckoned; of several
    the first one's."""
    others_bytes: int = 0
    """What each further process holds, where there are several."""
    took: float = 0.0


@dataclass
class _Bench:
    """A model of the recipe's shape with real rows to learn from."""

    model: Decoder
    scale: float
    """How many times the arithmetic of the timed model the real one needs."""
    batch: Callable[[int, int], Batch]
    """Rows asked for and which of them."""
    save_to: Path
    step: dict[Kind, float] = field(default_factory=dict)
    warmup: dict[Kind, float] = field(default_factory=dict)


def shape_of(recipe: Recipe, vocab_size: int) -> DecoderConfig:
    """The decoder that the recipe's model is: that of the model it goes on from, where that is
    here."""
    from matura.models.config import read_config
    from matura.models.decoder import DecoderConfig

    given = given_model(recipe.stages)
    if given is not None and given.model is not None and given.model.exists():
        own = read_config(model_folder(given.model))
        rows = max(own.vocab_size, recipe.tokenizer.vocab_size)
        length = recipe.model.sequence_length
        return own.model_copy(update={"sequence_length": length, "vocab_size": rows})
    spec = recipe.model.model_dump()
    spec["kv_heads"] = spec["kv_heads"] or spec["heads"]
    return DecoderConfig(vocab_size=vocab_size, **spec)


def batch_rows(train: Train, recipe: Recipe) -> int:
    """Rows in a batch, as training lays them out."""
    return max(1, train.batch_tokens // recipe.model.sequence_length)


def calibrate(
    recipe: Recipe,
    config: DecoderConfig,
    trial: Trial,
    stages: Sequence[tuple[StageKind, Train, Compute]],
    folder: Path,
    hardware: str,
    *,
    compiling: bool = False,
    among: Among = ALONE,
) -> Speed:
    """Times what the stages of a model of that shape will do, each kind of step once; `folder`
    takes a trial checkpoint.

    With `compiling`, compiled steps are timed as well instead of reckoned from eager ones. What
    one process takes is timed; what each of several holds, is reckoned.
    """
    from matura.learn.compute import keep_freed_memory

    began = time.monotonic()
    keep_freed_memory()
    compute = stages[0][2]
    bench = _bench(recipe, config, trial, stages[0][0], folder, compute)
    for _, train, how in stages:
        _time_kind(bench, train, batch_rows(train, recipe), how, compiling=compiling)
    validation = _time_validation(bench, compute)
    # a whole model's checkpoint is the larger one
    largest = next((train for _, train, _ in stages if train.lora is None), stages[0][1])
    with tried_on(bench.model, largest.lora):
        save = _time_save(bench, largest)
    read, say_step, say_row = _time_talk(bench, trial, recipe.seed)
    most = max(batch_rows(train, recipe) for _, train, _ in stages)
    first, others = _memory(bench.model, config, largest, compute, most, among)
    return Speed(
        hardware=hardware,
        measured=True,
        compute="; ".join(dict.fromkeys(str(how) for _, _, how in stages)),
        step=bench.step,
        warmup=bench.warmup,
        validation_row=validation * bench.scale,
        read_token=read * bench.scale,
        say_step=say_step * bench.scale,
        say_row=say_row * bench.scale,
        save=save * bench.scale,
        memory_bytes=first,
        others_bytes=others,
        took=time.monotonic() - began,
    )


def _bench(
    recipe: Recipe,
    config: DecoderConfig,
    trial: Trial,
    stage: StageKind,
    folder: Path,
    compute: Compute,
) -> _Bench:
    from matura.learn.batch import Batch
    from matura.learn.loop import seeded
    from matura.models.decoder import Decoder

    tokens = max(getattr(s, "train", Train()).batch_tokens for s in recipe.stages)
    whole = 6.0 * config.parameters * tokens
    layers = config.layers
    while layers > 1 and whole * layers / config.layers > STAND_IN_FLOPS:
        layers -= 1
    ids = trial.template.tokenizer.vocab_size
    small = config.model_copy(update={"layers": layers, "vocab_size": ids})
    model = Decoder(small).start(seeded(stream_seed(recipe.seed, "plan", "model")))
    parts = list(sampled_parts(recipe, stage, trial))
    row_length = recipe.model.sequence_length + 1
    reach = min(part.shard.tokens / part.share for part in parts)
    feed = Feed(
        parts,
        tokens=max(1, round(reach)),
        row_length=row_length,
        pad_id=trial.template.pad_id,
        seed=recipe.seed,
        stage=stage.name,
    )

    def batch(rows: int, number: int) -> Batch:
        indexes = (np.arange(rows) + rows * number) % len(feed)
        found = feed.at(indexes)
        made = Batch.of(found.ids_NL, found.weights_NL, found.segments_NL, "calibration")
        return made.to(compute.device)

    scale = config.parameters / small.parameters
    return _Bench(model.to(compute.device).train(), scale, batch, folder)


def _optimizer(model: Decoder, train: Train) -> Any:
    from matura.learn.optim import Optimizer

    return Optimizer.of(
        model,
        matrix_learning_rate=train.matrix_learning_rate,
        learning_rate=train.learning_rate,
        embedding_learning_rate=train.embedding_learning_rate,
        weight_decay=train.weight_decay,
    )


def _time_kind(
    bench: _Bench, train: Train, rows: int, compute: Compute, *, compiling: bool
) -> None:
    """The step of that many rows, and what its first one takes besides."""
    kind = (rows, compute.compiled, train.lora)
    if kind in bench.step:
        return
    if not compute.compiled or compiling:
        with tried_on(bench.model, train.lora):
            usual, bench.warmup[kind] = _times(bench, train, rows, compute)
        bench.step[kind] = usual * bench.scale
        return
    _time_kind(bench, train, rows, replace(compute, compiled=False), compiling=False)
    bench.step[kind] = bench.step[rows, False, train.lora] / COMPILED_FASTER
    bench.warmup[kind] = COMPILING_S


def _times(bench: _Bench, train: Train, rows: int, compute: Compute) -> tuple[float, float]:
    """A usual update as `learn.loop` makes it, and how much longer the first one takes."""
    from matura.learn.objectives.next_token import NextToken
    from matura.learn.optim import update_ratio
    from matura.learn.step import Stepper

    model = bench.model
    stepper = Stepper(model, NextToken(), compute)
    stepper.room.recompute = train.recompute
    stepper.settle(bench.batch(rows, 0), micro_rows=train.micro_rows)
    optimizer = _optimizer(model, train)
    optimizer.muon_dtype = compute.dtype
    times: list[float] = []
    for number in range(1 + MOST_STEPS):
        began = time.monotonic()
        batch = bench.batch(rows, number)
        weight = max(1.0, float(batch.target_weights_BT.abs().sum()))
        stepper.gradients(batch, weight, micro_rows=train.micro_rows)
        optimizer.clip(train.clip)
        learning = list(optimizer.parameters.values())
        before = [weight.detach().clone() for weight in learning]
        optimizer.step(0.01)
        update_ratio(before, [weight.detach() for weight in learning])
        times.append(time.monotonic() - began)
        if len(times) > 2 and sum(times[1:]) > STEPS_S:
            break
    usual = statistics.median(times[1:])
    return usual, max(0.0, times[0] - usual)


def _time_validation(bench: _Bench, compute: Compute) -> float:
    from matura.learn.objectives.next_token import NextToken
    from matura.learn.step import Stepper

    stepper = Stepper(bench.model, NextToken(), replace(compute, compiled=False))
    batch = bench.batch(16, 0)
    return _least(lambda: stepper.measure(batch)) / 16


def _time_save(bench: _Bench, train: Train) -> float:
    from matura.learn import checkpoint

    optimizer = _optimizer(bench.model, train)
    checkpoints = Checkpoints(bench.save_to / "state")
    began = time.monotonic()
    checkpoints.save(
        SAVED_STEP,
        lambda folder: checkpoint.write(folder, bench.model, optimizer, {}, SAVED_STEP),
    )
    return time.monotonic() - began


def _time_talk(bench: _Bench, trial: Trial, seed: int) -> tuple[float, float, float]:
    """Seconds for a token that is read, a step of saying, and each answer in that step."""
    from matura.talk.sampler import TorchSampler

    model = bench.model.eval()
    sampler = TorchSampler(model, trial.template)
    context = model.config.sequence_length
    length, more = max(2, min(40, context // 2)), max(1, min(12, context // 4))
    draw = rng(seed, "plan", "prompts")
    text = trial.template.tokenizer.text_vocab_size
    prompts = [
        [trial.template.bos_id, *(draw.randrange(text) for _ in range(length - 1))]
        for _ in range(128)
    ]

    # as an exam of likelihood reads: its memory is what counts here
    sampler.nats([[*prompts[0], *prompts[1] * (context // length)][:context]] * len(prompts))

    def say(rows: int, tokens: int) -> float:
        asked = prompts[:rows]
        return _least(lambda: sampler.generate(asked, max_tokens=tokens, stop=False))

    few, many = 16, len(prompts)
    read = say(many, 1)
    step_many = max(1e-7, (say(many, 1 + more) - read) / more)
    step_few = max(1e-7, (say(few, 1 + more) - say(few, 1)) / more)
    row = max(0.0, (step_many - step_few) / (many - few))
    return read / (many * length), max(1e-7, step_few - few * row), row


def _least(work: Callable[[], object], times: int = 2) -> float:
    """The shortest of a few tries: what disturbs a clock only makes it longer."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        work()
        found.append(time.monotonic() - began)
    return min(found)


def _memory(
    model: Decoder,
    config: DecoderConfig,
    train: Train,
    compute: Compute,
    rows: int,
    among: Among,
) -> tuple[int, int]:
    """The most that was taken while all of it was timed, and what was not there: the layers that
    were left out, and the copies that a run keeps to go back to and to save. Of several processes
    what the first one takes, and each other one."""
    from matura.learn.footprint import Held, held, standing

    def learning(shape: DecoderConfig) -> int:
        return shape.parameters if train.lora is None else train.lora.trained_parameters(shape)

    def reckoned(shape: DecoderConfig, among: Among) -> Held:
        share = math.ceil(rows / among.processes)
        return held(
            shape,
            min(share, train.micro_rows or share),
            shape.sequence_length,
            learning=learning(shape),
            processes=among.processes,
            shard=among.shard,
            size=compute.dtype.itemsize,
            compiled=compute.compiled,
            recompute=model.recompute,
        )

    small = model.config
    copies = standing(small, learning=learning(small)) - standing(
        small, learning=learning(small), copies=0
    )
    there = reckoned(small, ALONE).first - copies
    most, found = float(peak_rss_bytes() + RUN_BYTES), reckoned(config, among)
    if compute.device == "cuda":
        import torch

        most, found = float(torch.cuda.max_memory_allocated()), replace(found, starting=0)
    return round(most - there + found.first), round(most - there + found.others)
