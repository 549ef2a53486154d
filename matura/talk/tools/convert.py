"""Exact conversion between units, of lengths, weights, times, volumes, temperatures and data.

The table and the arithmetic are in `core.units`, which lessons compute their results with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from matura.core.units import UnitError, convert
from matura.talk.tool import Tool, ToolError


class Convert(Tool):
    """An amount in another unit."""

    name: ClassVar[str] = "convert"
    description: ClassVar[str] = "Converts an amount exactly into another unit of the same kind."
    parameters: ClassVar[Mapping[str, str]] = {
        "amount": "a number and its unit, such as 2.5 km",
        "to": "the unit wanted, such as m",
    }

    def run(self, arguments: Mapping[str, Any]) -> str:
        """The amount in the unit wanted, spelled `2500 m`.

        Raises:
            ToolError: no number, an unknown unit, or units of two kinds.
        """
        texts = self.text_arguments(arguments, "amount", "to")
        try:
            return convert(texts["amount"], texts["to"])
        except UnitError as problem:
            raise ToolError(str(problem)) from None
