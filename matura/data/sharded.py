"""Gathered documents as token shards: one part in, one part out, the same ids on any worker."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matura.core.record import digest
from matura.core.store import publish, work_place
from matura.data.gathered import Gathered, made_before
from matura.data.verdicts import EXAM, SPLITS, TRAIN, VALIDATION
from matura.text.shards import ShardWriter
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

BATCH_TOKENS = 2**19
HELD_OUT = "heldout.jsonl"


@dataclass(frozen=True, slots=True)
class Sharding:
    """One part of gathered documents, and what is to become of it."""

    part: Gathered
    folder: Path
    tokenizer: Path
    tokenizer_sha256: str
    verdicts: NDArray[np.uint8]
    code: str

    @property
    def identity(self) -> dict[str, str]:
        """All that the shards depend on."""
        return {
            "part": self.part.sha256,
            "verdicts": hashlib.sha256(self.verdicts.tobytes()).hexdigest(),
            "tokenizer": self.tokenizer_sha256,
            "code": self.code,
        }


@dataclass(frozen=True, slots=True)
class Sharded:
    """One part's shards, as they lie on disk."""

    folder: Path
    source: str
    counts: dict[str, dict[str, int]]
    """Of each split: documents and tokens."""


def shard(asked: Sharding) -> Sharded:
    """The shards of one part; those that are there already are not made again."""
    wanted = digest(asked.identity)
    record = made_before(asked.folder, wanted)
    if record is None:
        work = work_place(asked.folder)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        counts = _write(work, asked)
        record = publish(work, asked.folder, {"identity": wanted, "counts": counts}).record
    return Sharded(asked.folder, asked.part.source, record["counts"])


@cache
def _template(folder: Path, sha256: str) -> Template:
    """The tokenizer, loaded once a process."""
    return Template(Tokenizer.load(folder))


def _write(work: Path, asked: Sharding) -> dict[str, dict[str, int]]:
    template = _template(asked.tokenizer, asked.tokenizer_sha256)
    part = asked.part
    ends = part.array("ends.bin", "<u8")
    counts: dict[str, dict[str, int]] = {}
    for number in (TRAIN, VALIDATION):
        rows = np.flatnonzero(asked.verdicts == number).tolist()
        if not rows:
            continue
        codec = template.tokenizer
        with ExitStack() as stack:
            writer = stack.enter_context(
                ShardWriter(
                    work / f"{SPLITS[number]}.shard",
                    vocab_size=codec.vocab_size,
                    tokenizer_sha256=codec.sha256,
                )
            )
            for ids, lengths in _batches(template, part.texts(rows, ends)):
                weights = np.ones(len(ids), dtype=np.float32)
                weights[np.cumsum(lengths) - lengths] = 0.0  # nothing predicts a first token
                writer.extend(ids, weights, lengths)
            info = writer.close()
        counts[SPLITS[number]] = {"documents": info.examples, "tokens": info.tokens}
    if rows := np.flatnonzero(asked.verdicts == EXAM).tolist():
        names = part.names()
        with (work / HELD_OUT).open("w", encoding="utf-8", newline="\n") as out:
            for row, text in zip(rows, part.texts(rows, ends), strict=True):
                out.write(json.dumps({"id": names[row], "text": text}) + "\n")
        counts[SPLITS[EXAM]] = {"documents": len(rows), "tokens": 0}
    return counts


def _batches(
    template: Template, texts: Iterator[str]
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """The ids of many documents end to end, each between its tags, and how long each is."""
    begin = np.array([template.bos_id], dtype=np.uint32)
    end = np.array([template.eos_id], dtype=np.uint32)
    pieces: list[NDArray[np.uint32]] = []
    lengths: list[int] = []
    held = 0
    for text in texts:
        ids = template.tokenizer.encode_array(text)
        pieces += (begin, ids, end)
        lengths.append(len(ids) + 2)
        held += len(ids) + 2
        if held >= BATCH_TOKENS:
            yield np.concatenate(pieces), np.array(lengths)
            pieces, lengths, held = [], [], 0
    if pieces:
        yield np.concatenate(pieces), np.array(lengths)
