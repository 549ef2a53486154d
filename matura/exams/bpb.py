"""Bits per byte on held-out text: how well a model predicts what it never read. Lower is better.

Bytes are those the token ids stand for, never those of decoded text: a token may be half a
character. Each token is scored once, in rows that start with the last token of the row before.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from matura.core.errors import RecipeError
from matura.core.rng import fraction
from matura.core.types import Document, Item, Score, Task, Trace
from matura.exams.exam import Exam, Hall, settings
from matura.exams.interval import ratio

_SELECT_SHARE = 0.25
_ENOUGH_DOCUMENTS = 8
_LN2 = math.log(2)


class Row(NamedTuple):
    """A stretch of a document; the first id is only read."""

    id: str
    document: str
    ids: tuple[int, ...]
    bytes: int


class Bpb(Exam):
    """Summed nats over summed bytes and ln 2; the interval takes whole documents as draws."""

    better: ClassVar[Literal["higher", "lower"]] = "lower"

    exam: Literal["bpb"] = "bpb"
    n: int = Field(default=200, ge=200)
    """Rows scored, if the held-out documents hold as many."""
    cap: int = Field(default=1_000_000, ge=200)
    """Not reached: all `n` rows are scored at once, as more rows are no more documents."""
    row_length: int = Field(default=256, ge=8)
    """Tokens; at most the model's context."""

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Rows in an order set by their content; nothing is wanted but their likelihood."""
        for row in self._rows(hall)[start : start + count]:
            yield Task(
                id=row.id,
                gold="",
                bucket=row.document,
                prompt_ids=row.ids,
                max_tokens=1,
                meta={"bytes": str(row.bytes)},
            )

    def grade(self, task: Task, trace: Trace) -> float:
        """This exam grades likelihoods, not answers: it cannot be a reward.

        Raises:
            RecipeError: always.
        """
        raise RecipeError("exam bpb grades no conversations, so it cannot serve as a reward")

    def sit(self, hall: Hall) -> Score:
        """Bits per byte over held-out rows.

        Raises:
            RecipeError: fewer than two held-out rows.
        """
        tasks = list(self.tasks(hall, self.n if hall.purpose == "gate" else self.select_n))
        if len(tasks) < 2:
            raise RecipeError(
                f"exam bpb: the stage holds out {len(tasks)} rows of text, at least 2 are needed"
            )
        rows = [task.prompt_ids or () for task in tasks]
        nats = [math.fsum(row) for row in hall.sampler.nats(rows)]
        sizes = [int(task.meta["bytes"]) for task in tasks]
        seen = hashlib.sha256()
        items: list[Item] = []
        for task, row, nat, size in zip(tasks, rows, nats, sizes, strict=True):
            seen.update(repr(row).encode())
            text = hall.tokenizer.decode(row)
            items.append(
                Item(task.id, "", nat / _LN2 / size, text, "", f"{nat:.4f} nats", "length")
            )
        groups = _groups([task.bucket for task in tasks])
        cell = ratio(
            [math.fsum(nats[i] for i in group) / _LN2 for group in groups],
            [float(sum(sizes[i] for i in group)) for group in groups],
            len(tasks),
            self.at_most,
        )
        tokens = sum(len(row) - 1 for row in rows)
        return Score(
            exam=self.exam,
            version=self.version,
            overall=cell,
            buckets={},
            outcome=cell.outcome,
            broken=0,
            items=tuple(items),
            prompts_sha256=seen.hexdigest(),
            weights_sha256=hall.sampler.weights_sha256,
            settings=settings(self, hall),
            notes={
                "documents": float(len({task.bucket for task in tasks})),
                "bytes": float(sum(sizes)),
                "tokens": float(tokens),
                "nats_per_token": math.fsum(nats) / tokens,
            },
        )

    def floors(self) -> Mapping[str, float | None]:
        """None: the one gate is `at_most`."""
        return {}

    def _rows(self, hall: Hall) -> list[Row]:
        """The rows of this hall's purpose: a quarter choose checkpoints, the rest are for gates.

        With very few rows both purposes share them.
        """
        rows = [
            row
            for document in hall.held_out()
            if document.ids is None
            for row in _cut(document, hall, self.row_length)
        ]
        placed = [row for _, row in sorted((fraction(row.id, "bpb"), row) for row in rows)]
        if len(placed) < 2 * _ENOUGH_DOCUMENTS:
            return placed
        split = int(len(placed) * _SELECT_SHARE)
        return placed[split:] if hall.purpose == "gate" else placed[:split]


def _cut(document: Document, hall: Hall, length: int) -> Iterator[Row]:
    """Rows of at most `length` ids, each token scored in exactly one of them."""
    codec = hall.tokenizer
    ids = (hall.sampler.template.bos_id, *codec.encode(document.text))
    for number, start in enumerate(range(0, len(ids) - 1, length - 1)):
        row = ids[start : start + length]
        size = sum(len(codec.token_bytes(id)) for id in row[1:])
        name = hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        yield Row(f"bpb/{document.id}/{number}/{name}", document.id, row, size)


def _groups(documents: Sequence[str]) -> list[list[int]]:
    """Row numbers by document; each row by itself where the documents are too few to compare."""
    found: dict[str, list[int]] = {}
    for number, document in enumerate(documents):
        found.setdefault(document, []).append(number)
    if len(found) < _ENOUGH_DOCUMENTS:
        return [[number] for number in range(len(documents))]
    return list(found.values())
