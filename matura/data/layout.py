"""Text made of several fields of a row, as a recipe spells it: `{question}\\n{answer}`.

Nothing but names of fields stands in the braces: no formats, no attributes, no code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matura.data.lines import BadLine
from matura.data.rows import json_name, list_of, text_at

FIELD = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Layout:
    """`spelled` for the row or, where `each` names a list in it, for each item of the list on a
    line of its own."""

    spelled: str
    each: str | None = None

    def text(self, row: Mapping[str, Any]) -> str:
        """The row's text.

        Raises:
            BadLine: a field is not there, no text or empty, or `each` is no list of objects.
        """
        if self.each is None:
            return self._filled(row)
        if self.each not in row:
            raise BadLine(f"no {self.each!r}, only {sorted(row)[:8]}")
        told = []
        for number, item in enumerate(list_of(row[self.each], self.each), start=1):
            if not isinstance(item, dict):
                raise BadLine(f"{self.each!r} {number}: expected an object, not {json_name(item)}")
            try:
                told.append(self._filled(item))
            except BadLine as problem:
                raise BadLine(f"{self.each!r} {number}: {problem}") from None
        return "\n".join(told)

    def _filled(self, row: Mapping[str, Any]) -> str:
        def value(hit: re.Match[str]) -> str:
            return text_at(dict(row), hit["name"]) if hit["name"] is not None else hit[0][0]

        return FIELD.sub(value, self.spelled)


def fields_of(spelled: str) -> list[str]:
    """The names in the braces.

    Raises:
        ValueError: there are none, or a brace stands alone (`{{` is one brace of text).
    """
    names = []
    for hit in FIELD.finditer(spelled):
        if hit["name"] is not None:
            if not hit["name"].strip():
                raise ValueError(f"{{}} in {spelled!r} names no field")
            names.append(hit["name"])
        elif len(hit[0]) == 1:
            raise ValueError(f"a lone {hit[0]!r} in {spelled!r}; spell it {hit[0] * 2!r}")
    if not names:
        raise ValueError(f"no field in {spelled!r}; expected braces around its name: '{{text}}'")
    return names
