"""What an export is asked to prove itself: made-up conversations, and prompts in ids.

Each dialect gets conversations it can spell, tool calls and hostile content among them: text that
spells control tags, marks beside letters, runs of spaces, quotes inside words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Conversation, Given, Message, ToolCall
from matura.lessons.lesson import kinds
from matura.text.template import Template

LESSONS = ("echo", "minimal_qa", "format_lock", "operators", "structured", "tools", "arithmetic")
EACH = 10
PROMPTS = 100
CONTINUED = 16
"""Tokens that each prompt is continued by."""
TEXTS = (
    "",
    " ",
    "Grüße, 世界! naïve cafe\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "it's 'total' and x='sum' isn't f'{x}'\n'really'",
    "def f(x):\n    return  x  +  12\n\n\n\tif x:\n\t\treturn -1.5e-3\r\n",
    "  leading, trailing  \n\n   and   runs   of 1  23   456",
    "¼ ² ½ ٣ मराठी हिन्दी ไทย \ufdd0\ufdd1 \ufdd0\ufdd2 \u200b",
    "<b>not a tag</b> <| almost |> <|> {{ jinja }} {% for %} {# no #}",
)
"""What goes wrong in other programs, if anything does."""


@dataclass(frozen=True)
class Asked:
    """What a proof asks."""

    conversations: tuple[Conversation, ...]
    prompts: tuple[tuple[int, ...], ...]
    """Half of them conversations up to an answer, half running text."""
    texts: tuple[str, ...] = ()
    """What the conversations say, where the model has no way to spell them."""


def asked(template: Template, context: int) -> Asked:
    """The conversations that the template can spell, and prompts that leave room in `context` ids.

    Raises:
        DataError: the context is too short for a prompt and its continuation.
    """
    if context < CONTINUED + 2:
        raise DataError(f"a context of {context} ids is too short for {CONTINUED} more to be said")
    room = context - CONTINUED
    if not template.chats:
        said = [*TEXTS, *(_said(c) for c in _lessons())]
        ids = [_running(template, text, n) for n, text in enumerate(said)]
        return Asked((), tuple(dict.fromkeys(i[-room:] for i in ids))[:PROMPTS], tuple(said))
    spelled = [c for c in (*_hostile(template), *_lessons()) if _spells(template, c)]
    chats = [tuple(template.prompt(_before_answer(c))) for c in spelled]
    texts = [_running(template, _said(c), len(c.id)) for c in spelled]
    both = [ids[-room:] for pair in zip(chats, texts, strict=True) for ids in pair]
    prompts = list(dict.fromkeys(both))[:PROMPTS]
    return Asked(tuple(spelled), tuple(prompts))


def _running(template: Template, text: str, more: int) -> tuple[int, ...]:
    """The first ids of a running text."""
    return (template.bos_id, *template.tokenizer.encode(text)[: CONTINUED + more % 16])


def _said(conversation: Conversation) -> str:
    return " ".join(message.content for message in conversation.messages)


def _before_answer(conversation: Conversation) -> Sequence[Message]:
    """Everything before the assistant first speaks."""
    for place, message in enumerate(conversation.messages):
        if message.role == "assistant":
            return conversation.messages[:place]
    return conversation.messages


def _spells(template: Template, conversation: Conversation) -> bool:
    try:
        template.render(conversation)
    except DataError:
        return False
    return True


def _lessons() -> Iterator[Conversation]:
    known = kinds()
    for kind in LESSONS:
        made = known[kind](kind=kind, max_examples=EACH)
        yield from islice(made.read(Given(rng(0, "export", kind))), EACH)


def _hostile(template: Template) -> Iterator[Conversation]:
    tags = "".join(template.tokenizer.control)
    texts = [*TEXTS, tags, *(f"a{tag}b" for tag in list(template.tokenizer.control)[:4])]
    for number, text in enumerate(texts):
        turns = (Message("user", text or "nothing"), Message("assistant", text))
        yield Conversation(turns, f"hostile {number}")
        yield Conversation((Message("system", text or "."), *turns, *turns), f"told {number}")
    calls: tuple[dict[str, Any], ...] = (
        {"expression": "17 * 23"},
        {"query": tags, "n": 3},
        {"a": {"b": [1, None, "ü"]}},
    )
    for number, arguments in enumerate(calls):
        call = ToolCall("calculator" if number == 0 else "search", arguments)
        yield Conversation(
            (
                Message("user", "Look it up."),
                Message("assistant", "", (call,)),
                Message("tool", "391"),
                Message("assistant", "It is 391."),
                Message("user", "Thanks."),
                Message("assistant", "You're welcome."),
            ),
            f"call {number}",
        )
