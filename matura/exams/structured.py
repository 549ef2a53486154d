"""JSON by a given schema, calls of tools as JSON text, and whether a call was called for.

An answer is read as JSON and compared by what it says, so that spaces and the order of names do not
matter; types do: `"7"`, 7 and ["7"] are three things. Nothing else is lenient: no text around the
JSON, no name twice, no NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NoReturn

from pydantic import Field

from matura.core.types import Task, Trace
from matura.exams.exam import SPARE_TOKENS, Exam, Hall, exact, lesson_tasks
from matura.lessons import structured
from matura.lessons.structured import FORMS, JSON_OPERATORS
from matura.lessons.words import Gibberish

NOT_JSON = object()
"""What `read_json` gives for text that is no JSON, as None stands for null."""

_MOST_BRACKETS = 100
"""More of them than any schema has could be deeper than Python recurses."""


class Structured(Exam):
    """Each of its measures has a floor; the mean of all items has none."""

    version: ClassVar[int] = 2

    exam: Literal["structured"] = "structured"
    at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For records that are right in every value."""
    valid_at_least: float | None = Field(default=0.99, ge=0, le=1)
    """For answers that are to be JSON: each is one whole JSON object and nothing else. At 0.99, 381
    without a fault are needed, or 997 of 1,000."""
    schema_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For records with exactly the names and types asked for, whatever their values; of those that
    leave something out, by themselves too."""
    nested_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For records with an object inside, right in every value."""
    call_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For calls with the right tool, names and values."""
    decision_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For calling where a tool fits, and for not calling where none does or none is needed."""
    direct_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For the exact answer where no call is wanted."""
    n: int = Field(default=800, ge=200)
    """Items asked at first; six in ten want a record, two a call, two a direct answer."""
    cap: int = Field(default=3200, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    select_n: int = Field(default=120, ge=1)
    """Items asked, once, to choose a checkpoint."""
    gibberish: Gibberish = "include"
    max_fields: int = Field(default=4, ge=1, le=7)
    max_tools: int = Field(default=3, ge=1, le=5)
    prose: float = Field(default=0.15, ge=0.0, le=1.0)
    lines: bool = False
    """Whether every text is lines of `name: value` in the schema's order."""
    german: float = Field(default=0.1, ge=0, le=1)
    """Share of items in German."""

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Records, calls and direct answers, field and tool counts in turn."""
        lesson = structured.Structured(
            gibberish=self.gibberish,
            max_fields=self.max_fields,
            max_tools=self.max_tools,
            prose=self.prose,
            lines=self.lines,
            german=self.german,
        )
        for task in lesson_tasks(self.exam, lesson, hall, count, start):
            # a wrong but whole object may be longer than the right one: it must not count as torn
            longest = 2 * (task.max_tokens - SPARE_TOKENS) + 2 * SPARE_TOKENS
            yield replace(task, max_tokens=longest)

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if what is said is what was wanted: the same JSON value, or the same direct answer."""
        if task.meta["operator"] not in JSON_OPERATORS:
            return exact(task, trace)
        said = self._said(trace)
        return float(said is not NOT_JSON and same(said, read_json(task.gold)))

    def floors(self) -> Mapping[str, float | None]:
        """The measures that `tools` builds on; not their mean."""
        return {
            "json": self.valid_at_least,
            "schema": self.schema_at_least,
            "left out": self.schema_at_least,
            "values": self.at_least,
            "nested": self.nested_at_least,
            "call": self.call_at_least,
            "decision": self.decision_at_least,
            "direct": self.direct_at_least,
        }

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By measure, and by operator and number of fields or of tools."""
        operator = task.meta["operator"]
        grade = self.grade(task, trace)
        marks = {task.bucket: grade}
        said = self._said(trace)
        if operator in JSON_OPERATORS:
            marks["json"] = float(isinstance(said, dict))
        if operator in FORMS:
            fits = float(said is not NOT_JSON and shape(said) == shape(read_json(task.gold)))
            marks |= {"schema": fits, "values": grade}
            if task.meta["absent"] != "0":
                marks["left out"] = fits
            if operator == "NESTED":
                marks["nested"] = grade
            return marks
        if operator == "CALL":
            return marks | {"decision": float(called(said)), "call": grade}
        # a call that is torn was meant as one all the same
        answered = said_at_all(trace) and not trace.reply.lstrip().startswith("{")
        return marks | {"decision": float(answered), "direct": grade}

    def _said(self, trace: Trace) -> Any:
        """The reply as JSON; NOT_JSON too where it was cut, broken or ran a tool."""
        whole = trace.finish_reason == "stop" and trace.error is None
        if not whole or trace.problems or trace.calls:
            return NOT_JSON
        return read_json(trace.reply)


def said_at_all(trace: Trace) -> bool:
    """Whether there is an answer to judge: not empty, not cut, not broken, no tag in it."""
    whole = trace.finish_reason == "stop" and trace.error is None
    return bool(whole and trace.reply.strip() and not trace.problems and not trace.calls)


def called(said: object) -> bool:
    """Whether a JSON value is meant as a call, right or wrong."""
    return isinstance(said, dict) and set(said) == {"name", "arguments"}


def read_json(text: str) -> Any:
    """The value of a text that is one JSON value without anything around it, or NOT_JSON.

    Stricter than `json.loads`: no name twice in an object, no NaN or infinity, no space at either
    end.
    """
    if text != text.strip() or text.count("[") + text.count("{") > _MOST_BRACKETS:
        return NOT_JSON
    try:
        return json.loads(
            text, object_pairs_hook=_once_each, parse_constant=_refuse, parse_float=_finite
        )
    except ValueError:
        return NOT_JSON


def shape(value: object) -> object:
    """The names and types of a JSON value, its contents left open; a list has its parts' types."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return ["list", *sorted({repr(shape(part)) for part in value})]
    if isinstance(value, bool):  # before numbers: True is an int
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "null"


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal, types included: true is not 1, and 1.0 is not either."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(said: str) -> float:
    value = float(said)
    if not math.isfinite(value):
        raise ValueError(f"{said} is no finite number")
    return value
