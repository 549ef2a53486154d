"""A run as `climb` leaves it, made in a moment: real folders, real shards, a real but untrained
model, and exams somebody made up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from matura.core.disk import replace_atomically
from matura.core.rng import rng
from matura.core.store import publish
from matura.core.types import Item, Score
from matura.data.build import build
from matura.data.mixture import Feed, Part
from matura.data.sources.folder import Folder
from matura.exams.interval import share
from matura.exams.proof import score_to_json
from matura.ladder.recipe import Recipe, loads, spell
from matura.lessons.echo import Echo
from matura.models import hf
from matura.models.decoder import Decoder, DecoderConfig
from matura.stages.learning import BUILT
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

RECIPE = """
name: {name}
seed: 7
tokenizer: {{kind: bpe, vocab_size: 300, dialect: matura}}
model: {{hidden_size: 32, layers: 2, heads: 2, sequence_length: 64}}
stages:
  - name: base
    kind: pretrain
    mixture: [{{source: {{kind: folder, path: {text}}}, share: 1.0}}]
    train: {{tokens: 4000, batch_tokens: 256}}
    exams: [{{exam: bpb, at_most: 9.0, row_length: 64}}]
  - name: chat
    kind: sft
    mixture: [{{source: {{kind: echo, max_examples: 300}}, share: 0.8, lose_at_most: 1}}]
    replay: [{{stage: base, share: 0.2}}]
    train: {{tokens: 6000, batch_tokens: 256}}
    exams: [{{exam: echo}}, {{exam: format_strict}}]
"""
RARE = '<script>alert("no")</script> & "quotes" \u202e'


@dataclass
class Pretended:
    """The run, its recipe's text and its template."""

    run: Path
    recipe: Recipe
    template: Template


def recipe_text(folder: Path, name: str = "tiny") -> str:
    """A recipe over a small folder of text, which is made."""
    text = folder / "text"
    text.mkdir(parents=True, exist_ok=True)
    draw = rng(0, "pretend")
    for number in range(60):
        words = " ".join(
            draw.choice(("river", "stone", "light", "path", "answer", "seven")) for _ in range(60)
        )
        (text / f"{number:02}.txt").write_text(f"{number}: {words}.\n")
    return RECIPE.format(name=name, text=text)


def model_folder(folder: Path, template: Template) -> Path:
    """An untrained model with its tokenizer."""
    config = DecoderConfig(
        vocab_size=template.tokenizer.vocab_size,
        hidden_size=32,
        layers=2,
        heads=2,
        kv_heads=2,
        sequence_length=256,
        qk_norm=True,
        tie_embeddings=True,
    )
    model = Decoder(config).start(torch.Generator().manual_seed(1))
    hf.save(
        model,
        folder,
        bos_id=template.bos_id,
        stop_ids=tuple(sorted(template.stop_ids)),
        pad_id=template.pad_id,
    )
    template.tokenizer.save(folder)
    return folder


def score(exam: str, right: int, *, floor: float | None = 0.5, n: int = 200, **more: Any) -> Score:
    """A score of so many right answers."""
    cell = share([1.0] * right + [0.0] * (n - right), floor)
    items = tuple(
        Item(
            f"{exam}/{i}",
            "COPY x 1",
            float(i < right),
            f"say {RARE}" if i == n - 1 else f"say {i}",
            f"{i}",
            f"{i}<|end_turn|>" if i < right else f"wrong {i} {RARE}",
            "stop" if i < right else "length",
        )
        for i in range(n)
    )
    return Score(
        exam, 1, cell, {}, cell.outcome, 0, items, "0" * 64, "1" * 64, {"better": "higher"}, **more
    )


def bpb(value: float) -> Score:
    """A bits-per-byte score."""
    found = score("bpb", 100, floor=None)
    cell = type(found.overall)(value, value - 0.05, value + 0.05, 200, "pass", 9.0)
    return Score(
        "bpb", 1, cell, {}, "pass", 0, found.items[:20], "0" * 64, "1" * 64, {"better": "lower"}
    )


def pretend(root: Path, name: str = "tiny", *, stages: int = 2, echo: int = 196) -> Pretended:
    """A run of a tokenizer and up to two stages; `echo` of 200 echo items are right."""
    recipe = loads(recipe_text(root, name))
    run = root / "runs" / name
    run.mkdir(parents=True)
    replace_atomically(run / "recipe.yaml", spell(recipe).encode())
    template = Template(Tokenizer.bytes_only("matura"))
    work = run / "tokenizer@1.work"
    template.tokenizer.save(work / "model")
    publish(work, run / "tokenizer@1", record(recipe, "tokenizer", {}, 0, 1.5))
    places: dict[str, Path] = {}
    scores = {
        "base": [bpb(2.31)],
        "chat": [score("echo", echo, floor=0.9), score("format_strict", 150, floor=0.6), bpb(2.36)],
    }
    for stage in recipe.stages[:stages]:
        work = run / f"{stage.name}@1.work"
        work.mkdir()
        parts = dict(_parts(recipe, stage.name, template, work / "data", places))
        row_length = recipe.model.sequence_length + 1
        feed = Feed(
            list(parts.values()),
            tokens=stage.train.tokens,  # type: ignore[attr-defined]
            row_length=row_length,
            pad_id=template.pad_id,
            seed=recipe.seed,
            stage=stage.name,
        )
        model_folder(work / "model", template)
        _metrics(work, 60 if stage.name == "base" else 200, list(parts))
        own = {exam.exam for exam in stage.exams}
        kept = {
            "owners": {s.exam: stage.name if s.exam in own else "base" for s in scores[stage.name]},
            "sittings": [score_to_json(s) for s in scores[stage.name]],
            "regressions": [
                {
                    "exam": s.exam,
                    "drop": 0.05,
                    "low": 0.0,
                    "high": 0.1,
                    "n": 200,
                    "chance": 0.4,
                    "at_most": 0.2,
                    "outcome": "pass",
                }
                for s in scores[stage.name]
                if s.exam not in own
            ],
        }
        replace_atomically(work / "exams.json", kept)
        parents = {"tokenizer": "tokenizer@1"} | ({"base": "base@1"} if places else {})
        seconds = 92.0 if stage.name == "base" else 41.5
        about = record(recipe, stage.name, parents, stage.train.tokens, seconds, feed.report())  # type: ignore[attr-defined]
        publish(work, run / f"{stage.name}@1", about)
        places[stage.name] = run / f"{stage.name}@1"
    return Pretended(run, recipe, template)


def _parts(
    recipe: Recipe, stage: str, template: Template, folder: Path, places: dict[str, Path]
) -> Iterator[tuple[str, Part]]:
    sha256 = template.tokenizer.sha256
    source: Any = Echo(max_examples=300)
    title, own = "echo", 0.8
    if stage == "base":
        source, title, own = recipe.stages[0].mixture[0].source, "folder", 1.0
        assert isinstance(source, Folder)
    built = build(
        source, name=title, template=template, folder=folder, seed=recipe.seed, stage=stage
    )
    replace_atomically(folder / BUILT, {title: {**built.as_dict(), "share": own}})
    shard = Shard.open(folder / f"{title}.train.shard", sha256)
    yield title, Part(title, shard, own, max_repeats=1e9)
    if stage == "chat":
        old = Shard.open(places["base"] / "data" / "folder.train.shard", sha256)
        yield "replay:base.folder", Part("replay:base.folder", old, 0.2, max_repeats=1e9)


def _metrics(work: Path, steps: int, sources: list[str]) -> None:
    draw = rng(1, work.name)
    rows: list[dict[str, Any]] = []
    for step in range(steps):
        loss = 1.6 + 4 * math.exp(-step / steps * 6) + draw.random() * 0.25
        rows.append({"step": step, "loss": loss, "grad_norm": 1.0, "rate": 1.0, "update": 0.01})
        rows[-1] |= {"update/matrices": 0.004, "update/head": 0.02}
        if (step + 1) % (steps // 4) == 0:
            found = {f"validation/{name}": loss + 0.1 * i for i, name in enumerate(sources)}
            rows.append({"step": step, **found})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (work / "metrics.jsonl").write_text(text)


def record(
    recipe: Recipe,
    stage: str,
    parents: dict[str, str],
    tokens: int,
    seconds: float,
    mixture: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a stage's record says."""
    kind = next((s.kind for s in recipe.stages if s.name == stage), "tokenizer")
    lineage = {"asked": {}, "got": {}, "model_tokens": {}}
    if stage == "base":
        lineage = {
            "asked": {"base/folder": 1.0},
            "got": {"base/folder": 1.0},
            "model_tokens": {"base/folder": 4000},
        }
    if stage == "chat":
        lineage = {
            "asked": {"chat/echo": 0.8, "base/folder": 0.2},
            "got": {"chat/echo": 0.797, "base/folder": 0.203},
            "model_tokens": {"base/folder": 5218, "chat/echo": 4782},
        }
    numbers: dict[str, Any] = {
        "seconds": seconds,
        "peak_rss_bytes": 812_000_000 + tokens,
        "tokens": tokens,
    }
    if mixture:
        numbers |= {
            "mixture": mixture,
            "parameters": 34_656,
            "compute": "cpu, float32, eager, 1 threads",
        }
    return {
        "stage": stage,
        "attempt": 1,
        "asked": {"stage": {"kind": kind, "name": stage}, "parents": parents, "seed": recipe.seed},
        "lineage": lineage,
        "version": "0.1.0",
        "machine": {
            "system": "Linux",
            "python": "3.11",
            "cores": 2,
            "processor": "a laptop's",
            "torch": "2.13.0",
        },
        "numbers": numbers,
    }
