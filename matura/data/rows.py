"""One JSON row and the messages in it; whatever would be lost or guessed is an error.

Messages are read in Matura's and OpenAI's spelling here; `conversations` knows the other ones and
what a whole row is. An unknown key inside a message is an error, because it would be a part of the
conversation that gets lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from matura.core.leaves import did_you_mean
from matura.core.types import Message, Role, ToolCall
from matura.data.lines import BadLine

Ends = Literal["answered", "anywhere"]
ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")
"""Of files of JSON lines."""
DEPTH_LIMIT = 64
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content", "calls", "tool_calls", "name", "tool_call_id")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]')
_SURROGATE = re.compile("[\ud800-\udfff]")


def parsed(line: str, depth_limit: int = DEPTH_LIMIT) -> dict[str, Any]:
    """The object that a line of JSON holds.

    Raises:
        BadLine: no JSON, no object, a key twice, NaN, or nested deeper than the limit.
    """
    value = json_of(line, depth_limit)
    if not isinstance(value, dict):
        raise BadLine(f"expected a JSON object {{...}}, found {json_name(value)}")
    return value


def json_of(line: str, depth_limit: int = DEPTH_LIMIT) -> object:
    """Whatever a line of JSON holds.

    Raises:
        BadLine: no JSON, a key twice, NaN, or nested deeper than the limit.
    """
    if line.count("[") + line.count("{") > depth_limit:
        _refuse_depth(line, depth_limit)
    try:
        value: object = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        # an item of an array may be laid out over lines
        line = f"line {problem.lineno} of the item, " if problem.lineno > 1 else ""
        raise BadLine(f"bad JSON at {line}column {problem.colno}: {problem.msg}") from None
    except BadLine:
        raise
    except ValueError as problem:  # a number of more than 4,300 digits
        raise BadLine(f"bad JSON: {problem}") from None
    return value


def messages(value: object, *, ends: Ends = "answered") -> tuple[Message, ...]:
    """A list of message objects as messages, in an order that a template can render.

    `anywhere` allows the last message to be the user's or a tool's, as a prompt for generation is.

    Raises:
        BadLine: names the message, counted from 1, what is wrong and what was expected.
    """
    turns: list[Message] = []
    for number, raw in enumerate(list_of(value, "messages"), start=1):
        try:
            turns.append(message_of(raw))
        except BadLine as problem:
            raise BadLine(f"message {number}: {problem}") from None
    return in_order(turns, ends=ends)


def in_order(
    turns: Sequence[Message], numbers: Sequence[int] = (), *, ends: Ends = "answered"
) -> tuple[Message, ...]:
    """The turns, if a template can render them; `numbers` are their places in the row, where one
    message became several turns.

    Raises:
        BadLine: names the message, what stands before it and what was expected.
    """
    numbers = numbers or range(1, len(turns) + 1)
    _check_order(turns, numbers)
    if ends == "anywhere":
        return tuple(turns)
    for number, turn in zip(numbers, turns, strict=True):
        if turn.role == "assistant" and not turn.calls and not turn.content.strip():
            raise BadLine(f"message {number}: the assistant's answer is nothing but white space")
    if turns[-1].role != "assistant" or turns[-1].calls:
        what = "a call without its result" if turns[-1].calls else f"role {turns[-1].role!r}"
        raise BadLine(f"ends with {what}; expected the assistant's answer")
    return tuple(turns)


def _check_order(turns: Sequence[Message], numbers: Sequence[int]) -> None:
    """The one order of turns: system? then (user, assistant (calls, results, assistant)*)*."""
    owed = 0
    before: Role | None = None
    for number, turn in zip(numbers, turns, strict=True):
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


def object_of(value: object, first: str, second: str, keys: Sequence[str]) -> dict[str, Any]:
    """A message as an object of known keys, of which the first must be there.

    Raises:
        BadLine: it is no object, lacks the first key, or says something under an unknown one.
    """
    if not isinstance(value, dict):
        raise BadLine(f"expected an object with {first!r} and {second!r}, found {json_name(value)}")
    for key, inner in value.items():
        if key not in keys and inner not in (None, "", [], {}):
            raise BadLine(f"unknown key {key!r}{did_you_mean(key, keys)}")
    if first not in value:
        raise BadLine(f"no {first!r}, only {sorted(value)[:8]}")
    return value


def message_of(value: object) -> Message:
    """One message object.

    Raises:
        BadLine: what is wrong with it and what was expected.
    """
    raw = object_of(value, "role", "content", MESSAGE_KEYS)
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
        return "".join(text_at(part, "text", empty="allowed") for part in value)
    return text_at({"content": value}, "content", empty="allowed")


def _calls(raw: dict[str, Any]) -> tuple[ToolCall, ...]:
    if raw.get("calls") and raw.get("tool_calls"):
        raise BadLine("both 'calls' and 'tool_calls'")
    if raw.get("calls") not in (None, []):
        return tuple(call_of(call) for call in list_of(raw["calls"], "calls"))
    if raw.get("tool_calls") not in (None, []):
        return tuple(_openai_call(call) for call in list_of(raw["tool_calls"], "tool_calls"))
    return ()


def call_of(call: object) -> ToolCall:
    """A call from an object with `name` and `arguments`.

    Raises:
        BadLine: there is no name, or the arguments are no object.
    """
    if not isinstance(call, dict):
        raise BadLine(
            f"a call must be an object with 'name' and 'arguments', not {json_name(call)}"
        )
    for key in call:
        if key not in ("name", "arguments"):
            raise BadLine(f"a call has an unknown key {key!r}; expected 'name' and 'arguments'")
    name = text_at(call, "name")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise BadLine(f"'arguments' of {name!r} must be an object, not {json_name(arguments)}")
    refuse_surrogates(json.dumps(arguments, ensure_ascii=False), "arguments")
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
    return call_of(function)


def list_of(value: object, key: str) -> list[Any]:
    """The list under a key, which has something in it.

    Raises:
        BadLine: it is no list, or empty.
    """
    if not isinstance(value, list):
        raise BadLine(f"{key!r} must be a list, not {json_name(value)}")
    if not value:
        raise BadLine(f"{key!r} is empty")
    return value


def text_at(
    row: dict[str, Any], key: str, *, empty: Literal["refused", "allowed"] = "refused"
) -> str:
    """The text under a key.

    Raises:
        BadLine: it is not there, no text, empty, or holds half a character.
    """
    if key not in row:
        raise BadLine(f"no {key!r}, only {sorted(row)[:8]}")
    value = row[key]
    if not isinstance(value, str):
        raise BadLine(f"{key!r} must be text, not {json_name(value)}")
    if not value and empty == "refused":
        raise BadLine(f"{key!r} is empty")
    refuse_surrogates(value, key)
    return value


def refuse_surrogates(text: str, key: str) -> None:
    """Raises BadLine for half a character, which no UTF-8 can spell."""
    if half := _SURROGATE.search(text):
        code = f"\\u{ord(half.group()):04x}"
        raise BadLine(f"{key!r} holds {code}, half a character, at position {half.start() + 1}")


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


def json_name(value: object) -> str:
    """What JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    names = {int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
