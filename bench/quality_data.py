"""What both sides of `quality.py` learn from and are measured on: the standard library's files.

Of files that are nearly alike only the first is there at all, so none can lie on both sides; which
side a file lies on is decided by its content. The tokenizer has read the training side alone.

Axes: N rows, L = T + 1 tokens of a row (T inputs and T targets, shifted by one).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from train_ours import Shape

from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.build import rendered
from matura.data.dedup import Duplicates
from matura.data.deduped import DedupedSource
from matura.data.sources.stdlib import Stdlib
from matura.data.split import place_of, split_of
from matura.text.shards import ShardWriter
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

SHARD, STREAM, HELD_OUT, SAID = "train.shard", "stream.npy", "held_out.npz", "data.json"
DIALECT = "matura"
HELD_OUT_BYTES = 250_000
"""At most, in whole files: enough for the third digit, and a few seconds of reading."""
ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class HeldOut:
    """Rows of held-out files; each token of text is scored once, after what stands before it."""

    ids_NL: np.ndarray
    scored_NT: np.ndarray
    """Which targets are text: not tags, not padding."""
    bytes: int

    @classmethod
    def load(cls, folder: Path) -> HeldOut:
        """As `prepare` left it."""
        found = np.load(folder / HELD_OUT)
        return cls(found["ids"], found["scored"], int(found["bytes"]))

    def bits_per_byte(self, logits_of: Callable[[Tensor], Tensor]) -> float:
        """Of whatever makes logits BTV of ids BT, up to each position's own."""
        nats = 0.0
        with torch.no_grad():
            for start in range(0, len(self.ids_NL), ROWS_AT_ONCE):
                rows = torch.from_numpy(self.ids_NL[start : start + ROWS_AT_ONCE])
                scored = torch.from_numpy(self.scored_NT[start : start + ROWS_AT_ONCE])
                logits = logits_of(rows[:, :-1]).float()
                each = F.cross_entropy(
                    logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none"
                )
                nats += float((each.double() * scored.flatten()).sum())
        return nats / math.log(2) / self.bytes


def prepare(folder: Path, shape: Shape, most_bytes: int | None = None) -> dict[str, Any]:
    """Tokenizer, training tokens for either side and held-out rows, in a folder; what they are."""
    source = DedupedSource(Stdlib(max_bytes=most_bytes), Duplicates())
    documents = list(source.read(Given(rng=rng(0, "bench", "quality"))))
    trained = [document for document in documents if split_of(document) != "exam"]
    kept: list[Document] = []
    size = 0
    # by their places, so that those within the cap are no alphabetical stretch
    for document in sorted((each for each in documents if split_of(each) == "exam"), key=place_of):
        more = len(document.text.encode())
        if not kept or size + more <= HELD_OUT_BYTES:
            kept.append(document)
            size += more
    tokenizer = Tokenizer.train(
        (document.text for document in trained),
        vocab_size=shape.config.vocab_size,
        dialect=DIALECT,
    )
    template = Template(tokenizer)
    examples = list(rendered(template, trained))
    with ShardWriter(
        folder / SHARD, vocab_size=shape.config.vocab_size, tokenizer_sha256=tokenizer.sha256
    ) as out:
        for example in examples:
            out.add(example.ids, example.weights)
    order = np.random.default_rng(0).permutation(len(examples))
    stream = np.concatenate([np.asarray(examples[at].ids, dtype=np.int32) for at in order])
    np.save(folder / STREAM, stream)
    ids_NL, scored_NT = rows(template, kept, shape.length, template.pad_id)
    held_bytes = sum(len(document.text.encode()) for document in kept)
    np.savez(folder / HELD_OUT, ids=ids_NL, scored=scored_NT, bytes=held_bytes)
    said = {
        "files": len(trained),
        "bytes": sum(len(document.text.encode()) for document in trained),
        "tokens": len(stream),
        "pad_id": template.pad_id,
        "vocab_size": tokenizer.vocab_size,
        "held_out_files": len(kept),
        "held_out_bytes": held_bytes,
        "held_out_tokens": int(scored_NT.sum()),
        "left_out_as_duplicates": source.counts.as_dict(),
    }
    (folder / SAID).write_text(json.dumps(said), encoding="utf-8")
    return said


def rows(
    template: Template, documents: Sequence[Document], length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each document in rows that start with the last token of the row before: ids NL, and which
    targets NT are text."""
    made, scored = [], []
    for example in rendered(template, documents):
        *body, _ = example.ids  # the end tag stands for no byte
        for start in range(0, len(body) - 1, length):
            part = body[start : start + length + 1]
            short = length + 1 - len(part)
            made.append(
                np.pad(np.asarray(part, dtype=np.int64), (0, short), constant_values=pad_id)
            )
            scored.append(np.arange(length) < len(part) - 1)
    return np.stack(made), np.stack(scored)
