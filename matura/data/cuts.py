"""A source cut into pieces that workers read alone, the same pieces however many workers there are.

What lies in several files is cut between files. What is one file or one stream stays one piece,
which its worker writes down part by part.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.store import sha256_of
from matura.core.types import Conversation, Document, Given
from matura.data.lines import status
from matura.data.naming import shared
from matura.data.source import Source
from matura.data.sources.folder import Folder
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.marked import MarkedShards
from matura.data.sources.parquet import Parquet
from matura.data.sources.text import Text

Thing = TypeVar("Thing")

CUT_BYTES = 8 * 2**20
"""Of files in a piece, about: small enough that all workers have something to do, large enough that
starting on one costs nothing."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One piece of a source: what one worker reads from start to end."""

    name: str
    """Of the source, as the corpus calls it."""
    number: int
    """Of the piece, through all sources."""
    source: Source
    names: tuple[str, ...] = ()
    """Of a folder: the files below it that belong to this piece; no other source has any."""
    sha256: str = ""
    """Of all its files, names included; empty until `hashed`."""
    seen: tuple[tuple[int, int], ...] = ()
    """Size and time of each file when it was hashed."""

    def files(self) -> tuple[Path, ...]:
        """The files it is read from, as far as the source names them."""
        if self.names and isinstance(self.source, Folder):
            return tuple(self.source.path / name for name in self.names)
        if inputs := getattr(self.source, "inputs", None):
            return tuple(inputs())
        if isinstance(self.source, Jsonl):
            return self.source.paths
        values = (getattr(self.source, name) for name in type(self.source).model_fields)
        listed = (v if isinstance(v, tuple) else (v,) for v in values)
        return tuple(p for some in listed for p in some if isinstance(p, Path) and p.is_file())

    def read(self) -> Iterator[Document]:
        """Its documents in order.

        Raises:
            DataError: the input is wrong, holds conversations or token ids, or is not what it was
                when it was hashed.
        """
        if self.names and isinstance(self.source, Folder):
            items: Iterable[Document | Conversation] = self.source.documents(self.names)
        else:
            items = self.source.read(Given(rng=rng(0, "gather", self.name)))
        for item in items:
            if isinstance(item, Conversation):
                raise DataError(f"{item.id}: is a conversation; a corpus is made of documents")
            if item.ids is not None:
                raise DataError(f"{item.id}: is made of token ids; a corpus is made of text")
            yield item
        if self.seen and self.seen != _stats(self.files()):
            changed = next(
                path
                for path, before in zip(self.files(), self.seen, strict=True)
                if _stats((path,)) != (before,)
            )
            raise DataError(f"{changed}: changed while it was read")


def hashed(cut: Cut) -> Cut:
    """The piece with the hash of what it is read from.

    Raises:
        DataError: a file cannot be read.
    """
    files = cut.files()
    spelled = [f"{path.name}\0{sha256_of(path)}" for path in files]
    return replace(cut, sha256=_digest(spelled), seen=_stats(files))


def _stats(files: Iterable[Path]) -> tuple[tuple[int, int], ...]:
    found = map(status, files)
    return tuple((each.st_size, each.st_mtime_ns) for each in found)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def cuts_of(named: Sequence[tuple[str, Source]], cut_bytes: int = CUT_BYTES) -> list[Cut]:
    """All sources, cut, in order.

    Raises:
        DataError: a source is named twice, cannot be found, or makes its items up.
    """
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{twice[0]}: two sources of that name; call one of them otherwise")
    found: list[Cut] = []
    for name, source in named:
        if source.splits_itself:
            raise DataError(f"{name}: {source.kind!r} makes its items up; a corpus is found text")
        for number, (piece, files) in enumerate(_pieces(source, cut_bytes), start=len(found)):
            found.append(Cut(name, number, piece, files))
    return found


def _pieces(source: Source, cut_bytes: int) -> Iterator[tuple[Source, tuple[str, ...]]]:
    if isinstance(source, Folder) and source.path.is_dir():
        names = [name for _, name in source.files()]
        if not names:
            next(source.read(Given(rng=rng(0))), None)  # which says what was expected
        sizes = [os.path.getsize(source.path / name) for name in names]
        yield from ((source, tuple(some)) for some in _groups(names, sizes, cut_bytes))
    elif paths := _paths(source):
        sizes = [status(path).st_size for path in paths]
        most = 0 if isinstance(source, MarkedShards) else cut_bytes  # it takes but one path
        whole = getattr(source, "path", None)
        folder = whole.as_posix() if isinstance(whole, Path) and whole.is_dir() else None
        below = getattr(source, "below", None) or folder or shared(paths)
        for some in _groups(paths, sizes, most):
            yield _only(source, some, below), ()
    else:
        yield source, ()


def _paths(source: Source) -> Sequence[Path]:
    """The files of a source that can be read one by one without a difference."""
    if isinstance(source, Jsonl):
        return source.paths if source.limit is None else ()
    if isinstance(source, Text):
        return source.path if isinstance(source.path, tuple) else (source.path,)
    if isinstance(source, Parquet | MarkedShards):
        return source.files()
    return ()


def _only(source: Source, paths: Sequence[Path], below: str | None) -> Source:
    """The source with these files alone, called as they are among all of them."""
    path = paths[0] if len(paths) == 1 else tuple(paths)
    named = {"below": below} if "below" in type(source).model_fields else {}
    return source.model_copy(update={"path": path, **named})


def _groups(things: Sequence[Thing], sizes: Sequence[int], most: int) -> Iterator[list[Thing]]:
    """Neighbours together, up to so many bytes."""
    group: list[Thing] = []
    held = 0
    for thing, size in zip(things, sizes, strict=True):
        if group and held + size > most:
            yield group
            group, held = [], 0
        group.append(thing)
        held += size
    if group:
        yield group
