"""A tokenizer trained on the lessons, and halls in which exams are sat by scripted models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import islice

import pytest
from answering import Answer, Scripted, documents, gold, silence

from matura.core.rng import rng
from matura.core.types import Given, Score, Task
from matura.exams.exam import Exam, Hall
from matura.lessons.lesson import kinds
from matura.talk.tool import toolbox
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def template() -> Template:
    """The house's own dialect, with a tokenizer trained on the lessons."""
    given = Given(rng(0, "tokenizer"))
    texts = [
        message.content
        for kind in kinds().values()
        for item in islice(kind().items(given), 200)  # type: ignore[call-arg]
        for message in item.messages
    ]
    return Template(Tokenizer.train(texts, vocab_size=700, dialect="matura", split="atoms"))


@pytest.fixture(scope="session")
def hall(template: Template) -> Callable[..., Hall]:
    """A hall whose model answers a whole exam as told."""
    tasks: dict[tuple[object, ...], list[Task]] = {}
    known: dict[tuple[object, ...], dict[tuple[int, ...], tuple[int, ...]]] = {}

    def made(
        exam: Exam | None,
        answer: Answer,
        *,
        purpose: str = "gate",
        nats: float = 0.0,
        count: int | None = None,
    ) -> Hall:
        sampler = Scripted(template, nats)
        hall = Hall(sampler, 0, documents, purpose, toolbox())  # type: ignore[arg-type]
        if exam is not None and exam.better == "higher":
            asked = (repr(exam), purpose, count or exam.n)
            if asked not in tasks:
                tasks[asked] = list(exam.tasks(hall, count or exam.n))
            # an answer made up in a test is asked for once
            if answer not in (gold, silence):
                sampler.learn(tasks[asked], answer)
                return hall
            if (*asked, answer) not in known:
                sampler.learn(tasks[asked], answer)
                known[*asked, answer] = sampler.known
            sampler.known = dict(known[*asked, answer])
        return hall

    return made


@pytest.fixture(scope="session")
def sat(hall: Callable[..., Hall]) -> Callable[..., Score]:
    """What comes of an exam, sat once for all tests that only look at it."""

    @cache
    def score(exam: Exam, answer: Answer, nats: float = 0.0) -> Score:
        return exam.sit(hall(exam, answer, nats=nats))

    return score
