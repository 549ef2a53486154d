"""Orders of several steps, reports in a fixed structure, and summaries of what was asked about.

Passages are made from facts, and answers are read back into facts, so that form and content are
graded apart: a report may be well formed and untrue, or leave something out. The order in which
facts are told is free; what stands between them is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import tasks
from matura.lessons.passages import MOST_TELLINGS, read_report, read_sentence
from matura.lessons.words import Gibberish

_LEAST_CELL = 50
"""Items a cell with a floor must have: fewer decide nothing."""


class Tasks(Exam):
    """Steps, structure, faithfulness and focus, each with its own floor."""

    version: ClassVar[int] = 2

    exam: Literal["tasks"] = "tasks"
    at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For orders of several steps, carried out exactly."""
    structure_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For reports that are KEY_FACTS, one a line, and a SUMMARY of one sentence."""
    faithful_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For reports and summaries that tell all facts they are to tell and no other."""
    focus_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For summaries that tell nothing but facts of the owner asked about."""
    cell_at_least: float | None = Field(default=None, ge=0, le=1)
    """For each kind of item at each number of steps or facts."""
    n: int = Field(default=600, ge=200)
    """Items asked at first, a third of each kind."""
    cap: int = Field(default=2400, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    select_n: int = Field(default=72, ge=1)
    """Items asked, once, to choose a checkpoint."""
    gibberish: Gibberish = "include"
    max_facts: int = Field(default=3, ge=1, le=12)
    max_focus: int | None = Field(default=None, ge=1, le=12)
    """Facts of the owner asked about, at most; as many as `max_facts` if left out."""
    max_steps: int = Field(default=3, ge=2, le=4)
    german: float = Field(default=0.1, ge=0, le=1)
    """Share of items in German."""
    numbered: bool = False
    """Whether lines are shown with their numbers."""
    asides: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of passages with a sentence that tells no fact."""
    tellings: int = Field(default=MOST_TELLINGS, ge=1, le=MOST_TELLINGS)
    """In how many ways a fact is told, the plainest first."""
    mixed: bool = True
    """Whether facts of two owners stand in any order."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        least = _LEAST_CELL * len(tasks.OPERATORS) * max(self.max_facts, self.max_steps - 1)
        if self.cell_at_least is not None and self.n < least:
            raise ValueError(
                f"n {self.n} leaves cells of less than {_LEAST_CELL} items with"
                f" {self.max_facts} facts; n: {least}, or cell_at_least: null"
            )
        return self

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """The three kinds in turn, each text asked about once; every FOCUS has two owners."""
        lesson = tasks.Tasks(
            gibberish=self.gibberish,
            max_facts=self.max_facts,
            max_focus=self.max_focus,
            max_steps=self.max_steps,
            german=self.german,
            numbered=self.numbered,
            asides=self.asides,
            tellings=self.tellings,
            mixed=self.mixed,
            contrast=0.0,
        )
        return lesson_tasks(self.exam, lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if every mark of the item is 1."""
        return min(_marks(task, trace).values())

    def floors(self) -> Mapping[str, float | None]:
        """The four measures, not their mean; and the cells."""
        cells: dict[str, float | None] = {
            "steps": self.at_least,
            "structure": self.structure_at_least,
            "faithfulness": self.faithful_at_least,
            "focus": self.focus_at_least,
        }
        for steps in range(2, self.max_steps + 1):
            cells[f"STEPS x {steps}"] = self.cell_at_least
        for facts in range(1, self.max_facts + 1):
            cells[f"STRUCTURE x {facts}"] = self.cell_at_least
            if facts <= (self.max_focus or self.max_facts):
                cells[f"FOCUS x {facts}"] = self.cell_at_least
        return cells

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """The measures an item counts in; and, by kind and number, whether it is right in all."""
        return {**_marks(task, trace), task.bucket: self.grade(task, trace)}


def _marks(task: Task, trace: Trace) -> dict[str, float]:
    """By measure. An answer that does not stop, calls a tool or leaks a tag is right in none."""
    if task.meta["operator"] == "STEPS":
        return {"steps": exact(task, trace)}
    broken = trace.error is not None or trace.problems or trace.calls
    said = "" if broken or trace.finish_reason != "stop" else trace.reply
    if task.meta["operator"] == "STRUCTURE":
        report, right = read_report(said), read_report(task.gold)
        assert right is not None, task.id
        faithful = (
            report is not None
            and report.facts == right.facts
            and read_sentence(report.summary) == read_sentence(right.summary)
        )
        return {"structure": float(report is not None), "faithfulness": float(faithful)}
    told, wanted = read_sentence(said), read_sentence(task.gold)
    assert wanted is not None, task.id
    focused = (
        told is not None and told.owner == wanted.owner and set(told.parts) <= set(wanted.parts)
    )
    return {"focus": float(focused), "faithfulness": float(told == wanted)}
