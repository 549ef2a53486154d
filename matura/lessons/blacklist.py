"""Payloads and questions a lesson must never make: a user's own test set, or another lesson's exam.

Lessons keep their own exams apart by construction; what they cannot know of has to be handed in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core.errors import DataError
from matura.core.types import Conversation

_WORD = re.compile(r"\w+|[^\w\s]")
_ALL_BLOCKED = 5_000


def words_of(text: str) -> tuple[str, ...]:
    """The words and signs of a text, case and spaces and marks around it left out."""
    found = _WORD.findall(text.casefold())
    while found and not found[-1].isalnum():
        found.pop()
    while found and not found[0].isalnum():
        found.pop(0)
    return tuple(found)


@dataclass(slots=True)
class Blacklist:
    """What must not be made, and how much of it was held back so far."""

    path: Path
    payloads: set[tuple[str, ...]] = field(default_factory=set)
    questions: set[tuple[str, ...]] = field(default_factory=set)
    held_back: int = 0

    @classmethod
    def load(cls, path: Path) -> Blacklist:
        """One payload a line, or JSON rows with `payload`, `prompt` or `messages`, or what
        `matura lesson KIND --json` printed.

        Raises:
            DataError: the file is not there, is no UTF-8, or a row has none of the three.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as problem:
            raise DataError(f"{path}: cannot be read: {problem}") from problem
        made = cls(path)
        for place, row in _rows(path, text):
            made._add(place, row)
        if not made.payloads and not made.questions:
            raise DataError(f"{path}: no payload in it; expected one a line")
        return made

    def _add(self, place: str, row: Any) -> None:
        if isinstance(row, str):
            row = {"payload": row}
        found = False
        if isinstance(row, dict):
            turns = row.get("messages")
            asked = [
                turn.get("content")
                for turn in (turns if isinstance(turns, list) else [])
                if isinstance(turn, dict) and turn.get("role") == "user"
            ]
            for texts, known in (
                ([row.get("payload")], self.payloads),
                ([row.get("prompt"), *asked], self.questions),
            ):
                cut = [words_of(one) for one in texts if isinstance(one, str)]
                known.update(filter(None, cut))
                found = found or any(cut)
        if not found:
            raise DataError(f"{place}: no payload, prompt or messages in it")

    def blocks(self, item: Conversation) -> bool:
        """Whether its payload is or contains a listed payload, or it asks a listed question."""
        if self.questions and any(
            words_of(turn.content) in self.questions
            for turn in item.messages
            if turn.role == "user"
        ):
            return True
        words = words_of(item.meta["payload"])
        return any(
            words[start : start + length] in self.payloads
            for length in {len(one) for one in self.payloads}
            for start in range(len(words) - length + 1)
        )

    def kept(self, items: Iterator[Conversation]) -> Iterator[Conversation]:
        """The items that are not blocked; the others are counted.

        Raises:
            DataError: nothing is left to make.
        """
        in_a_row = 0
        for item in items:
            if not self.blocks(item):
                in_a_row = 0
                yield item
                continue
            self.held_back += 1
            in_a_row += 1
            if in_a_row > _ALL_BLOCKED:
                raise DataError(f"{self.path}: leaves this lesson nothing to make")


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Each row with its place as `file:line`."""
    if text.lstrip()[:1] == "{":
        try:
            whole = json.loads(text)
        except json.JSONDecodeError:
            whole = None  # rows, one a line
        if isinstance(whole, dict) and isinstance(whole.get("examples"), list):
            for number, example in enumerate(whole["examples"], 1):
                yield f"{path}: example {number}", example
            return
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        row: Any = line
        # `{word}` may be a payload in marks; a row has a key
        if line.startswith('{"'):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as problem:
                raise DataError(f"{path}:{number}: no JSON: {problem.msg}") from None
        yield f"{path}:{number}", row
