"""Sums through the calculator, and sums that are to be left alone.

A right answer that was guessed instead of worked out with the tool does not count, nor does a call
where none was needed: what is examined is the decision as much as the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons.arithmetic import TOOL, Arithmetic


class Calculator(Exam):
    """Right answers through the tool, valid calls, and direct answers, each with its own floor."""

    exam: Literal["calculator"] = "calculator"
    at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For right answers that came from the tool."""
    valid_at_least: float | None = Field(default=0.98, ge=0, le=1)
    """For answers with a call: every call in it is well-formed and has a result."""
    direct_at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For answers where no tool is needed."""
    n: int = Field(default=400, ge=200)
    """Items asked at first, half of them to be answered directly."""
    cap: int = Field(default=1600, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    max_tokens: int = Field(default=48, ge=8)
    """Tokens sampled for a call and the answer together."""

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Each sum to be worked out, then to be left alone."""
        lesson = Arithmetic(direct=0.5)
        return lesson_tasks(self.exam, lesson, hall, count, start, max_tokens=self.max_tokens)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 for the exact answer: the calculator's own result where a sum is asked, said without
        any call where not."""
        if task.meta["operator"] == "DIRECT":
            return exact(task, trace)
        said = trace.reply == task.gold and trace.finish_reason == "stop" and trace.error is None
        last = trace.calls[-1] if trace.calls else None
        through = last is not None and last.ok and last.call.name == TOOL
        return float(
            said
            and through
            and last is not None
            and last.result == task.gold
            and not trace.problems
        )

    def floors(self) -> Mapping[str, float | None]:
        """The three measures; not their mean."""
        return {
            "tool": self.at_least,
            "valid calls": self.valid_at_least,
            "direct": self.direct_at_least,
        }

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By what was wanted; and, where a call was tried, whether every call was valid."""
        marks = {task.bucket: self.grade(task, trace)}
        # a malformed call shows as a problem, not as a call
        malformed = [problem for problem in trace.problems if not problem.startswith("too many")]
        if trace.calls or malformed:
            good = all(record.ok and record.call.name == TOOL for record in trace.calls)
            marks["valid calls"] = float(good and not malformed and bool(trace.calls))
        return marks
