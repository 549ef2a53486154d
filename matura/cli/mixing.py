"""`data mix`: token folders and corpora into one, by shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json

if TYPE_CHECKING:
    from matura.data.mixing import Mixed


def mix(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Corpora, or token folders: train/ and val/ with .bin files."
        ),
    ],
    into: Annotated[Path, typer.Option(help="The folder that is made.")],
    share: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR=0.1", help="A folder's share of the result's tokens; may be repeated."
        ),
    ] = None,
    take: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR=N", help="So many tokens of a folder instead of a share."),
    ] = None,
    tokens: Annotated[
        float | None, typer.Option(metavar="N", help="Of the whole result, such as 4e9.")
    ] = None,
    max_repeats: Annotated[
        float, typer.Option(min=0, help="How often a folder's tokens may be taken.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of which files a part takes first.")] = 0,
    json: Json = False,
) -> None:
    """Mix token folders by shares of the result, each with its validation files.

    Folders without a share make up the rest, and are taken whole unless --tokens is given. A recipe
    needs no such copy: {kind: corpus, path: DIR} or {kind: prepared, path: DIR} with its share, or
    replay.
    """
    from dataclasses import asdict

    from matura.data.mixing import Wanted
    from matura.data.mixing import mix as mixed

    shares, counts = (
        _by_folder("--share", share or (), folders),
        _by_folder("--take", take or (), folders),
    )
    wanted = [
        Wanted(path, shares.get(path), None if path not in counts else round(counts[path]))
        for path in folders
    ]
    found = mixed(
        wanted,
        into,
        tokens=None if tokens is None else round(tokens),
        max_repeats=max_repeats,
        seed=seed,
    )
    if json:
        out.emit([asdict(part) | {"path": part.path.as_posix()} for part in found])
    else:
        say(into, found)


def say(into: Path, found: Sequence[Mixed]) -> None:
    """A line for the whole, and one on each part: asked and got."""
    out.line(f"{into}: {sum(part.train for part in found):,} tokens for training")
    for part in found:
        often = "" if part.repeats <= 1 else f", taken {part.repeats:.2f} times"
        out.line(
            f"  {part.path}: {part.train:,} tokens = {part.got:.2%} (asked {part.asked:.2%})"
            f"{often}, {part.val:,} for validation"
        )


def _by_folder(option: str, spelled: Sequence[str], folders: Sequence[Path]) -> dict[Path, float]:
    from matura.core.errors import RecipeError
    from matura.core.leaves import did_you_mean

    found: dict[Path, float] = {}
    for text in spelled:
        name, _, number = text.rpartition("=")
        path = Path(name)
        if path not in folders:
            known = did_you_mean(name, map(str, folders))
            raise RecipeError(f"{option} {text}: {name or text!r} is none of the folders{known}")
        try:
            found[path] = float(number)
        except ValueError:
            raise RecipeError(f"{option} {text}: expected {name}=NUMBER") from None
    return found
