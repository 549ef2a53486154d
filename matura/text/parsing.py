"""What the assistant said, from runs of text and tags: a message, and what is wrong with it.

The surprising thing: nothing in here raises. A model may sample anything, and a malformed call is a
finding about the model, not an error of the program.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from matura.core.errors import DataError
from matura.core.types import Message, ToolCall
from matura.text.dialects import ARGUMENT_KEYS, CALCULATOR, EXPRESSION, Dialect, Span


@dataclass(frozen=True, slots=True)
class Parsed:
    """What sampled ids say."""

    message: Message
    problems: tuple[str, ...]
    """`stray <tag>`, `unclosed <tag>`, `text after <tag>`, `bad call: …`; empty if all is well."""
    ended: bool
    """Whether the assistant ended its turn itself, rather than being cut or waiting for a
    result."""


def read_call(text: str) -> ToolCall:
    """A call from any of the JSON forms: `arguments` or `args` as an object, or the arguments
    beside the name.

    Raises:
        DataError: the text is no such JSON.
    """

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        found = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"bad call: {problem}") from None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise DataError("bad call: not an object with a name")
    name = found.pop("name")
    for key in ARGUMENT_KEYS:
        if list(found) == [key] and isinstance(found[key], dict):
            return ToolCall(name, found[key])
    return ToolCall(name, found)


class Reader:
    """Puts one assistant message together from runs of text and tags."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._opens = {span.open[0]: span for span in (*dialect.call_spans, *dialect.asides)}
        self._aside = {span.open[0]: "" for span in dialect.asides}
        self._due = list(dialect.only_tags(dialect.assistant.close[:-1]))
        """Tags that still have to come before the one that ends the turn."""
        self._content: list[str] = []
        self._calls: list[ToolCall] = []
        self._problems: list[str] = []
        self._span: Span | None = None
        self._inner = ""
        self._last = ""
        self._ended = False

    def text(self, text: str) -> None:
        """Ordinary text: of the open call if there is one, else of the message."""
        if self._span is not None:
            self._inner += text
            return
        if self._last:
            self._problems.append(f"text after {self._last}")
        if not self._ended:
            self._content.append(text)

    def tag(self, tag: str) -> None:
        """A control tag: opens or closes a call, ends the turn, or has no business here."""
        if self._span is not None:
            if tag in self._span.close:
                self._last = "" if self._span.open[0] in self._aside else tag
                self._finish()
                return
            if self._span.close:
                self._problems.append(f"unclosed {self._span.open[0]}")
                self._span = None
            else:
                self._finish()
        if self._ended:
            self._problems.append(f"stray {tag}")
        elif tag in self._opens:
            self._span, self._inner = self._opens[tag], ""
        elif tag in self._dialect.turn_ends:
            self._end(tag)
        elif tag in self._due:
            self._due.remove(tag)
            self._last = tag
        else:
            self._problems.append(f"stray {tag}")

    def _end(self, tag: str) -> None:
        """The turn is over, whether in the right way or not."""
        self._ended = True
        self._last = tag
        if tag == self._dialect.end:
            self._problems.append(f"stray {tag}")
        elif self._due:
            self._problems.append(f"unclosed {self._dialect.assistant.open[0]}")

    def _finish(self) -> None:
        """The open call is complete: read it."""
        assert self._span is not None
        span, inner = self._span, self._inner
        self._span = None
        if span.open[0] in self._aside:
            self._aside[span.open[0]] += inner
            return
        if span is self._dialect.bare:
            self._calls.append(ToolCall(CALCULATOR, {EXPRESSION: inner}))
            return
        try:
            self._calls.append(read_call(inner))
        except DataError as problem:
            self._problems.append(str(problem))

    def _said(self, span: Span | None) -> str:
        return "" if span is None else self._aside[span.open[0]]

    def parsed(self) -> Parsed:
        """The message so far; a call that is still open is a problem."""
        if self._span is not None:
            if not self._span.close and not self._ended and _reads(self._inner):
                self._finish()
            else:
                self._problems.append(f"unclosed {self._span.open[0]}")
        aside = [self._said(span) for span in (self._dialect.think, self._dialect.cite)]
        message = Message(
            "assistant",
            "".join(self._content),
            tuple(self._calls),
            think=aside[0],
            cite=aside[1],
        )
        return Parsed(message, tuple(self._problems), self._ended)


def _reads(text: str) -> bool:
    try:
        read_call(text)
    except DataError:
        return False
    return True
