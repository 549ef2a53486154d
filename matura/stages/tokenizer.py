"""The stage below all others: a tokenizer trained on the training split of the recipe's own text.

What validation and exams are made of is left out here too, or their bits per byte would flatter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.store import sha256_of
from matura.core.types import Conversation, Document, Given
from matura.data.build import divided_by_content
from matura.data.split import split_of
from matura.stages.origin import TOKENIZER, model_folder, refuse_other_tokenizer, tokenizer_of
from matura.stages.parts import Part, TokenizerSpec
from matura.stages.stage import Context, Made, StageKind
from matura.stages.taken import taken, tokenizer_folder
from matura.text.tokenizer import Tokenizer


class TokenizerStage(StageKind):
    """Byte-level BPE of the size the recipe asks for."""

    trains: ClassVar[bool] = False

    kind: Literal["tokenizer"] = "tokenizer"
    bpe: TokenizerSpec
    model: Path | None = Field(default=None, exclude=True)
    """A given model, whose tokenizer is taken as it is; only what it is is part of the stage, not
    where it lies."""

    def inputs(self) -> dict[str, dict[str, str]]:
        """The sha256 of a given tokenizer."""
        if self.model is None and self.bpe.path is not None:
            path = tokenizer_folder(self.bpe.path) / TOKENIZER
            return {"given tokenizer": {TOKENIZER: sha256_of(path)}}
        if self.model is None:
            return {}
        return {"given model": {TOKENIZER: sha256_of(model_folder(self.model) / TOKENIZER)}}

    def make(self, work: Path, parents: Mapping[str, Path], context: Context) -> Made:
        """Saves the tokenizer as a stock Hugging Face one in `work/model`, once it is trained, or
        taken from the given model or from where the recipe says.

        Raises:
            RecipeError: the given one is not what the recipe says.
            DataError: there is no text to train one on.
        """
        if self.model is not None:
            return self._taken(self.model, work)
        if self.bpe.path is not None:
            return _saved(taken(self.bpe.path, self.bpe), self.bpe.path, work)
        corpus = _Corpus(self.bpe.corpus_bytes)
        texts = chain.from_iterable(
            corpus.texts(part, context.seed, self.name, _room(part, self.mixture))
            for part in self.mixture
        )
        tokenizer = Tokenizer.train(
            texts,
            vocab_size=self.bpe.vocab_size,
            dialect=self.bpe.dialect,
            spare=self.bpe.spare,
            split=self.bpe.split,
        )
        if not corpus.bytes:
            raise DataError("tokenizer: its mixture yields no text")
        tokenizer.save(work / "model")
        if tokenizer.vocab_size < self.bpe.vocab_size:
            context.ledger.say(
                f"tokenizer: {tokenizer.vocab_size} ids instead of {self.bpe.vocab_size}: "
                f"{corpus.bytes} bytes of text hold no more merges"
            )
        numbers = {
            "vocab_size": tokenizer.vocab_size,
            "text_vocab_size": tokenizer.text_vocab_size,
            "sha256": tokenizer.sha256,
            "corpus_bytes": corpus.bytes,
            "corpus_texts": corpus.count,
            "corpus_sha256": corpus.sha256.hexdigest(),
        }
        return Made(tokens=0, numbers=numbers)

    def _taken(self, model: Path, work: Path) -> Made:
        refuse_other_tokenizer(model, self.bpe)
        tokenizer = tokenizer_of(model, self.bpe.dialect)
        return _saved(tokenizer, model, work)


def _saved(tokenizer: Tokenizer, where: Path, work: Path) -> Made:
    tokenizer.save(work / "model")
    numbers = {
        "vocab_size": tokenizer.vocab_size,
        "text_vocab_size": tokenizer.text_vocab_size,
        "sha256": tokenizer.sha256,
        "given": where.as_posix(),
    }
    return Made(tokens=0, numbers=numbers)


def _room(part: Part, mixture: tuple[Part, ...]) -> float:
    """The part's share of the corpus, 0 to 1, whatever the shares sum to (replay is not read)."""
    return part.share / sum(other.share for other in mixture)


class _Corpus:
    """Counts what is read, and stops each part at its share of the bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.count = 0
        self.sha256 = hashlib.sha256()

    def texts(self, part: Part, seed: int, stage: str, room: float) -> Iterator[str]:
        """The part's training text, up to its room."""
        left = int(self.limit_bytes * room)
        source = part.readable
        by_content = divided_by_content(source)
        given = Given(rng=rng(seed, stage, "gather", part.title), tokenizer=None, split="train")
        for item in source.read(given):
            if by_content and split_of(item) != "train":
                continue
            for text in _texts_of(item):
                raw = text.encode("utf-8", "surrogatepass")
                if left <= 0:
                    return
                left -= len(raw)
                self.bytes += len(raw)
                self.count += 1
                self.sha256.update(raw)
                yield text


def _texts_of(item: Document | Conversation) -> Iterator[str]:
    if isinstance(item, Conversation):
        yield from (message.content for message in item.messages if message.content)
    elif item.ids is None and item.text:
        yield item.text
