"""What sitting an exam costs: how many items, how long they are, and how long making them takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from matura.core.types import Document, Task
from matura.exams.exam import SPARE_TOKENS, Exam, Hall
from matura.ladder.calibrate import Speed
from matura.ladder.recipe import Recipe
from matura.ladder.trial import Trial
from matura.text.template import Template

CALL_TOKENS = 14
"""What a call adds to an answer that may hold one."""
ANSWERS = 128
"""Answers in one batch of the sampler."""
SAMPLE = 60
"""Items that are made to see how long they are."""


@dataclass(frozen=True)
class Paper:
    """An exam's size, apart from the machine."""

    make_s: float
    """Making one item."""
    prompt_tokens: float
    """Of one item."""
    said_tokens: tuple[int, ...]
    """Of a sample of its answers; empty where nothing is said."""
    most: int | None
    """Items there are, if the held-out text of a sample says so."""

    def seconds(self, items: int, speed: Speed) -> float:
        """Sitting that many items on a machine."""
        if self.most is not None:
            items = min(items, self.most)
        total = items * (self.make_s + self.prompt_tokens * speed.read_token)
        if not self.said_tokens:
            return total
        said = sorted(self.said_tokens, reverse=True)
        for start in range(0, items, ANSWERS):
            rows = min(ANSWERS, items - start)
            # rows that are done leave the batch, so its steps grow cheaper
            spoken = sum(said) / len(said) * rows
            total += said[0] * speed.say_step + spoken * speed.say_row
        return total


class _Desk:
    """A sampler's template without a model: enough to make an exam's items."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.weights_sha256 = ""


def papers(recipe: Recipe, trial: Trial) -> dict[tuple[str, str], Paper]:
    """Each exam of each stage, by stage and exam; a few of its items are made for it."""
    found: dict[tuple[str, str], Paper] = {}
    for stage in recipe.stages:
        documents = [
            document
            for part in stage.mixture
            for document in trial.parts[stage.name, part.title].documents
        ]
        for exam in stage.exams:
            found[stage.name, exam.exam] = _paper(exam, trial.template, documents, recipe.seed)
    return found


def _paper(exam: Exam, template: Template, documents: Sequence[Document], seed: int) -> Paper:
    desk: Any = _Desk(template)
    hall = Hall(desk, seed, held_out=lambda: documents, purpose="gate")
    began = time.monotonic()
    tasks = list(islice(exam.tasks(hall, SAMPLE), SAMPLE))
    took = time.monotonic() - began
    if not tasks:
        return Paper(0.0, 256.0, (), None)
    likelihood = exam.better == "lower"
    prompts = [
        len(task.prompt_ids) if task.prompt_ids is not None else len(template.prompt(task.messages))
        for task in tasks
    ]
    return Paper(
        make_s=took / len(tasks),
        prompt_tokens=sum(prompts) / len(prompts),
        said_tokens=() if likelihood else tuple(_said(task, template) for task in tasks),
        most=None,
    )


def _said(task: Task, template: Template) -> int:
    """Tokens of the right answer, its end and a call if there is room for one."""
    if task.gold_ids is not None:
        return len(task.gold_ids)
    gold = len(template.tokenizer.encode(task.gold))
    call = CALL_TOKENS if task.max_tokens > gold + SPARE_TOKENS else 0
    return min(task.max_tokens, gold + 1 + call)
