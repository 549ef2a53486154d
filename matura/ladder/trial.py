"""A recipe tried on a little of its data: what `show` and `plan` know before anything runs.

Every number comes from the real code (read, split, render, pack) on a sample, scaled up by how much
of the source the sample was; a source that is read to its end within the time is exact.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from matura.core.errors import DataError, NotHereError
from matura.core.record import Frozen, canonical
from matura.core.rng import fraction, rng
from matura.core.types import Conversation, Document, Given
from matura.data.build import build, divided_by_content
from matura.data.cleaner import CleanedSource
from matura.data.deduped import DedupedSource
from matura.data.held import held_out
from matura.data.source import CHARS_PER_TOKEN, Source, about
from matura.data.sources.prepared import Prepared
from matura.data.split import EXAM_SHARE, VALIDATION_SHARE, content_key, split_of
from matura.data.too_long import Fit
from matura.ladder.absent import Absent, declared, given_tokenizer, stand_in, taken_tokenizer
from matura.ladder.recipe import Recipe
from matura.stages.horizon import fit_of, weights_of
from matura.stages.parts import Part
from matura.text.folder import template_of
from matura.text.shards import Shard
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

READ_S = 2.0
"""How much processor time is spent on reading a source at most, and a fifth of how long that may
take: beside other work a source read for 2 s of the clock looked like a thousandth of itself."""
SAMPLE_CHARS = 600_000
STAND_IN_CHARS = 150_000
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
    declared: int | None = None
    """The tokens it says it holds, where it is not here and something else was sampled."""


@dataclass
class Trial:
    """A recipe's tokenizer and parts, tried."""

    template: Template
    tokenizer_seconds: float
    """What making the whole tokenizer will take."""
    vocab_size: int
    """Of the whole tokenizer: a sample may hold too few words for as many ids as were asked."""
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
    before: Mapping[str, Any]
    """What became of the documents, if they were `cleaned` or `deduped`."""
    declared: int | None = None
    """The tokens of a source that is not here, which others' items stand for."""


class _Sample(Source):
    """Items that were read already, as a source that is split by content."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: str = "sample"
    items: Any

    def read(self, given: Given) -> Iterator[Item]:
        yield from self.items


def try_out(recipe: Recipe, folder: Path, absent: Absent = "refuse") -> Trial:
    """Tries every source of the recipe; whatever is written goes below `folder`.

    Raises:
        NotHereError: a source or a given model is not here, and nothing may stand in, or nothing
            says how much it is.
        DataError: a source is wrong, or yields nothing.
    """
    seen: dict[str, _Read] = {}
    tokenizer, seconds, times = _tokenizer(recipe, seen, absent)
    ids = tokenizer.vocab_size if times <= 1 else recipe.tokenizer.vocab_size
    trial = Trial(template_of(tokenizer), seconds, ids)
    for stage in recipe.stages:
        template = trial.template.weighing(weights_of(stage))
        for part in stage.mixture:
            place = folder / stage.name
            fit = fit_of(part, stage.kind, recipe.model, faults="count")
            tried = _tried(part, recipe, template, place, seen, absent, fit)
            trial.parts[stage.name, part.title] = tried
    return trial


def _tokenizer(
    recipe: Recipe, seen: dict[str, _Read], absent: Absent
) -> tuple[Tokenizer, float, float]:
    """A tokenizer of the recipe's kind from a sample, what the whole one will take, and of how
    many times as much text; or the given model's."""
    spec, mixture = recipe.tokenizer, recipe.tokenizer_stage.mixture
    if (model := recipe.tokenizer_stage.model) is not None:
        return given_tokenizer(model, spec, absent), 0.0, 1.0
    if spec.path is not None:
        return taken_tokenizer(spec.path, spec, absent), 0.0, 1.0
    whole_share = sum(part.share for part in mixture)
    texts: list[str] = []
    reading, corpus = 0.0, 0.0
    for part in mixture:
        read = _read(part, recipe.seed, "tokenizer", None, seen, absent)
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
    times = corpus / sample
    return tokenizer, reading + took * max(1.0, times) ** 0.8, times


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


@dataclass(frozen=True)
class _Chosen:
    """What of a part is built, and how much more of it there is."""

    sample: Any
    times: float = 1.0
    """How many times as much the whole is."""
    reading_s: float = 0.0
    bytes: int = 0
    before: Mapping[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    """Of the training split, where they are known from elsewhere."""
    declared: int | None = None


def _tried(
    part: Part,
    recipe: Recipe,
    template: Template,
    folder: Path,
    seen: dict[str, _Read],
    absent: Absent,
    fit: Fit,
) -> Tried:
    codec = template.tokenizer
    chosen = _chosen(part, recipe.seed, folder.name, codec, seen, absent)
    began = time.monotonic()
    built = build(
        chosen.sample,
        name=part.title,
        template=template,
        folder=folder,
        seed=recipe.seed,
        stage=folder.name,
        fit=fit,
    )
    took = time.monotonic() - began
    info = built.shards["train"]
    tokens = round(info.tokens * chosen.times) if chosen.tokens is None else chosen.tokens
    return Tried(
        title=part.title,
        kind=part.source.kind,
        shard=Shard.open(built.train, codec.sha256),
        validation=Shard.open(built.validation, codec.sha256),
        documents=held_out(built.held_out) if built.held_out else (),
        tokens=tokens,
        trained_share=built.trained_share,
        seconds=chosen.reading_s + took * max(1.0, tokens / info.tokens),
        bytes=chosen.bytes,
        exact=chosen.times == 1.0,
        counted={**built.as_dict(), **chosen.before, **_licence(part.source)},
        declared=chosen.declared,
    )


def _licence(source: Frozen) -> dict[str, str]:
    """As a record will have it; not known of what is not here."""
    try:
        return {"licence": about(source)["licence"]}
    except NotHereError:
        return {}


def _chosen(
    part: Part, seed: int, stage: str, codec: Tokenizer, seen: dict[str, _Read], absent: Absent
) -> _Chosen:
    source: Any = part.source
    fields = type(source).model_fields
    if isinstance(source, Prepared) and source.path.is_dir():
        return _prepared(source, seed, stage, codec)
    if divided_by_content(source) or isinstance(source, Prepared):
        read = _read(part, seed, stage, codec, seen, absent)
        items = sorted(read.items, key=lambda item: fraction(content_key(item), "sample"))
        kept = list(_small(items, SAMPLE_CHARS if read.declared is None else STAND_IN_CHARS))
        share = 1 - EXAM_SHARE - VALIDATION_SHARE if divided_by_content(source) else 1.0
        return _Chosen(
            _Sample(items=kept),
            read.whole * read.bytes / max(1, _size(kept)),
            2 * read.seconds,
            round(read.bytes * read.whole),
            read.before,
            None if read.declared is None else round(read.declared * share),
            read.declared,
        )
    if "tokens" in fields:
        times = max(1.0, source.tokens / SAMPLE_TOKENS)
        return _Chosen(source.model_copy(update={"tokens": round(source.tokens / times)}), times)
    if "max_examples" in fields:
        times = max(1.0, source.max_examples / SAMPLE_ITEMS)
        fewer = {"max_examples": round(source.max_examples / times)}
        return _Chosen(source.model_copy(update=fewer), times)
    return _Chosen(source)


def _prepared(source: Prepared, seed: int, stage: str, codec: Tokenizer) -> _Chosen:
    """Of token files a few, since how many tokens there are they say themselves."""
    if source.is_text:
        return _Chosen(source)
    given = Given(rng=rng(seed, stage, "gather", "sample"), tokenizer=codec, split="train")
    some = list(islice(source.read(given), SAMPLE_ITEMS))
    tokens = source.tokens()
    read = sum(len(piece.ids or ()) for piece in some if isinstance(piece, Document))
    if len(some) < SAMPLE_ITEMS:
        return _Chosen(source)
    return _Chosen(_Sample(items=some), tokens / max(1, read), tokens=tokens)


def _small(items: Sequence[Item], most: int) -> Iterator[Item]:
    """Items up to the sample's size, so many at least that they can be split."""
    chars = 0
    for number, item in enumerate(items):
        if chars >= most and number >= 24:
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
    part: Part,
    seed: int,
    stage: str,
    codec: Tokenizer | None,
    seen: dict[str, _Read],
    absent: Absent,
) -> _Read:
    """As much of the source as can be read in `READ_S`, once for all stages that share it."""
    source = part.source
    key = f"{canonical([source, part.clean, part.dedup])}:{codec is None}"
    if divided_by_content(source):
        key = key.rpartition(":")[0]
    if key in seen:
        return seen[key]
    given = Given(rng=rng(seed, stage, "gather", "sample"), tokenizer=codec, split="train")
    try:
        seen[key] = _found(part, stage, given)
    except NotHereError:
        tokens = declared(source)
        if absent == "refuse" or tokens is None:
            raise
        items = stand_in()
        size = _size(items)
        seen[key] = _Read(list(items), 0.0, size, tokens * CHARS_PER_TOKEN / size, {}, tokens)
    return seen[key]


def _found(part: Part, stage: str, given: Given) -> _Read:
    """As much of the source as can be read in the time."""
    source, codec = part.source, given.tokenizer
    items: list[Item] = []
    began, busy = time.monotonic(), time.process_time()
    ended = True
    readable = part.model_copy(update={"dedup": None}).readable
    for item in readable.read(given):
        items.append(item)
        if time.process_time() - busy > READ_S or time.monotonic() - began > 5 * READ_S:
            ended = False
            break
    tokenless = codec is None and not divided_by_content(source)
    if not items and not tokenless:  # token runs are nothing that a tokenizer could learn from
        raise DataError(f"{stage}: the source {source.kind!r} yielded nothing")
    raw_size, before = _size(items), {}
    if isinstance(readable, CleanedSource):
        before["cleaned"] = readable.counts.as_dict()
        raw_size = readable.counts.read_chars
    if part.dedup:  # among what was read; a longer reading would find more
        once = DedupedSource(_Sample(items=items), part.dedup)
        items = list(once.read(given))
        before["deduped"] = once.counts.as_dict()
    took, size = time.monotonic() - began, _size(items)
    whole = 1.0 if ended else max(1.0, _bytes_there(source) / max(1, raw_size))
    return _Read(items, took * whole, size, whole, before)


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
