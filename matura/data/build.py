"""From a source to shards: read, drop duplicates, split by content, render, write; every item
accounted for.

The surprising thing: a source with too few items for its splits (one long book) is read a second
time. Its documents are then cut into sections first, and if that is not enough the items whose
hashes come nearest take the empty places; the report's notes say so.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Conversation, Document, Example, Given, Split
from matura.data.source import Source
from matura.data.split import content_key, place_of, sections, split_of
from matura.text.shards import ShardInfo, ShardWriter
from matura.text.template import Template

BATCH = 256
FEW_ITEMS = 10_000
"""Only sources with fewer items can have an empty split, so only of so many are places
remembered."""
HELD_OUT_LIMIT_BYTES = 4 * 2**20
"""Enough text for bits per byte to a thousandth; more would only make the exam slow."""
FIRST_TOKENS = 64

Plan = Literal["whole", "sections", "nearest"]


class Readable(Protocol):
    """A source or a lesson."""

    kind: str

    def read(self, given: Given) -> Iterator[Document | Conversation]: ...


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
    first: str = ""
    """The first training example as a reader sees it, tags and all."""
    notes: list[str] = field(default_factory=list)

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
            "first": self.first,
            "notes": list(self.notes),
        }


def build(
    source: Readable, *, name: str, template: Template, folder: Path, seed: int, stage: str
) -> Built:
    """Writes `<name>.train.shard`, `<name>.validation.shard` and, for text, `<name>.heldout.jsonl`.

    Raises:
        DataError: the input is wrong, yields nothing, or is too little to be split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plans: tuple[Plan, ...] = ("whole", "sections", "nearest")
    if not divided_by_content(source):
        plans = ("whole",)
    moved: dict[str, Split] = {}
    for plan in plans:
        work = _Work(source, name, template, folder, seed, stage, plan, moved)
        built = work.done()
        empty = [split for split in work.splits if not built.kept.get(split)]
        if not empty:
            return built
        moved = work.nearest()
    items = sum(built.kept.values())
    raise DataError(
        f"{name}: too little to split: {items} items leave nothing for {' and '.join(empty)}; "
        "expected at least 3 different ones"
    )


def divided_by_content(source: Readable) -> bool:
    """Whether `build` splits what is read; lessons and sources that make things up do it
    themselves."""
    return isinstance(source, Source) and not source.splits_itself


def held_out(path: Path) -> list[Document]:
    """The documents of a `<name>.heldout.jsonl`.

    Raises:
        DataError: it is missing or damaged.
    """
    found = []
    try:
        with path.open(encoding="utf-8") as rows:
            for number, line in enumerate(rows, start=1):
                try:
                    row = json.loads(line)
                    found.append(Document(text=row["text"], id=row["id"]))
                except (ValueError, KeyError, TypeError):
                    raise DataError(f"{path}:{number}: expected 'id' and 'text'") from None
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror}") from None
    return found


class _Work:
    """One pass over a source, under one plan for what to do about empty splits."""

    def __init__(
        self,
        source: Readable,
        name: str,
        template: Template,
        folder: Path,
        seed: int,
        stage: str,
        plan: Plan,
        moved: Mapping[str, Split],
    ) -> None:
        self._source, self._template, self._plan, self._moved = source, template, plan, moved
        self._seed, self._stage, self._name = seed, stage, name
        self.splits: tuple[Split, ...] = ("train", "validation")
        if divided_by_content(source):
            self.splits = ("train", "validation", "exam")
        held = folder / f"{name}.heldout.jsonl"
        self._built = Built(
            name=name,
            train=folder / f"{name}.train.shard",
            validation=folder / f"{name}.validation.shard",
            held_out=held if divided_by_content(source) else None,
        )
        self._seen: set[str] = set()
        self._places: list[tuple[float, str, Split]] = []
        self._kept: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._lengths: list[int] = []

    def done(self) -> Built:
        """Reads everything and writes everything."""
        built = self._built
        codec = self._template.tokenizer
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(
                    ShardWriter(path, vocab_size=codec.vocab_size, tokenizer_sha256=codec.sha256)
                )
                for split, path in (("train", built.train), ("validation", built.validation))
            }
            held = _HeldOut(built.held_out)
            stack.enter_context(held)
            for split, items in self._batches():
                if split == "exam":
                    self._kept[split] += held.add(items)
                else:
                    self._write(writers[split], split, items)
            if not built.read:
                raise DataError(f"{self._name}: the source {self._source.kind!r} yielded nothing")
            built.shards = {split: writer.close() for split, writer in writers.items()}
        if built.held_out is not None and not built.held_out.exists():
            built.held_out = None
        built.kept, built.dropped = dict(self._kept), dict(self._dropped)
        if held.left_out:
            built.dropped["held out beyond the limit"] = held.left_out
        if self._plan != "whole":
            built.notes.append(
                "too few documents for all splits: cut into sections"
                + (", and the nearest moved" if self._moved else "")
            )
        built.lengths = _quantiles(self._lengths)
        assert built.read == sum(built.kept.values()) + sum(built.dropped.values())
        return built

    def nearest(self) -> dict[str, Split]:
        """Items to move so that no split is empty: those whose places come nearest to an empty
        one."""
        counts = Counter(split for _, _, split in self._places)
        moved: dict[str, Split] = {}
        for split in ("validation", "exam"):
            if split in self.splits and not counts[split] and counts["train"] > 1:
                place, key, _ = min(
                    p for p in self._places if p[2] == "train" and p[1] not in moved
                )
                moved[key] = "validation" if split == "validation" else "exam"
                counts["train"] -= 1
        return moved

    def _items(self, split: Split) -> Iterator[Document | Conversation]:
        stream = rng(self._seed, self._stage, "gather", self._name, split)
        given = Given(rng=stream, tokenizer=self._template.tokenizer, split=split)
        for thing in self._source.read(given):
            if isinstance(thing, Document) and self._plan != "whole":
                yield from sections(thing)
            else:
                yield thing

    def _batches(self) -> Iterator[tuple[Split, list[Document | Conversation]]]:
        """What is kept, in batches of one split each, in the order read."""
        waiting: dict[Split, list[Document | Conversation]] = {split: [] for split in self.splits}
        for split, thing in self._sorted():
            waiting[split].append(thing)
            if len(waiting[split]) >= BATCH:
                yield split, waiting[split]
                waiting[split] = []
        for split, things in waiting.items():
            if things:
                yield split, things

    def _sorted(self) -> Iterator[tuple[Split, Document | Conversation]]:
        """Each item that is new and not empty, with its split."""
        by_content = divided_by_content(self._source)
        asked: Iterable[Split] = ("train",) if by_content else self.splits
        for split in asked:
            for thing in self._items(split):
                self._built.read += 1
                if isinstance(thing, Document) and thing.ids is None and not thing.text.strip():
                    self._dropped["empty"] += 1
                    continue
                key = content_key(thing)
                if key in self._seen:
                    self._dropped["duplicate"] += 1
                    continue
                self._seen.add(key)
                if by_content:
                    split = self._moved.get(key) or split_of(thing)
                    if len(self._places) < FEW_ITEMS:
                        self._places.append((place_of(thing), key, split))
                yield split, thing

    def _write(
        self, writer: ShardWriter, split: Split, things: list[Document | Conversation]
    ) -> None:
        for example in rendered(self._template, things):
            if not any(example.weights):
                self._dropped["nothing to learn"] += 1
                continue
            self._kept[split] += 1
            writer.add(example.ids, example.weights)
            if split == "train":
                self._lengths.append(len(example.ids))
                if not self._built.first:
                    self._built.first = self._template.spell(example.ids[:FIRST_TOKENS])


class _HeldOut:
    """The file of held-out documents, in place only when closed without an error and not empty."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[str] = []
        self._bytes = 0
        self.left_out = 0

    def add(self, things: list[Document | Conversation]) -> int:
        """Keeps the documents among these, up to the limit; conversations are counted only."""
        kept = 0
        for thing in things:
            if isinstance(thing, Conversation):
                kept += 1
                continue
            line = json.dumps({"id": thing.id, "text": thing.text}, ensure_ascii=False)
            if self._bytes and self._bytes + len(line) > HELD_OUT_LIMIT_BYTES:
                self.left_out += 1
                continue
            self._lines.append(line)
            self._bytes += len(line)
            kept += 1
        return kept

    def __enter__(self) -> _HeldOut:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None or self._path is None or not self._lines:
            return
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with beside.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(line + "\n" for line in self._lines)
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, self._path)


def rendered(template: Template, things: Iterable[Document | Conversation]) -> Iterator[Example]:
    """Each thing's ids and weights, in order."""
    things = list(things)
    talks = iter(template.render_many([t for t in things if isinstance(t, Conversation)]))
    for thing in things:
        yield next(talks) if isinstance(thing, Conversation) else template.document(thing)


def _quantiles(lengths: list[int]) -> dict[str, int]:
    if not lengths:
        return {}
    marks = {
        "least": 0.0,
        "quarter": 0.25,
        "half": 0.5,
        "three_quarters": 0.75,
        "99%": 0.99,
        "most": 1.0,
    }
    found = np.quantile(np.array(lengths), list(marks.values()), method="nearest")
    return {name: int(value) for name, value in zip(marks, found, strict=True)}
