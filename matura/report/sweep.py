"""A learning-rate sweep as one SVG: what each factor came to, and how each try went.

It stands by itself in a page or a README, light or dark: its palette is its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from matura.core.disk import replace_atomically
from matura.ladder.rates import Sweep, diverged, end_of
from matura.report.charts import ticks

WIDTH, HEIGHT = 900, 400
TOP, BOTTOM = 64, 330
LEFT, RIGHT = (56, 424), (516, 884)
"""From where to where each of the two panels reaches."""
ROOM = 0.05
STYLE = """
svg { --paper: #ffffff; --ink: #1d1f22; --soft: #676b73; --line: #e4e1d9; --blue: #0072b2;
  --red: #d55e00; font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", sans-serif; }
@media (prefers-color-scheme: dark) { svg { --paper: #15171a; --ink: #e8e6e1; --soft: #9a9ea6;
  --line: #32363c; --blue: #56b4e9; --red: #f0894a; } }
text { fill: var(--soft); font-size: 12px; }
.head { fill: var(--ink); font-size: 14px; font-weight: 600; }
.grid { stroke: var(--line); }
.curve { fill: none; stroke-width: 1.6; stroke: var(--blue); }
.bad { stroke: var(--red); stroke-dasharray: 4 3; }
.dot { fill: var(--blue); }
.cross { stroke: var(--red); stroke-width: 2; }
.chosen { fill: none; stroke: var(--ink); stroke-width: 1.6; }
"""
Scale = Callable[[float], float]


def write(found: Sweep, path: Path) -> None:
    """Writes the drawing, whole or not at all.

    Raises:
        StoreError: the disk refuses.
    """
    replace_atomically(path, drawing(found).encode("utf-8"))


def drawing(found: Sweep) -> str:
    """Both panels and what follows from them."""
    low, high = _span(found)
    up = scale(low, high, BOTTOM, TOP)
    about = escape(f"{found.recipe}, {found.stage}: {found.suggestion.why}")
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill:var(--paper)"/>',
        label(LEFT[0], 28, f"{found.stage}: loss at the end, by factor on every rate", "head"),
        label(RIGHT[0], 28, f"loss of each of {found.steps} steps", "head"),
        *grid(LEFT, low, high, up),
        *grid(RIGHT, low, high, up),
        *_ends(found, up),
        *_curves(found, up),
        label(LEFT[0], HEIGHT - 14, found.suggestion.why),
    ]
    return whole(parts, about, HEIGHT)


def whole(parts: Sequence[str], about: str, height: int) -> str:
    """The parts as a file of its own."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{about}"><title>{about}</title><style>{STYLE}</style>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def _span(found: Sweep) -> tuple[float, float]:
    """From the lowest loss to a little above where the tries began: what is worse is cut off."""
    losses = [loss for one in found.tried for loss in one.losses]
    began = max((one.losses[0] for one in found.tried if one.losses), default=1.0)
    low = min(losses, default=0.0)
    room = max(began - low, 0.1) * ROOM
    return low - room, began + 2 * room


def _ends(found: Sweep, up: Scale) -> Iterator[str]:
    factors = [one.factor for one in found.tried]
    across = scale(math.log(min(factors)), math.log(max(factors)), LEFT[0] + 16, LEFT[1] - 16)
    spots = []
    for one in found.tried:
        x, end = across(math.log(one.factor)), end_of(one)
        yield label(x, BOTTOM + 18, f"×{one.factor:g}", anchor="middle")
        if end is None or diverged(one):
            y = TOP + 6
            told = one.stopped or f"ended at {end:.3f}, worse than it began"
            yield (
                f'<path class="cross" d="M{x - 5:.1f} {y - 5}l10 10m0 -10l-10 10"><title>×'
                f"{one.factor:g}: {escape(told)}</title></path>"
            )
            continue
        spots.append((x, up(end)))
        yield (
            f'<circle class="dot" cx="{x:.1f}" cy="{up(end):.1f}" r="4"><title>×{one.factor:g}: '
            f"{end:.3f}</title></circle>"
        )
        if one.factor == found.suggestion.factor:
            yield f'<circle class="chosen" cx="{x:.1f}" cy="{up(end):.1f}" r="8"/>'
    yield f'<path class="curve" d="{path_of(spots)}"/>'


def _curves(found: Sweep, up: Scale) -> Iterator[str]:
    across = scale(0, max(1, found.steps - 1), *RIGHT)
    for number, one in enumerate(found.tried):
        spots = [(across(step), up(loss)) for step, loss in enumerate(one.losses)]
        shade = 0.25 + 0.75 * (number + 1) / len(found.tried)
        bad = " bad" if diverged(one) else ""
        yield (
            f'<path class="curve{bad}" style="opacity:{shade:.2f}" d="{path_of(spots)}"><title>×'
            f"{one.factor:g}</title></path>"
        )
    for step, anchor in ((0, "start"), (found.steps - 1, "end")):
        yield label(across(step), BOTTOM + 18, f"step {step}", anchor=anchor)


def grid(reach: tuple[int, int], low: float, high: float, up: Scale) -> Iterator[str]:
    """Lines across a panel at round numbers, and the numbers."""
    for value in ticks(low, high):
        y = up(value)
        yield f'<line class="grid" x1="{reach[0]}" x2="{reach[1]}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield label(reach[0] - 8, y + 4, f"{value:g}", anchor="end")


def scale(low: float, high: float, begin: float, end: float) -> Scale:
    """Numbers to places; what lies outside is put at the edge."""

    def place(value: float) -> float:
        share = (value - low) / ((high - low) or 1.0)
        return begin + (end - begin) * min(1.0, max(0.0, share))

    return place


def label(x: float, y: float, words: str, kind: str = "", *, anchor: str = "start") -> str:
    """Words at a place."""
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def path_of(spots: Sequence[tuple[float, float]]) -> str:
    """A line from spot to spot, as a path's `d`."""
    return " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(spots))
