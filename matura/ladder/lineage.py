"""Where a stage's tokens come from: the files its sources read, and shares traced to origins.

An origin is `stage/part`: the stage that brought a source in, and the source's title there. Replay
adds no origin of its own, however many stages it has gone through.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matura.core.errors import DataError, StoreError
from matura.core.record import Frozen
from matura.core.store import sha256_of
from matura.stages.parts import Part
from matura.stages.stage import StageKind

REPLAY = "replay:"
"""How a stage calls replayed parts: `replay:base.stdlib`."""
LISTED = 20
"""Files of one source that a record lists one by one."""


def input_hashes(parts: Iterable[Part]) -> dict[str, dict[str, str]]:
    """The sha256 of every file that the parts' sources and cleaners read; a folder has one for all
    its files.

    A source names its files by a method `inputs()`; otherwise they are its fields that hold paths.

    Raises:
        DataError: a file cannot be read.
    """
    hashes: dict[str, dict[str, str]] = {}
    for part in parts:
        # apart, so that a source's one hash for many files does not depend on where a cleaner's lie
        for title, readers in ((part.title, (part.source,)), (f"{part.title}.clean", part.clean)):
            found: dict[str, str] = {}
            for reader in readers:
                for path in sorted(_inputs(reader)):
                    try:
                        found[path.as_posix()] = _folder_sha256(reader, path)
                    except StoreError as problem:
                        raise DataError(str(problem)) from problem
            if found:
                hashes[title] = found if len(found) <= LISTED else _as_one(found)
    return hashes


def _as_one(found: Mapping[str, str]) -> dict[str, str]:
    """One hash for many files, by name below the folder they share; where that lies is free."""
    common = os.path.commonpath(found)
    total = hashlib.sha256()
    for name, sha256 in found.items():
        total.update(f"{Path(name).relative_to(common).as_posix()}\0{sha256}\n".encode())
    return {f"{len(found)} files": total.hexdigest()}


def _inputs(source: Frozen) -> Iterator[Path]:
    if inputs := getattr(source, "inputs", None):
        yield from inputs()
        return
    for name in type(source).model_fields:
        value = getattr(source, name)
        yield from (v for v in (value if isinstance(value, tuple) else (value,)) if _is_path(v))


def _is_path(value: object) -> bool:
    return isinstance(value, Path)


def _folder_sha256(source: Frozen, path: Path) -> str:
    if not path.is_dir():
        return sha256_of(path)
    endings = tuple(getattr(source, "suffixes", ("",)))
    found: list[Path] = []
    for here, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(here, name)
            for name in names
            if name.endswith(endings) and not name.startswith(".")
        ]
    total = hashlib.sha256()
    for file in sorted(found):
        total.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return total.hexdigest()


def shares_asked(stage: StageKind, earlier: Mapping[str, StageKind]) -> dict[str, float]:
    """The share of each origin that the recipe asks for."""
    shares: dict[str, float] = defaultdict(float)
    for part in stage.mixture:
        shares[f"{stage.name}/{part.title}"] += part.share
    for replay in stage.replay:
        own = earlier[replay.stage].mixture
        whole = sum(part.share for part in own)
        for part in own:
            shares[f"{replay.stage}/{part.title}"] += replay.share * part.share / whole
    return dict(shares)


def shares_got(stage: StageKind, shares: Mapping[str, float]) -> dict[str, float]:
    """The share of each origin that training saw, from the shares by a stage's own titles."""
    found: dict[str, float] = defaultdict(float)
    for title, share in shares.items():
        replayed, _, name = title.removeprefix(REPLAY).partition(".")
        origin = f"{replayed}/{name}" if title.startswith(REPLAY) else f"{stage.name}/{title}"
        found[origin] += share
    return dict(found)


def lineage(
    stage: StageKind,
    earlier: Mapping[str, StageKind],
    got: Mapping[str, float],
    tokens: int,
    before: Mapping[str, Any] | None,
    data: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What goes into a record: this stage's shares asked and got, and the whole model's tokens.

    `data` is what is known of the data of this stage and of each below, by stage and title: what
    was mixed before it came here is traced through, down to what it was mixed from.
    """
    mixed = {
        f"{owner}/{title}": dict(told.get("origins", {}))
        for owner, parts in (data or {}).items()
        for title, told in parts.items()
    }
    asked = traced(shares_asked(stage, earlier), mixed)
    seen = traced(shares_got(stage, got), mixed) or asked
    model = Counter[str](before["model_tokens"] if before else {})
    for origin, share in seen.items():
        model[origin] += round(share * tokens)
    licences = {
        f"{owner}/{title}": told["licence"]
        for owner, parts in (data or {}).items()
        for title, told in parts.items()
        if told.get("licence") and any(_within(origin, f"{owner}/{title}") for origin in seen)
    }
    return {
        "asked": asked,
        "got": seen,
        "model_tokens": dict(model),
        "licences": {**(before or {}).get("licences", {}), **licences},
    }


def traced(
    shares: Mapping[str, float], mixed: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """The shares with each origin that was itself mixed taken apart into what it was mixed from."""
    found: dict[str, float] = {}
    for origin, share in shares.items():
        inside = mixed.get(origin) or {}
        whole = sum(inside.values())
        if whole:
            found |= {f"{origin}/{name}": share * part / whole for name, part in inside.items()}
        else:
            found[origin] = share
    return found


def _within(origin: str, part: str) -> bool:
    return origin == part or origin.startswith(f"{part}/")
