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
