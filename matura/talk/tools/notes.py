"""Notes by name that last as long as a conversation, and no longer.

What the conversation wrote down before this turn is written down again from its own calls, so a
conversation that is continued elsewhere has the same notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from matura.core.leaves import did_you_mean
from matura.core.types import Message
from matura.talk.tool import Tool, ToolError

MAX_NOTES = 50
MAX_NAME, MAX_TEXT = 60, 1000
"""Characters: all names together stay within what a result may be."""
DONE, EMPTY = "ok", "no notes"


class Notes(Tool):
    """Keeps a text under a name, gives it back, and says which names there are."""

    name: ClassVar[str] = "notes"
    description: ClassVar[str] = (
        "Keeps notes in this conversation: set a name to a text, get a name, or list all names."
    )
    parameters: ClassVar[Mapping[str, str]] = {
        "set": "the name to write under",
        "to": "with set: the text",
        "get": "the name to read",
        "list": "all",
    }

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def fork(self) -> Notes:
        """Notes that start as these are."""
        other = Notes()
        other.kept = dict(self.kept)
        return other

    def hear(self, message: Message) -> None:
        """Write down again what was written down before this turn."""
        for call in message.calls:
            if call.name == self.name and "set" in call.arguments:
                try:
                    self.run(call.arguments)
                except ToolError:
                    continue  # it failed then as well

    def run(self, arguments: Mapping[str, Any]) -> str:
        """`ok` when set, the text when read, the names in the order of writing when listed.

        Raises:
            ToolError: another form of call, a name that is not there, or a limit.
        """
        match sorted(map(str, arguments)):
            case ["set", "to"]:
                texts = self.text_arguments(arguments, "set", "to")
                return self._set(texts["set"].strip(), texts["to"].strip())
            case ["get"]:
                return self._get(self.text_argument(arguments, "get").strip())
            case ["list"]:
                self.text_argument(arguments, "list")
                return ", ".join(self.kept) or EMPTY
        raise ToolError("notes takes set with to, or get, or list")

    def _set(self, name: str, text: str) -> str:
        if not name or not text:
            raise ToolError("a note needs a name and a text")
        if len(name) > MAX_NAME or len(text) > MAX_TEXT:
            raise ToolError(
                f"too long: at most {MAX_NAME} characters of name and {MAX_TEXT} of text"
            )
        if "\n" in name or "," in name:
            raise ToolError("a name is one line without commas")
        if name not in self.kept and len(self.kept) >= MAX_NOTES:
            raise ToolError(f"there are {MAX_NOTES} notes already, which is the most")
        self.kept[name] = text
        return DONE

    def _get(self, name: str) -> str:
        if name in self.kept:
            return self.kept[name]
        shown = repr(name if len(name) <= MAX_NAME else name[:MAX_NAME] + "…")
        if not self.kept:
            raise ToolError(f"no note {shown}: there are {EMPTY}")
        raise ToolError(f"no note {shown}{did_you_mean(name[:MAX_NAME], self.kept)}"[:400])
