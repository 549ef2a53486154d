"""The best line of the text that a conversation was given.

That text is every line of its system messages, what a user's words came with, and of the words
themselves each paragraph of at least two lines: a pasted text is one, a request is not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from matura.core.types import Message
from matura.talk.tool import Tool, ToolError

MAX_QUERY = 200
MAX_LINES, MAX_LINE = 2_000, 400
"""Lines kept, and characters of a line: together they bound the time of a search to some
milliseconds. A longer line is cut, and of more lines the first are forgotten."""

_WORD = re.compile(r"\w+")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")


class Search(Tool):
    """Finds the line that shares most with a query."""

    name: ClassVar[str] = "search"
    description: ClassVar[str] = "Finds the line of the given text that fits some words best."
    parameters: ClassVar[Mapping[str, str]] = {"query": "the words to look for"}

    def __init__(self) -> None:
        self.lines: list[str] = []

    def fork(self) -> Search:
        """A search in the same text."""
        other = Search()
        other.lines = list(self.lines)
        return other

    def hear(self, message: Message) -> None:
        """Remember the text in what the system or the user says."""
        if message.role == "system":
            found = message.content.splitlines()
        elif message.role == "user":
            blocks = [block.strip().splitlines() for block in _PARAGRAPH.split(message.content)]
            found = message.context.splitlines()
            found += [line for block in blocks if len(block) > 1 for line in block]
        else:
            return
        lines = (line.strip()[:MAX_LINE] for line in found)
        self.lines = [*self.lines, *filter(None, lines)][-MAX_LINES:]

    def run(self, arguments: Mapping[str, Any]) -> str:
        """The line with most of the query's words, rare words counting more; the first such line.

        Raises:
            ToolError: there is no text, or no line has any of the words.
        """
        query = self.text_argument(arguments, "query")
        if len(query) > MAX_QUERY:
            raise ToolError(f"the query is too long, at most {MAX_QUERY} characters")
        if not self.lines:
            raise ToolError("there is no text to search")
        wanted = words_of(query)
        having = [wanted & words_of(line) for line in self.lines]
        seen = Counter(word for found in having for word in found)
        scores = [sum(1 / seen[word] for word in sorted(found)) for found in having]
        best = max(scores)
        if not best:
            raise ToolError(f"no line has {query.strip()!r}")
        return self.lines[scores.index(best)]


def words_of(text: str) -> frozenset[str]:
    """The words of a text, whatever their case."""
    return frozenset(_WORD.findall(text.casefold()))
