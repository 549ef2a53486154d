"""What `quality.py` found as one SVG: bits per byte over seconds from a cold start.

It stands by itself in a page or a README, light or dark. Hollow marks are the peer's other rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from induction_plot import STYLE

from matura.report.charts import ticks

WIDTH, HEIGHT = 620, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 470, 64, 326
ROOM = 0.08
SIDES = (
    ("bpb", "Matura", "green"),
    ("bpb_same_architecture", "Matura, their layers", "blue"),
    ("bpb_transformers", "transformers, AdamW", "red"),
)


def drawing(results: dict[str, Any]) -> str:
    """Each side's line, and all that was tried."""
    lines = {called: (results[key], colour) for key, called, colour in SIDES if results.get(key)}
    others = [
        (float(at), run["bpb"]) for at, runs in results["runs_transformers"].items() for run in runs
    ]
    xs = sorted({float(at) for found, _ in lines.values() for at in found})
    ys: list[float] = [bpb for found, _ in lines.values() for bpb in found.values()] + [
        y for _, y in others
    ]
    room = (max(ys) - min(ys)) * ROOM or 0.1
    low, high = min(ys) - room, max(ys) + room

    def right(at: float) -> float:
        first, last = math.log(xs[0]), math.log(xs[-1])
        share = (math.log(at) - first) / (last - first) if last > first else 0.5
        return LEFT + 20 + share * (RIGHT - LEFT - 40)

    def up(bpb: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (bpb - low) / (high - low)

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill:var(--paper)"/>']
    parts.append(_text(LEFT, 28, "Held-out standard library, bits per byte", kind="head"))
    parts.append(_text(LEFT, 46, "lower is better; the axis is cut"))
    for value in ticks(low, high):
        y = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{value:g}", anchor="end"))
    parts += [_text(right(at), BOTTOM + 20, f"{at:g}", anchor="middle") for at in xs]
    middle = (LEFT + RIGHT) / 2
    parts.append(_text(middle, BOTTOM + 40, "seconds from a cold start", anchor="middle"))
    for at, bpb in others:
        spot = f'cx="{right(at):.1f}" cy="{up(bpb):.1f}" r="3"'
        parts.append(f'<circle class="one" style="stroke:var(--red)" {spot}/>')
    parts += _lines(lines, right, up)
    about = escape("; ".join(f"{called}: {_told(found)}" for called, (found, _) in lines.items()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{about}"><title>{about}</title><style>{STYLE}</style>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def _lines(lines: dict[str, Any], right: Any, up: Any) -> Iterator[str]:
    """Each with its name at its end, apart from the others' names."""
    ends = _apart([up(list(found.values())[-1]) + 4 for found, _ in lines.values()])
    for (called, (found, colour)), y in zip(lines.items(), ends, strict=True):
        paint = f"var(--{colour})"
        spots = [(right(float(at)), up(bpb)) for at, bpb in found.items()]
        line = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(spots))
        yield f'<path class="whole" style="stroke:{paint}" d="{line}"/>'
        for (x, height), (at, bpb) in zip(spots, found.items(), strict=True):
            told = f"<title>{escape(called)}, {at} s: {bpb:.3f}</title>"
            mark = f'cx="{x:.1f}" cy="{height:.1f}" r="4.2"'
            yield f'<circle style="fill:{paint}" {mark}>{told}</circle>'
        last = list(found.values())[-1]
        yield _text(RIGHT - 4, y, f"{last:.3f} {called}", kind="value")


def _apart(heights: Sequence[float], least: float = 15.0) -> list[float]:
    """The same order, at least so far apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + least)
    return placed


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{bpb:.3f} after {at} s" for at, bpb in found.items())


def _text(x: float, y: float, said: str, *, anchor: str = "start", kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
    )
