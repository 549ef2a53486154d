"""What of a conversation a template can render: roles that speak, and one result for each call."""

from __future__ import annotations

from collections.abc import Sequence

from matura.core.errors import DataError
from matura.core.types import Message


def check(message: Message, place: int) -> None:
    """Raises DataError for a message that cannot stand where it does, or says what its role does
    not."""
    if message.role not in ("system", "user", "assistant"):
        why = "a tool result without a call before it"
        if message.role != "tool":
            why = f"unknown role {message.role!r}"
        raise DataError(f"message {place + 1}: {why}")
    if message.calls and message.role != "assistant":
        raise DataError(f"message {place + 1}: only the assistant can call tools")
    if message.context and message.role != "user":
        raise DataError(f"message {place + 1}: only what the user says can have a context")
    if (message.think or message.cite) and message.role != "assistant":
        raise DataError(f"message {place + 1}: only the assistant can think or cite")


def answers_of(messages: Sequence[Message], place: int) -> Sequence[Message]:
    """The tool results of the assistant message at `place`: one for each call, or none if nothing
    comes after."""
    stop = place + 1
    while stop < len(messages) and messages[stop].role == "tool":
        stop += 1
    calls, found = len(messages[place].calls), stop - place - 1
    if found != calls and not (found == 0 and stop == len(messages)):
        raise DataError(f"message {place + 1}: {calls} tool calls but {found} results")
    return messages[place + 1 : stop]
