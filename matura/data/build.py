"""From a source to shards: read, drop duplicates, split by content, render, write, count
everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Conversation, Document, Example, Given, Split, TextCodec
from matura.data.cleaner import CleanedSource
from matura.data.decontaminate import Findings, Index, decontaminated
from matura.data.deduped import DedupedSource
from matura.data.held import HeldOut
from matura.data.lengths import spread
from matura.data.source import Source
from matura.data.sources.corpus import Corpus
from matura.data.sources.prepared import Prepared
from matura.data.split import Division, Item, content_key, division
from matura.data.too_long import Fit, Fitting
from matura.text.shards import Shard, ShardInfo, ShardWriter
from matura.text.template import Template

BATCH = 256
BATCH_CHARS = 2**22
FIRST_TOKENS = 64


class Readable(Protocol):
    """A source or a lesson."""

    @property
    def kind(self) -> str: ...

    def read(self, given: Given) -> Iterator[Item]: ...


@dataclass(slots=True)
class Built:
    """What stands in the folder now, and what became of every item: read = kept + dropped."""

    name: str
    train: Path
    validation: Path
    held_out: Path | None
    """Documents of the exam split, one JSON object a line; None where the items are no text
    documents."""
    read: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    """Items of each split."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Items left out, by reason."""
    shards: dict[str, ShardInfo] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    """Tokens per training example: least, quartiles, 0.99 quantile and most."""
    trained_lengths: dict[str, int] = field(default_factory=dict)
    """Trained tokens per training example, likewise: how long what is learnt is."""
    first: str = ""
    """The first training example as a reader sees it, tags and all."""
    notes: list[str] = field(default_factory=list)
    cleaned: dict[str, Any] = field(default_factory=dict)
    """What became of the documents before, where they were cleaned; what it `made` was read."""
    deduped: dict[str, Any] = field(default_factory=dict)
    """What became of them after that, where duplicates were looked for; what it `kept` was
    read."""
    examined: dict[str, Any] = field(default_factory=dict)
    """What became of them last, where exams' items were looked for; what it `kept` was read."""
    too_long: dict[str, Any] = field(default_factory=dict)
    """What became of those longer than a row, where there were any."""

    @property
    def trained_share(self) -> float:
        """The part of training tokens that carry a weight."""
        info = self.shards["train"]
        return info.trained_tokens / info.tokens

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a record."""
        return {
            "name": self.name,
            "read": self.read,
            "kept": dict(self.kept),
            "dropped": dict(self.dropped),
            "shards": {split: asdict(info) for split, info in self.shards.items()},
            "trained_share": self.trained_share,
            "lengths": dict(self.lengths),
            "trained_lengths": dict(self.trained_lengths),
            "first": self.first,
            "notes": list(self.notes),
            "cleaned": dict(self.cleaned),
            "deduped": dict(self.deduped),
            "examined": dict(self.examined),
            "too_long": dict(self.too_long),
        }


def build(
    source: Readable,
    *,
    name: str,
    template: Template,
    folder: Path,
    seed: int,
    stage: str,
    without: Index | None = None,
    fit: Fit | None = None,
) -> Built:
    """Writes `<name>.train.shard`, `<name>.validation.shard` and, for text, `<name>.heldout.jsonl`.
    What was found, not made up, is read without whatever holds an item of `without`; examples are
    as long as they are where no `fit` says how long they may be.

    Raises:
        DataError: the input is wrong, yields nothing, is too little to be split, or too much of it
            is too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gathering = Gathering(source, name, template.tokenizer, seed, stage, without)
    built = _Work(gathering, template, folder, fit).done()
    if empty := [split for split in ("train", "validation") if not built.kept.get(split)]:
        built.train.unlink()
        built.validation.unlink()
        raise DataError(
            f"{name}: nothing for {' and '.join(empty)} among {built.read} items (dropped: "
            f"{built.dropped or 'none'})"
        )
    return built


def training_texts(
    source: Readable, *, name: str, seed: int, stage: str, tokenizer: TextCodec | None = None
) -> Iterator[str]:
    """What a tokenizer may be trained on: the text of the training split alone.

    Raises:
        DataError: the input is wrong or yields nothing.
    """
    gathering = Gathering(source, name, tokenizer, seed, stage)
    for split, thing in gathering.divided(("train",)):
        if split != "train":
            continue
        if isinstance(thing, Document):
            if thing.ids is None:
                yield thing.text
        else:
            turns = thing.messages
            said = (text for t in turns for text in (t.context, t.think, t.content, t.cite))
            yield "\n".join(filter(None, said))


def divided_by_content(source: Readable) -> bool:
    """Whether `build` splits what is read; lessons and sources that make things up do it
    themselves."""
    while isinstance(source, CleanedSource | DedupedSource):
        source = source.source
    return isinstance(source, Source) and not source.splits_itself


def found_text(source: Readable) -> bool:
    """Whether somebody wrote it, and might have written an evaluation item."""
    return isinstance(source, Corpus | Prepared) or divided_by_content(source)


@dataclass(slots=True)
class Gathering:
    """One source's items with their splits, the same ones each time they are asked for."""

    source: Readable
    name: str
    tokenizer: TextCodec | None
    seed: int
    stage: str
    without: Index | None = None
    """Evaluation items that no document may hold."""
    findings: Findings = field(default_factory=Findings)
    """What became of the documents of the last reading, if items were looked for."""
    division: Division = field(default_factory=Division)
    """Filled in by `divided` for sources that are split by content."""

    def divided(self, splits: Sequence[Split]) -> Iterator[tuple[Split, Item]]:
        """Each item and its split; `splits` are those that self-splitting sources are asked for."""
        if divided_by_content(self.source):
            self.division = division(lambda: self._read("train"), self.name)
            for thing in self.division.items(self._read("train")):
                yield self.division.split(thing), thing
            return
        for split in splits:
            for thing in self._read(split):
                yield split, thing

    def _read(self, split: Split) -> Iterator[Item]:
        stream = rng(self.seed, self.stage, "gather", self.name, split)
        read = self.source.read(Given(rng=stream, tokenizer=self.tokenizer, split=split))
        by_content = divided_by_content(self.source)
        if self.without is None or not found_text(self.source):
            return iter(read)
        if by_content:  # read as a whole, and so counted anew each time
            self.findings = Findings()
        return decontaminated(read, self.without, self.findings, self.tokenizer)


class _Work:
    """One pass over a source, from its items to the files."""

    def __init__(
        self, gathering: Gathering, template: Template, folder: Path, fit: Fit | None
    ) -> None:
        self._gathering, self._template = gathering, template
        self._fitting = None if fit is None else Fitting(fit, template)
        self._seen: set[str] = set()
        name = gathering.name
        self._built = Built(
            name=name,
            train=folder / f"{name}.train.shard",
            validation=folder / f"{name}.validation.shard",
            held_out=folder / f"{name}.heldout.jsonl",
        )
        self._kept: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._copied = False
        """Whether the examples were there already, made with this very tokenizer."""
        self._lengths: list[int] = []
        self._trained: list[int] = []

    def done(self) -> Built:
        """Reads everything and writes everything; on an error nothing is left behind."""
        built = self._built
        codec = self._template.tokenizer
        held = HeldOut()
        targets: tuple[tuple[Split, Path], ...] = (
            ("train", built.train),
            ("validation", built.validation),
        )
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(
                    ShardWriter(path, vocab_size=codec.vocab_size, tokenizer_sha256=codec.sha256)
                )
                for split, path in targets
            }
            self._copy(writers)
            for split, things in self._batches():
                if split == "exam":
                    self._kept[split] += held.add(things)
                else:
                    self._write(writers[split], split, things)
            if not built.read:
                kind = self._gathering.source.kind
                raise DataError(f"{built.name}: the source {kind!r} yielded nothing")
            if self._fitting is not None:
                self._fitting.refuse(f"{self._gathering.stage}: {built.name}")
                built.too_long = self._fitting.tally.as_dict()
            built.shards = {split: writer.close() for split, writer in writers.items()}
        if held.lines and built.held_out is not None:
            held.write(built.held_out)
        else:
            built.held_out = None
        if held.left_out:
            self._dropped["held out beyond the limit"] = held.left_out
        if self._gathering.division.cut:
            built.notes.append("too few documents for all splits: cut into sections first")
        if self._gathering.division.moved:
            built.notes.append("too few items for all splits: the nearest were moved")
        built.examined = self._gathering.findings.as_dict()
        source = self._gathering.source
        if isinstance(source, DedupedSource):
            built.deduped = source.counts.as_dict()
            source = source.source
        if isinstance(source, CleanedSource):
            built.cleaned = source.counts.as_dict()
        built.kept, built.dropped = dict(self._kept), dict(self._dropped)
        built.lengths, built.trained_lengths = spread(self._lengths), spread(self._trained)
        assert built.read == sum(built.kept.values()) + sum(built.dropped.values())
        return built

    def _copy(self, writers: Mapping[Split, ShardWriter]) -> None:
        """Takes over the shards of a corpus that was encoded with this tokenizer."""
        source = self._gathering.source
        codec = self._template.tokenizer
        if not isinstance(source, Corpus) or source.tokenizer_sha256 != codec.sha256:
            return
        self._copied = True
        for split, writer in writers.items():
            for shard in source.shards(split):
                kept = self._clean(shard)
                lengths = shard.lengths[kept]
                tokens = np.repeat(kept, shard.lengths)
                writer.extend(shard.ids[tokens], shard.weights[tokens], lengths)
                self._built.read += len(lengths)
                self._kept[split] += len(lengths)
                if split == "train" and len(lengths):
                    self._lengths += lengths.tolist()
                    self._trained += (lengths - 1).tolist()
                    self._built.first = self._built.first or self._template.spell(
                        shard.example(int(kept.argmax()))[0][:FIRST_TOKENS].tolist()
                    )

    def _clean(self, shard: Shard) -> NDArray[np.bool_]:
        """Which of its examples hold no evaluation item."""
        kept = np.ones(len(shard), dtype=np.bool_)
        index, findings = self._gathering.without, self._gathering.findings
        if index is not None:
            decode = self._template.tokenizer.decode
            texts = (
                Document(text=decode(shard.example(number)[0].tolist()), id=str(number))
                for number in range(len(shard))
            )
            free = {document.id for document in decontaminated(texts, index, findings)}
            kept[:] = [str(number) in free for number in range(len(shard))]
        return kept

    def _batches(self) -> Iterator[tuple[Split, list[Item]]]:
        """What is kept, in batches of one split each, in the order read."""
        waiting: dict[Split, list[Item]] = {}
        chars: Counter[Split] = Counter()
        for split, thing in self._new():
            batch = waiting.setdefault(split, [])
            batch.append(thing)
            chars[split] += len(thing.text) if isinstance(thing, Document) else 0
            if len(batch) >= BATCH or chars[split] >= BATCH_CHARS:
                yield split, waiting.pop(split)
                chars[split] = 0
        yield from waiting.items()

    def _new(self) -> Iterator[tuple[Split, Item]]:
        """Each item that is not empty and was not there before, with its split."""
        splits: tuple[Split, ...] = ("train", "validation")
        if getattr(self._gathering.source, "holds_out", False):
            splits += ("exam",)
        if self._copied:
            splits = ("exam",)
        for split, thing in self._gathering.divided(splits):
            self._built.read += 1
            key = content_key(thing)
            if isinstance(thing, Document) and thing.ids is None and not thing.text.strip():
                self._dropped["empty"] += 1
            elif key in self._seen:
                self._dropped["duplicate"] += 1
            else:
                self._seen.add(key)
                yield split, thing

    def _write(self, writer: ShardWriter, split: Split, things: list[Item]) -> None:
        for thing, whole in zip(things, rendered(self._template, things), strict=True):
            if not any(whole.weights[1:]):  # nothing predicts the first token of a row
                self._dropped["nothing to learn"] += 1
                continue
            pieces = [(thing, whole)]
            if self._fitting is not None:
                pieces = self._fitting.pieces(thing, whole)
            # what two long chats have in common is one piece, and in one split
            fresh = [example for piece, example in pieces if piece is thing or self._is_new(piece)]
            if not fresh:
                self._dropped["duplicate" if pieces else "too long"] += 1
                continue
            self._kept[split] += 1
            for example in fresh:
                self._add(writer, split, example)

    def _is_new(self, piece: Item) -> bool:
        key = content_key(piece)
        known = key in self._seen
        self._seen.add(key)
        return not known

    def _add(self, writer: ShardWriter, split: Split, example: Example) -> None:
        writer.add(example.ids, example.weights)
        if split == "train":
            self._lengths.append(len(example.ids))
            self._trained.append(len(example.weights) - example.weights.count(0))
            if not self._built.first:
                self._built.first = self._template.spell(example.ids[:FIRST_TOKENS])


def rendered(template: Template, things: Sequence[Item]) -> Iterator[Example]:
    """Each thing's ids and weights, in order."""
    talks = iter(template.render_many([t for t in things if isinstance(t, Conversation)]))
    texts = [t.text for t in things if isinstance(t, Document) and t.ids is None]
    encoded = iter(template.tokenizer.encode_many(texts))
    for thing in things:
        if isinstance(thing, Conversation):
            yield next(talks)
        elif thing.ids is None:
            yield template.document(replace(thing, ids=tuple(next(encoded))))
        else:
            yield template.document(thing)
