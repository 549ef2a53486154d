"""Whether another program that reads an export's chat template and tokenizer gets `Template`'s ids.

The template is rendered as `transformers` renders it: in a sandbox, with blocks trimmed and JSON
that escapes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from matura.core.errors import DataError
from matura.core.types import Conversation, Message
from matura.ladder.proof import Check, first
from matura.text.imported import HF
from matura.text.rendering import Generation
from matura.text.template import Template

SPELL_TAGS = "spell_a_tag"
"""Conversations that a check has left out, by this name in its numbers."""
Encode = Callable[[str], Sequence[int]]


def as_others_write(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as Hugging Face's templates take them."""
    written: list[dict[str, Any]] = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            row["tool_calls"] = [
                {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
                for c in message.calls
            ]
        beside = {"context": message.context, "think": message.think, "cite": message.cite}
        written.append(row | {key: text for key, text in beside.items() if text})
    return written


def tag_names(config: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a template may name, of a tokenizer's config: each as text, or as a record."""
    found = {}
    for name, told in config.items():
        tag = told.get("content") if isinstance(told, dict) else told
        if name.endswith("_token") and isinstance(tag, str):
            found[name] = tag
    return found


class Rendered:
    """A Jinja chat template, rendered as other programs do.

    Raises:
        TemplateError: it is no Jinja.
    """

    def __init__(self, jinja: str, words: Mapping[str, str]) -> None:
        """`words`: what the template may name, such as `bos_token`."""
        extensions: list[str | type[Extension]] = [loopcontrols, Generation]
        room = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=extensions
        )
        room.filters["tojson"] = _json
        room.globals["raise_exception"] = _refuse
        self._template = room.from_string(jinja)
        self._words = words

    def text(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """What the template makes of the messages; `prompt`: with what opens the answer."""
        written = as_others_write(messages)
        return self._template.render(
            messages=written, add_generation_prompt=prompt, tools=None, **self._words
        )


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def template_check(
    name: str,
    said: str,
    template: Template,
    conversations: Iterable[Conversation],
    ids_of: Callable[[Sequence[Message], bool], Sequence[int]],
) -> Check:
    """Whether `ids_of(messages, prompt)` are `Template`'s, of whole conversations and of the
    prompts in them.

    The chat templates that others wrote paste what is said in as it is, so where it spells a tag,
    other programs read the tag; ours never do. Such texts are counted, and prove nothing.
    """
    wrong: list[str] = []
    asked = tagged = 0
    for conversation in conversations:
        if template.name == HF and spells_tag(template, conversation):
            tagged += 1
            continue
        turns = conversation.messages
        cases = [(turns, False, template.render(conversation).ids)]
        for place in range(1, len(turns)):
            before = turns[:place]
            if turns[place].role == "assistant" and before[-1].role != "assistant":
                with suppress(DataError):  # dialects that take no system message by itself
                    cases.append((before, True, template.prompt(before)))
        for messages, prompt, want in cases:
            asked += 1
            try:
                got = tuple(ids_of(messages, prompt))
            except TemplateError as problem:
                wrong.append(f"{conversation.id!r}: the template refuses it: {problem}")
                continue
            if got != tuple(want):
                at = next(
                    (n for n, (a, b) in enumerate(zip(got, want, strict=False)) if a != b),
                    min(len(got), len(want)),
                )
                wrong.append(f"{conversation.id!r}: other ids from the {at + 1}. on")
    numbers = {"texts": asked, "equal": asked - len(wrong)}
    return Check(name, said, numbers | ({SPELL_TAGS: tagged} if tagged else {}), first(wrong))


def plain_check(backend: Any, template: Template, texts: Iterable[str]) -> Check:
    """Of a model that does not chat: whether its tokenizer cuts plain text as ours does."""
    tried = [text for text in texts if not any(t in text for t in template.tokenizer.control)]
    wrong = [
        f"{text[:20]!r}: other ids"
        for text in tried
        if backend.encode(text, add_special_tokens=False).ids != template.tokenizer.encode(text)
    ]
    numbers = {"texts": len(tried), "equal": len(tried) - len(wrong)}
    return Check(
        "plain text", "the exported tokenizer, read back, against ours", numbers, first(wrong)
    )


def spells_tag(template: Template, conversation: Conversation) -> bool:
    """Whether what is said in a conversation spells a control tag of the model's."""
    spoken = json.dumps(as_others_write(conversation.messages), ensure_ascii=False)
    return any(tag in spoken for tag in template.tokenizer.control)


def cautions(template: Template, checks: Iterable[Check]) -> list[str]:
    """What could not be checked of the texts, and why."""
    found = []
    if not template.chats:
        found.append("chats: the model has no chat template")
    if any(check.numbers.get(SPELL_TAGS) for check in checks):
        found.append(
            "text that spells a control tag: the model's own chat template pastes it in as it is, "
            "so other programs read the tag, where Matura reads text"
        )
    return found
