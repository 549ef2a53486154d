"""Between a recipe's spelling and its meaning: overrides by name, errors a person can use."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.record import Frozen
from matura.ladder.lines import Place, parse
from matura.stages.parts import OneOf

Complaint = tuple[Place, str]

_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")


def spell_place(place: Place) -> str:
    """`stages[1].train.tokens`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def overridden(value: Any, overrides: Sequence[str]) -> tuple[Any, dict[Place, str]]:
    """A copy of a recipe's value with the overrides put in, and which override wrote which place.

    A list item is addressed by its `name` or its number: `stages.base.mixture.0.share=0.5`.

    Raises:
        RecipeError: an override is not `place=value`, or leads to no such item.
    """
    value = copy.deepcopy(value)
    origins: dict[Place, str] = {}
    for override in overrides:
        spelled, equals, text = override.partition("=")
        if not equals or not spelled.strip():
            raise RecipeError(f"--set {override}: expected PLACE=VALUE, as in seed=1")
        new = parse(text, f"--set {override}").value if text.strip() else None
        origins |= dict.fromkeys(_put(value, spelled.strip(), new, override), override)
    return value, origins


def _put(value: Any, spelled: str, new: Any, override: str) -> list[Place]:
    """Writes one override, and says which places are its own."""
    steps = [key or int(number) for key, number in _STEP.findall(spelled)]
    if not steps or spell_place(tuple(steps)).replace("[", "").replace("]", "") != re.sub(
        r"[\[\]]", "", spelled
    ):
        raise RecipeError(
            f"--set {override}: {spelled!r} is no place like stages.base.train.tokens"
        )
    place: list[str | int] = []
    written: list[Place] = []
    here = value
    for depth, step in enumerate(steps):
        key = _key(here, step, tuple(place), override)
        place.append(key)
        if depth == len(steps) - 1:
            here[key] = new
        elif isinstance(here, dict) and not isinstance(here.get(key), dict | list):
            here[key] = {}
            written.append(tuple(place))
        here = here[key]
    return [*written, tuple(place)]


def _key(here: Any, step: str | int, place: Place, override: str) -> str | int:
    if isinstance(here, dict):
        return str(step)
    where = spell_place(place) or "the recipe"
    if not isinstance(here, list):
        raise RecipeError(f"--set {override}: {where} has no parts")
    names = [item.get("name", i) if isinstance(item, dict) else i for i, item in enumerate(here)]
    if step in names and isinstance(step, str):
        return names.index(step)
    if str(step).isdecimal() and int(step) < len(here):
        return int(step)
    known = did_you_mean(str(step), map(str, names))
    raise RecipeError(f"--set {override}: {where} has no {str(step)!r}{known}")


def complaints(problem: ValidationError, recipe: type[Frozen], value: Any) -> list[Complaint]:
    """What pydantic found wrong, by place in the recipe's value, in words for a person."""
    found: list[Complaint] = []
    unknown: dict[Place, set[str]] = {}
    for error in problem.errors(include_url=False):
        place = _without_tags(error["loc"], value)
        if error["type"] == "extra_forbidden":
            known = _fields_at(recipe, place[:-1], value)
            hint = did_you_mean(str(place[-1]), known)
            unknown.setdefault(place[:-1], set()).update(
                name for name in known if hint == f" (did you mean {name!r}?)"
            )
            found.append((place, f"unknown key{hint}"))
        elif error["type"] == "union_tag_invalid":
            key = str(error["ctx"]["discriminator"]).strip("'")
            found.append(((*place, key), _reason(error)))
        elif error["type"] == "missing":
            found.append((place, "missing"))
        else:
            found.append((place, _reason(error)))
    return [
        (place, reason)
        for place, reason in found
        if not (reason == "missing" and place and place[-1] in unknown.get(place[:-1], ()))
    ]


def _reason(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "union_tag_invalid":
            known = [name.strip("'") for name in str(context["expected_tags"]).split(", ")]
            key = str(context["discriminator"]).strip("'")
            return f"unknown {key} {context['tag']!r}{did_you_mean(str(context['tag']), known)}"
        case "union_tag_not_found":
            return f"no {context['discriminator']} is given"
        case "string_pattern_mismatch":
            return f"{error['input']!r} is no name: small letters, digits, '-' and '_'"
        case "literal_error":
            return f"{error['input']!r} is not one of {context['expected']}"
        case "too_short":
            return f"needs at least {context['min_length']}"
        case "value_error":
            return " ".join(str(context["error"]).split())
    message = str(error["msg"]).removeprefix("Input should be ")
    shown = repr(error["input"])
    return f"should be {message}, not {shown[:60]}" if "Input should" in error["msg"] else message


def _without_tags(location: Sequence[str | int], value: Any) -> Place:
    """pydantic names the leaf it chose between the keys; only what the value has is a place."""
    place: list[str | int] = []
    here = value
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here = here[part]
            place.append(part)
        elif last and isinstance(here, dict):
            place.append(part)  # a missing key
    return tuple(place)


def _fields_at(model: type[BaseModel], place: Place, value: Any) -> list[str]:
    """The keys that the part of a recipe at that place knows."""
    here: type[BaseModel] | OneOf | None = model
    for part in place:
        if isinstance(part, str):
            chosen = _chosen(here, value)
            info = chosen.model_fields.get(part) if chosen else None
            marks = [] if info is None else [*info.metadata, *_inside(info.annotation)]
            one_of = next((mark for mark in marks if isinstance(mark, OneOf)), None)
            here = one_of or next((mark for mark in marks if _is_model(mark)), None)
        value = value[part]
    chosen = _chosen(here, value)
    return list(chosen.model_fields) if chosen else []


def _chosen(here: type[BaseModel] | OneOf | None, value: Any) -> type[BaseModel] | None:
    return here.found().get(value.get(here.key)) if isinstance(here, OneOf) else here


def _is_model(mark: object) -> bool:
    return isinstance(mark, type) and issubclass(mark, BaseModel)


def _inside(annotation: Any) -> Iterator[Any]:
    """The annotation and everything it is built of, marks included."""
    yield annotation
    for inner in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _inside(inner)


def changed_kinds(given: Any, meant: Any, place: Place = ()) -> list[Complaint]:
    """Where pydantic was too kind: a quoted number taken as a number, `true` taken as 1."""
    if isinstance(meant, Frozen) and isinstance(given, dict):
        return [
            line
            for key, inner in given.items()
            for line in changed_kinds(inner, getattr(meant, key), (*place, key))
        ]
    if isinstance(meant, tuple | list) and isinstance(given, list):
        return [
            line
            for i, pair in enumerate(zip(given, meant, strict=False))
            for line in changed_kinds(*pair, (*place, i))
        ]
    wanted = _sort(meant)
    if wanted in ("a number", "true or false") and _sort(given) != wanted:
        return [(place, f"should be {wanted}, not {_sort(given)} ({given!r})")]
    return []


def _sort(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "something else"


def whole(value: Any) -> Any:
    """As `core.record.plain`, with the fields that are no part of identity too."""
    if isinstance(value, Frozen):
        return {name: whole(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, tuple | list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value.as_posix() if isinstance(value, Path) else value
