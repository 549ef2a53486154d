"""What a lesson is: a source that makes conversations up, of which each split is disjoint by
construction.

Training, validation and exams never share a payload word; exams share no wording with either. Both
are decided by hashes of the content alone, so they hold across lessons, seeds and stages.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from pydantic import Field, PositiveInt

from matura import lessons
from matura.core.leaves import leaves
from matura.core.record import Frozen
from matura.core.types import Conversation, Given, Message, TextCodec

NOT_LESSONS = ("facts", "lesson", "phrasing", "words")
"""Files of this folder that define no lesson."""

_LEAST_VALIDATION = 64
_MOST_REPEATS = 2_000


@dataclass(frozen=True, slots=True)
class Diversity:
    """How varied a lesson is: what tells a task that must be understood from one that can be learnt
    by heart."""

    examples: int
    unique_payloads: int
    unique_templates: int
    """Wordings with the payload slot left open."""
    unique_answers: int
    longest_answer: int
    """Tokens, or characters where no tokenizer was given."""
    longest_conversation: int
    """Tokens of all contents together, without control tokens; or characters."""
    mean_conversation: float
    answer_entropy: float
    """Bits; log2(examples) if no two answers are equal."""
    by_operator: Mapping[str, int]
    by_language: Mapping[str, int]
    with_colon: float
    """Share of wordings with a colon: near 0 or 1 teaches the colon instead of the task."""


class Lesson(Frozen):
    """A source of made-up conversations. `meta` has operator, payload, template, language, bucket,
    expected."""

    kind: str

    splits_itself: ClassVar[bool] = True
    """As in `data.source`: each split is asked for in turn, through `given.split`."""

    max_examples: PositiveInt = 20_000
    """How many training conversations; each has a payload drawn afresh."""
    german: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of wordings in German."""

    @abstractmethod
    def items(self, given: Given) -> Iterator[Conversation]:
        """Conversations of `given.split` without end, any stretch of them in the lesson's
        proportions."""

    def read(self, given: Given) -> Iterator[Conversation]:
        """`max_examples` conversations; a twentieth of that, at least 64, for validation and
        exam."""
        count = self.max_examples
        if given.split != "train":
            count = min(count, max(_LEAST_VALIDATION, count // 20))
        return islice(self.items(given), count)

    def diversity(self, given: Given) -> Diversity:
        """What `read(given)` is like; it uses up `given.rng`."""
        return diversity(self.read(given), given.tokenizer)


def kinds() -> dict[str, type[Lesson]]:
    """Every lesson there is, by the name of its file."""
    # abstract only as the base of what is looked for
    return leaves(lessons, Lesson, skip=NOT_LESSONS)  # type: ignore[type-abstract]


def conversation(
    question: str,
    *answer: Message,
    operator: str,
    payload: str,
    template: str,
    language: str,
    expected: str,
    bucket: str = "",
    extra: Mapping[str, str] | None = None,
) -> Conversation:
    """One question and its answer, with all that a split or an exam must know about it."""
    messages = (Message("user", question), *(answer or (Message("assistant", expected),)))
    meta = {
        "operator": operator,
        "payload": payload,
        "template": template,
        "language": language,
        "bucket": bucket or operator,
        "expected": expected,
    }
    return Conversation(messages, id=f"{operator}:{question}", meta=meta | dict(extra or {}))


def unrepeated(groups: Iterable[tuple[Conversation, ...]]) -> Iterator[Conversation]:
    """The groups' conversations in order, groups that ask something asked before left out.

    Ends when a lesson has nothing new left to say, which only small lessons reach.
    """
    asked: set[str] = set()
    repeats = 0
    for group in groups:
        if any(item.id in asked for item in group):
            repeats += 1
            if repeats > _MOST_REPEATS:
                return
            continue
        repeats = 0
        asked.update(item.id for item in group)
        yield from group


def diversity(conversations: Iterable[Conversation], tokenizer: TextCodec | None) -> Diversity:
    """The measures of `Diversity` over these conversations."""

    def length(text: str) -> int:
        return len(text) if tokenizer is None else len(tokenizer.encode(text))

    answers: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    payloads: set[str] = set()
    templates: set[str] = set()
    lengths: list[int] = []
    colons = 0
    for item in conversations:
        answers[item.meta["expected"]] += 1
        operators[item.meta["operator"]] += 1
        languages[item.meta["language"]] += 1
        payloads.add(item.meta["payload"])
        templates.add(item.meta["template"])
        colons += ":" in item.meta["template"]
        lengths.append(sum(length(message.content) for message in item.messages))
    examples = len(lengths)
    return Diversity(
        examples=examples,
        unique_payloads=len(payloads),
        unique_templates=len(templates),
        unique_answers=len(answers),
        longest_answer=max(map(length, answers), default=0),
        longest_conversation=max(lengths, default=0),
        mean_conversation=sum(lengths) / examples if examples else 0.0,
        answer_entropy=-sum(n / examples * math.log2(n / examples) for n in answers.values()),
        by_operator=dict(operators),
        by_language=dict(languages),
        with_colon=colons / examples if examples else 0.0,
    )
