"""What `induction.py` found as one SVG: copies by length, and what the text they came from costs.

It stands by itself in a page or a README, light or dark: its palette is its own. Each way has a
mark besides its colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from induction_found import ALL, BASE, CALLED

from matura.report.charts import ticks

WIDTH, HEIGHT = 900, 446
TOP, BOTTOM = 92, 372
LEFT, RIGHT = (56, 520), (600, 884)
"""From where to where each of the two panels reaches."""
APART = 9.0
"""Between the ways at one length, so that intervals do not hide each other."""
ROOM = 0.12
CAP = 3.0
COLOURS = {BASE: "quiet", "text": "blue", "replay": "green", "bare": "red"}
STYLE = """
svg { --paper: #ffffff; --ink: #1d1f22; --soft: #676b73; --line: #e4e1d9; --quiet: #8a8f98;
  --blue: #0072b2; --green: #009e73; --red: #d55e00;
  font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --paper: #15171a; --ink: #e8e6e1; --soft: #9a9ea6;
  --line: #32363c; --quiet: #7d828b; --blue: #56b4e9; --green: #3fc79c; --red: #f0894a; } }
text { fill: var(--soft); font-size: 12px; }
.head { fill: var(--ink); font-size: 14px; font-weight: 600; }
.value { fill: var(--ink); }
.grid { stroke: var(--line); }
.whole { stroke-width: 2; fill: none; }
.reach { stroke-width: 1.5; }
.one { stroke-width: 1.2; fill: none; opacity: 0.65; }
"""

Plain = dict[str, Any]
Place = Callable[[float], float]


def drawing(results: Plain) -> str:
    """Both panels, their legend, and how to read them."""
    seeds = len(results["seeds"])
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill:var(--paper)"/>',
        *_legend(list(results["accuracy"])),
        *_copies(results["accuracy"]),
        *_bits(results["bpb"], results["change"]),
        _text(
            LEFT[0],
            HEIGHT - 12,
            f"Large marks: all of {seeds} seed{'s' if seeds > 1 else ''}; small: each. Bars, 95 %: "
            "left over items (Wilson), right of the change since the base, over documents.",
        ),
    ]
    about = escape(_about(results))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{about}"><title>{about}</title><style>{STYLE}</style>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def _about(results: Plain) -> str:
    told = [
        f"{CALLED[way]}: {cells[ALL]['score']:.2f} copied, {results['bpb'][way]['score']:.3f} bpb"
        for way, cells in results["accuracy"].items()
    ]
    return "; ".join(told)


def _legend(ways: Sequence[str]) -> Iterator[str]:
    x = float(LEFT[0])
    for way in ways:
        yield _mark(way, x + 6, 24, 5.5)
        yield _text(x + 18, 28, CALLED[way], kind="value")
        x += 44 + 6.6 * len(CALLED[way])


def _copies(accuracy: Plain) -> Iterator[str]:
    """Exact copies by length."""
    lengths = [name for name in accuracy[BASE] if name != ALL]
    step = (LEFT[1] - LEFT[0]) / len(lengths)
    up = _scale(0.0, 1.0)
    yield _text(LEFT[0], 62, "Copied exactly, of runs told once", kind="head")
    yield _text(LEFT[0], 79, "by length of the run, in tokens")
    yield from _grid(LEFT, 0.0, 1.0, up)
    for number, length in enumerate(lengths):
        yield _text(LEFT[0] + step * (number + 0.5), BOTTOM + 18, length, anchor="middle")
    for place, (way, cells) in enumerate(accuracy.items()):
        off = APART * (place - (len(accuracy) - 1) / 2)
        xs = [LEFT[0] + step * (number + 0.5) + off for number in range(len(lengths))]
        spots = [(x, up(cells[length]["score"])) for x, length in zip(xs, lengths, strict=True)]
        line = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(spots))
        yield f'<path class="whole" style="stroke:{_colour(way)}" d="{line}"/>'
        for (x, y), length in zip(spots, lengths, strict=True):
            cell = cells[length]
            about = f"{CALLED[way]}, length {length}: {cell['score']:.3f} of {cell['n']}"
            yield _mark(way, x, y, 3.6, about=about)
            yield _reach(way, x, up(cell["low"]), up(cell["high"]))
            for one in cell["seeds"]:
                yield _mark(way, x, up(one["score"]), 2.4, kind="one")


def _bits(bpb: Plain, change: Plain) -> Iterator[str]:
    """Bits per byte; what reaches up and down is the interval of the change since the base."""
    reach = {
        way: (bpb[BASE]["score"] + found["low"], bpb[BASE]["score"] + found["high"])
        for way in bpb
        if (found := change.get(f"{way} - {BASE}")) and found["low"] is not None
    }
    every = [cell["score"] for cell in bpb.values()]
    every += [one["score"] for cell in bpb.values() for one in cell["seeds"]]
    every += [end for ends in reach.values() for end in ends]
    room = (max(every) - min(every)) * ROOM or 0.1
    low, high = min(every) - room, max(every) + room
    up = _scale(low, high)
    step = (RIGHT[1] - RIGHT[0]) / len(bpb)
    yield _text(RIGHT[0], 62, "The base's own text, held out", kind="head")
    yield _text(RIGHT[0], 79, "bits per byte; lower is better, the axis is cut")
    yield from _grid(RIGHT, low, high, up)
    for place, (way, cell) in enumerate(bpb.items()):
        x = RIGHT[0] + step * (place + 0.5)
        about = f"{CALLED[way]}: {cell['score']:.3f} bits per byte"
        yield _mark(way, x, up(cell["score"]), 4.2, about=about)
        if way in reach:
            yield _reach(way, x, up(reach[way][0]), up(reach[way][1]))
        for one in cell["seeds"]:
            yield _mark(way, x + 13, up(one["score"]), 2.6, kind="one")
        yield _text(x, BOTTOM + 18, f"{cell['score']:.3f}", anchor="middle", kind="value")
        yield _text(x, BOTTOM + 33, way, anchor="middle")


def _scale(low: float, high: float) -> Place:
    """Where a value stands in a panel, from below."""
    return lambda value: BOTTOM - (BOTTOM - TOP - 8) * (value - low) / (high - low)


def _grid(panel: tuple[int, int], low: float, high: float, up: Place) -> Iterator[str]:
    for value in ticks(low, high):
        y = up(value)
        yield f'<line class="grid" x1="{panel[0]}" x2="{panel[1]}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(panel[0] - 8, y + 4, f"{value:g}", anchor="end")


def _reach(way: str, x: float, low: float, high: float) -> str:
    """An interval with caps."""
    line = f"M{x:.1f} {low:.1f} V{high:.1f}"
    caps = "".join(f" M{x - CAP:.1f} {y:.1f} h{2 * CAP:.1f}" for y in (low, high))
    return f'<path class="reach" style="stroke:{_colour(way)}" d="{line}{caps}"/>'


def _mark(way: str, x: float, y: float, size: float, *, kind: str = "mark", about: str = "") -> str:
    """A circle, a square, a triangle or a diamond, by the way."""
    paint = "stroke" if kind == "one" else "fill"
    given = f'class="{kind}" style="{paint}:{_colour(way)}"'
    title = f"<title>{escape(about)}</title>" if about else ""
    if way == BASE:
        return f'<circle {given} cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{title}</circle>'
    corners = {
        "text": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "replay": ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
        "bare": ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
    }[way]
    points = " ".join(f"{x + size * right:.1f},{y + size * down:.1f}" for right, down in corners)
    return f'<polygon {given} points="{points}">{title}</polygon>'


def _text(x: float, y: float, said: str, *, anchor: str = "start", kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
    )


def _colour(way: str) -> str:
    return f"var(--{COLOURS[way]})"
