"""COPY, WRAP and EXTRACT by operator and word count, each payload under all three.

The same payload with another instruction wants another answer, so that whoever reads only the
payload, or only the instruction, cannot do well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import operators
from matura.lessons.words import Gibberish


class Operators(Exam):
    """Each operator has a floor, and so has each operator at each word count."""

    exam: Literal["operators"] = "operators"
    at_least: float | None = Field(default=0.85, ge=0, le=1)
    """For each operator."""
    cell_at_least: float | None = Field(default=0.70, ge=0, le=1)
    """For each operator at each word count."""
    n: int = Field(default=600, ge=200)
    """Items asked at first, as many of each operator and word count: 50 with 3 x 4 cells."""
    cap: int = Field(default=2400, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    select_n: int = Field(default=96, ge=1)
    """Items asked, once, to choose a checkpoint."""
    gibberish: Gibberish = "include"
    max_words: int = Field(default=4, ge=1, le=8)

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Each payload copied, wrapped and extracted, word counts in turn."""
        lesson = operators.Operators(gibberish=self.gibberish, max_words=self.max_words)
        return lesson_tasks(self.exam, lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if the answer is exact and stops."""
        return exact(task, trace)

    def floors(self) -> Mapping[str, float | None]:
        """Every operator, and every cell of operator and word count."""
        cells: dict[str, float | None] = {}
        for operator in operators.OPERATORS:
            cells[operator] = self.at_least
            for words in range(1, self.max_words + 1):
                cells[f"{operator} x {words}"] = self.cell_at_least
        return cells

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By operator, and by operator and word count."""
        grade = self.grade(task, trace)
        return {task.meta["operator"]: grade, task.bucket: grade}
