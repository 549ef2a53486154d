"""What an exam is: made-up items, a grade for each, and a verdict with an interval and its proof.

Items are never what training saw: a gate's items have payloads and wordings that no training or
validation item has; while training goes on, checkpoints are chosen by validation items instead.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from matura import exams
from matura.core.errors import RecipeError, RolloutError
from matura.core.leaves import leaves
from matura.core.record import Frozen, plain
from matura.core.rng import rng
from matura.core.types import Cell, Document, Given, Item, Score, Split, Task, TextCodec, Trace
from matura.exams.forgetting import Forgetting, forgotten
from matura.exams.interval import share, worst
from matura.exams.proof import score_from_json, score_to_json
from matura.lessons.lesson import Lesson
from matura.talk.rollout import Sampler, converse

__all__ = [
    "Exam",
    "Forgetting",
    "Hall",
    "ask",
    "exact",
    "forgotten",
    "item_of",
    "kinds",
    "lesson_tasks",
    "score_from_json",
    "score_to_json",
]

NOT_EXAMS = ("exam", "forgetting", "interval", "proof")
"""Files of this folder that define no exam."""

SPARE_TOKENS = 8
"""How much longer than the gold an answer may run before it is cut: enough to see it not stop."""


@dataclass(frozen=True)
class Hall:
    """Where an exam is sat: by which model, with which tools, over which items."""

    sampler: Sampler
    seed: int
    held_out: Callable[[], Sequence[Document]]
    """Reads documents that no training ever saw."""
    purpose: Literal["gate", "select"] = "gate"
    """`select` chooses checkpoints while training goes on, and never sees a gate's items."""
    tools: Mapping[str, Any] = field(default_factory=dict)
    """Each a `talk.tool.Tool`, a room that exams may not look into."""

    @property
    def tokenizer(self) -> TextCodec:
        """The model's."""
        return self.sampler.template.tokenizer

    @property
    def split(self) -> Split:
        """Which content items are made of."""
        return "exam" if self.purpose == "gate" else "validation"

    def given(self, exam: str) -> Given:
        """What an exam's items are made from: equal for every model of a run."""
        return Given(rng(self.seed, "exam", exam, self.purpose), self.tokenizer, self.split)


class Exam(Frozen, ABC):
    """One exam with its floors, as it stands in a recipe."""

    version: ClassVar[int] = 1
    """Rises whenever the items or the grading change; scores of two versions are not compared."""
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    exam: str
    at_least: float | None = Field(default=None, ge=0, le=1)
    """Floor for the lower end of the 95 % interval; which cells it holds for is the exam's own."""
    at_most: float | None = Field(default=None, ge=0)
    """Ceiling for the upper end, where lower is better."""
    n: int = Field(default=200, ge=200)
    """Items asked at first."""
    cap: int = Field(default=800, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    select_n: int = Field(default=60, ge=1)
    """Items asked, once, to choose a checkpoint."""
    forget_at_most: float | None = Field(default=None, ge=0)
    """How much worse a later stage may do; the recipe's own figure if absent."""
    tolerate: float = Field(default=0.02, ge=0, le=1)
    """Share of conversations that may break before the exam itself is an error."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cap < self.n:
            raise ValueError(f"cap {self.cap} is less than n {self.n}")
        wrong = "at_most" if self.better == "higher" else "at_least"
        if getattr(self, wrong) is not None:
            raise ValueError(f"{self.exam}: {self.better} is better, so {wrong} means nothing here")
        return self

    @abstractmethod
    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Items number `start` and on; what an item is depends on the hall and its number alone."""

    @abstractmethod
    def grade(self, task: Task, trace: Trace) -> float:
        """1 for a right answer, 0 for a wrong one."""

    def floors(self) -> Mapping[str, float | None]:
        """The cells a verdict hangs on; `""` is the whole exam."""
        return {"": self.at_least}

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """What an item adds to which cells besides the whole: its grade, to its own bucket."""
        return {task.bucket: self.grade(task, trace)} if task.bucket else {}

    def notes(self, hall: Hall) -> Mapping[str, float]:
        """Numbers about the model that are reported but not gated."""
        return {}

    def sit(self, hall: Hall) -> Score:
        """The verdict on the hall's model, more items asked while it is open.

        Raises:
            RolloutError: more than `tolerate` of the conversations broke.
            RecipeError: there is nothing to ask.
        """
        paper = Paper(self, hall)
        wanted = self.n if hall.purpose == "gate" else self.select_n
        while True:
            before = len(paper.items)
            paper.ask(wanted)
            got = len(paper.items) - before
            room = min(self.cap - len(paper.items), len(paper.items))
            over = hall.purpose == "select" or room <= 0 or got < wanted
            if over or paper.outcome != "inconclusive":
                return paper.score()
            wanted = room


class Paper:
    """A sitting while it is going on: the items so far and what they come to."""

    def __init__(self, exam: Exam, hall: Hall) -> None:
        self.exam = exam
        self.hall = hall
        self.items: list[Item] = []
        self._grades: dict[str, list[float]] = {"": []}
        self._prompts = hashlib.sha256()

    def ask(self, count: int) -> None:
        """Ask and grade the next items.

        Raises:
            RolloutError: more than `tolerate` of all conversations broke.
            RecipeError: there is nothing to ask.
        """
        tasks = list(self.exam.tasks(self.hall, count, len(self.items)))
        if not tasks and not self.items:
            raise RecipeError(f"exam {self.exam.exam}: no items can be made from its settings")
        for task, trace in zip(tasks, ask(self.hall, tasks), strict=True):
            grade = 0.0 if trace.error else self.exam.grade(task, trace)
            self.items.append(item_of(task, trace, grade, self.hall))
            self._prompts.update(repr((trace.prompt_ids, task.gold)).encode())
            if trace.error is None:
                self._grades[""].append(grade)
                for cell, mark in self.exam.marks(task, trace).items():
                    self._grades.setdefault(cell, []).append(mark)
        broken = [item for item in self.items if item.error is not None]
        if len(broken) > self.exam.tolerate * len(self.items):
            raise RolloutError(
                f"exam {self.exam.exam}: {len(broken)} of {len(self.items)} conversations broke,"
                f" first {broken[0].task}: {broken[0].error}"
            )

    @property
    def cells(self) -> dict[str, Cell]:
        """All cells so far by name, the gated ones whether or not anything counted in them."""
        floors = self.exam.floors()
        names = dict.fromkeys([*self._grades, *floors])
        return {name: share(self._grades.get(name, []), floors.get(name)) for name in names}

    @property
    def outcome(self) -> Literal["pass", "fail", "inconclusive"]:
        """The verdict so far."""
        return worst([cell.outcome for cell in self.cells.values()])

    def score(self) -> Score:
        """The verdict with its proof."""
        cells = self.cells
        whole = cells.pop("")
        heard = [item for item in self.items if item.error is None]
        notes = {
            "stopped": _share([item.finish_reason == "stop" for item in heard]),
            "malformed": _share([bool(item.problems) for item in heard]),
            # near 0 where golds differ: the model says one thing whatever it is asked
            "distinct_outputs": len({item.output for item in heard}) / max(1, len(heard)),
        }
        return Score(
            exam=self.exam.exam,
            version=self.exam.version,
            overall=whole,
            buckets=dict(sorted(cells.items())),
            outcome=self.outcome,
            broken=len(self.items) - len(heard),
            items=tuple(self.items),
            prompts_sha256=self._prompts.hexdigest(),
            weights_sha256=self.hall.sampler.weights_sha256,
            settings=settings(self.exam, self.hall),
            notes=notes | dict(self.exam.notes(self.hall)),
        )


def settings(exam: Exam, hall: Hall) -> dict[str, Any]:
    """All that a sitting depended on besides the weights."""
    return {
        **plain(exam),
        "better": exam.better,
        "dialect": hall.sampler.template.name,
        "purpose": hall.purpose,
        "seed": hall.seed,
        "temperature": 0.0,
        "tools": sorted(hall.tools),
    }


def ask(hall: Hall, tasks: Sequence[Task]) -> list[Trace]:
    """What the model says to each task, greedily: conversations, or exact runs of token ids."""
    runs = [task for task in tasks if task.gold_ids is not None]
    talks = [task for task in tasks if task.gold_ids is None]
    heard = iter(converse(hall.sampler, talks, tools=hall.tools))
    continued = iter(_continue(hall.sampler, runs))
    return [next(heard if task.gold_ids is None else continued) for task in tasks]


def _continue(sampler: Sampler, tasks: Sequence[Task]) -> list[Trace]:
    """Exactly as many ids as the gold has, whether or not the model would stop."""
    prompts = [task.prompt_ids or () for task in tasks]
    lengths = [len(task.gold_ids or ()) for task in tasks]
    if not tasks:
        return []
    said = sampler.generate(prompts, max_tokens=lengths, stop=False)
    return [
        Trace(
            prompt_ids=prompt,
            ids=generation.ids,
            weights=(1.0,) * len(generation.ids),
            logprobs=generation.logprobs,
            reply=spelled(generation.ids),
            finish_reason=generation.finish_reason,
            error="the model's logits are not finite"
            if generation.finish_reason == "error"
            else None,
        )
        for prompt, generation in zip(prompts, said, strict=True)
    ]


def spelled(ids: Sequence[int]) -> str:
    """Token ids as text that keeps them apart."""
    return " ".join(map(str, ids))


def item_of(task: Task, trace: Trace, grade: float, hall: Hall) -> Item:
    """The item as it is kept: outputs with every tag shown."""
    if task.gold_ids is not None:
        prompt, output = spelled(task.prompt_ids or ()), trace.reply
    else:
        turns = task.messages
        one = len(turns) == 1
        prompt = turns[0].content if one else "\n".join(f"{m.role}: {m.content}" for m in turns)
        output = hall.sampler.template.spell(trace.ids)
    return Item(
        task=task.id,
        bucket=task.bucket,
        grade=grade,
        prompt=prompt,
        gold=task.gold,
        output=output,
        finish_reason=trace.finish_reason,
        problems=trace.problems,
        error=trace.error,
    )


def exact(task: Task, trace: Trace) -> float:
    """1 if the model said the gold, all of it and nothing else, without a tool, and stopped."""
    right = trace.reply == task.gold and trace.finish_reason == "stop"
    return float(right and not trace.problems and not trace.calls and trace.error is None)


def lesson_tasks(
    exam: str,
    lesson: Lesson,
    hall: Hall,
    count: int,
    start: int,
    *,
    operators: Sequence[str] = (),
    max_tokens: int | None = None,
) -> Iterator[Task]:
    """Items made of a lesson's conversations, of all its operators or only of those named."""
    items = (
        item
        for item in lesson.items(hall.given(exam))
        if not operators or item.meta["operator"] in operators
    )
    for number, item in enumerate(islice(items, start, start + count), start):
        gold = item.meta["expected"]
        # all that stands before the assistant's first word: a system message too
        asked = tuple(takewhile(lambda message: message.role != "assistant", item.messages))
        before = "\n".join(message.content for message in asked)
        seen = hashlib.sha256(f"{before}\0{gold}".encode()).hexdigest()
        yield Task(
            id=f"{exam}/{hall.purpose}/{number}/{seen[:8]}",
            gold=gold,
            messages=asked,
            bucket=item.meta["bucket"],
            max_tokens=max_tokens or len(hall.tokenizer.encode(gold)) + SPARE_TOKENS,
            meta=item.meta,
        )


def kinds() -> dict[str, type[Exam]]:
    """Every exam there is, by the name of its file."""
    # abstract only as the base of what is looked for
    return leaves(exams, Exam, skip=NOT_EXAMS)  # type: ignore[type-abstract]


def _share(facts: Sequence[bool]) -> float:
    return math.fsum(facts) / len(facts) if facts else 0.0
