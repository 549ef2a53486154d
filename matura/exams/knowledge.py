"""What the lesson taught, asked in wordings it never used: facts, invented facts, sums, programs.

Facts and sums are the very ones that were taught, for it is memory that is examined; the wordings
are disjoint. Invented facts are in no text, so a model that was not taught them scores near 0 there
however well read it is. Programs have words that no training payload has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import knowledge, lands
from matura.lessons.words import Gibberish

_LEAST_CELL = 50


class Knowledge(Exam):
    """Each area has a floor; say `lands`, `math` and the rest as the lesson does."""

    exam: Literal["knowledge"] = "knowledge"
    at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For each area."""
    n: int = Field(default=400, ge=200)
    """Items asked at first, as many of each area."""
    cap: int = Field(default=1600, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    math: Literal["include", "exclude"] = "include"
    programming: Literal["include", "exclude"] = "include"
    lands: int = Field(default=16, ge=1, le=lands.MOST)
    largest_sum: int = Field(default=20, ge=1, le=99)
    max_items: int = Field(default=4, ge=1, le=8)
    gibberish: Gibberish = "exclude"
    german: float = Field(default=0.1, ge=0, le=1)
    """Share of items in German."""

    @property
    def lesson(self) -> knowledge.Knowledge:
        """What is examined."""
        return knowledge.Knowledge(
            math=self.math,
            programming=self.programming,
            lands=self.lands,
            largest_sum=self.largest_sum,
            max_items=self.max_items,
            gibberish=self.gibberish,
            german=self.german,
        )

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.n < _LEAST_CELL * len(self.lesson.areas):
            raise ValueError(f"n {self.n} leaves areas of less than {_LEAST_CELL} items")
        return self

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Questions of every area in turn."""
        return lesson_tasks(self.exam, self.lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if the answer is exact and stops."""
        return exact(task, trace)

    def floors(self) -> Mapping[str, float | None]:
        """Every area; not their mean."""
        return dict.fromkeys(self.lesson.areas, self.at_least)
