"""A whole score as JSON and back: what `exams.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from matura.core.errors import DataError
from matura.core.types import Cell, Item, Score


def score_to_json(score: Score) -> dict[str, Any]:
    """Everything about the score, as JSON-able data."""
    return asdict(score)


def score_from_json(data: Mapping[str, Any]) -> Score:
    """The score that `score_to_json` spelled.

    Raises:
        DataError: a field is missing, unknown or of the wrong shape.
    """
    try:
        given = dict(data)
        given["overall"] = _made(Cell, given["overall"])
        given["buckets"] = {
            str(name): _made(Cell, cell) for name, cell in dict(given["buckets"]).items()
        }
        given["items"] = tuple(
            _made(Item, dict(item) | {"problems": tuple(item["problems"])})
            for item in given["items"]
        )
        score: Score = _made(Score, given)
    except (KeyError, TypeError, ValueError) as problem:
        raise DataError(f"not a score: {type(problem).__name__}: {problem}") from None
    return score


def _made(kind: type[Any], given: Mapping[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    if set(given) != known:
        raise ValueError(f"{kind.__name__} has fields {sorted(known)}, not {sorted(given)}")
    return kind(**given)
