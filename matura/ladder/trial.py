"""A recipe tried on a little of its data: what `show` and `plan` know before anything runs.

Every number comes from the real code (read, split, render, pack) on a sample, scaled up by how much
of the source the sample was; a source that is read to its end within the time is exact.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from matura.core.errors import DataError
from matura.core.record import Frozen, canonical
from matura.core.rng import fraction, rng
from matura.core.types import Conversation, Document, Given
from matura.data.build import build, divided_by_content, held_out
from matura.data.cleaner import CleanedSource
from matura.data.source import Source
from matura.data.split import content_key, split_of
from matura.ladder.recipe import Recipe
from matura.stages.horizon import weights_of
from matura.stages.parts import Part
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

READ_S = 2.0
"""How much processor time is spent on reading a source at most, and a fifth of how long that may
take: beside other work a source read for 2 s of the clock looked like a thousandth of itself."""
SAMPLE_CHARS = 600_000
SAMPLE_ITEMS = 400
SAMPLE_TOKENS = 60_000
TOKENIZER_CHARS = 1_500_000
GZIP_RATIO = 3.5
"""Bytes of text that a byte of gzip holds, about."""

Item = Document | Conversation


@dataclass(frozen=True)
class Tried:
    """A part of a mixture, built from a sample of its source."""

    title: str
    kind: str
    shard: Shard
    validation: Shard
    documents: Sequence[Document]
    """Held-out ones of the sample."""
    tokens: int
    """Of the whole training split, estimated unless `exact`."""
    trained_share: float
    seconds: float
    """What building the whole will take."""
    bytes: int
    """Of the whole source's text."""
    exact: bool
    counted: Mapping[str, Any]
    """What `build` counted of the sample."""


@dataclass
class Trial:
    """A recipe's tokenizer and parts, tried."""

    template: Template
    tokenizer_seconds: float
    """What making the whole tokenizer will take."""
    parts: dict[tuple[str, str], Tried] = field(default_factory=dict)
    """By stage and title."""


@dataclass(frozen=True)
class _Read:
    """What was read of a source in the time there was."""

    items: list[Item]
    seconds: float
    """What reading the whole once takes."""
    bytes: int
    whole: float
    """How many times as much there is in all; 1 if all was read."""
    cleaned: dict[str, Any]
    """What became of them, if they were cleaned."""


class _Sample(Source):
    """Items that were read already, as a source that is split by content."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: str = "sample"
    items: Any

    def read(self, given: Given) -> Iterator[Item]:
        yield from self.items


def try_out(recipe: Recipe, folder: Path) -> Trial:
    """Tries every source of the recipe; whatever is written goes below `folder`.

    Raises:
        DataError: a source is wrong, or yields nothing.
    """
    seen: dict[str, _Read] = {}
    tokenizer, seconds = _tokenizer(recipe, seen)
    trial = Trial(Template(tokenizer), seconds)
    for stage in recipe.stages:
        template = trial.template.weighing(weights_of(stage))
        for part in stage.mixture:
            place = folder / stage.name
            trial.parts[stage.name, part.title] = _tried(part, recipe, template, place, seen)
    return trial


def _tokenizer(recipe: Recipe, seen: dict[str, _Read]) -> tuple[Tokenizer, float]:
    """A tokenizer of the recipe's kind from a sample, and what the whole one will take."""
    spec, mixture = recipe.tokenizer, recipe.tokenizer_stage.mixture
    whole_share = sum(part.share for part in mixture)
    texts: list[str] = []
    reading, corpus = 0.0, 0.0
    for part in mixture:
        read = _read(part, recipe.seed, "tokenizer", None, seen)
        room = part.share / whole_share
        most = spec.corpus_bytes * room
        corpus += min(most, read.bytes * read.whole)
        reading += read.seconds * min(1.0, most / max(1.0, read.bytes * read.whole))
        chosen = sorted(_texts(read.items), key=lambda text: fraction(text, "sample"))
        texts += _first(chosen, round(TOKENIZER_CHARS * room))
    if not texts:
        raise DataError("tokenizer: its mixture yields no text")
    began = time.monotonic()
    tokenizer = Tokenizer.train(
        texts,
        vocab_size=spec.vocab_size,
        dialect=spec.dialect,
        spare=spec.spare,
        split=spec.split,
    )
    took = time.monotonic() - began
    sample = sum(len(text) for text in texts)
    # merges are counted over different words, which grow more slowly than the text
    return tokenizer, reading + took * max(1.0, corpus / sample) ** 0.8


def _texts(items: Sequence[Item]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Conversation):
            yield from (message.content for message in item.messages if message.content)
        elif item.ids is None and item.text.strip() and split_of(item) == "train":
            yield item.text


def _first(texts: Sequence[str], chars: int) -> Iterator[str]:
    for text in texts:
        if chars <= 0:
            return
        yield text
        chars -= len(text)


def _tried(
    part: Part, recipe: Recipe, template: Template, folder: Path, seen: dict[str, _Read]
) -> Tried:
    source, codec = part.source, template.tokenizer
    reading, whole, scale = 0.0, 1.0, 1.0
    cleaned: dict[str, Any] = {}
    size = 0
    sample: Any = source
    if divided_by_content(source):
        read = _read(part, recipe.seed, folder.name, codec, seen)
        items = sorted(read.items, key=lambda item: fraction(content_key(item), "sample"))
        kept = list(_small(items))
        got = _size(kept)
        sample = _Sample(items=kept)
        whole, scale, cleaned = read.whole, read.bytes / max(1, got), read.cleaned
        reading, size = 2 * read.seconds, round(read.bytes * read.whole)
    elif "tokens" in type(source).model_fields:
        scale = max(1.0, source.tokens / SAMPLE_TOKENS)  # type: ignore[union-attr]
        sample = source.model_copy(update={"tokens": round(source.tokens / scale)})  # type: ignore[union-attr]
    elif "max_examples" in type(source).model_fields:
        scale = max(1.0, source.max_examples / SAMPLE_ITEMS)  # type: ignore[union-attr]
        sample = source.model_copy(update={"max_examples": round(source.max_examples / scale)})  # type: ignore[union-attr]
    began = time.monotonic()
    built = build(
        sample,
        name=part.title,
        template=template,
        folder=folder,
        seed=recipe.seed,
        stage=folder.name,
    )
    took = time.monotonic() - began
    info = built.shards["train"]
    return Tried(
        title=part.title,
        kind=source.kind,
        shard=Shard.open(built.train, codec.sha256),
        validation=Shard.open(built.validation, codec.sha256),
        documents=held_out(built.held_out) if built.held_out else (),
        tokens=round(info.tokens * scale * whole),
        trained_share=built.trained_share,
        seconds=reading + took * scale * whole,
        bytes=size,
        exact=scale == whole == 1.0,
        counted=built.as_dict() | {"cleaned": cleaned},
    )


def _small(items: Sequence[Item]) -> Iterator[Item]:
    """Items up to the sample's size, so many at least that they can be split."""
    chars = 0
    for number, item in enumerate(items):
        if chars >= SAMPLE_CHARS and number >= 24:
            return
        chars += _size((item,))
        yield item


def _size(items: Sequence[Item]) -> int:
    return sum(
        sum(len(turn.content) for turn in item.messages)
        if isinstance(item, Conversation)
        else len(item.text)
        for item in items
    )


def _read(
    part: Part, seed: int, stage: str, codec: Tokenizer | None, seen: dict[str, _Read]
) -> _Read:
    """As much of the source as can be read in `READ_S`, once for all stages that share it."""
    source = part.source
    key = f"{canonical([source, part.clean])}:{codec is None}"
    if divided_by_content(source):
        key = key.rpartition(":")[0]
    if key in seen:
        return seen[key]
    given = Given(rng=rng(seed, stage, "gather", "sample"), tokenizer=codec, split="train")
    items: list[Item] = []
    began, busy = time.monotonic(), time.process_time()
    ended = True
    readable = part.readable
    for item in readable.read(given):
        items.append(item)
        if time.process_time() - busy > READ_S or time.monotonic() - began > 5 * READ_S:
            ended = False
            break
    tokenless = codec is None and not divided_by_content(source)
    if not items and not tokenless:  # token runs are nothing that a tokenizer could learn from
        raise DataError(f"{stage}: the source {source.kind!r} yielded nothing")
    took, size = time.monotonic() - began, _size(items)
    raw = readable.counts.read_chars if isinstance(readable, CleanedSource) else size
    whole = 1.0 if ended else max(1.0, _bytes_there(source) / max(1, raw))
    cleaned = readable.counts.as_dict() if isinstance(readable, CleanedSource) else {}
    seen[key] = _Read(items, took * whole, size, whole, cleaned)
    return seen[key]


def _bytes_there(source: Frozen) -> float:
    """The size of the text in a source's files, as far as file sizes tell."""
    endings = tuple(getattr(source, "suffixes", ("",)))
    total = 0.0
    for name in type(source).model_fields:
        value = getattr(source, name)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path):
                files = path.rglob("*") if path.is_dir() else (path,)
                total += sum(_text_bytes(file) for file in files if file.name.endswith(endings))
    return total


def _text_bytes(file: Path) -> float:
    if not file.is_file():
        return 0.0
    return file.stat().st_size * (GZIP_RATIO if file.suffix == ".gz" else 1.0)
