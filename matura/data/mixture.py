"""Sources times shares, laid out as rows before the first step: what the training loop is fed.

Everything is decided when a `Feed` is made: which piece of which example stands in which row. `at`
only copies. So row 70,000 is the same whether or not rows before it were read, and resuming needs
no state but a step number.

Shapes: B rows asked for, L tokens of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from matura.core.errors import DataError, RecipeError
from matura.core.rng import stream_seed
from matura.data.draw import Draw, Ints
from matura.text.pack import Counted, Policy, Rows, pack, pieces
from matura.text.shards import Shard

WINDOW = 4096
"""Pieces packed together: enough to fill rows to the brim, few enough that shares hold on every
stretch."""
SHARE_SLACK = 1e-3
Order = Literal["epoch", "random"]
MAX_REPEATS = 5.0
"""Times an example may be seen: more taught the examples themselves."""


@dataclass(frozen=True, slots=True)
class Part:
    """One source of a mixture, or another stage's data replayed: what it is makes no difference
    here."""

    name: str
    shard: Shard
    share: float
    """Its part of the tokens in all rows, 0 to 1."""
    policy: Policy = "split"
    """What happens to examples longer than a row."""
    max_repeats: float = MAX_REPEATS
    min_tokens: int = 0
    """Examples shorter than this are left out."""
    order: Order = "epoch"
    """`epoch`: shuffled passes, every piece once in each; `random`: any piece at any time, drawn
    anew, so that some come twice before others come at all."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """What of a shard can be taught: where each piece starts in the shard's ids, and how long it
    is."""

    starts: Ints
    lengths: Ints
    trained: Ints
    """Tokens of each piece that have a weight and something before them to predict them from."""
    counted: Counted

    @property
    def tokens(self) -> int:
        """Of all pieces."""
        return int(self.lengths.sum())


def cut(part: Part, row_length: int) -> Cuts:
    """The part's examples as pieces that fit into a row, those with nothing to learn left out.

    Raises:
        DataError: no piece is left.
    """
    shard = part.shard
    weights = np.asarray(shard.weights)
    table, counted = pieces(
        shard.lengths, row_length, part.policy, weights=weights, min_tokens=part.min_tokens
    )
    if not len(table.example):
        why = ", ".join(f"{count} {reason}" for reason, count in counted.dropped.items())
        raise DataError(f"{shard.path}: {part.name!r} has nothing to train on ({why or 'empty'})")
    starts = shard.starts.astype(np.int64)[table.example] + table.start
    before = np.concatenate([[0], np.cumsum(weights != 0, dtype=np.int64)])
    trained = before[starts + table.lengths] - before[starts + 1]
    return Cuts(starts, table.lengths, trained, counted)


class Feed:
    """Rows of packed pieces; a pure function of the parts, the seed and the stage's name.

    Parts keep their shares on every stretch of the rows. Raises RecipeError when shares do not sum
    to 1, and DataError when a part has too little data for its share.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        tokens: int,
        row_length: int,
        pad_id: int,
        seed: int,
        stage: str,
    ) -> None:
        _check(parts, tokens, stage)
        self.parts = tuple(parts)
        self.row_length = row_length
        self.pad_id = pad_id
        self._asked = tokens
        self._cuts = [cut(part, row_length) for part in parts]
        taken = [
            _taken(part, cuts, round(part.share * tokens), seed, stage)
            for part, cuts in zip(parts, self._cuts, strict=True)
        ]
        which, piece = interleaved([self._cuts[p].lengths[t] for p, t in enumerate(taken)])
        number = np.empty(len(which), dtype=np.int64)  # of each piece in its own part
        starts, lengths = number.copy(), number.copy()
        for p, chosen in enumerate(taken):
            mine = which == p
            number[mine] = chosen[piece[mine]]
            starts[mine] = self._cuts[p].starts[number[mine]]
            lengths[mine] = self._cuts[p].lengths[number[mine]]
        draw = Draw(stream_seed(seed, stage, "rows"))
        order, self._row_starts = _in_rows(lengths, which, row_length, draw)
        self._part = which[order]
        self._number = number[order]
        self._starts, self._lengths = starts[order], lengths[order]
        self._ids = [np.asarray(part.shard.ids) for part in parts]
        self._weights = [np.asarray(part.shard.weights) for part in parts]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._row_starts) - 1

    def __len__(self) -> int:
        return self.rows

    def at(self, indexes: Sequence[int] | npt.NDArray[Any]) -> Rows:
        """The rows of these numbers, as `ids_NL`, `weights_NL`, `segments_NL`.

        The first token of a segment has weight 0: nothing in its row predicts it.

        Raises:
            IndexError: there is no such row.
        """
        rows_B = np.asarray(indexes, dtype=np.int64)
        if len(rows_B) and not 0 <= rows_B.min() <= rows_B.max() < self.rows:
            raise IndexError(f"rows {rows_B.min()} to {rows_B.max()} asked of {self.rows}")
        shape = (len(rows_B), self.row_length)
        first = self._row_starts[rows_B]
        counts = self._row_starts[rows_B + 1] - first
        which = spans(first, counts)
        lengths = self._lengths[which]
        before = np.cumsum(lengths) - lengths
        row_begins = before[np.cumsum(counts) - counts] if len(counts) else before
        row_offset = np.arange(len(rows_B)) * self.row_length - row_begins
        places = before + np.repeat(row_offset, counts)
        into = spans(places, lengths)
        source = spans(self._starts[which], lengths)
        ids = np.full(shape[0] * shape[1], self.pad_id, dtype=np.int32)
        weights = np.zeros(len(ids), dtype=np.float32)
        segments = np.zeros(len(ids), dtype=np.int32)
        segments[into] = np.repeat(spans(np.ones_like(counts), counts), lengths)
        part = self._part[which]
        for p in range(len(self.parts)):
            if len(self.parts) == 1:
                here, there = into, source
            else:
                mine = np.repeat(part == p, lengths)
                here, there = into[mine], source[mine]
            ids[here] = self._ids[p][there]
            weights[here] = self._weights[p][there]
        weights[places] = 0.0
        return Rows(ids.reshape(shape), weights.reshape(shape), segments.reshape(shape))

    def parts_at(self, indexes: Sequence[int] | npt.NDArray[Any]) -> dict[str, int]:
        """Tokens of each part in these rows: what a batch is made of."""
        rows_B = np.asarray(indexes, dtype=np.int64)
        first = self._row_starts[rows_B]
        which = spans(first, self._row_starts[rows_B + 1] - first)
        totals = np.bincount(self._part[which], self._lengths[which], minlength=len(self.parts))
        return {part.name: int(total) for part, total in zip(self.parts, totals, strict=True)}

    @cached_property
    def sha256(self) -> str:
        """A hash of which piece stands where; equal feeds have equal hashes."""
        found = hashlib.sha256()
        for array in (self._row_starts, self._part, self._starts, self._lengths):
            found.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return found.hexdigest()

    def report(self, rows: int | None = None) -> dict[str, Any]:
        """Shares asked and got, exposures, what was dropped, how full the rows are; plain numbers.

        `exposures` is how often each token of a part is seen, `most_seen` how often its most
        frequent piece is. With `rows`, of the first so many rows: what a run read that ended early.
        """
        rows = self.rows if rows is None else min(rows, self.rows)
        read = slice(int(self._row_starts[rows]))
        total = int(self._lengths[read].sum())
        parts = {}
        for p, (part, cuts) in enumerate(zip(self.parts, self._cuts, strict=True)):
            mine = self._part[read] == p
            tokens = int(self._lengths[read][mine].sum())
            seen = np.bincount(self._number[read][mine], minlength=len(cuts.lengths))
            parts[part.name] = {
                "share_asked": part.share,
                "share_got": tokens / total,
                "tokens": tokens,
                "trained_tokens": int((cuts.trained * seen).sum()),
                "tokens_available": cuts.tokens,
                "exposures": tokens / cuts.tokens,
                "most_seen": int(seen.max()),
                "pieces": int(mine.sum()),
                "cut": cuts.counted.cut,
                "dropped": dict(cuts.counted.dropped),
                "tokens_lost": dict(cuts.counted.tokens_lost),
            }
        return {
            "tokens_asked": self._asked,
            "tokens": total,
            "trained_tokens": sum(part["trained_tokens"] for part in parts.values()),
            "rows": rows,
            "row_length": self.row_length,
            "filled": total / (rows * self.row_length),
            "parts": parts,
        }


def once(
    shard: Shard, *, name: str, row_length: int, pad_id: int, policy: Policy = "split"
) -> Feed:
    """Everything in a shard exactly once: what validation is measured on.

    Raises:
        DataError: nothing in it can be taught.
    """
    part = Part(name=name, shard=shard, share=1.0, policy=policy)
    tokens = cut(part, row_length).tokens
    return Feed([part], tokens=tokens, row_length=row_length, pad_id=pad_id, seed=0, stage="once")


def spans(starts: Ints, lengths: Ints) -> Ints:
    """The numbers `starts[i] .. starts[i] + lengths[i] - 1` of each i, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def interleaved(lengths: Sequence[Ints]) -> tuple[Ints, Ints]:
    """The parts' pieces in one line, every part spread evenly over it: whose each is, and its place
    there.

    A piece stands where its middle token stands among its own part's tokens, so that any stretch of
    the line has each part's share of the whole, to within a piece.
    """
    middles = [(np.cumsum(mine) - mine / 2) / mine.sum() for mine in lengths]
    which = np.repeat(np.arange(len(lengths)), [len(mine) for mine in lengths])
    place = np.concatenate([np.arange(len(mine)) for mine in lengths])
    order = np.argsort(np.concatenate(middles), kind="stable")
    return which[order], place[order]


def _check(parts: Sequence[Part], tokens: int, stage: str) -> None:
    if not parts:
        raise RecipeError(f"{stage}: a mixture needs at least one part")
    if tokens < 1:
        raise RecipeError(f"{stage}: tokens: {tokens}; expected at least 1")
    names = [part.name for part in parts]
    for part in parts:
        if not 0 < part.share <= 1:
            raise RecipeError(f"{stage}: share of {part.name!r}: {part.share}; expected 0 to 1")
        if names.count(part.name) > 1:
            raise RecipeError(f"{stage}: two parts of the mixture are called {part.name!r}")
    total = sum(part.share for part in parts)
    if abs(total - 1) > SHARE_SLACK:
        spelled = " + ".join(f"{part.name} {part.share:g}" for part in parts)
        raise RecipeError(f"{stage}: shares sum to {total:g}, expected 1: {spelled}")


def _taken(part: Part, cuts: Cuts, tokens: int, seed: int, stage: str) -> Ints:
    """The part's pieces in the order they are seen: whole shuffled passes, then part of one; or
    each drawn from all of them."""
    reach = int(part.max_repeats * cuts.tokens)
    if tokens > reach * (1 + SHARE_SLACK):
        raise DataError(
            f"{stage}: {part.name!r} is asked for {tokens:,} tokens (a share of {part.share:g}) "
            f"but has {cuts.tokens:,}: seen {part.max_repeats:g} times that is {reach:,}, "
            f"{tokens - reach:,} short; give it more data, a smaller share or a higher "
            "max_repeats, or train on fewer tokens"
        )
    if part.order == "random":
        return _drawn(cuts, tokens, Draw(stream_seed(seed, stage, "draws", part.name)))
    passes, rest = divmod(tokens, cuts.tokens)
    orders = []
    for number in range(passes + 1):
        draw = Draw(stream_seed(seed, stage, "order", part.name, number))
        orders.append(draw.permutation(len(cuts.lengths)))
    ends = np.cumsum(cuts.lengths[orders[-1]])
    orders[-1] = orders[-1][: int(np.searchsorted(ends, rest, side="left")) + (rest > 0)]
    return np.concatenate(orders)


def _drawn(cuts: Cuts, tokens: int, draw: Draw) -> Ints:
    """Pieces drawn with replacement, all equally likely, up to that many tokens."""
    many = len(cuts.lengths)
    taken = np.empty(0, dtype=np.int64)
    while (got := int(cuts.lengths[taken].sum())) < tokens:
        about = max(64, (tokens - got) * many // cuts.tokens)
        taken = np.concatenate([taken, draw.below(many, about)])
    ends = np.cumsum(cuts.lengths[taken])
    return taken[: int(np.searchsorted(ends, tokens, side="left")) + (tokens > 0)]


def _in_rows(lengths: Ints, which: Ints, row_length: int, draw: Draw) -> tuple[Ints, Ints]:
    """Pieces in the order they stand in rows, and where each row starts in that order.

    Packing by length puts pieces of one part together, long ones in front. So the rows of a window
    are shuffled and then dealt out by the part that fills most of each: every batch is a sample of
    the mixture, not of one part today and another tomorrow.
    """
    groups: list[Ints] = []
    for start in range(0, len(lengths), WINDOW):
        packed = pack(lengths[start : start + WINDOW], row_length)
        rows = [packed[row] + start for row in draw.permutation(len(packed))]
        most = np.array([np.bincount(which[row], lengths[row]).argmax() for row in rows])
        kinds = [np.flatnonzero(most == part) for part in np.unique(most)]
        whose, place = interleaved([np.ones_like(kind) for kind in kinds])
        groups += [rows[kinds[kind][at]] for kind, at in zip(whose, place, strict=True)]
    counts = np.array([0, *map(len, groups)], dtype=np.int64)
    return np.concatenate(groups), np.cumsum(counts)
