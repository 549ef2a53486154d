"""Random runs of tokens that come again: `[a b c] … [d e] … [a b c] …`, what induction heads are
made of.

The first token of a run that comes again is a surprise; each token after it can be known only by
finding where its predecessor stood before. Runs of 1 to 40 tokens, several to a document, come
again after gaps of all sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matura.core.rng import Rng, pair_is_for_exam
from matura.data.draw import Draw, Ints

BATCH = 128
LONGEST_RUN = 40
TOLD_TWICE = 0.3
"""Chance, after each token of such a run, that an earlier one of it comes again."""
MOST_DISTINCT = 0.6
"""Share of the vocabulary that one document may use, so that no token stands in two of its runs."""


def exam_pairs(first: Ints, second: Ints) -> npt.NDArray[np.bool_]:
    """`core.rng.pair_is_for_exam` for whole arrays (a test compares the two)."""
    found: npt.NDArray[np.bool_] = ((first * 40503 + second * 30011 + 12345) % 1000003) % 5 == 0
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """One document before it has tokens: the length of each run, and which run stands where."""

    lengths: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def distinct(self) -> int:
        """How many different tokens it needs."""
        return sum(self.lengths)


def planned(rng: Rng, shortest: int, longest: int, most_distinct: int) -> Plan:
    """Which runs a document of between `shortest` and `longest` tokens has, and where they stand.

    A third are one run of 8 tokens or more, told two to four times with noise of any length or none
    between. The others mix runs of all lengths, some of which come once and so are noise. Lengths
    are spread evenly over their logarithm: short runs are the hard ones.
    """
    total = rng.randint(shortest, longest)
    if rng.random() < 0.33:
        return _told_again(rng, total, most_distinct)
    lengths: list[int] = []
    order: list[int] = []
    room, distinct = total, most_distinct
    while room > 0 and distinct > 0:
        length = _length(rng, min(LONGEST_RUN, room, distinct))
        # one token told twice would teach that a cue means nothing: it comes once, as noise
        times = 1 if length == 1 else rng.choice((1, 2, 2, 2, 3, 3, 4))
        order += [len(lengths)] * min(times, max(1, room // length))
        lengths.append(length)
        room -= length * times
        distinct -= length
    rng.shuffle(order)
    return Plan(tuple(lengths), tuple(order))


def _told_again(rng: Rng, total: int, most_distinct: int) -> Plan:
    """One run, several times; the noise between differs in length: no fixed distance helps."""
    times = rng.choice((2, 2, 3, 4))
    longest = max(1, min(total // times, most_distinct, LONGEST_RUN))
    lengths = [rng.randint(min(8, longest), longest)]
    order = [0]
    distinct = most_distinct - lengths[0]
    for left in range(times - 1, 0, -1):
        room = min(distinct, (total - times * lengths[0]) // left)
        noise = rng.randint(0, room) if room > 0 and rng.random() < 0.7 else 0
        if noise:
            order.append(len(lengths))
            lengths.append(noise)
            distinct -= noise
            total -= noise
        order.append(0)
    return Plan(tuple(lengths), tuple(order))


def _length(rng: Rng, most: int) -> int:
    """1 to `most`, even over the logarithm."""
    return min(most, int((most + 1.0) ** rng.random()))


def drilled(rng: Rng, shortest: int, longest: int, run: tuple[int, int]) -> Plan:
    """One run of between `run` tokens and nothing else, told three times or until there are
    `shortest` tokens: what it takes to find copying at all, before noise and distance come in."""
    least, most = run
    length = max(2, round(least * (most / least) ** rng.random()))
    least_times = 2 if 3 * length > longest else 3
    times = max(least_times, -(-rng.randint(shortest, max(shortest, longest // 2)) // length))
    return Plan((length,), (0,) * max(2, min(times, longest // length)))


Planner = Callable[[Rng, int, int, int], Plan]


def documents(
    rng: Rng,
    *,
    vocabulary: int,
    shortest: int,
    longest: int,
    for_exam: bool = False,
    planner: Planner = planned,
    separator: int | None = None,
    knotty: float = 0.5,
) -> Iterator[list[int]]:
    """Endless documents of token ids below `vocabulary`, laid out as `planner` says.

    With a `separator` (the id of a space), the share `knotty` of the documents has tokens that
    come again inside a run, the separator above all: there one token back does not tell what
    comes next.

    No two neighbours anywhere in a document are a pair for exams; with `for_exam`, all of them
    are, joints between runs aside.
    """
    most_distinct = min(longest, int(vocabulary * MOST_DISTINCT))
    draw = Draw(rng.getrandbits(64))
    while True:
        plans = [planner(rng, shortest, longest, most_distinct) for _ in range(BATCH)]
        widest = max(plan.distinct for plan in plans)
        tokens = chained(draw, BATCH, widest, vocabulary, wanted=for_exam)
        for plan, row in zip(plans, tokens.tolist(), strict=True):
            runs = cut_up(plan, row)
            if separator is not None and not for_exam and rng.random() < knotty:
                runs = [knotted(rng, run, separator) for run in runs]
            yield laid_out(rng, plan, runs, vocabulary, for_exam)[:longest]


def chained(draw: Draw, rows: int, width: int, vocabulary: int, *, wanted: bool) -> Ints:
    """Rows of different tokens; `exam_pairs` is `wanted` for each two neighbours.

    Where the tokens left over offer no such neighbour (small vocabularies), a token comes twice in
    its row.
    """
    everyone = np.arange(rows)
    used = np.zeros((rows, vocabulary), dtype=bool)
    out = np.empty((rows, width), dtype=np.int64)
    for at in range(width):
        open_rows = everyone
        for attempt in range(200):
            tokens = draw.below(vocabulary, len(open_rows))
            good = ~used[open_rows, tokens] if attempt < 60 else np.ones(len(tokens), dtype=bool)
            if at:
                good &= exam_pairs(out[open_rows, at - 1], tokens) == wanted
            out[open_rows[good], at] = tokens[good]
            open_rows = open_rows[~good]
            if not len(open_rows):
                break
        used[everyone, out[:, at]] = True
    return out


def cut_up(plan: Plan, tokens: list[int]) -> list[list[int]]:
    """The tokens of each run."""
    runs: list[list[int]] = []
    start = 0
    for length in plan.lengths:
        runs.append(tokens[start : start + length])
        start += length
    return runs


def knotted(rng: Rng, run: list[int], separator: int) -> list[int]:
    """The run with a separator after every one to three tokens, and some tokens told twice,
    wherever that makes no exam pair."""
    every = rng.randint(1, 3)
    out: list[int] = []
    for at, token in enumerate(run):
        if out and at % every == 0 and _fits(out[-1], separator) and _fits(separator, token):
            out.append(separator)
        if out and not _fits(out[-1], token):
            continue
        out.append(token)
        if rng.random() < TOLD_TWICE and _fits(token, again := rng.choice(out)):
            out.append(again)
    return out


def _fits(left: int, right: int) -> bool:
    return not pair_is_for_exam(left, right)


def laid_out(
    rng: Rng, plan: Plan, runs: list[list[int]], vocabulary: int, for_exam: bool
) -> list[int]:
    """The runs in their order, with a token between where two runs would meet in an exam pair."""
    out: list[int] = []
    for which in plan.order:
        run = runs[which]
        if out and not for_exam and pair_is_for_exam(out[-1], run[0]):
            out.append(_between(rng, out[-1], run[0], vocabulary))
        out += run
    return out


def _between(rng: Rng, left: int, right: int, vocabulary: int) -> int:
    """A token that makes no exam pair with either neighbour; two thirds of all tokens do."""
    while True:
        token = rng.randrange(vocabulary)
        if not pair_is_for_exam(left, token) and not pair_is_for_exam(token, right):
            return token
