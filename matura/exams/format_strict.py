"""Say exactly what was asked for, stop, and leak no tag: the first thing a chat model must hold.

Only saying what stands there is asked, with payloads and wordings never seen: that generalises.
Guessing scores 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons.format_lock import FormatLock
from matura.lessons.words import Gibberish


class FormatStrict(Exam):
    """The exact answer, and then the end of the turn."""

    exam: Literal["format_strict"] = "format_strict"
    at_least: float | None = Field(default=0.97, ge=0, le=1)
    """For the whole exam."""
    gibberish: Gibberish = "include"
    max_words: int = Field(default=3, ge=1, le=8)

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Sayings, English and German."""
        lesson = FormatLock(gibberish=self.gibberish, max_words=self.max_words)
        return lesson_tasks(self.exam, lesson, hall, count, start, operators=("SAY",))

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if the answer is exact, stops and holds no stray tag."""
        return exact(task, trace)
