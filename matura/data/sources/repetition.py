"""What teaches a small model to copy: tokens and words that come again, made up without end.

By default, of the tokens: 40 % random runs over the whole text vocabulary among noise, 25 % drills
(a run told over and over), 35 % texts of eight kinds (names, lists, pairs, quotes, variables,
questions, records, calls). Practically no item is ever made twice: a run of two tokens has
vocabulary² spellings, and a text holds at least two of about 10^7 made-up words besides its frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from matura.core.leaves import did_you_mean
from matura.core.rng import Rng
from matura.core.types import Document, Given, TextCodec
from matura.data.recall import ASKED, TEXTS, Turn
from matura.data.runs import Plan, documents, drilled, planned
from matura.data.source import MADE_UP, Source

OF_IDS = ("runs", "drills")
OF_TEXT = (*TEXTS, *ASKED)
KINDS = (*OF_IDS, *OF_TEXT)
SHARES = {"runs": 0.40, "drills": 0.25} | dict.fromkeys(OF_TEXT, 0.35 / len(OF_TEXT))
HELD_OUT = 0.02
LEAST_HELD_OUT = 4_000
"""Tokens of a validation or exam split, at the least."""
BYTES_PER_TOKEN = 3
ATTEMPTS = 6


class Repetition(Source):
    """Documents of 60 to 250 tokens. Runs and drills hold token ids; everything else is text.

    Drills come first in a model's life: short ones (`shortest: 8, longest: 32, drill: [3, 8]`)
    mixed into a base let it find copying in 1M tokens, where runs among noise alone taught it
    nothing in 1.5M. Without a tokenizer (while it is being trained) the runs are left out and
    tokens are guessed from bytes.
    """

    kind: Literal["repetition"] = "repetition"
    splits_itself: ClassVar[bool] = True
    tokens: PositiveInt = 1_000_000
    """How many tokens to make for training; 2 % of that besides for validation."""
    shares: dict[str, NonNegativeFloat] = Field(default_factory=lambda: dict(SHARES))
    """Each kind's part of the tokens; they need not sum to 1."""
    shortest: PositiveInt = 60
    longest: PositiveInt = 250
    """Tokens of a document of random runs; give or take a few where runs meet."""
    drill: tuple[PositiveInt, PositiveInt] = (3, 40)
    """Least and most tokens of the run in a drill."""
    knotty: float = Field(default=0.4, ge=0, le=1)
    """Share of runs and drills that repeat tokens, spaces above all, within themselves. Without
    any, a chat model copied at 0.9 and no further: after a space it went on with another word;
    with 0.6 it found plain runs among noise at 0.6 only (docs/LOG.md)."""

    noise: Literal["learned", "read"] = "learned"
    """What becomes of that part of questions, records and calls that nobody could know, facts and
    which of them is asked for: `read` leaves it out of the loss. In one stage with all chat lessons
    that was better, on a ladder of stages worse (docs/LOG.md)."""

    @field_validator("shares")
    @classmethod
    def _known(cls, shares: dict[str, float]) -> dict[str, float]:
        for name in shares:
            if name not in KINDS:
                raise ValueError(f"no kind {name!r}{did_you_mean(name, KINDS)}")
        if not sum(shares.values()) > 0:
            raise ValueError("expected at least one share above 0")
        return shares

    @model_validator(mode="after")
    def _ordered(self) -> Repetition:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) is above longest ({self.longest})")
        if not 2 <= self.drill[0] <= self.drill[1] <= self.longest // 2:
            raise ValueError(
                f"drill {list(self.drill)}: expected 2 <= least <= most <= longest / 2"
            )
        return self

    def licence(self) -> str:
        """Nobody wrote it."""
        return MADE_UP

    def read(self, given: Given) -> Iterator[Document]:
        """Documents until there are enough tokens; every stretch of them has the shares."""
        codec = given.tokenizer
        shares = {name: share for name, share in self.shares.items() if share > 0}
        if codec is None:
            for kind in OF_IDS:
                shares.pop(kind, None)
        if not shares:
            return  # nothing here for a tokenizer to learn from
        made = dict.fromkeys(shares, 0)
        wanted = self.tokens
        if given.split != "train":
            wanted = max(LEAST_HELD_OUT, int(self.tokens * HELD_OUT))
        of_ids = {kind: self._of_ids(given, kind) for kind in OF_IDS if kind in shares}
        number = 0
        while sum(made.values()) < wanted:
            kind = min(shares, key=lambda name: made[name] / shares[name])
            number += 1
            id = f"repetition/{given.split}/{number}-{kind}"
            if kind in of_ids:
                ids = next(of_ids[kind])
                made[kind] += len(ids)
                yield Document(text="", id=id, ids=tuple(ids), weights=knowable(ids))
                continue
            turns = self._turns(kind, given.rng, codec)
            if codec is not None and kind in ASKED and self.noise == "read":
                document = answered(turns, id, codec)
            else:
                document = Document(text=joined(turns), id=id)
            made[kind] += len(document.ids) if document.ids else size(document.text, codec)
            yield document

    def _of_ids(self, given: Given, kind: str) -> Iterator[list[int]]:
        assert given.tokenizer is not None

        def drill(rng: Rng, shortest: int, longest: int, most_distinct: int) -> Plan:
            return drilled(rng, shortest, longest, self.drill)

        return documents(
            given.rng,
            vocabulary=given.tokenizer.text_vocab_size,
            shortest=self.shortest,
            longest=self.longest,
            for_exam=given.split == "exam",
            planner=drill if kind == "drills" else planned,
            separator=given.tokenizer.encode(" ")[0],
            knotty=self.knotty,
        )

    def _turns(self, kind: str, rng: Rng, codec: TextCodec | None) -> list[Turn]:
        """One text, or several after each other if it is short; the shortest of some if all are
        long."""
        tried: list[tuple[int, list[Turn]]] = []
        for _ in range(ATTEMPTS):
            turns: list[Turn] = []
            tokens = 0
            while tokens < self.shortest:
                more = ASKED[kind](rng) if kind in ASKED else [("", TEXTS[kind](rng))]
                turns += [("\n", ""), *more] if turns else more
                tokens = size(joined(turns), codec)
            if tokens <= self.longest:
                return turns
            tried.append((tokens, turns))
        return min(tried, key=lambda one: one[0])[1]


def joined(turns: Sequence[Turn]) -> str:
    """The text they come to."""
    return "".join(map("".join, turns))


def answered(turns: Sequence[Turn], id: str, codec: TextCodec) -> Document:
    """A text of which the answers are learned: the facts and the questions are noise."""
    ids: list[int] = []
    weights: list[float] = []
    for pieces in turns:
        for weight, piece in enumerate(pieces):
            more = codec.encode(piece)
            ids += more
            weights += [float(weight)] * len(more)
    return Document(text="", id=id, ids=tuple(ids), weights=tuple(weights))


def knowable(ids: Sequence[int]) -> tuple[float, ...]:
    """1 for each token that followed the same neighbour before, 0 for the others, which are noise.

    Learning from noise as well kept a 2M-parameter model from finding the runs at all in 1.5M
    tokens: half of its gradient said nothing.
    """
    seen: set[tuple[int, int]] = set()
    weights = [0.0] * len(ids)
    for at in range(1, len(ids)):
        pair = (ids[at - 1], ids[at])
        weights[at] = 1.0 if pair in seen else 0.0
        seen.add(pair)
    return tuple(weights)


def size(text: str, codec: TextCodec | None) -> int:
    """Tokens of a text; guessed while there is no tokenizer."""
    return len(text.encode()) // BYTES_PER_TOKEN if codec is None else len(codec.encode(text))
