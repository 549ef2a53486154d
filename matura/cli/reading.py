"""The options that say how the `data` commands read what they are pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from matura.data.source import Source

Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="Folders, text, JSONL, parquet, text shards."),
]
Suffix = Annotated[
    list[str] | None, typer.Option(help="Of the files in a folder, such as .py; repeat it.")
]
Encoding = Annotated[str, typer.Option(help="Of text files.")]
Layout = Annotated[str | None, typer.Option(help="Of JSON rows: '{question}\\n{answer}'.")]
Each = Annotated[str | None, typer.Option(help="The list in a JSON row that --layout spells.")]
UNNAMED = ("--clean", "--suffix", "--encoding", "--each")
"""Options whose values hold no `=` of their own."""


def by_source(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """What an option says to each source: `NAME=VALUE` to that one alone, and instead of what is
    said to all. `NAME=` is nothing at all.

    Raises:
        RecipeError: no source is called so.
    """
    from matura.core.errors import RecipeError
    from matura.core.leaves import did_you_mean

    whole: list[str] = []
    own: dict[str, list[str]] = {}
    for value in given:
        name, named, rest = value.partition("=")
        if named and name in names:
            own.setdefault(name, []).append(rest)
        elif named and option in UNNAMED:
            known = did_you_mean(name, names)
            raise RecipeError(f"{option} {value}: no source is called {name!r}{known}")
        else:
            whole.append(value)
    return {name: [value for value in own.get(name, whole) if value] for name in names}


def spelled(layout: str | None) -> str | None:
    """A layout as a shell hands it over, with its line ends."""
    return layout.replace("\\n", "\n") if layout else None


def named(
    paths: Sequence[Path],
    suffix: Sequence[str] | None,
    encoding: str,
    layout: str | None,
    each: str | None,
) -> list[tuple[str, Source]]:
    """What reads each path, by the path's name.

    Raises:
        DataError: one of them is not there.
    """
    from matura.data.corpus import source_at

    text = spelled(layout)
    return [
        (path.as_posix(), source_at(path, suffix or (), encoding, layout=text, each=each))
        for path in paths
    ]
