"""Token folders and corpora mixed into one token folder by shares of its tokens, for programs that
read one folder.

A recipe needs no such copy: it states the shares, and rows point into the shards. What is mixed
here keeps every part's validation files, and says where it came from, through every earlier mix.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core.disk import WORK, delete, replace_atomically, sync_tree, telling
from matura.core.errors import DataError, RecipeError
from matura.core.rng import rng
from matura.data.encoded import TOKENIZER, Opened, opened, tokenizer_of
from matura.data.source import OWN
from matura.data.tokens import METADATA, SEPARATOR, STATE, TOKENIZER_SHA256, Tokens, read_object
from matura.text.tokenizer import Tokenizer

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Wanted:
    """One folder and how much of the result it is to be: a share, or so many tokens; what is left
    if neither is said."""

    path: Path
    share: float | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Mixed:
    """What one folder brought."""

    path: Path
    asked: float
    got: float
    train: int
    """Tokens for training."""
    val: int
    repeats: float
    """How often its training tokens were taken, on average."""


@dataclass
class _Part:
    folder: Opened
    name: str
    asked: float
    tokens: int
    there: int
    files: list[Path] = field(default_factory=list)


def mix(
    wanted: Sequence[Wanted],
    into: Path,
    *,
    tokens: int | None = None,
    max_repeats: float = 1.0,
    seed: int = 0,
) -> list[Mixed]:
    """Writes a token folder with the shares that were asked for, to the token.

    How long it is: `tokens`; without, as long as takes in the folders without a share once and
    whole; or, where each has one, as long as can be.

    Raises:
        RecipeError: the shares cannot be those of a whole, or `into` holds something else.
        DataError: a folder is damaged, of another tokenizer, or has too little for its share.
    """
    if into.exists() and not (into / METADATA).is_file():
        raise RecipeError(f"{into}: is there and is no token folder; nothing done")
    if missing := [one.path for one in wanted if not one.path.is_dir()]:
        raise RecipeError(f"{', '.join(map(str, missing))}: no such folder of tokens")
    parts = _parts(wanted, tokens, max_repeats)
    state = _one_tokenizer(parts)
    tokenizer = tokenizer_of([part.folder for part in parts])
    for part in parts:
        part.files = part.folder.files(TRAIN)
        if part.tokens != part.there:
            rng(seed, "mix", part.name).shuffle(part.files)
    work = into.with_name(into.name + WORK)
    with telling(work, "make"):
        if work.exists():
            delete(work)
        work.mkdir(parents=True)
    limit = None if state is None else state.get("vocab_size")
    found = []
    whole = sum(part.tokens for part in parts)
    for number, part in enumerate(parts):
        got = _copy(part, work / TRAIN, number, _taken(part), limit)
        held = _copy(part, work / VALIDATION, number, _held(part), limit)
        repeats = got / max(1, part.there)
        found.append(Mixed(part.folder.path, part.asked, got / whole, got, held, repeats))
    if state is not None:
        replace_atomically(work / STATE, state)
    about = _about(parts, found, seed)
    if tokenizer is not None:
        shutil.copytree(tokenizer, work / TOKENIZER)
        about |= {TOKENIZER_SHA256: Tokenizer.load(tokenizer).sha256}
    replace_atomically(work / METADATA, about)
    sync_tree(work)
    if into.exists():
        delete(into)
    with telling(into, "rename to"):
        work.rename(into)
    return found


def _parts(wanted: Sequence[Wanted], tokens: int | None, max_repeats: float) -> list[_Part]:
    folders = [opened(one.path) for one in wanted]
    there = [folder.count(TRAIN) for folder in folders]
    for one, count in zip(wanted, there, strict=True):
        if not count:
            raise DataError(f"{one.path}: its training files hold no token")
        if one.share is not None and not 0 < one.share < 1:
            raise RecipeError(f"{one.path}: a share of {one.share:g}; expected 0 to 1")
    asked = sum(one.share or 0.0 for one in wanted)
    counted = sum(one.tokens or 0 for one in wanted)
    rest = [count for one, count in zip(wanted, there, strict=True) if _is_rest(one)]
    if asked > 1 + 1e-9 or (rest and asked > 1 - 1e-9):
        raise RecipeError(f"the shares sum to {asked:g} and leave nothing for the rest")
    if not rest and not counted and abs(asked - 1) > 1e-6:
        raise RecipeError(f"the shares sum to {asked:g}, not to 1; give one folder no share")
    if tokens is None:
        reach = [
            max_repeats * count / one.share
            for one, count in zip(wanted, there, strict=True)
            if one.share
        ]
        fixed = sum(rest) + counted
        tokens = round(fixed / (1 - asked)) if fixed else int(min(reach))
    left = tokens - sum(round((one.share or 0) * tokens) for one in wanted) - counted
    parts = []
    names = Counter(one.path.name for one in wanted)
    for one, folder, count in zip(wanted, folders, there, strict=True):
        take = one.tokens or round((one.share or 0.0) * tokens)
        if _is_rest(one):
            take = round(left * count / sum(rest))
        reachable = int(max_repeats * count)
        if take > reachable:
            raise DataError(
                f"{one.path}: has {count:,} tokens, {take:,} are asked for (a share of "
                f"{take / tokens:.2%}): {take - reachable:,} short; at most "
                f"{reachable / tokens:.2%} can be reached, or repeat it more often than "
                f"{max_repeats:g} times"
            )
        name = one.path.name if names[one.path.name] == 1 else one.path.as_posix()
        parts.append(_Part(folder, name, take / tokens, take, count))
    return parts


def _is_rest(one: Wanted) -> bool:
    return one.share is None and one.tokens is None


def _one_tokenizer(parts: Sequence[_Part]) -> dict[str, Any] | None:
    """What the folders say about their tokenizer, if they say anything.

    Raises:
        DataError: two of them say different things.
    """
    said = [
        (part.folder.path, read_object(part.folder.path / STATE))
        for part in parts
        if (part.folder.path / STATE).is_file()
    ]
    for path, state in said[1:]:
        if state != said[0][1]:
            raise DataError(f"{path}: written with another tokenizer than {said[0][0]}")
    return said[0][1] if said else None


def _taken(part: _Part) -> Iterator[Tokens]:
    """Its files in order, as often as it takes, the last one cut, so that the share is exact."""
    left = part.tokens
    while left:
        for file in part.files:
            ids = part.folder.tokens(file)[:left]
            left -= len(ids)
            if len(ids):
                yield ids


def _held(part: _Part) -> Iterator[Tokens]:
    return (part.folder.tokens(file) for file in part.folder.files(VALIDATION))


def _copy(
    part: _Part, folder: Path, number: int, pieces: Iterator[Tokens], vocab_size: object
) -> int:
    """How many tokens were written; always 4 bytes each, whatever the input's width."""
    folder.mkdir(exist_ok=True)
    written = 0
    for place, ids in enumerate(pieces):
        if isinstance(vocab_size, int) and len(ids) and int(ids.max()) >= vocab_size:
            raise DataError(
                f"{part.folder.path}: holds the id {int(ids.max())}, its tokenizer has "
                f"{vocab_size}: written by another one, or with another dtype"
            )
        ids.astype("<u4").tofile(folder / f"part{number}_{place:05d}.bin")
        written += len(ids)
    return written


def _about(parts: Sequence[_Part], found: Sequence[Mixed], seed: int) -> dict[str, Any]:
    """What is known of the result; `origins` and `licences` go down to what was never mixed."""
    origins: dict[str, float] = {}
    licences: dict[str, str] = {}
    for part, got in zip(parts, found, strict=True):
        inside: Mapping[str, float] = part.folder.about.get("origins") or {}
        own: Mapping[str, str] = part.folder.about.get("licences") or {}
        whole = sum(inside.values())
        for name, share in inside.items():
            origins[f"{part.name}/{name}"] = got.got * share / whole
        if not inside:
            origins[part.name] = got.got
        licences |= {f"{part.name}/{name}": told for name, told in own.items()} or {part.name: OWN}
    lines = [
        {"path": one.path.as_posix(), "asked": one.asked, "got": one.got}
        | {"train": one.train, "val": one.val, "repeats": one.repeats}
        for one in found
    ]
    ends = {part.folder.separator for part in parts} - {None}
    return {
        "dtype": "uint32",
        # a part that keeps no document ends is cut where its files end
        **({SEPARATOR: ends.pop()} if ends else {}),
        "train_tokens": sum(one.train for one in found),
        "val_tokens": sum(one.val for one in found),
        "parts": lines,
        "origins": origins,
        "licences": licences,
        "seed": seed,
    }
