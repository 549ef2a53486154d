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
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PositiveInt, model_validator

from matura import lessons
from matura.core.leaves import did_you_mean, leaves
from matura.core.record import Frozen
from matura.core.types import Conversation, Given, Message, TextCodec
from matura.lessons.blacklist import Blacklist

NOT_LESSONS = (
    "blacklist",
    "facts",
    "field_names",
    "lands",
    "lesson",
    "passages",
    "persona",
    "phrasing",
    "records",
    "relations",
    "rules",
    "signatures",
    "steps",
    "telling",
    "tool_chains",
    "tool_requests",
    "tool_scenes",
    "tool_steps",
    "words",
)
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
    by_bucket: Mapping[str, int]
    held_back: int
    """Items not made because of the file in `never`."""


class Lesson(Frozen):
    """A source of made-up conversations. `meta` has operator, payload, template, language, bucket,
    expected."""

    kind: str

    splits_itself: ClassVar[bool] = True
    """As in `data.source`: each split is asked for in turn, through `given.split`."""

    presets: ClassVar[Mapping[str, int]] = {}
    """Sizes with a name, in training conversations: those that the lesson was first described
    with."""

    by_heart: ClassVar[bool] = False
    """Whether what it teaches is to be remembered: then exams ask for the same payloads, and only
    wordings (in validation: pairs of payload and wording) keep the splits apart."""

    size: str | None = None
    """The name of a preset, which sets `max_examples`."""
    max_examples: PositiveInt = 20_000
    """How many training conversations; each has a payload drawn afresh."""
    never: Path | None = None
    """A file of payloads that are never made, one a line: a test set of your own. JSON rows with
    `payload`, `prompt` or `messages` will do, and so will what `matura lesson KIND --json`
    prints."""
    german: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of wordings in German."""

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, value: Any) -> Any:
        """Fills in `max_examples`, so that all who count a lesson read one field."""
        if not isinstance(value, dict) or value.get("size") is None:
            return value
        size = value["size"]
        if size not in cls.presets:
            hint = did_you_mean(str(size), cls.presets) if cls.presets else "; it has none"
            raise ValueError(f"size {size!r} is no preset of this lesson{hint}")
        count = cls.presets[size]
        if value.get("max_examples", count) != count:
            raise ValueError(f"size {size!r} is {count} examples; leave max_examples out")
        return {**value, "max_examples": count}

    @abstractmethod
    def items(self, given: Given) -> Iterator[Conversation]:
        """Conversations of `given.split` without end, any stretch of them in the lesson's
        proportions."""

    def read(self, given: Given) -> Iterator[Conversation]:
        """`max_examples` conversations; a twentieth of that, at least 64, for validation and
        exam.

        Raises:
            DataError: the file in `never` cannot be used, or leaves nothing to make.
        """
        return self._read(given, Blacklist.load(self.never) if self.never else None)

    def _read(self, given: Given, never: Blacklist | None) -> Iterator[Conversation]:
        count = self.max_examples
        if given.split != "train":
            count = min(count, max(_LEAST_VALIDATION, count // 20))
        items = self.items(given)
        return islice(never.kept(items) if never else items, count)

    def diversity(self, given: Given) -> Diversity:
        """What `read(given)` is like; it uses up `given.rng`."""
        never = Blacklist.load(self.never) if self.never else None
        found = diversity(self._read(given, never), given.tokenizer)
        return replace(found, held_back=never.held_back) if never else found


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
    system: str = "",
) -> Conversation:
    """One question and its answer, with all that a split or an exam must know about it; a system
    message before them if there is one."""
    messages = (Message("user", question), *(answer or (Message("assistant", expected),)))
    if system:
        messages = (Message("system", system), *messages)
    meta = {
        "operator": operator,
        "payload": payload,
        "template": template,
        "language": language,
        "bucket": bucket or operator,
        "expected": expected,
    }
    asked = f"{system}\n{question}" if system else question
    return Conversation(messages, id=f"{operator}:{asked}", meta=meta | dict(extra or {}))


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
    buckets: Counter[str] = Counter()
    payloads: set[str] = set()
    templates: set[str] = set()
    lengths: list[int] = []
    colons = 0
    for item in conversations:
        answers[item.meta["expected"]] += 1
        operators[item.meta["operator"]] += 1
        languages[item.meta["language"]] += 1
        buckets[item.meta["bucket"]] += 1
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
        by_bucket=dict(buckets),
        held_back=0,
    )
