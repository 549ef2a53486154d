"""`data inspect`: the health card of what is to be learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json
from matura.cli.reading import Each, Encoding, Layout, Suffix, spelled


def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...|RECIPE", help="Folders, text, JSON, parquet … recipes."),
    ],
    clean: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Clean first: code, prose, dialogue …; repeat it."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model whose tokenizer counts; estimated if absent.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Documents looked at in each source.")] = 50_000,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with plots and samples.")
    ] = None,
    suffix: Suffix = None,
    encoding: Encoding = "utf-8",
    layout: Layout = None,
    each: Each = None,
    json: Json = False,
) -> None:
    """Show what a corpus is made of: tokens, kinds of text, languages, duplicates, repetition.

    Nothing is written but --html. Text that a cleaner of --clean or of the recipe leaves out is
    counted by reason and in none of the other figures.
    """
    from matura.core.errors import DataError
    from matura.data.arrays import is_array
    from matura.data.check import kind_of
    from matura.ladder.inspected import Asked, cards_of, drawn_cards, of_paths, of_recipe
    from matura.ladder.models import find
    from matura.ladder.recipe import load
    from matura.ladder.settled import cleaner_of
    from matura.report.health import write

    cleaners = [cleaner_of(kind) for kind in clean or ()]
    codec = find(model).template().tokenizer if model else None
    asked: list[Asked] = []
    for path in paths:
        if path.is_file() and kind_of(path) == "recipe" and not is_array(path):
            asked += of_recipe(load(path), cleaners)
        else:
            asked += of_paths(
                [path],
                cleaners,
                suffixes=suffix or (),
                encoding=encoding,
                layout=spelled(layout),
                each=each,
            )
    if not asked:
        raise DataError(f"{paths[0]}: no source of found text; what is made up has no health card")
    cards = list(cards_of(asked, codec=codec, most=most, told=out.documents_here))
    if html:
        write(cards, html)
    if json:
        out.emit([card.as_dict() for card in cards])
    else:
        out.draw(drawn_cards(cards))
    if html:
        out.tell(f"{html}: written; it opens in any browser, offline")
