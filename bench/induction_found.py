"""What the ways of `induction.py` came to: shares with Wilson's intervals, and paired changes.

A held-out document is easy or hard for every model alike, so two intervals of bits per byte overlap
whatever happened between them. Changes are therefore taken document by document.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matura.core.types import Cell, Score
from matura.exams.interval import Z, wilson

BASE = "base"
"""What the base itself scores, before any way."""
ALL = "all"
ENOUGH_DOCUMENTS = 8
PAIRS = (
    ("text", BASE),
    ("replay", BASE),
    ("bare", BASE),
    ("replay", "text"),
    ("bare", "text"),
    ("bare", "replay"),
)
"""Whose bits per byte are compared: the later one's minus the earlier one's."""
CALLED = {
    BASE: "the base",
    "text": "(a) more text",
    "replay": "(b) induction, with replay",
    "bare": "(c) induction, no replay",
}

Plain = dict[str, Any]
Sizes = dict[str, tuple[float, int]]
"""Bits and bytes of each document."""


@dataclass(frozen=True)
class Sat:
    """One model: the base's, or a way's, of one seed."""

    way: str
    seed: int
    scores: Mapping[str, Score]
    row_bytes: Mapping[str, int]
    """Of each held-out row, by its task."""
    tokens: int
    """Read in its stage."""
    seconds: float
    broke: str = ""
    """Why training broke off, if it did; there are no scores then."""


def found(sats: Sequence[Sat]) -> Plain:
    """All numbers, as JSON."""
    by_way: dict[str, list[Sat]] = {}
    for sat in sats:
        by_way.setdefault(sat.way, []).append(sat)
    whole = {way: [sat for sat in of if not sat.broke] for way, of in by_way.items()}
    whole = {way: of for way, of in whole.items() if of}
    return {
        "seeds": list(dict.fromkeys(sat.seed for sat in sats)),
        "tokens": {way: [sat.tokens for sat in of] for way, of in by_way.items()},
        "seconds": {way: [round(sat.seconds, 1) for sat in of] for way, of in by_way.items()},
        "broke_off": {f"{sat.way}, seed {sat.seed}": sat.broke for sat in sats if sat.broke},
        "accuracy": {way: _accuracy(of) for way, of in whole.items()},
        "prefix_matching": {
            way: [round(sat.scores["induction"].notes["prefix_matching"], 4) for sat in of]
            for way, of in whole.items()
        },
        "bpb": {way: _bpb(of) for way, of in whole.items()},
        "change": {
            f"{after} - {before}": change
            for after, before in PAIRS
            if (change := _change(whole.get(after, ()), whole.get(before, ())))
        },
    }


def _accuracy(sats: Sequence[Sat]) -> Plain:
    """Exact copies by length, and of all: items of all seeds together, and of each."""
    cells: dict[str, dict[int, Cell]] = {}
    for sat in sats:
        score = sat.scores["induction"]
        for bucket, cell in score.buckets.items():
            cells.setdefault(bucket.removeprefix("length "), {})[sat.seed] = cell
        cells.setdefault(ALL, {})[sat.seed] = score.overall
    lengths = sorted((name for name in cells if name != ALL), key=int)
    return {name: _pooled(cells[name]) for name in (*lengths, ALL)}


def _pooled(cells: Mapping[int, Cell]) -> Plain:
    n = sum(cell.n for cell in cells.values())
    score = math.fsum(cell.score * cell.n for cell in cells.values()) / n
    return {"score": score, **wilson(score, n)._asdict(), "n": n, "seeds": _each(cells)}


def _bpb(sats: Sequence[Sat]) -> Plain:
    """Bits per byte: each seed's as the exam gave it, and of the same documents in all seeds."""
    sizes = summed([sizes_of(sat) for sat in sats])
    cells = {sat.seed: sat.scores["bpb"].overall for sat in sats}
    kind = "rows" if next(iter(sizes)) in sats[0].row_bytes else "documents"
    return {**spread(sizes), "draws": f"{len(sizes)} {kind}", "seeds": _each(cells)}


def _each(cells: Mapping[int, Cell]) -> list[Plain]:
    return [
        {"seed": seed, "score": cell.score, "low": cell.low, "high": cell.high, "n": cell.n}
        for seed, cell in cells.items()
    ]


def _change(after: Sequence[Sat], before: Sequence[Sat]) -> Plain | None:
    """How bits per byte differ on the same documents; None if no seed has both."""
    then = {sat.seed: sizes_of(sat) for sat in before}
    changes = {
        sat.seed: difference(sizes_of(sat), then[sat.seed]) for sat in after if sat.seed in then
    }
    if not changes:
        return None
    return {
        **spread(summed(list(changes.values()))),
        "seeds": [{"seed": seed, **spread(sizes)} for seed, sizes in changes.items()],
    }


def sizes_of(sat: Sat) -> Sizes:
    """What each held-out document cost, in bits, and its bytes; each row by itself where documents
    are too few to compare, as the exam has it."""
    items = sat.scores["bpb"].items
    documents = [item.task.rsplit("/", 2)[0] for item in items]
    few = len(set(documents)) < ENOUGH_DOCUMENTS
    bits: dict[str, float] = defaultdict(float)
    sizes: dict[str, int] = defaultdict(int)
    for item, document in zip(items, documents, strict=True):
        name = item.task if few else document
        size = sat.row_bytes[item.task]
        bits[name] += item.grade * size
        sizes[name] += size
    return {name: (bits[name], sizes[name]) for name in bits}


def difference(after: Sizes, before: Sizes) -> Sizes:
    """How many bits more each document costs; both models read the same rows of it."""
    if {name: size for name, (_, size) in after.items()} != {
        name: size for name, (_, size) in before.items()
    }:
        raise ValueError("the two models did not read the same held-out text")
    return {name: (bits - before[name][0], size) for name, (bits, size) in after.items()}


def summed(many: Sequence[Sizes]) -> Sizes:
    """Each document over all seeds: read several times, it is still one draw."""
    total: Sizes = {}
    for sizes in many:
        for name, (bits, size) in sizes.items():
            had = total.get(name, (0.0, 0))
            total[name] = had[0] + bits, had[1] + size
    return total


def spread(sizes: Sizes) -> dict[str, float | None]:
    """Bits by bytes, with the 95 % interval of whole documents as draws (linearised ratio). With
    one document there is none."""
    whole = sum(size for _, size in sizes.values())
    score = math.fsum(bits for bits, _ in sizes.values()) / whole
    if len(sizes) < 2:
        return {"score": score, "low": None, "high": None}
    off = math.fsum((bits - score * size) ** 2 for bits, size in sizes.values())
    half = Z * math.sqrt(off * len(sizes) / (len(sizes) - 1)) / whole
    return {"score": score, "low": score - half, "high": score + half}


def markdown(results: Plain) -> Iterator[str]:
    """Copies by length, then bits per byte, then each seed by itself."""
    accuracy = results["accuracy"]
    lengths = list(accuracy[BASE])
    names = [name if name != ALL else "all lengths" for name in lengths]
    yield "Exact copies of a run told once, by its length in tokens; items of all seeds together:"
    yield ""
    yield from _table("", *names, "best head")
    for way, cells in accuracy.items():
        head = fmean(results["prefix_matching"][way])
        yield _row(CALLED[way], *(_cell(cells[name]) for name in lengths), f"{head:.2f}")
    yield ""
    yield from _bits(results)
    for name, why in results["broke_off"].items():
        yield ""
        yield f"{name} broke off: {why}"
    yield ""
    yield "Copies, each seed by itself:"
    yield ""
    yield from _table("", "seed", *names)
    for way, cells in accuracy.items():
        for number, seed in enumerate(one["seed"] for one in cells[ALL]["seeds"]):
            each = [f"{cells[name]['seeds'][number]['score']:.2f}" for name in lengths]
            yield _row(CALLED[way], str(seed), *each)
    yield ""
    yield from _table("by seed", *CALLED.values())
    for what in ("tokens", "seconds"):
        told = results[what]
        yield _row(what, *(", ".join(f"{v:,.0f}" for v in told.get(way, ())) for way in CALLED))


def _bits(results: Plain) -> Iterator[str]:
    """Bits per byte, and what they changed by."""
    seeds, change = results["seeds"], results["change"]
    draws = results["bpb"][BASE]["draws"]
    yield f"Bits per byte of text held out of the base's ({draws}; lower is better), and what it"
    yield "changed by on each of them:"
    yield ""
    each = [f"seed {seed}" for seed in seeds]
    yield from _table("", *each, "all seeds", "since the base", "against more text")
    for way, cell in results["bpb"].items():
        by_seed = {one["seed"]: f"{one['score']:.3f}" for one in cell["seeds"]}
        against = [_signed(change.get(f"{way} - {then}")) for then in (BASE, "text")]
        yield _row(CALLED[way], *(by_seed.get(s, "") for s in seeds), _cell(cell, 3), *against)
    if saved := change.get("bare - replay"):
        yield ""
        yield f"Without replay against with it: {_signed(saved)} bits per byte."


def _table(*heads: str) -> Iterator[str]:
    yield _row(*heads)
    yield _row(*["---"] * len(heads))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Plain, digits: int = 2) -> str:
    ends = "?" if cell["low"] is None else f"{cell['low']:.{digits}f}, {cell['high']:.{digits}f}"
    return f"{cell['score']:.{digits}f} [{ends}]"


def _signed(cell: Plain | None) -> str:
    if cell is None:
        return ""
    ends = "?" if cell["low"] is None else f"{cell['low']:+.3f}, {cell['high']:+.3f}"
    return f"{cell['score']:+.3f} [{ends}]"
