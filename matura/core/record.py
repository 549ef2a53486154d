"""Parts of a recipe, and their one stable spelling: two recipes are equal exactly when their
`plain` is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from matura.core.errors import RecipeError


class Frozen(BaseModel):
    """A part of a recipe: immutable, and an unknown key is an error. A field's docstring is its
    help."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


def plain(value: object) -> Any:
    """`value` as JSON-able data, by what it is, not by how its field is annotated.

    pydantic's dump drops a subclass's own fields, and two different recipes would look equal. A
    field is left out where its `exclude_if` says so: what was made before there was such a field
    stays the same.

    Raises:
        RecipeError: for anything without one stable spelling - a function, an open file.
    """
    match value:
        case Frozen():
            return {
                name: plain(getattr(value, name))
                for name, f in type(value).model_fields.items()
                if not f.exclude and not (f.exclude_if and f.exclude_if(getattr(value, name)))
            }
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return value.as_posix()
    raise RecipeError(f"no stable spelling for {type(value).__name__} in a recipe")


def canonical(value: object) -> str:
    """`plain(value)` as JSON with sorted keys and no spaces: what is hashed."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """The sha256 of `canonical(value)` in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def differences(old: object, new: object, path: str = "") -> list[str]:
    """One line for each place where two plain values differ, named as `--set` would name it."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in sorted(old.keys() | new.keys()):
            here = f"{path}.{key}" if path else str(key)
            if key not in old:
                lines.append(f"{here}: absent -> {json.dumps(new[key])}")
            elif key not in new:
                lines.append(f"{here}: {json.dumps(old[key])} -> absent")
            else:
                lines += differences(old[key], new[key], here)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for i, pair in enumerate(zip(old, new, strict=True))
            for line in differences(*pair, f"{path}[{i}]")
        ]
    return [] if old == new else [f"{path}: {json.dumps(old)} -> {json.dumps(new)}"]
