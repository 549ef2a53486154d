"""Repeat words that were never seen before: copying itself, with nothing to know by heart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import echo


class GibberishCopy(Exam):
    """Made-up words, by how many there are."""

    exam: Literal["gibberish_copy"] = "gibberish_copy"
    at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For each word count by itself."""
    n: int = Field(default=400, ge=200)
    """Items asked at first, as many of each word count."""
    cap: int = Field(default=1600, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    max_words: int = Field(default=4, ge=1, le=8)

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Echo items only, word counts in turn."""
        lesson = echo.Echo(gibberish="only", max_words=self.max_words, anti=0.0)
        return lesson_tasks(self.exam, lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if every word is right, in order, and nothing else is said."""
        return exact(task, trace)

    def floors(self) -> Mapping[str, float | None]:
        """Each word count."""
        return {f"ECHO x {words}": self.at_least for words in range(1, self.max_words + 1)}
