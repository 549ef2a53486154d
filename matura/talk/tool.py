"""What a model may call. One file in `talk/tools/` is one tool, found by its name and by nothing
else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from matura.core.errors import MaturaError
from matura.core.leaves import leaves
from matura.core.types import Message
from matura.talk import tools


class ToolError(MaturaError):
    """A call that cannot be answered; its text is what the model reads instead of a result."""


class Tool(ABC):
    """Something a model can call by name.

    A tool bounds its own time and the size of what it returns: it runs in the caller's thread,
    without signals.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    parameters: ClassVar[Mapping[str, str]]
    """Each argument's name and what it means, in words."""

    @abstractmethod
    def run(self, arguments: Mapping[str, Any]) -> str:
        """The result as the model reads it.

        Raises:
            ToolError: the arguments are wrong or have no answer; the text goes back to the model.
        """

    def text_argument(self, arguments: Mapping[str, Any], name: str) -> str:
        """The one argument this tool takes.

        Raises:
            ToolError: it is absent, is not text, or other arguments stand beside it.
        """
        return self.text_arguments(arguments, name)[name]

    def text_arguments(self, arguments: Mapping[str, Any], *names: str) -> dict[str, str]:
        """The arguments this tool takes, each of them text.

        Raises:
            ToolError: one is absent or is not text, or others stand beside them.
        """
        if set(arguments) != set(names):
            given = ", ".join(sorted(map(str, arguments))) or "nothing"
            raise ToolError(f"{self.name} takes {' and '.join(names)}, not {given}"[:200])
        for name in names:
            if not isinstance(arguments[name], str):
                raise ToolError(f"{name} must be text, not {type(arguments[name]).__name__}")
        return {name: arguments[name] for name in names}

    def fork(self) -> Tool:
        """A tool that knows what this one knows and learns on its own; itself if it keeps
        nothing."""
        return self

    def hear(self, message: Message) -> None:  # noqa: B027  most tools keep nothing
        """What was said in the conversation before; only of use to a tool that keeps something.

        Calls in it were answered then and are not run again, but a tool may take them up.
        """


def toolbox() -> dict[str, Tool]:
    """Every tool there is, by the name a model calls it by."""
    made = [kind() for kind in leaves(tools, Tool).values()]  # type: ignore[type-abstract]
    return {tool.name: tool for tool in made}


def own_tools(known: Mapping[str, Tool], messages: Iterable[Message] = ()) -> dict[str, Tool]:
    """These tools for one conversation alone, in which the messages were said."""
    own = {name: tool.fork() for name, tool in known.items()}
    for message in messages:
        for tool in own.values():
            tool.hear(message)
    return own
