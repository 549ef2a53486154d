"""What a model may call. One file in `talk/tools/` is one tool, found by its name and by nothing
else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from matura.core.errors import MaturaError
from matura.core.leaves import leaves
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
        if set(arguments) != {name}:
            given = ", ".join(sorted(map(str, arguments))) or "nothing"
            raise ToolError(f"{self.name} takes {name}, not {given}"[:200])
        value = arguments[name]
        if not isinstance(value, str):
            raise ToolError(f"{name} must be text, not {type(value).__name__}")
        return value


def toolbox() -> dict[str, Tool]:
    """Every tool there is, by the name a model calls it by."""
    made = [kind() for kind in leaves(tools, Tool).values()]  # type: ignore[type-abstract]
    return {tool.name: tool for tool in made}
