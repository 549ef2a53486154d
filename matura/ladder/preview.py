"""A lesson as it would be taught: a few conversations, and how varied the whole is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split, TextCodec
from matura.ladder.settled import settled
from matura.lessons import lesson
from matura.lessons.lesson import Diversity, Lesson

SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "exam": "exam"}


@dataclass(frozen=True)
class Preview:
    """Examples of a lesson and its diversity report."""

    lesson: Lesson
    examples: tuple[Conversation, ...]
    diversity: Diversity

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints; the examples are rows that `kind: jsonl` reads."""
        return {
            "kind": self.lesson.kind,
            "settings": self.lesson.model_dump(mode="json"),
            "diversity": asdict(self.diversity),
            "examples": [as_row(example) for example in self.examples],
        }


def lesson_of(kind: str, options: Sequence[str] = ()) -> Lesson:
    """The lesson of that kind with `key=value` options.

    Raises:
        RecipeError: no such lesson, no such option, or a value it does not take.
    """
    return settled("lesson", lesson.kinds(), kind, options)


def preview(
    made: Lesson,
    *,
    count: int = 5,
    seed: int = 0,
    split: Split = "train",
    tokenizer: TextCodec | None = None,
) -> Preview:
    """The lesson's first conversations of a split, and the report over all of them."""

    def given() -> Given:
        return Given(rng(seed, "lesson", made.kind, split), tokenizer, split)

    return Preview(made, tuple(islice(made.read(given()), count)), made.diversity(given()))


def as_row(conversation: Conversation) -> dict[str, Any]:
    """A conversation as the row of a JSON-lines file that reads back as the same."""
    turns = []
    for message in conversation.messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            turn["calls"] = [
                {"name": c.name, "arguments": dict(c.arguments)} for c in message.calls
            ]
        turns.append(turn)
    return {"messages": turns, **conversation.meta}
