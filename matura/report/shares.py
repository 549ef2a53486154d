"""A replay sweep as one SVG: what the stage learnt and what the old one lost, by share and on the
way.

What was lost is drawn as a part of what may be lost, so that one line says for every source and
every exam whether it was too much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from textwrap import wrap

from matura.core.disk import replace_atomically
from matura.ladder.shares import REPLAY, Branch, Sweep
from matura.report.sweep import LEFT, RIGHT, WIDTH, Scale, grid, label, path_of, scale, whole

HEIGHT = 730
UPPER, LOWER = (56, 282), (372, 610)
"""From where to where the panels of each row reach."""
MOST = 3.0
"""Times what is allowed: what is beyond is put at the edge, with its figure."""
ROOM = 0.08
LETTERS = 124
"""That fit on a line."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which everybody can tell apart, on light and dark paper."""


def write(found: Sweep, path: Path) -> None:
    """Writes the drawing, whole or not at all.

    Raises:
        StoreError: the disk refuses.
    """
    replace_atomically(path, drawing(found).encode("utf-8"))


def drawing(found: Sweep) -> str:
    """All four panels and what follows from them."""
    about = escape(f"{found.recipe}, {found.stage}: {found.suggestion.why}")
    ends = _padded([end for one in found.branches if (end := found.end(one)) is not None])
    ways = _padded([found.learnt(point.losses) for one in found.branches for point in one.points])
    learnt = scale(*ends, UPPER[1], UPPER[0]), scale(*ways, LOWER[1], LOWER[0])
    least, most = _lost_span(found)
    lost = [scale(least, most, bottom, top) for top, bottom in (UPPER, LOWER)]
    tokens = f"{found.tokens:,} of {found.whole:,} tokens"
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill:var(--paper)"/>',
        label(LEFT[0], 28, f"{found.stage}: loss on its own data, by share of {found.of}", "head"),
        label(RIGHT[0], 28, f"{found.of}: lost, as a part of what may be lost", "head"),
        label(LEFT[0], LOWER[0] - 28, f"{found.stage}: the same on the way, {tokens}", "head"),
        label(RIGHT[0], LOWER[0] - 28, f"{found.of}: the same on the way, its sources", "head"),
        *grid(LEFT, *ends, learnt[0]),
        *grid(LEFT, *ways, learnt[1]),
        *(line for up in lost for line in grid(RIGHT, least, most, up)),
        _allowed(lost[0], RIGHT[1], "end"),
        _allowed(lost[1], RIGHT[0], "start"),
        *_learnt(found, learnt[0]),
        *_lost(found, lost[0]),
        *_on_the_way(found, learnt[1], lost[1]),
        *_names(found),
        *_lines(found.suggestion.why, LEFT[0], LOWER[1] + 66),
    ]
    return whole(parts, about, HEIGHT)


def _padded(losses: Sequence[float]) -> tuple[float, float]:
    """From a little below the lowest to a little above the highest."""
    low, high = min(losses, default=0.0), max(losses, default=1.0)
    room = max(high - low, 0.1) * ROOM
    return low - room, high + room


def _lost_span(found: Sweep) -> tuple[float, float]:
    """Of what was lost, so that what is allowed is always within."""
    used = [x for one in found.branches for x in (*_used(found, one), *_used_at_end(found, one))]
    finite = [x for x in used if math.isfinite(x)]
    low, high = min([0.0, *finite]), min(MOST, max([1.0, *finite]))
    return max(low, -1.0) - ROOM, high + ROOM


def _used(found: Sweep, one: Branch) -> list[float]:
    """For each point, the part that the worst source has lost of what it may lose."""
    sources = {name: limit for name, limit in found.limits.items() if name.startswith(REPLAY)}
    start = one.points[0].losses
    return [
        max((point.losses[n] - start[n]) / limit for n, limit in sources.items())
        for point in one.points
    ]


def _used_at_end(found: Sweep, one: Branch) -> list[float]:
    return [held.used for held in found.held(one)]


def _across(found: Sweep, reach: tuple[int, int]) -> Scale:
    shares = [one.share for one in found.branches]
    return scale(min(shares), max(shares), reach[0] + 16, reach[1] - 16)


def _allowed(up: Scale, x: float, anchor: str) -> str:
    y = up(1.0)
    line = f'<line class="bad" x1="{RIGHT[0]}" x2="{RIGHT[1]}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + label(x, y - 5, "allowed", anchor=anchor)


def _learnt(found: Sweep, up: Scale) -> Iterator[str]:
    across = _across(found, LEFT)
    spots = []
    for one in found.branches:
        x, end = across(one.share), found.end(one)
        yield label(x, UPPER[1] + 18, f"{one.share:g}", anchor="middle")
        if end is None:
            yield _cross(x, UPPER[0] + 6, f"{one.share:g}: {one.stopped}")
            continue
        spots.append((x, up(end)))
        yield _dot(x, up(end), f"{one.share:g}: {end:.3f}", "var(--blue)")
        if one.share == found.suggestion.share:
            yield f'<circle class="chosen" cx="{x:.1f}" cy="{up(end):.1f}" r="8"/>'
    yield f'<path class="curve" d="{path_of(spots)}"/>'


def _lost(found: Sweep, up: Scale) -> Iterator[str]:
    across = _across(found, RIGHT)
    for one in found.branches:
        yield label(across(one.share), UPPER[1] + 18, f"{one.share:g}", anchor="middle")
    for number, name in enumerate(found.limits):
        colour = COLOURS[number % len(COLOURS)]
        spots = []
        for one in found.branches:
            held = next((held for held in found.held(one) if held.name == name), None)
            if held is None:
                continue
            x, y = across(one.share), up(held.used)
            spots.append((x, y))
            told = f"{one.share:g}: {held.name} {held.before:.3f} to {held.after:.3f}"
            yield _dot(x, y, f"{told}, {held.used:.2f} of what may be lost", colour)
            if held.used > MOST and held.used == max(_used_at_end(found, one)):
                yield label(x + 8, y + 4, f"{held.used:.1f}")
        yield f'<path class="curve" style="stroke:{colour}" d="{path_of(spots)}"/>'


def _on_the_way(found: Sweep, learnt: Scale, lost: Scale) -> Iterator[str]:
    """A line for each share, the darker the more is replayed."""
    most = max(found.tokens, *(point.tokens for one in found.branches for point in one.points))
    for number, one in enumerate(found.branches):
        shade = 0.25 + 0.75 * (number + 1) / len(found.branches)
        ends = ((LEFT, learnt, [found.learnt(point.losses) for point in one.points]),
                (RIGHT, lost, _used(found, one)))  # fmt: skip
        for reach, up, values in ends:
            across = scale(0, most, *reach)
            spots = [(across(p.tokens), up(v)) for p, v in zip(one.points, values, strict=True)]
            yield (
                f'<path class="curve{" bad" if one.stopped else ""}" style="opacity:{shade:.2f}" '
                f'd="{path_of(spots)}"><title>{one.share:g}</title></path>'
            )
    for reach in (LEFT, RIGHT):
        yield label(reach[0], LOWER[1] + 18, "0 tokens")
        yield label(reach[1], LOWER[1] + 18, f"{most:,}", anchor="end")


def _names(found: Sweep) -> Iterator[str]:
    """Which colour is what, below the upper right panel; then which line is which share."""
    x, y = float(RIGHT[0]), UPPER[1] + 38
    for number, name in enumerate(found.limits):
        words = name.removeprefix(REPLAY)
        room = 22 + 7 * len(words)
        if x + room > RIGHT[1] and x > RIGHT[0]:
            break  # the rest is told where the pointer rests
        yield _dot(x + 5, y - 4, words, COLOURS[number % len(COLOURS)])
        yield label(x + 14, y, words)
        x += room
    shares = ", ".join(f"{one.share:g}" for one in found.branches)
    yield label(LEFT[0], LOWER[1] + 42, f"from light to dark: {found.of}'s share {shares}")


def _dot(x: float, y: float, about: str, colour: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{colour}">'
        f"<title>{escape(about)}</title></circle>"
    )


def _cross(x: float, y: float, about: str) -> str:
    return (
        f'<path class="cross" d="M{x - 5:.1f} {y - 5}l10 10m0 -10l-10 10">'
        f"<title>{escape(about)}</title></path>"
    )


def _lines(words: str, x: float, y: float) -> Iterator[str]:
    """Words on as many lines as they need."""
    for number, line in enumerate(wrap(words, LETTERS)):
        yield label(x, y + 16 * number, line)
