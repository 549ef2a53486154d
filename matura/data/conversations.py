"""A row of a file as a document or a conversation, in every format that chats are kept in.

`text` · `messages` · `prompt` (and `completion`) · `sharegpt` (`conversations` of from and value) ·
`alpaca` (instruction, input, output) · `mypt` (episodes with context and tool roles) · `nanochat`
(one array of messages a line). The spellings become the same messages, so what is wrong with an
order of turns is said in the same words everywhere. Keys beside the conversation are the row's own
notes and never reach a model, but for `system` and `context`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.types import Conversation, Document, Message
from matura.data.episodes import alpaca, episode, nanochat, sharegpt, with_typed_calls
from matura.data.layout import Layout
from matura.data.lines import BadLine, decoded
from matura.data.rows import (
    DEPTH_LIMIT,
    json_name,
    json_of,
    messages,
    refuse_surrogates,
    text_at,
)
from matura.data.split import Item

Format = Literal["text", "messages", "prompt", "sharegpt", "alpaca", "mypt", "nanochat"]
FORMATS: tuple[Format, ...] = get_args(Format)
ContextUse = Literal["auto", "read", "note"]
AsideUse = Literal["keep", "drop"]
NOTES = ("language", "operator", "payload", "template", "bucket", "expected", "category")
"""What is kept of a row's notes, at the top or under `_meta`."""

_EPISODE_KEYS = ("context", "_meta", "mix_source", "_replay")
_EPISODE_ROLES = ("assistant_context", "assistant_toolcall", "toolresult")
_EPISODE_PARTS = ("context", "think", "cite")
_NOTE = "episode_id:"


@dataclass(slots=True)
class Reader:
    """The rows of one file. Its first row decides the format, unless one is stated.

    A row of another format is an error; but a file of plain `messages` may go on with MyPT's roles,
    which are read as the same thing.
    """

    format: Format | None = None
    field: str = "text"
    """Where a document's text stands."""
    context: ContextUse = "auto"
    """Whether an episode's `context` is read by the model. `auto`: unless it begins with
    `episode_id:`, as notes do."""
    asides: AsideUse = "keep"
    """Whether what the assistant thinks and cites is kept; not every dialect has a place for it."""
    depth_limit: int = DEPTH_LIMIT
    layout: Layout | None = None
    """How a document's text is made of several fields, instead of `field`."""
    stated: bool = False
    """Whether the format was stated; set by itself."""

    def __post_init__(self) -> None:
        if self.layout is not None:
            self.format = "text"
        self.stated = self.format is not None

    def row(self, line: bytes) -> object:
        """The line's JSON: an object, or a nanochat array.

        Raises:
            BadLine: it is neither.
        """
        value = json_of(decoded(line), self.depth_limit)
        if not isinstance(value, dict | list):
            raise BadLine(f"expected a JSON object {{...}}, found {json_name(value)}")
        return value

    def item(self, row: object, id: str) -> Item:
        """The row as what it is; `id` is used where it has none of its own.

        Raises:
            BadLine: what is wrong with it and what was expected.
        """
        if self.format is None:
            self.format = format_of(row, self.field)
        elif self.format == "messages" and not self.stated and is_episode(row):
            self.format = "mypt"
        thing = item(row, self.format, id, self.layout or self.field, self.context)
        if self.asides == "drop" and isinstance(thing, Conversation):
            turns = tuple(replace(turn, think="", cite="") for turn in thing.messages)
            return replace(thing, messages=turns)
        return thing


def format_of(row: object, field: str = "text") -> Format:
    """Which kind of row this is, by its keys.

    Raises:
        BadLine: none of them, or more than one.
    """
    if isinstance(row, list):
        return "nanochat"
    if not isinstance(row, dict):
        raise BadLine(f"expected a JSON object {{...}}, found {json_name(row)}")
    found: list[Format] = []
    if "messages" in row or row.get("_replay") is True:
        found.append("mypt" if is_episode(row) else "messages")
    if "conversations" in row:
        found.append("sharegpt")
    if "prompt" in row and "completion" in row:
        found.append("prompt")
    if "instruction" in row and "output" in row:
        found.append("alpaca")
    if field in row and row.get("_replay") is not True:
        found.append("text")
    if len(found) == 1:
        return found[0]
    if found:
        raise BadLine(f"could be {' or '.join(found)}; say which with `format`")
    keys = sorted(row)[:8]
    expected = (
        f"{field!r}, 'messages', 'conversations', 'prompt' and 'completion', or 'instruction' and "
        "'output'"
    )
    raise BadLine(f"no known field; expected {expected}, found {keys}")


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        RecipeError: there is none.
    """
    for known in FORMATS:
        if known == name:
            return known
    raise RecipeError(f"there is no format {name!r}{did_you_mean(name, FORMATS)}")


def is_episode(row: object) -> bool:
    """Whether a row of messages is spelled as MyPT's episodes are."""
    if not isinstance(row, dict):
        return False
    if any(key in row for key in _EPISODE_KEYS):
        return True
    turns = row.get("messages")
    return isinstance(turns, list) and any(
        isinstance(turn, dict)
        and (turn.get("role") in _EPISODE_ROLES or any(key in turn for key in _EPISODE_PARTS))
        for turn in turns
    )


def item(
    row: object, format: Format, id: str, field: str | Layout = "text", context: ContextUse = "auto"
) -> Item:
    """The row as what it is; `id` is used where the row has none of its own.

    Raises:
        BadLine: a field is missing, of the wrong type or empty, or the turns are out of order.
    """
    if isinstance(row, list):
        if format != "nanochat":
            raise BadLine("expected a JSON object {...}, found a list")
        return Conversation(nanochat(row), id=id)
    if not isinstance(row, dict):
        raise BadLine(f"expected a JSON object {{...}}, found {json_name(row)}")
    own = row.get("id", id)
    if not isinstance(own, str | int) or isinstance(own, bool):
        raise BadLine(f"'id' must be text or a whole number, not {json_name(own)}")
    refuse_surrogates(str(own), "id")
    if format == "text" and isinstance(field, Layout):
        return Document(text=field.text(row), id=str(own))
    if format == "text" or (format == "mypt" and row.get("_replay") is True):
        return Document(text=text_at(row, str(field) if format == "text" else "text"), id=str(own))
    turns = _turns(row, format)
    if row.get("system") not in (None, ""):
        if turns[0].role == "system":
            raise BadLine(f"a system prompt both under 'system' and in {_PLACE[format]!r}")
        turns = (Message("system", text_at(row, "system")), *turns)
    notes = _notes(row)
    if row.get("context") not in (None, ""):
        told = text_at(row, "context")
        if context == "read" or (context == "auto" and not told.lstrip().startswith(_NOTE)):
            turns = _with_context(turns, told)
        else:
            notes["context"] = told
    return Conversation(turns, id=str(own), meta=notes)


_PLACE: dict[Format, str] = {
    "messages": "messages",
    "mypt": "messages",
    "sharegpt": "conversations",
    "alpaca": "history",
    "prompt": "prompt",
    "nanochat": "messages",
}


def _turns(row: dict[str, Any], format: Format) -> tuple[Message, ...]:
    if format == "alpaca":
        return alpaca(row)
    if format == "prompt":
        asked, answered = text_at(row, "prompt"), text_at(row, "completion")
        if not answered.strip():
            raise BadLine("'completion' is nothing but white space")
        return (Message("user", asked), Message("assistant", answered))
    if format == "nanochat":
        raise BadLine("expected a JSON array [...] of messages, found an object")
    place = _PLACE[format]
    if place not in row:
        raise BadLine(f"no {place!r}, only {sorted(row)[:8]}")
    if format == "sharegpt":
        return sharegpt(row[place])
    turns = with_typed_calls(row[place])
    return episode(turns) if format == "mypt" else messages(turns)


def _with_context(turns: tuple[Message, ...], told: str) -> tuple[Message, ...]:
    """The turns with an episode's context at the first thing that the user says."""
    first = next(place for place, turn in enumerate(turns) if turn.role == "user")
    whole = "\n\n".join(filter(None, (told, turns[first].context)))
    return (*turns[:first], replace(turns[first], context=whole), *turns[first + 1 :])


def _notes(row: dict[str, Any]) -> dict[str, str]:
    inner = row.get("_meta")
    every = {**(inner if isinstance(inner, dict) else {}), **row}
    return {key: every[key] for key in NOTES if isinstance(every.get(key), str)}
