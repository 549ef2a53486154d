"""Examples of uneven length into rows of one length, many to a row, none seeing another.

The surprising thing: the first token of each piece in a row gets weight 0, because what stands
before it belongs to somebody else and nothing may learn to predict it from that.

Axes: N rows (or examples, where said), L positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matura.core.errors import DataError, RecipeError

Policy = Literal["drop", "split", "truncate_left"]
Ints = NDArray[np.int64]
AnyArray = NDArray[Any]


class Pieces(NamedTuple):
    """A table of stretches of examples: piece `p` is `start[p]:stop[p]` of example `example[p]`."""

    example: Ints
    start: Ints
    stop: Ints

    @property
    def lengths(self) -> Ints:
        """How many tokens each piece has."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of the examples: `tokens_in` = `tokens_kept` + the sum of `tokens_lost`."""

    examples: int
    pieces: int
    cut: int
    """Examples that were split or truncated."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Pieces (or whole examples) left out, by reason."""
    tokens_in: int = 0
    tokens_kept: int = 0
    tokens_lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a training step reads. In `segments_NL` 0 is padding, 1, 2, … the pieces of that row."""

    ids_NL: NDArray[np.int32]
    weights_NL: NDArray[np.float32]
    segments_NL: NDArray[np.int32]
    dropped: int = 0
    """Rows left out because nothing in them was to be learnt."""

    @property
    def trained(self) -> int:
        """How many tokens have a weight other than 0."""
        return int(np.count_nonzero(self.weights_NL))

    @property
    def fill(self) -> float:
        """The share of positions that are not padding."""
        return float(np.count_nonzero(self.segments_NL)) / max(self.segments_NL.size, 1)


def pieces(
    lengths: AnyArray,
    row_length: int,
    policy: Policy,
    *,
    weights: AnyArray | None = None,
    min_tokens: int = 0,
) -> tuple[Pieces, Counted]:
    """Pieces that all fit into a row, and what the policy did to those examples that did not.

    `drop` leaves them out, `split` cuts them into consecutive pieces, `truncate_left` keeps their
    end. With `weights` (those of all examples, end to end) pieces in which nothing is learnt are
    left out. So are whole examples of fewer than `min_tokens`.

    Raises:
        RecipeError: an unknown policy, or rows too short to predict anything.
    """
    if policy not in ("drop", "split", "truncate_left"):
        raise RecipeError(f"no policy {policy!r} for long examples (drop, split, truncate_left)")
    if row_length < 2:
        raise RecipeError(f"a row of {row_length} tokens predicts nothing; it must have 2 or more")
    size_N = np.asarray(lengths, dtype=np.int64)
    long_N = size_N > row_length
    dropped = {"empty": int(np.count_nonzero(size_N == 0))}
    lost = {"empty": 0}
    many_N = np.where(size_N > 0, 1, 0)
    short_N = (size_N > 0) & (size_N < min_tokens)
    dropped["too short"] = int(np.count_nonzero(short_N))
    lost["too short"] = int(size_N[short_N].sum())
    if policy == "drop":
        many_N = np.where(long_N, 0, many_N)
        dropped["too long"] = int(np.count_nonzero(long_N & ~short_N))
        lost["too long"] = int(size_N[long_N & ~short_N].sum())
    elif policy == "split":
        many_N = -(-size_N // row_length)
    else:
        lost["truncated"] = int((size_N[long_N & ~short_N] - row_length).sum())
    many_N = np.where(short_N, 0, many_N)
    example = np.repeat(np.arange(len(size_N), dtype=np.int64), many_N)
    first = np.repeat(np.cumsum(many_N) - many_N, many_N)
    start = (np.arange(len(example), dtype=np.int64) - first) * row_length
    stop = np.minimum(start + row_length, size_N[example])
    if policy == "truncate_left":
        stop = size_N[example]
        start = np.maximum(stop - row_length, 0)
    table = Pieces(example, start, stop)
    if weights is not None:
        taught = _learns(table, size_N, weights)
        dropped["nothing to learn"] = int(np.count_nonzero(~taught))
        lost["nothing to learn"] = int(table.lengths[~taught].sum())
        table = Pieces(example[taught], start[taught], stop[taught])
    counted = Counted(
        examples=len(size_N),
        pieces=len(table.example),
        cut=0 if policy == "drop" else int(np.count_nonzero(long_N & ~short_N)),
        dropped={reason: count for reason, count in dropped.items() if count},
        tokens_in=int(size_N.sum()),
        tokens_kept=int(table.lengths.sum()),
        tokens_lost={reason: count for reason, count in lost.items() if count},
    )
    return table, counted


def _learns(table: Pieces, size_N: Ints, weights: AnyArray) -> NDArray[np.bool_]:
    """Whether any token of a piece but its first has a weight."""
    if len(weights) != int(size_N.sum()):
        raise DataError(f"{len(weights)} weights for {int(size_N.sum())} tokens")
    before = np.concatenate([[0], np.cumsum(np.asarray(weights) != 0, dtype=np.int64)])
    base = (np.cumsum(size_N) - size_N)[table.example]
    found: NDArray[np.bool_] = before[base + table.stop] > before[base + table.start + 1]
    return found


def pack(lengths: AnyArray, row_length: int) -> list[Ints]:
    """Which pieces share a row: longest first, each into the fullest row that still has room.

    Every index of `lengths` is in exactly one group. Rows come out in the order they were begun.

    Raises:
        DataError: a piece is empty or longer than a row; `pieces` resolves those first.
    """
    size_N = np.asarray(lengths, dtype=np.int64)
    if len(size_N) and not 0 < int(size_N.min()) <= int(size_N.max()) <= row_length:
        wrong = int(np.flatnonzero((size_N <= 0) | (size_N > row_length))[0])
        raise DataError(f"piece {wrong} has {size_N[wrong]} tokens: it must have 1 to {row_length}")
    groups: list[list[int]] = []
    # rows by the room they have left; bit r of `rooms` says that some row has room for r tokens, so
    # the fullest row that fits is the lowest bit at or above the length: no search through rows
    waiting: list[list[int]] = [[] for _ in range(row_length + 1)]
    rooms = 0
    for index in np.argsort(-size_N, kind="stable").tolist():
        length = int(size_N[index])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = waiting[room].pop()
            if not waiting[room]:
                rooms ^= 1 << room
            groups[row].append(index)
        else:
            room, row = row_length, len(groups)
            groups.append([index])
        left = room - length
        if left:
            waiting[left].append(row)
            rooms |= 1 << left
    return [np.asarray(group, dtype=np.int64) for group in groups]


def lay_out(
    examples: Sequence[tuple[AnyArray, AnyArray]],
    groups: Sequence[AnyArray],
    row_length: int,
    pad_id: int,
) -> Rows:
    """The rows themselves: `groups[n]` names the examples (ids, weights) of row n, in order.

    A row in which nothing is to be learnt is left out and counted in `dropped`.

    Raises:
        DataError: a group is longer than a row, or an example has not one weight for each id.
    """
    shape = (len(groups), row_length)
    ids_NL = np.full(shape, pad_id, dtype=np.int32)
    weights_NL = np.zeros(shape, dtype=np.float32)
    segments_NL = np.zeros(shape, dtype=np.int32)
    for row, group in enumerate(groups):
        at = 0
        for segment, index in enumerate(group, start=1):
            ids, weights = examples[int(index)]
            stop = at + len(ids)
            if len(ids) != len(weights):
                raise DataError(f"example {index}: {len(ids)} ids but {len(weights)} weights")
            if stop > row_length:
                raise DataError(f"row {row}: its examples do not fit into {row_length} tokens")
            if stop == at:
                continue
            ids_NL[row, at:stop] = ids
            weights_NL[row, at:stop] = weights
            weights_NL[row, at] = 0.0
            segments_NL[row, at:stop] = segment
            at = stop
    keep = weights_NL.any(axis=1)
    if keep.all():
        return Rows(ids_NL, weights_NL, segments_NL)
    dropped = int(np.count_nonzero(~keep))
    return Rows(ids_NL[keep], weights_NL[keep], segments_NL[keep], dropped)
