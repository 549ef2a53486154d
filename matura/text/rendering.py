"""A model's own chat template: messages to text, and where in that text the messages' words stand.

The surprising thing: contents are marked with noncharacters at their ends, inside the white space
that templates like to strip, and rendered a second time without marks. Only if both texts are the
same is a rendering believed: so what is learnt is never looked for in the text.

A chat template is somebody's program. It runs in Jinja's sandbox, is told no time of day, and what
it says must follow from the messages alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.ext import loopcontrols as LoopControls
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from matura.core.errors import DataError
from matura.core.types import Message
from matura.text.jinja import ESCAPE

OPEN, NUMBERED, CLOSE = "\ufdd3", "\ufdd4", "\ufdd5"
"""After ESCAPE, which in a broken text is never followed by these: the start of message N's words,
and their end."""
_MARK = re.compile(f"{ESCAPE}{OPEN}([0-9]+){NUMBERED}|{ESCAPE}{CLOSE}")
_FAULTS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template's own mistakes raise."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text, and from where to where in it each message's words go."""

    text: str
    words: Mapping[int, tuple[int, int]]


class Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`, with which some templates mark what the assistant
    says: here it means nothing, for that is found in another way."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The body as if it stood alone."""
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _raise(message: str) -> str:
    raise TemplateError(message)


def _json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, not as HTML wants it."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class ChatTemplate:
    """A Jinja chat template in a sandbox.

    Raises:
        DataError: it is no Jinja.
    """

    def __init__(self, source: str, names: Mapping[str, str], broken: Callable[[str], str]) -> None:
        self._names, self._broken = names, broken
        sandbox = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, LoopControls]
        )
        sandbox.filters["tojson"] = _json
        sandbox.globals["raise_exception"] = _raise
        try:
            self._template = sandbox.from_string(source)
        except _FAULTS as problem:
            raise DataError(f"the model's chat template cannot be read: {problem}") from None

    def render(self, messages: Sequence[Message], *, asked: bool) -> Rendered:
        """The conversation as text; `asked`: up to where the assistant goes on.

        Raises:
            DataError: the template refuses it, changes what is said, or leaves a message out.
        """
        said = [self._broken(message.content) for message in messages]
        marked = [_marked(text, number) for number, text in enumerate(said)]
        rendered = _unmarked(self._text(messages, marked, asked=asked))
        if rendered.text != self._text(messages, said, asked=asked):
            raise DataError(
                "the model's chat template changes what messages say by more than cutting white "
                "space off, so it is not known what the assistant's own words become"
            )
        for number in range(len(messages)):
            if number not in rendered.words:
                raise DataError(
                    f"message {number + 1}: the model's chat template leaves it out, or repeats it"
                )
        return rendered

    def _text(self, messages: Sequence[Message], said: Sequence[str], *, asked: bool) -> str:
        rows: list[dict[str, Any]] = [
            {"role": message.role, "content": text}
            for message, text in zip(messages, said, strict=True)
        ]
        try:
            text: str = self._template.render(
                messages=rows,
                tools=None,
                documents=None,
                add_generation_prompt=asked,
                **self._names,
            )
        except _FAULTS as problem:
            raise DataError(f"the model's chat template refuses this: {problem}") from None
        return text


def _marked(text: str, number: int) -> str:
    """The text with marks around its words, inside the white space around them."""
    words = text.strip()
    start = text.index(words)
    marks = f"{ESCAPE}{OPEN}{number}{NUMBERED}{words}{ESCAPE}{CLOSE}"
    return text[:start] + marks + text[start + len(words) :]


def _unmarked(text: str) -> Rendered:
    """The text without marks, and where they stood; words that stand there twice are left out."""
    pieces: list[str] = []
    words: dict[int, tuple[int, int]] = {}
    twice: set[int] = set()
    length, end, open_at, which = 0, 0, 0, -1
    for mark in _MARK.finditer(text):
        pieces.append(text[end : mark.start()])
        length += mark.start() - end
        end = mark.end()
        if mark[1] is not None:
            open_at, which = length, int(mark[1])
        elif which >= 0:
            twice |= {which} & words.keys()
            words[which] = (open_at, length)
            which = -1
    pieces.append(text[end:])
    return Rendered("".join(pieces), {n: span for n, span in words.items() if n not in twice})
