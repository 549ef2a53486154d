"""Spell words never seen in training, and count a letter in them, by length of the word.

What is examined is whether the letters of a word's pieces are known, not whether the word is: no
word of this exam was ever spelled in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.lessons import spelling
from matura.lessons.words import Gibberish

OPERATORS = ("SPELL", "COUNT")


class Spelling(Exam):
    """Each task has a floor; lengths are told apart, and gated if asked for."""

    exam: Literal["spelling"] = "spelling"
    at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For spelling and for counting, each by itself."""
    cell_at_least: float | None = Field(default=None, ge=0, le=1)
    """For each task at each length; a length that the tokenizer cannot have in few pieces is never
    asked, and so never passed."""
    n: int = Field(default=400, ge=200)
    """Items asked at first, half of them to count a letter."""
    cap: int = Field(default=1600, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    gibberish: Gibberish = "include"
    max_letters: int = Field(default=6, ge=spelling.SHORTEST, le=16)

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Words to spell and letters to count, lengths in turn."""
        lesson = spelling.Spelling(
            gibberish=self.gibberish, max_letters=self.max_letters, count=0.5
        )
        return lesson_tasks(self.exam, lesson, hall, count, start)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if every letter, and the count where one is asked for, is right and nothing else is
        said."""
        return exact(task, trace)

    def floors(self) -> Mapping[str, float | None]:
        """Both tasks, and every cell of task and length."""
        cells: dict[str, float | None] = dict.fromkeys(OPERATORS, self.at_least)
        if self.cell_at_least is not None:
            for operator in OPERATORS:
                for letters in range(spelling.SHORTEST, self.max_letters + 1):
                    cells[f"{operator} x {letters}"] = self.cell_at_least
        return cells

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By task, by task and length; and whether the number alone was right."""
        grade = self.grade(task, trace)
        operator = task.meta["operator"]
        marks = {operator: grade, task.bucket: grade}
        if operator == "COUNT":
            number = task.gold.rpartition(" ")[2]
            marks["number alone"] = float(trace.reply.rpartition(" ")[2] == number)
        return marks
