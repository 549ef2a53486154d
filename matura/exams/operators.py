"""COPY, WRAP and EXTRACT by operator and word count, each payload under all three.

The same payload with another instruction wants another answer, so that whoever reads only the
payload, or only the instruction, cannot do well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import operators
from matura.lessons.words import Gibberish

_LEAST_CELL = 50
"""Items a cell with a floor must have: fewer decide nothing."""


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
    words_at_least: float | None = Field(default=None, ge=0, le=1)
    """For each word count, all operators together: `x 3`."""
    gibberish: Gibberish = "include"
    max_words: int = Field(default=4, ge=1, le=8)
    patterns: Literal["usual", "novel"] = "usual"
    """`usual`: wordings never seen, in patterns that training has. `novel`: in patterns it never
    has."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        least = _LEAST_CELL * len(operators.OPERATORS) * self.max_words
        if self.cell_at_least is not None and self.n < least:
            raise ValueError(
                f"n {self.n} leaves cells of less than {_LEAST_CELL} items with {self.max_words}"
                f" words; n: {least}, or cell_at_least: null"
            )
        return self

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Each payload copied, wrapped and extracted, word counts in turn."""
        lesson = operators.Operators(
            gibberish=self.gibberish, max_words=self.max_words, patterns=self.patterns
        )
        return lesson_tasks(self.exam, lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if the answer is exact and stops."""
        return exact(task, trace)

    def floors(self) -> Mapping[str, float | None]:
        """Every operator, every word count, and every cell of operator and word count."""
        cells: dict[str, float | None] = {
            f"x {words}": self.words_at_least for words in range(1, self.max_words + 1)
        }
        for operator in operators.OPERATORS:
            cells[operator] = self.at_least
            for words in range(1, self.max_words + 1):
                cells[f"{operator} x {words}"] = self.cell_at_least
        return cells

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By operator, by word count, and by both."""
        grade = self.grade(task, trace)
        operator = task.meta["operator"]
        return {
            operator: grade,
            task.bucket.removeprefix(f"{operator} "): grade,
            task.bucket: grade,
        }
