"""Charts as inline SVG, without scripts: colours come from the page's own light or dark palette."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 30
MOST_POINTS = 240
SERIES = 6
"""Colours there are for validation lines, `--s0` to `--s5`."""


def curve(name: str, losses: Points, validation: Mapping[str, Points]) -> str:
    """A stage's training loss as a band and a smoothed line, and validation points by source."""
    smooth = smoothed(losses)
    every = [y for line in (smooth, *validation.values()) for _, y in line]
    if not every:
        return ""
    last_x = max(x for line in (losses, *validation.values()) for x, _ in line)
    low, high = _padded(min(every), max(every))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / max(1.0, last_x)
        up = TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(y, low), high)) / (high - low)
        return round(across, 1), round(up, 1)

    marks = []
    for value in ticks(low, high):
        _, y = place(0, value)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        marks.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
        )
    for value in (0.0, last_x / 2, last_x):
        x, _ = place(value, low)
        anchor = "start" if value == 0 else "end" if value == last_x else "middle"
        marks.append(
            f'<text class="tick" x="{x}" y="{HEIGHT - 10}" text-anchor="{anchor}">'
            f"{'step ' if value == 0 else ''}{value:.0f}</text>"
        )
    raw = _path([place(x, y) for x, y in thinned(losses)])
    line = _path([place(x, y) for x, y in thinned(smooth)])
    lines = [f'<path class="raw" d="{raw}"/>', f'<path class="loss" d="{line}"/>'] if losses else []
    for number, points in enumerate(validation.values()):
        colour = f"var(--s{number % SERIES})"
        spots = [place(x, y) for x, y in points]
        lines.append(f'<path class="validation" style="stroke:{colour}" d="{_path(spots)}"/>')
        for (x, y), (step, loss) in zip(spots, points, strict=True):
            lines.append(
                f'<circle cx="{x}" cy="{y}" r="3.2" style="fill:{colour}">'
                f"<title>step {step:g}: {loss:.3f}</title></circle>"
            )
    ends = ", ".join(f"{escape(n)} {p[-1][1]:.3f}" for n, p in validation.items() if p)
    final = f"training loss ends at {smooth[-1][1]:.3f}" if smooth else ""
    about = escape(f"Loss of {name}: {final}; validation: ") + ends
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{about}">'
        f"<title>{about}</title>{''.join(marks)}{''.join(lines)}</svg>"
    )


def bars(parts: Sequence[tuple[str, float]], label: str) -> str:
    """Shares as one stacked bar; what is told in colour is told in the list beside it too."""
    total = sum(share for _, share in parts) or 1.0
    x = 0.0
    found = []
    for number, (name, share) in enumerate(parts):
        width = 100 * share / total
        found.append(
            f'<rect x="{x:.3f}" y="0" width="{max(0.0, width - 0.25):.3f}" height="10" '
            f'style="fill:var(--s{number % SERIES})">'
            f"<title>{escape(name)} {share:.1%}</title></rect>"
        )
        x += width
    return (
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{"".join(found)}</svg>'
    )


def smoothed(points: Points) -> list[tuple[float, float]]:
    """A running mean over a fortieth of the steps, without the lag of an exponential one."""
    reach = max(1, len(points) // 80)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    found = []
    for i, (x, _) in enumerate(points):
        first, last = max(0, i - reach), min(len(points), i + reach + 1)
        found.append((x, (sums[last] - sums[first]) / (last - first)))
    return found


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` of them, the last always among them."""
    every = max(1, math.ceil(len(points) / MOST_POINTS))
    found = list(points[::every])
    if points and found[-1] != points[-1]:
        found.append(points[-1])
    return found


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between the two, about so many."""
    rough = (high - low) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * times for times in (1, 2, 5, 10) if size * times >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 0.1)
    return max(0.0, low - room) if low >= 0 else low - room, high + room


def _path(spots: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if i else 'M'}{x} {y}" for i, (x, y) in enumerate(spots))
