"""Whether damage to a checkpoint is noticed: one bit, a cut, a file that is gone, in every file.

Three runs of a tiny model (whole, with adapters, and written by two processes) leave two
checkpoints each. Then the newer one is damaged, again and again, and asked for: it must be refused,
the message must name the file, and the older one must come back bit by bit. Some runs go on to
their end.

    .venv/bin/python bench/flips.py --json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from redlines_scene import FP32, Shape, Told, batch_of, model_of, settings_of

from matura.core.errors import StoreError
from matura.core.store import Checkpoints, Folder
from matura.learn import checkpoint
from matura.learn.loop import Fitted, fit, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.run import Evaluation
from matura.learn.step import Stepper
from matura.models.decoder import Decoder
from matura.models.lora import attach

OLDER, NEWER, STEPS = 5, 9, 12
"""Steps of the two checkpoints, and of the whole run."""
KINDS = ("flip", "flip", "cut", "flip", "flip", "cut", "gone")
"""What is done to a file, in turn: mostly one bit, as that is hardest to see."""
GO_ON = 37
"""Every so many damages the run goes on to its end: a multiple of no number of files or kinds."""
SHAPE = Shape(steps=STEPS, hidden=16, vocab=32, length=16)
Weights = dict[str, bytes]


def whole() -> Decoder:
    """The model of a run in which everything learns."""
    return model_of(SHAPE)


def adapters() -> Decoder:
    """The same with adapters, which alone learn and are saved."""
    model, generator = model_of(SHAPE), seeded(3)
    with torch.no_grad():  # layers that add nothing yet would let no gradient through
        for weight in model.parameters():
            weight.normal_(float(weight.ndim == 1), 0.2, generator=generator)
    attach(model, rank=2, alpha=4, targets=("q_proj", "up_proj"), generator=seeded(4))
    return model


@dataclass
class Kept:
    """A run with two checkpoints, and what is right of it."""

    name: str
    make: Callable[[], Decoder]
    folder: Path
    older: Weights
    """Tensors of the older checkpoint, the optimizer's too."""
    end: Weights
    """Weights in which the run ends that nobody disturbs."""
    files: tuple[str, ...]
    """Of the newer checkpoint, its record included."""


@dataclass
class Tally:
    """What became of the damages."""

    done: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    undetected: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    not_older: list[str] = field(default_factory=list)
    went_on: int = 0
    unequal: list[str] = field(default_factory=list)
    lost: int = 0
    """Runs with no whole checkpoint left."""
    started_afresh: list[str] = field(default_factory=list)


def trained(model: Decoder, folder: Path, stop: int | None = None) -> Fitted | None:
    """The run to its end, or to Ctrl-C before a step; goes on from what lies there."""
    plain = Stepper(model, NextToken(), FP32)

    def evaluate(step: int) -> Evaluation:
        loss = plain.measure(batch_of(SHAPE, 10_000))
        return Evaluation({"held out": float(loss.total / loss.weight)})

    def batches(step: int) -> Any:
        if step == stop:
            raise KeyboardInterrupt
        return batch_of(SHAPE, step)

    try:
        return fit(
            plain,
            batches,
            settings_of(SHAPE),
            scratch=False,
            evaluate=evaluate,
            checkpoints=Checkpoints(folder),
            ledger=Told(),
        )
    except KeyboardInterrupt:
        return None


def optimizer_of(model: Decoder) -> Optimizer:
    """One for a state to be read into."""
    return Optimizer.of(
        model,
        matrix_learning_rate=0.0,
        learning_rate=0.0,
        embedding_learning_rate=0.0,
        weight_decay=0.0,
    )


def tensors(model: Decoder, folder: Path) -> tuple[int, Weights]:
    """What is resumed from: the step, and every tensor of the state bit by bit.

    Raises:
        StoreError: no checkpoint is whole.
    """
    newest = Checkpoints(folder).newest()
    if newest.folder is None:
        return 0, {}
    optimizer = optimizer_of(model)
    rest = checkpoint.read(newest.folder, model, optimizer)
    found = {**checkpoint.own_weights(model), **optimizer.state()}
    return int(rest["step"]), bits(found)


def bits(found: dict[str, torch.Tensor]) -> Weights:
    """Tensors as bytes."""
    return {name: tensor.detach().numpy().tobytes() for name, tensor in found.items()}


def in_two(folder: Path) -> None:
    """Writes a run's checkpoints anew, as two processes would have."""
    place = Checkpoints(folder, keep=9)
    for step in (OLDER, NEWER):
        model = whole()
        optimizer = optimizer_of(model)
        rest = checkpoint.read(Folder.open(place.at(step)), model, optimizer)
        del rest["optimizer_steps"]
        shutil.rmtree(place.at(step))
        place.save(step, partial(both, model, optimizer, rest, step))


def both(model: Decoder, optimizer: Optimizer, rest: Any, step: int, work: Path) -> None:
    """Each of two processes' parts."""
    for rank in range(2):
        checkpoint.write(work, model, optimizer, rest, step, rank=rank, size=2)


def runs(folder: Path) -> list[Kept]:
    """The three runs, each stopped after its newer checkpoint."""
    made = []
    for name, make in (("whole", whole), ("adapters", adapters), ("two processes", whole)):
        end = make()
        trained(end, folder / f"{name}, undisturbed")
        state = folder / name
        older: Weights = {}
        for stop in (OLDER, NEWER):
            trained(make(), state, stop)
            older = older or tensors(make(), state)[1]
        if name == "two processes":
            in_two(state)
        at = Checkpoints(state).at(NEWER)
        files = sorted(path.name for path in at.iterdir())
        made.append(Kept(name, make, state, older, bits(checkpoint.own_weights(end)), (*files,)))
    return made


def harm(path: Path, kind: str, draw: Random) -> str:
    """Damages a file; in words, how."""
    content = bytearray(path.read_bytes())
    if kind == "gone":
        path.unlink()
        return f"{path.name} gone"
    if kind == "cut":
        left = draw.randrange(len(content))
        path.write_bytes(content[:left])
        return f"{path.name} cut to {left} of {len(content)} bytes"
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return f"{path.name} bit {bit}"


def one(kept: Kept, name: str, kind: str, draw: Random, tally: Tally, *, goes_on: bool) -> None:
    """One damage, what is made of it, and everything as it was."""
    at = Checkpoints(kept.folder).at(NEWER)
    spared = kept.folder / "spared"
    shutil.copytree(at, spared)
    told = f"{kept.name}: {harm(at / name, kind, draw)}"
    tally.done[kind] += 1
    tally.files[name] += 1
    newest = Checkpoints(kept.folder).newest()
    if newest.step != OLDER:
        tally.undetected.append(told)
    elif not any(str(at / name) in line for line in newest.refused):
        tally.unnamed.append(f"{told}: {newest.refused[0]}")
    step, state = tensors(kept.make(), kept.folder)
    if newest.step == OLDER and (step, state) != (OLDER, kept.older):
        tally.not_older.append(told)
    if goes_on:
        goes_on_well(kept, told, tally)
    shutil.rmtree(at, ignore_errors=True)
    spared.rename(at)


def goes_on_well(kept: Kept, told: str, tally: Tally) -> None:
    """The damaged run to its end, in a copy: it must end in the undisturbed one's weights."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        shutil.copytree(kept.folder, state, ignore=shutil.ignore_patterns("spared"))
        model = kept.make()
        trained(model, state)
        tally.went_on += 1
        if bits(checkpoint.own_weights(model)) != kept.end:
            tally.unequal.append(told)


def both_harmed(kept: Kept, draw: Random, tally: Tally) -> None:
    """Both checkpoints are damaged: the run must be refused, and never begin afresh."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        shutil.copytree(kept.folder, state)
        told = kept.name
        for step in (OLDER, NEWER):
            told += f", {harm(Checkpoints(state).at(step) / draw.choice(kept.files), 'flip', draw)}"
        tally.lost += 1
        try:
            trained(kept.make(), state)
        except StoreError:
            return
        tally.started_afresh.append(told)


def measured(damages: int, seed: int, folder: Path) -> dict[str, Any]:
    """So many damages, spread over runs, files and kinds."""
    began, draw, tally = time.monotonic(), Random(seed), Tally()
    places = [(kept, name) for kept in runs(folder) for name in kept.files]
    for number in range(damages):
        kept, name = places[number % len(places)]
        kind = KINDS[(number + number // len(places)) % len(KINDS)]
        one(kept, name, kind, draw, tally, goes_on=number % GO_ON == 0)
    for kept in {kept.name: kept for kept, _ in places}.values():
        for _ in range(max(1, damages // 100)):
            both_harmed(kept, draw, tally)
    return {
        "damages": damages,
        "kinds": dict(tally.done),
        "files": dict(sorted(tally.files.items())),
        "undetected": len(tally.undetected),
        "unnamed": len(tally.unnamed),
        "not_older": len(tally.not_older),
        "went_on": tally.went_on,
        "unequal": len(tally.unequal),
        "no_checkpoint_left": tally.lost,
        "started_afresh": len(tally.started_afresh),
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "problems": [
            *tally.undetected[:9],
            *tally.unnamed[:9],
            *tally.not_older[:9],
            *tally.unequal[:9],
            *tally.started_afresh[:9],
        ],
    }


def main() -> int:
    """Parses, damages, prints; 0 if all was noticed, named, and the older checkpoint taken."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--damages", type=int, default=1000)
    about.add_argument("--seed", type=int, default=0, help="of bits and lengths")
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="flips-") as folder:
        found = measured(asked.damages, asked.seed, Path(folder))
    if asked.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{key:20} {value}" for key, value in found.items()))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
