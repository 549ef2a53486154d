"""Repeat what is to be repeated, and nothing that only looks like it.

Each payload is asked both ways: a model that always echoes, and one that never does, score 0 on one
half each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import echo
from matura.lessons.words import Gibberish


class Echo(Exam):
    """Echo and anti-echo, each with its own floor."""

    exam: Literal["echo"] = "echo"
    at_least: float | None = Field(default=0.95, ge=0, le=1)
    """For the items to be echoed."""
    anti_at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For the items not to be echoed."""
    n: int = Field(default=400, ge=200)
    """Items asked at first, half of them not to be echoed."""
    cap: int = Field(default=1600, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    gibberish: Gibberish = "exclude"
    max_words: int = Field(default=4, ge=1, le=8)

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Each payload to be echoed, then not to be."""
        lesson = echo.Echo(
            gibberish=self.gibberish, max_words=self.max_words, anti=0.5, contrast=1.0
        )
        return lesson_tasks(self.exam, lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if the answer is exact and stops."""
        return exact(task, trace)

    def floors(self) -> Mapping[str, float | None]:
        """Both kinds of item; not the mean of the two."""
        return {"echo": self.at_least, "anti-echo": self.anti_at_least}

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By kind, and by kind and word count."""
        grade = self.grade(task, trace)
        kind = "echo" if task.meta["operator"] == "ECHO" else "anti-echo"
        return {kind: grade, task.bucket: grade}
