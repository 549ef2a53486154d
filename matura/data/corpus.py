"""What a person has in a folder, cleaned into text shards that any recipe can read.

The folder is whole or absent; `cleaning.json` beside the shards says what became of everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from matura.core.disk import replace_atomically
from matura.core.errors import DataError, RecipeError
from matura.core.record import plain
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.arrays import is_array
from matura.data.atonce import at_once
from matura.data.cleaner import CleanedSource, Cleaner, Counts
from matura.data.marked import SHARD_BYTES, Marked, is_marked, write_marked
from matura.data.marked import SUFFIXES as SHARDS
from matura.data.rows import ENDINGS
from matura.data.source import Source
from matura.data.sources.folder import Folder
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.marked import MarkedShards
from matura.data.sources.parquet import Parquet

COUNTS = "cleaning.json"
ROWS = "JSON rows"


def source_at(
    path: Path,
    suffixes: Sequence[str] = (),
    encoding: str = "utf-8",
    *,
    layout: str | None = None,
    each: str | None = None,
) -> Source:
    """What reads that path: rows by their ending, shards by their names, anything else as text; of
    a folder the files with these suffixes, or all that can be read.

    `layout` and `each` are those of JSON rows.

    Raises:
        DataError: there is nothing, or a folder mixes kinds of files.
        RecipeError: an encoding, a suffix or a layout that cannot be.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    try:
        return _source_at(path, suffixes, encoding, layout, each)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or "settings"
        raise RecipeError(
            f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


def _source_at(
    path: Path, suffixes: Sequence[str], encoding: str, layout: str | None, each: str | None
) -> Source:
    if path.is_dir():
        return _folder_at(path, suffixes, encoding, layout, each)
    if path.name.endswith(ENDINGS) or is_array(path):
        return Jsonl(path=path, layout=layout, each=each)
    if path.name.endswith(Parquet.suffixes):
        return Parquet(path=path)
    if path.name.endswith(SHARDS) and is_marked(path):
        return MarkedShards(path=path)
    return Folder(path=path, encoding=encoding)


def _folder_at(
    path: Path, suffixes: Sequence[str], encoding: str, layout: str | None, each: str | None
) -> Source:
    if not suffixes and next(path.glob("shard-*.txt*"), None) is not None:
        return MarkedShards(path=path)
    text = Folder.model_fields["suffixes"].default
    wanted = tuple(suffixes) or (*text, *Jsonl.suffixes, *Parquet.suffixes)
    every = Folder(path=path, encoding=encoding, suffixes=wanted)
    files = [(file, name) for file, name in every.files() if suffixes or _is_known(file, text)]
    kinds = {_kind(file): name for file, name in reversed(files)}
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({name})" for kind, name in sorted(kinds.items()))
        raise DataError(f"{path}: holds {found}; say which with --suffix, one kind at a time")
    paths = tuple(file for file, _ in files)
    if ROWS in kinds:
        return Jsonl(path=paths, below=path.as_posix(), layout=layout, each=each)
    if "parquet" in kinds:
        return Parquet(path=paths, below=path.as_posix())
    return every if suffixes or not files else Folder(path=path, encoding=encoding)


def _is_known(file: Path, text: tuple[str, ...]) -> bool:
    """Whether it is read unasked: of JSON what holds rows, not one object of some program's."""
    return file.name.endswith((*text, *Parquet.suffixes)) or _kind(file) == ROWS


def _kind(file: Path) -> str:
    if file.name.endswith(ENDINGS) or is_array(file):
        return ROWS
    return "parquet" if file.name.endswith(Parquet.suffixes) else "text"


def clean_into(
    folder: Path,
    named: Sequence[tuple[str, Source]],
    cleaners: Sequence[Cleaner],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Counts]:
    """Writes what the cleaners keep of each source as shards, and beside them what became of all.

    Raises:
        DataError: an input is wrong, a source is named twice or cleaned to nothing, or the folder
            is in use.
    """
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{twice[0]}: named twice; its counts would not add up")
    counts: dict[str, Counts] = {}

    def documents() -> Iterator[Marked]:
        for name, source in named:
            cleaning = CleanedSource(source, tuple(cleaners))
            for document in cleaning.read(Given(rng=rng(0, "clean", name))):
                yield marked(document, name)
            counts[name] = cleaning.counts

    with at_once(folder, COUNTS) as work:
        shards = write_marked(work, documents(), shard_bytes=shard_bytes)
        told = {
            "cleaners": [plain(cleaner) for cleaner in cleaners],
            "sources": {name: count.as_dict() for name, count in counts.items()},
            "shards": [path.name for path in shards],
        }
        replace_atomically(work / COUNTS, told)
    return counts


def marked(document: Document, source: str) -> Marked:
    """A document with the name of its source, as shards hold it."""
    return Marked(source=source, path=document.id, text=document.text)
