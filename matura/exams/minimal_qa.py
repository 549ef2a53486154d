"""Answer from given facts, at the length asked for; admit it where nothing told supports an answer.

Each unanswerable item is the twin of an answerable one, with the same wording: who always answers
fails one floor, who never does fails another. Any right answer of the length asked for counts, in
the sentence frames that were taught.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

from pydantic import Field

from matura.core.types import Cell, Item, Score, Task, Trace
from matura.exams.exam import Exam, Hall, exact, lesson_tasks
from matura.exams.interval import share, worst
from matura.lessons import minimal_qa
from matura.lessons.relations import MOST_TELLINGS, UNKNOWN

DISTINCT = "distinct outputs"


class MinimalQa(Exam):
    """Right answers by number of facts, lengths kept, abstaining and not abstaining, each with its
    own floor; and outputs as different as the questions ask for."""

    exam: Literal["minimal_qa"] = "minimal_qa"
    at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For right answers, at each number of facts by itself."""
    length_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For answers of the length asked for, right or wrong; not knowing is no answer."""
    abstain_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For saying that it is not known, where it is not."""
    answer_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For not saying so where an answer was told."""
    distinct_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For different outputs to answerable items, as a share of their different right answers."""
    n: int = Field(default=600, ge=200)
    """Items asked at first, a third of them without an answer: 133 answerable ones with each of 1
    to 3 facts."""
    cap: int = Field(default=2400, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    select_n: int = Field(default=96, ge=1)
    """Items asked, once, to choose a checkpoint."""
    max_facts: int = Field(default=3, ge=1, le=8)
    german: float = Field(default=0.25, ge=0, le=1)
    """Share of items in German."""
    near: float = Field(default=0.5, ge=0, le=1)
    """Share of the other facts that are near misses."""
    who: float = Field(default=0.25, ge=0, le=1)
    """Share of questions about persons that ask for the person."""
    tellings: int = Field(default=MOST_TELLINGS, ge=1, le=MOST_TELLINGS)
    """In how many ways a fact is told."""
    max_tokens: int = Field(default=64, ge=8)
    """Tokens sampled for an answer."""

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Each question at two lengths, then once where its fact is not told."""
        lesson = minimal_qa.MinimalQa(
            max_facts=self.max_facts,
            german=self.german,
            near=self.near,
            who=self.who,
            tellings=self.tellings,
        )
        return lesson_tasks(self.exam, lesson, hall, count, start, max_tokens=self.max_tokens)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 for any right answer of the length asked for, exact to the letter."""
        forms = task.meta["accepted"].split("\n")
        return max(exact(replace(task, gold=form), trace) for form in forms)

    def floors(self) -> Mapping[str, float | None]:
        """Each number of facts, lengths, abstaining and answering; not their mean."""
        cells = {f"ANSWER x {facts}": self.at_least for facts in range(1, self.max_facts + 1)}
        return {
            **cells,
            "length": self.length_at_least,
            "abstains": self.abstain_at_least,
            "answers": self.answer_at_least,
        }

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By number of facts, language and length; and whether it was right to answer at all."""
        grade = self.grade(task, trace)
        marks = {task.bucket: grade, f"language {task.meta['language']}": grade}
        if task.meta["operator"] == "UNKNOWN":
            name_told = "told" if task.meta["mentioned"] == "yes" else "not told"
            return marks | {"abstains": grade, f"abstains, name {name_told}": grade}
        answered = bool(trace.reply.strip()) and trace.reply.strip() not in UNKNOWN.values()
        marks["answers"] = float(answered)
        # the lesson wrote it, as text
        length = cast(minimal_qa.LengthKey, task.meta["length"])
        if length != "free":
            kept = minimal_qa.keeps(length, int(task.meta["limit"]), trace.reply)
            kept = kept and answered and trace.finish_reason == "stop" and not trace.problems
            marks |= {"length": float(kept), f"length, {length}": float(kept)}
        return marks

    def sit(self, hall: Hall) -> Score:
        """The verdict, a collapse to few outputs included.

        Raises:
            RolloutError: more than `tolerate` of the conversations broke.
        """
        score = super().sit(hall)
        cell = distinct(score.items, self.distinct_at_least)
        return replace(
            score,
            buckets=dict(sorted({**score.buckets, DISTINCT: cell}.items())),
            outcome=worst([score.outcome, cell.outcome]),
            notes={**score.notes, DISTINCT.replace(" ", "_") + "_answerable": cell.score},
        )


def distinct(items: Sequence[Item], floor: float | None) -> Cell:
    """How many different outputs there are for each different right answer, at most 1: near 0 if
    the model says one thing whatever it is asked."""
    asked = [one for one in items if one.error is None and one.gold not in UNKNOWN.values()]
    wanted = len({one.gold for one in asked})
    got = min(wanted, len({one.output for one in asked}))
    return share([1.0] * got + [0.0] * (wanted - got), floor)
