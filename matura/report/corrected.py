"""Two attempts of a stage side by side, as a table of the report."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

MARKS = {"better": "pass", "worse": "fail", "same": "waiting"}
"""The report's colour of each verdict."""


def told(found: Mapping[str, Any]) -> str:
    """One correction, from what `transcript.correction` tells of it."""
    old, new = escape(found["old"]), escape(found["new"])
    mark, word = ("pass", "adopted") if found["adopted"] else ("waiting", "not adopted")
    rows = "".join(_row(exam) for exam in found["exams"])
    return (
        f'<div class="card scroll"><h3>{new} corrects {old} <span class="mark {mark}">{word}</span>'
        f'</h3><p class="quiet num">{escape("; ".join(found["changes"]))}. '
        f'{new} {escape(found["why"])}.</p><table><thead><tr><th scope="col">exam</th>'
        f'<th scope="col" class="r">{old}</th><th scope="col" class="r">{new}</th>'
        '<th scope="col" class="r">gain</th><th scope="col"></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(exam: Mapping[str, Any]) -> str:
    verdict = str(exam["verdict"])
    return (
        f'<tr><th scope="row">{escape(exam["name"])}</th>{_side(exam["old"])}{_side(exam["new"])}'
        f'<td class="r">{exam["gain"]:+.3f}<br><small class="quiet">{exam["low"]:+.3f} to '
        f"{exam['high']:+.3f}, n {exam['n']}</small></td>"
        f'<td><span class="mark {MARKS[verdict]}">{verdict}</span></td></tr>'
    )


def _side(side: Mapping[str, Any]) -> str:
    verdict = "" if side["outcome"] == "pass" else f", {escape(side['outcome'])}"
    return (
        f'<td class="r">{side["score"]:.3f}<br><small class="quiet">{side["low"]:.3f}–'
        f"{side['high']:.3f}, n {side['n']}{verdict}</small></td>"
    )
