"""Who the assistant says it is: its own persona by heart, against other names, and as a system
message says.

The persona's answers were learnt; the wordings are new, the names put forward or given are new too.
An answer that takes up a wrong name is counted apart from one that is only worded wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import identity


class Identity(Exam):
    """The three kinds of question, each with its own floor."""

    exam: Literal["identity"] = "identity"
    at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For each kind: its own persona, other names, a given persona."""
    name_at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For answers that do not take up a name or maker that is not its own."""
    path: Path | None = None
    """The persona's file, as the lesson has it."""
    n: int = Field(default=400, ge=200)
    """Items asked at first, a quarter of them with another name put forward."""
    cap: int = Field(default=1600, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    max_facts: int = Field(default=3, ge=1, le=4)

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Questions of the three kinds, mixed evenly."""
        lesson = identity.Identity(path=self.path, max_facts=self.max_facts)
        return lesson_tasks(self.exam, lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if all that was asked for is said, in order, exactly, and nothing else."""
        return exact(task, trace)

    def floors(self) -> Mapping[str, float | None]:
        """Each kind of question; not their mean. And that no other name is taken up."""
        cells = dict.fromkeys(identity.OPERATORS, self.at_least)
        return cells | {"no other name": self.name_at_least}

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By kind and by kind and number of things; where a name could be taken up, whether it
        was."""
        grade = self.grade(task, trace)
        marks = {task.meta["operator"]: grade, task.bucket: grade}
        # a rival must not be echoed; nor may the own name be said where another was given
        absent = task.meta.get("rival") or task.meta.get("own")
        if absent:
            marks["no other name"] = float(bool(trace.reply) and absent not in trace.reply)
        return marks
