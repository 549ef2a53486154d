"""One leaf of a room with `key=value` settings, as a command names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.record import Frozen
from matura.data.cleaner import Cleaner
from matura.ladder.spelling import complaints, overridden, spell_place
from matura.stages.parts import cleaner_kinds

Leaf = TypeVar("Leaf", bound=Frozen)


def cleaner_of(kind: str, options: Sequence[str] = ()) -> Cleaner:
    """The cleaner for that kind of text with `key=value` options.

    Raises:
        RecipeError: no such kind, no such option, or a value it does not take.
    """
    return settled("cleaner", cleaner_kinds(), kind, options)


def settled(what: str, known: Mapping[str, type[Leaf]], kind: str, options: Sequence[str]) -> Leaf:
    """The leaf of that kind with `key=value` options.

    Raises:
        RecipeError: no such kind, no such option, or a value it does not take.
    """
    if kind not in known:
        raise RecipeError(f"no {what} {kind!r}{did_you_mean(kind, known)}")
    for option in options:
        if "=" not in option:
            raise RecipeError(f"{what} {kind}: {option!r} is no option; expected KEY=VALUE")
    value, _ = overridden({"kind": kind}, options)
    try:
        return known[kind].model_validate(value)
    except ValidationError as problem:
        place, reason = complaints(problem, known[kind], value)[0]
        raise RecipeError(f"{what} {kind}: {spell_place(place) or 'settings'}: {reason}") from None
