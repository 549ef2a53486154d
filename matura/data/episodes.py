"""Conversations in other programs' spelling: ShareGPT, Alpaca, MyPT's episodes, nanochat's arrays.

Each becomes Matura's messages; numbers in errors are the places in the row as it was written, also
where one message there is several turns here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from matura.core.leaves import did_you_mean
from matura.core.types import Message, Role, ToolCall
from matura.data.lines import BadLine
from matura.data.rows import (
    MESSAGE_KEYS,
    call_of,
    in_order,
    json_name,
    json_of,
    list_of,
    message_of,
    messages,
    object_of,
    parsed,
    refuse_surrogates,
    text_at,
)
from matura.text.dialects import ARGUMENT_KEYS, CALCULATOR, EXPRESSION

SHAREGPT: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}
"""Who speaks, by what files in this format call them."""

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_TYPED = re.compile(r"(.*?)<(myPT_tool|myPT_toolcall)>(.*)</\2>\s*", re.DOTALL)
"""A call as MyPT's documents write it into what the assistant says."""
_RESULT = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>", re.DOTALL)


@dataclass(slots=True)
class _Turns:
    """Turns so far, each with its place in the row."""

    turns: list[Message] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def each(self, value: object, key: str, read: Callable[[object], Sequence[Message]]) -> None:
        """Adds what `read` makes of each message; what it finds wrong is said with its place."""
        for number, raw in enumerate(list_of(value, key), start=1):
            try:
                for turn in read(raw):
                    self.turns.append(turn)
                    self.numbers.append(number)
            except BadLine as problem:
                raise BadLine(f"message {number}: {problem}") from None

    def done(self) -> tuple[Message, ...]:
        """All of them, if a template can render them."""
        return in_order(self.turns, self.numbers)


def sharegpt(value: object) -> tuple[Message, ...]:
    """`[{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]`.

    Calls are a turn of `function_call` (JSON) or stand in `<tool_call>` tags in what the assistant
    says; results are `observation` or `tool`. A list of role and content is read as `messages`.

    Raises:
        BadLine: names the message and what was expected.
    """
    turns = list_of(value, "conversations")
    if all(isinstance(turn, dict) and "role" in turn and "from" not in turn for turn in turns):
        return messages(turns)
    found = _Turns()
    found.each(turns, "conversations", _sharegpt_turns)
    return found.done()


def _sharegpt_turns(value: object) -> Sequence[Message]:
    raw = object_of(value, "from", "value", ("from", "value"))
    said_by = raw["from"]
    if not isinstance(said_by, str) or said_by not in SHAREGPT:
        raise BadLine(f"unknown 'from' {said_by!r}{did_you_mean(str(said_by), SHAREGPT)}")
    role = SHAREGPT[said_by]
    text = text_at(raw, "value", empty="allowed" if role == "tool" else "refused")
    if said_by == "function_call":
        return (Message("assistant", "", _calls_in(text)),)
    if role == "assistant" and "<tool_call>" in text:
        return (_hermes_call(text),)
    if role == "tool" and (results := _RESULT.findall(text)):
        if _RESULT.sub("", text).strip():
            raise BadLine("text beside <tool_response>")
        return [Message("tool", result) for result in results]
    return (Message(role, text),)


def _calls_in(text: str) -> tuple[ToolCall, ...]:
    """One call as JSON, or a list of them."""
    try:
        value = json_of(text)
    except BadLine as problem:
        raise BadLine(f"a call's {problem}") from None
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise BadLine("a list of no calls")
    return tuple(_any_call(call) for call in calls)


def _any_call(call: object) -> ToolCall:
    """A call whose arguments may be JSON in a text, and be called `parameters` or `args`."""
    if not isinstance(call, dict):
        return call_of(call)
    named = {("arguments" if key in ARGUMENT_KEYS else key): inner for key, inner in call.items()}
    if len(named) < len(call):
        raise BadLine("a call has its arguments twice")
    if isinstance(named.get("arguments"), str):
        named["arguments"] = parsed(named["arguments"] or "{}")
    return call_of(named)


def _hermes_call(text: str) -> Message:
    """What was said before the calls, and the calls."""
    calls = tuple(call for spelled in _CALL.findall(text) for call in _calls_in(spelled))
    before, _, _ = text.partition("<tool_call>")
    beside = _CALL.sub("", text[len(before) :])
    if not calls or "<tool_call>" in beside:
        raise BadLine("<tool_call> without its </tool_call>")
    if beside.strip():
        raise BadLine(f"text after </tool_call>: {beside.strip()[:40]!r}")
    return Message("assistant", before.rstrip(), calls)


def alpaca(row: dict[str, Any]) -> tuple[Message, ...]:
    """`instruction`, an `input` below it if there is one, and `output`; `history` is turns before,
    as pairs.

    Raises:
        BadLine: names the field.
    """
    turns: list[Message] = []
    history = row.get("history")
    if history not in (None, []):
        for number, pair in enumerate(list_of(history, "history"), start=1):
            if not isinstance(pair, list) or len(pair) != 2:
                raise BadLine(f"'history' {number} must be a pair [question, answer]")
            asked, answered = ({f"history {number}": said} for said in pair)
            turns.append(Message("user", text_at(asked, f"history {number}")))
            turns.append(Message("assistant", text_at(answered, f"history {number}")))
    asking = text_at(row, "instruction")
    if row.get("input") is not None and (given := text_at(row, "input", empty="allowed")):
        asking = f"{asking}\n\n{given}"
    output = text_at(row, "output")
    if not output.strip():
        raise BadLine("'output' is nothing but white space")
    return in_order([*turns, Message("user", asking), Message("assistant", output)])


def episode(value: object) -> tuple[Message, ...]:
    """The messages of a MyPT episode: those of `messages`, and its tool and context roles.

    An `assistant_context` is put to what the user said before it: both are read before the answer.

    Raises:
        BadLine: names the message and what was expected.
    """
    found = _Turns()

    def read(raw: object) -> Sequence[Message]:
        role = raw.get("role") if isinstance(raw, dict) else None
        if role == "assistant_context":
            text = text_at(object_of(raw, "role", "content", ("role", "content")), "content")
            if not found.turns or found.turns[-1].role != "user":
                raise BadLine("role 'assistant_context' must stand after 'user'")
            found.turns[-1] = _told(found.turns[-1], text)
            return ()
        if role == "toolresult":
            return (_episode_result(raw, found.turns),)
        return (_episode_turn(raw),)

    found.each(value, "messages", read)
    return found.done()


def with_typed_calls(value: object) -> object:
    """The messages of a row, `<myPT_tool>{"name": …, "args": {…}}</myPT_tool>` read as a call.

    Only where a tool's result follows: anywhere else an assistant that spells a tag has said just
    that. The tag may be `<myPT_toolcall>`, and arguments may stand beside the name.

    Raises:
        BadLine: such a call is no JSON object with a name.
    """
    if not isinstance(value, list):
        return value
    turns = list(value)
    for number, (raw, after) in enumerate(pairwise(value), start=1):
        if not isinstance(after, dict) or after.get("role") not in ("tool", "toolresult"):
            continue
        said = raw.get("content") if isinstance(raw, dict) else None
        found = _TYPED.fullmatch(said) if isinstance(said, str) else None
        if found is None or raw.get("role") != "assistant" or raw.get("calls"):
            continue
        try:
            call = _typed_call(found[3])
        except BadLine as problem:
            raise BadLine(f"message {number}: {problem}") from None
        turns[number - 1] = {**raw, "content": found[1], "calls": [call]}
    return turns


def _typed_call(text: str) -> dict[str, Any]:
    """Name and arguments, however the call spells the latter."""
    try:
        call = json_of(text)
    except BadLine as problem:
        raise BadLine(f"a call's {problem}") from None
    if not isinstance(call, dict):
        raise BadLine(f"a call must be an object with 'name', not {json_name(call)}")
    beside = {key: inner for key, inner in call.items() if key != "name"}
    if not beside.keys() & set(ARGUMENT_KEYS):
        call = {key: call[key] for key in ("name",) if key in call} | {"arguments": beside}
    made = _any_call(call)
    return {"name": made.name, "arguments": dict(made.arguments)}


def _told(turn: Message, text: str) -> Message:
    """The turn with one more piece of context."""
    return replace(turn, context="\n\n".join(filter(None, (turn.context, text))))


def _episode_turn(value: object) -> Message:
    keys = (*MESSAGE_KEYS, "context", "think", "cite")
    raw = dict(object_of(value, "role", "content", (*keys, "arguments")))
    beside = {key: _beside(raw, key) for key in ("context", "think", "cite")}
    if raw["role"] == "assistant_toolcall":
        turn = _episode_call(raw)
    else:
        if raw.pop("arguments", None) is not None:
            raise BadLine("'arguments' without role 'assistant_toolcall'")
        turn = message_of(raw)
    for key, text in beside.items():
        whose = "user" if key == "context" else "assistant"
        if text and turn.role != whose:
            raise BadLine(f"role {turn.role!r} with {key!r}; only {whose!r} has one")
    return replace(turn, context=beside["context"], think=beside["think"], cite=beside["cite"])


def _beside(raw: dict[str, Any], key: str) -> str:
    """The text under a key that may be absent, taken out."""
    return "" if raw.get(key) is None else text_at({key: raw.pop(key)}, key, empty="allowed")


def _episode_call(raw: dict[str, Any]) -> Message:
    call = call_of({key: raw[key] for key in ("name", "arguments") if key in raw})
    said = {"content": raw.get("content") or ""}
    return Message("assistant", text_at(said, "content", empty="allowed"), (call,))


def _episode_result(value: object, before: Sequence[Message]) -> Message:
    """A tool's result, spelled as JSON where it is no text."""
    raw = object_of(value, "role", "content", ("role", "content", "name", "tool_call_id"))
    if "content" not in raw:
        raise BadLine(f"no 'content', only {sorted(raw)[:8]}")
    content = raw["content"]
    if isinstance(content, dict | list):
        content = json.dumps(content, ensure_ascii=False)
        refuse_surrogates(content, "content")
    else:
        content = text_at(raw, "content", empty="allowed")
    calls = before[-1].calls if before else ()
    name = raw.get("name")
    if name is not None and len(calls) == 1 and calls[0].name != name:
        raise BadLine(f"a result of {name!r}, but {calls[0].name!r} was called")
    return Message("tool", content)


def nanochat(value: object) -> tuple[Message, ...]:
    """An array of role and content. What the assistant says may be parts of `text`, `python` (an
    expression for the calculator) and `python_output`.

    Raises:
        BadLine: names the message and what was expected.
    """
    found = _Turns()
    found.each(value, "messages", _nanochat_turns)
    return found.done()


def _nanochat_turns(value: object) -> Sequence[Message]:
    raw = object_of(value, "role", "content", ("role", "content"))
    parts = raw.get("content")
    if raw["role"] != "assistant" or not isinstance(parts, list):
        if raw["role"] == "tool":
            raise BadLine("role 'tool'; expected 'python_output' among the assistant's parts")
        return (message_of(raw),)
    turns: list[Message] = []
    said = ""
    for number, part in enumerate(list_of(parts, "content"), start=1):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "python", "python_output"):
            found = repr(kind) if isinstance(part, dict) else json_name(part)
            raise BadLine(
                f"part {number}: expected type 'text', 'python' or 'python_output', found {found}"
            )
        text = text_at(part, "text", empty="refused" if kind == "python" else "allowed")
        waits = bool(turns) and turns[-1].role == "assistant"
        if (kind == "python_output") != waits:
            what = "'python_output' without 'python'" if not waits else f"{kind!r}"
            wanted = "" if not waits else "; expected 'python_output' after 'python'"
            raise BadLine(f"part {number}: {what}{wanted}")
        if kind == "text":
            said += text
        elif kind == "python":
            call = ToolCall(CALCULATOR, {EXPRESSION: text.strip()})
            turns.append(Message("assistant", said, (call,)))
            said = ""
        else:
            turns.append(Message("tool", text))
    if turns and turns[-1].role == "assistant":
        raise BadLine("ends with 'python'; expected 'python_output' after it")
    if not said:
        raise BadLine("the assistant's parts end without text" if turns else "empty 'content'")
    return (*turns, Message("assistant", said))
