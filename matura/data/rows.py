"""One JSON row as a document or conversation; whatever would be lost or guessed is an error.

Three kinds: `text` (a document), `messages` (a chat, with calls in Matura's or OpenAI's spelling),
and `prompt`/`completion` (a chat of two turns). Keys beside them are the row's own notes and never
reach a model; an unknown key inside a message is an error, because it would be a part of the
conversation that gets lost.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NoReturn

from matura.core.leaves import did_you_mean
from matura.core.types import Conversation, Document, Message, Role, ToolCall
from matura.data.lines import BadLine

Format = Literal["text", "messages", "prompt"]
DEPTH_LIMIT = 64
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content", "calls", "tool_calls", "name", "tool_call_id")
NOTES = ("id", "language", "operator", "payload", "template", "bucket", "expected", "category")

_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]')
_SURROGATE = re.compile("[\ud800-\udfff]")


def parsed(line: str, depth_limit: int = DEPTH_LIMIT) -> dict[str, Any]:
    """The object that a line of JSON holds.

    Raises:
        BadLine: no JSON, no object, a key twice, NaN, or nested deeper than the limit.
    """
    if line.count("[") + line.count("{") > depth_limit:
        _refuse_depth(line, depth_limit)
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        raise BadLine(f"bad JSON at column {problem.colno}: {problem.msg}") from None
    except BadLine:
        raise
    except ValueError as problem:  # a number of more than 4,300 digits
        raise BadLine(f"bad JSON: {problem}") from None
    if not isinstance(value, dict):
        raise BadLine(f"expected a JSON object {{...}}, found {_name(value)}")
    return value


def format_of(row: dict[str, Any], field: str = "text") -> Format:
    """Which of the three kinds of row this is, by its keys.

    Raises:
        BadLine: none of them, or more than one.
    """
    found: list[Format] = []
    if "messages" in row:
        found.append("messages")
    if "prompt" in row and "completion" in row:
        found.append("prompt")
    if field in row:
        found.append("text")
    if len(found) == 1:
        return found[0]
    if found:
        raise BadLine(f"could be {' or '.join(found)}; say which with `format`")
    keys = sorted(row)[:8]
    expected = f"{field!r}, 'messages', or 'prompt' and 'completion'"
    raise BadLine(f"no known field; expected {expected}, found {keys}")


def item(
    row: dict[str, Any], format: Format, id: str, field: str = "text"
) -> Document | Conversation:
    """The row as what it is; `id` is used where the row has none of its own.

    Raises:
        BadLine: a field is missing, of the wrong type or empty, or the turns are out of order.
    """
    own = row.get("id", id)
    if not isinstance(own, str | int) or isinstance(own, bool):
        raise BadLine(f"'id' must be text or a whole number, not {_name(own)}")
    if format == "text":
        return Document(text=_text(row, field), id=str(own))
    if format == "messages":
        if "messages" not in row:
            raise BadLine(f"no 'messages', only {sorted(row)[:8]}")
        turns = messages(row["messages"])
        if "system" in row and row["system"] is not None:
            if turns[0].role == "system":
                raise BadLine("a system prompt both under 'system' and in 'messages'")
            turns = (Message("system", _text(row, "system")), *turns)
    else:
        turns = (
            Message("user", _text(row, "prompt")),
            Message("assistant", _text(row, "completion")),
        )
        if "system" in row and row["system"] is not None:
            turns = (Message("system", _text(row, "system")), *turns)
    return Conversation(turns, id=str(own), meta=_notes(row))


def messages(
    value: object, *, ends: Literal["answered", "anywhere"] = "answered"
) -> tuple[Message, ...]:
    """A list of message objects as messages, in an order that a template can render.

    `anywhere` allows the last message to be the user's or a tool's, as a prompt for generation is.

    Raises:
        BadLine: names the message, counted from 1, what is wrong and what was expected.
    """
    if not isinstance(value, list):
        raise BadLine(f"'messages' must be a list, not {_name(value)}")
    if not value:
        raise BadLine("'messages' is empty")
    turns: list[Message] = []
    for number, raw in enumerate(value, start=1):
        try:
            turns.append(_message(raw))
        except BadLine as problem:
            raise BadLine(f"message {number}: {problem}") from None
    _check_order(turns)
    if ends == "answered" and (turns[-1].role != "assistant" or turns[-1].calls):
        what = "a call without its result" if turns[-1].calls else f"role {turns[-1].role!r}"
        raise BadLine(f"ends with {what}; expected the assistant's answer")
    return tuple(turns)


def _check_order(turns: list[Message]) -> None:
    """The one order of turns: system? then (user, assistant (calls, results, assistant)*)*."""
    owed = 0
    before: Role | None = None
    for number, turn in enumerate(turns, start=1):
        role = turn.role
        if role == "system":
            allowed = before is None
        elif role == "user":
            allowed = before in (None, "system", "assistant") and owed == 0
        elif role == "assistant":
            allowed = before in ("user", "tool") and owed == 0
        else:
            allowed = owed > 0
        if not allowed:
            after = f"after {before!r}" if before else "at the start"
            wanted = f"{owed} tool result(s)" if owed else _EXPECTED[before]
            raise BadLine(f"message {number}: role {role!r} {after}; expected {wanted}")
        owed = len(turn.calls) if role == "assistant" else owed - (role == "tool")
        before = role


_EXPECTED: dict[Role | None, str] = {
    None: "'system' or 'user'",
    "system": "'user'",
    "user": "'assistant'",
    "assistant": "'user'",
    "tool": "'assistant'",
}


def _message(raw: object) -> Message:
    if not isinstance(raw, dict):
        raise BadLine(f"expected an object with 'role' and 'content', found {_name(raw)}")
    for key, value in raw.items():
        if key not in MESSAGE_KEYS and value not in (None, "", [], {}):
            raise BadLine(f"unknown key {key!r}{did_you_mean(key, MESSAGE_KEYS)}")
    if "role" not in raw:
        raise BadLine(f"no 'role', only {sorted(raw)[:8]}")
    role = raw["role"]
    if role not in ROLES:
        raise BadLine(f"unknown role {role!r}{did_you_mean(str(role), ROLES)}")
    calls = _calls(raw)
    if calls and role != "assistant":
        raise BadLine(f"role {role!r} cannot call tools; only 'assistant' can")
    if "content" not in raw and not calls:
        raise BadLine(f"no 'content', only {sorted(raw)[:8]}")
    content = _content(raw.get("content"), null_is_empty=bool(calls))
    if not content and not calls and role != "tool":
        raise BadLine(f"role {role!r} with empty 'content'")
    return Message(role, content, calls)


def _content(value: object, *, null_is_empty: bool) -> str:
    """Text, or OpenAI's list of text parts joined."""
    if value is None and null_is_empty:
        return ""
    if isinstance(value, list):
        for part in value:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise BadLine("'content' has a part that is not text; only text can be learned")
        return "".join(_text(part, "text", empty="allowed") for part in value)
    return _text({"content": value}, "content", empty="allowed")


def _calls(raw: dict[str, Any]) -> tuple[ToolCall, ...]:
    if raw.get("calls") and raw.get("tool_calls"):
        raise BadLine("both 'calls' and 'tool_calls'")
    if raw.get("calls") is not None:
        return tuple(_call(call) for call in _list(raw["calls"], "calls"))
    if raw.get("tool_calls") is not None:
        return tuple(_openai_call(call) for call in _list(raw["tool_calls"], "tool_calls"))
    return ()


def _call(call: object) -> ToolCall:
    if not isinstance(call, dict):
        raise BadLine(f"a call must be an object with 'name' and 'arguments', not {_name(call)}")
    for key in call:
        if key not in ("name", "arguments"):
            raise BadLine(f"a call has an unknown key {key!r}; expected 'name' and 'arguments'")
    name = _text(call, "name")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise BadLine(f"'arguments' of {name!r} must be an object, not {_name(arguments)}")
    _refuse_surrogates(json.dumps(arguments, ensure_ascii=False), "arguments")
    return ToolCall(name, arguments)


def _openai_call(call: object) -> ToolCall:
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        raise BadLine("a tool call must be an object with 'function': {'name', 'arguments'}")
    if call.get("type", "function") != "function":
        raise BadLine(f"tool call of type {call['type']!r}; only 'function' is known")
    function = dict(call["function"])
    spelled = function.get("arguments", "{}")
    if isinstance(spelled, str):
        try:
            function["arguments"] = parsed(spelled or "{}")
        except BadLine as problem:
            raise BadLine(f"'arguments' of {function.get('name')!r}: {problem}") from None
    return _call(function)


def _list(value: object, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadLine(f"{key!r} must be a list, not {_name(value)}")
    return value


def _text(
    row: dict[str, Any], key: str, *, empty: Literal["refused", "allowed"] = "refused"
) -> str:
    if key not in row:
        raise BadLine(f"no {key!r}, only {sorted(row)[:8]}")
    value = row[key]
    if not isinstance(value, str):
        raise BadLine(f"{key!r} must be text, not {_name(value)}")
    if not value and empty == "refused":
        raise BadLine(f"{key!r} is empty")
    _refuse_surrogates(value, key)
    return value


def _refuse_surrogates(text: str, key: str) -> None:
    if half := _SURROGATE.search(text):
        code = f"\\u{ord(half.group()):04x}"
        raise BadLine(f"{key!r} holds {code}, half a character, at position {half.start() + 1}")


def _notes(row: dict[str, Any]) -> dict[str, str]:
    return {key: row[key] for key in NOTES if isinstance(row.get(key), str) and key != "id"}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadLine(f"key {key!r} stands twice in one object")
            seen.add(key)
    return found


def _no_constant(spelled: str) -> NoReturn:
    raise BadLine(f"bad JSON: {spelled} is not JSON")


def _refuse_depth(line: str, limit: int) -> None:
    depth = 0
    for match in _BRACKET.finditer(line):
        if match.group() in "[{":
            depth += 1
            if depth > limit:
                raise BadLine(f"nested deeper than {limit} at column {match.start() + 1}")
        elif match.group() in "]}":
            depth -= 1


def _name(value: object) -> str:
    """What JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    names = {int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
