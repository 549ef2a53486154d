"""What went wrong while a stage was trained and what was done about it: a table of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

SHOWN = 40
"""Rows of a stage; what is left out in a row of steps is one of them."""


def told(stage: str, events: Sequence[Mapping[str, Any]]) -> str:
    """One stage's events, from the rows of its ledger that have one."""
    rows = list(_together(events))
    more = f'<p class="quiet">and {len(rows) - SHOWN} more</p>' if len(rows) > SHOWN else ""
    body = "".join(
        f'<tr><td class="num">{steps}</td><td>{escape(line)}</td><td>{escape(done)}</td>'
        f"<td>{escape(why)}</td></tr>"
        for steps, line, done, why in rows[:SHOWN]
    )
    return (
        f'<div class="card scroll"><h3>{escape(stage)}</h3><table><thead><tr>'
        '<th scope="col">step</th><th scope="col">red line</th><th scope="col">done</th>'
        f'<th scope="col">seen</th></tr></thead><tbody>{body}</tbody></table>{more}</div>'
    )


def _together(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Steps, red line, what was done and why; steps in a row with the same ones are one."""
    groups: list[tuple[int, int, str, str, str]] = []
    for event in events:
        at = int(event["at"])
        words = str(event["line"]), str(event["event"]), str(event["why"])
        if groups and groups[-1][1] == at - 1 and groups[-1][2:] == words:
            groups[-1] = (groups[-1][0], at, *words)
        else:
            groups.append((at, at, *words))
    for first, last, line, done, why in groups:
        yield f"{first}" if first == last else f"{first} to {last}", line, done, why
