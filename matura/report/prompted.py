"""What a stage's eval prompts were answered with, evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matura.core.ledger import read_rows
from matura.core.store import Folder
from matura.stages.prompts import SAID

CHARACTERS = 600
SHOWN = 40
"""Prompts of a stage; all are in its folder."""


@dataclass(frozen=True)
class Prompted:
    """The answers of one stage."""

    step: int
    """The step whose weights were kept."""
    rows: tuple[Mapping[str, Any], ...]
    """The answers then."""
    course: tuple[tuple[int, int, int], ...]
    """Of each evaluation: step, how many prompts with an expected output, how many were as
    expected."""


def prompted(folder: Folder) -> Prompted | None:
    """What was said in a stage's folder; None if nothing was asked.

    Raises:
        StoreError: the file is not what was written there.
    """
    if SAID not in folder.record["files"]:
        return None
    rows = read_rows(folder.file(SAID))
    steps = sorted({row["step"] for row in rows})
    if not steps:
        return None
    best = folder.record["numbers"].get("best_step")
    step = best if best in steps else steps[-1]
    course = []
    for at in steps:
        known = [r["as_expected"] for r in rows if r["step"] == at and r["as_expected"] is not None]
        course.append((at, len(known), sum(known)))
    return Prompted(step, tuple(row for row in rows if row["step"] == step), tuple(course))


def told(found: Sequence[tuple[str, Prompted]]) -> Iterator[str]:
    """Each stage's answers as part of a page; whatever was said is escaped."""
    for stage, answers in found:
        course = ", ".join(
            f"step {step}: {right} of {known}" for step, known, right in answers.course if known
        )
        yield (
            f"<details><summary><b>eval prompts</b> of {escape(stage)} after step {answers.step} "
            f'<span class="quiet num">{f"as expected at {course}" if course else ""}</span>'
            "</summary><div>"
        )
        for row in answers.rows[:SHOWN]:
            yield _answer(row)
        if len(answers.rows) > SHOWN:
            yield f'<p class="quiet">{len(answers.rows) - SHOWN} more in the stage\'s {SAID}.</p>'
        yield "</div></details>"


def _answer(row: Mapping[str, Any]) -> str:
    mark = {None: "·", True: "✓", False: "✗"}[row["as_expected"]]
    ended = "broke" if row["error"] else f"ended by {row['finish_reason']}"
    problems = f"; {', '.join(row['problems'])}" if row["problems"] else ""
    lines = [("asked", row["prompt"])]
    if row["expected"] is not None:
        lines.append(("expected", row["expected"]))
    lines.append(("said", row["error"] or row["output"]))
    shown = "".join(f"<dt>{name}</dt><dd><code>{_short(text)}</code></dd>" for name, text in lines)
    return (
        f'<dl class="sample"><dt>{mark}</dt><dd class="quiet">'
        f"{escape(row['name'])}, {escape(ended + problems)}</dd>{shown}</dl>"
    )


def _short(text: str) -> str:
    return escape(text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} …")
