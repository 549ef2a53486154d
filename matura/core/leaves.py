"""A room's leaf folder is its registry: `kind: jsonl` is the one class with that kind in
`jsonl.py`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import TypeVar

from matura.core.errors import RecipeError

T = TypeVar("T")


def leaves(room: ModuleType, base: type[T], *, skip: Iterable[str] = ()) -> dict[str, type[T]]:
    """Each leaf's name and class: the public subclass of `base` that the module itself defines."""
    found: dict[str, type[T]] = {}
    for info in sorted(pkgutil.iter_modules(room.__path__), key=lambda info: info.name):
        if info.ispkg or info.name in skip:
            continue
        module = importlib.import_module(f"{room.__name__}.{info.name}")
        classes = [
            thing
            for name, thing in vars(module).items()
            if isinstance(thing, type)
            and issubclass(thing, base)
            and thing.__module__ == module.__name__
            and not name.startswith("_")
        ]
        if len(classes) != 1:
            raise RecipeError(
                f"{module.__name__} must define one {base.__name__}, not {len(classes)}"
            )
        found[info.name] = classes[0]
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or the list of what there is when nothing is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(known)})"
