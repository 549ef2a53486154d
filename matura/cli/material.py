"""`data check`, `data clean`, `data fetch` and `lesson`: what a model learns from, before it
does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json, Scale
from matura.cli.reading import Each, Encoding, Layout, Paths, Suffix, named


def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="JSONL, text, shards, recipes.")
    ],
    format: Annotated[
        str | None, typer.Option(help="Of JSONL: messages, sharegpt, … (told by its first row).")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Whose tokens chats are counted in, to see which are long.")
    ] = None,
    dialect: Annotated[str | None, typer.Option(help="Chat format to count them in.")] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens of a row; the model's own if absent.")
    ] = None,
    json: Json = False,
) -> None:
    """Go through files to the end: what is in them, and everything wrong with them."""
    from matura.data.check import check as checked
    from matura.data.conversations import format_named
    from matura.ladder.drawn import drawn_check
    from matura.ladder.models import find
    from matura.ladder.recipe import load
    from matura.ladder.rendered import comparing
    from matura.ladder.spelling import whole

    stated = None if format is None else format_named(format)
    found = find(model) if model else None
    reports = [
        checked(
            path,
            format=stated,
            recipe=lambda path: whole(load(path)),
            lengths=comparing(found, dialect, sequence_length),
        )
        for path in files
    ]
    if json:
        out.emit([report.as_dict() for report in reports])
    else:
        out.draw(*map(drawn_check, reports))
    for report in reports:
        for error in report.errors:
            out.tell(f"matura: {error}")
        if report.errors_left_out:
            out.tell(f"matura: {report.path}: {report.errors_left_out} more errors")
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def clean(
    kind: Annotated[str, typer.Argument(help="code, dialogue, prose, qa, language, pii …")],
    paths: Paths,
    into: Annotated[Path, typer.Option(help="Folder for the shards; made if it is not there.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="The cleaner's.")
    ] = None,
    suffix: Suffix = None,
    encoding: Encoding = "utf-8",
    layout: Layout = None,
    each: Each = None,
    json: Json = False,
) -> None:
    """Clean documents into text shards, and count why others were left out.

    A recipe reads the shards with {kind: marked, path: FOLDER}; it can also clean as it reads:
    clean: [{kind: code}] beside any source of text.
    """
    from matura.data.corpus import clean_into
    from matura.ladder.drawn import drawn_cleaning
    from matura.ladder.settled import cleaner_of

    cleaner = cleaner_of(kind, settings or ())
    counts = clean_into(into, named(paths, suffix, encoding, layout, each), [cleaner])
    if json:
        out.emit({name: count.as_dict() for name, count in counts.items()})
    else:
        out.draw(*drawn_cleaning(counts))
        out.tell(f"{into}: cleaned; a recipe reads it with {{kind: marked, path: {into}}}")


def fetch(
    recipe: Annotated[Path, typer.Argument(help="A recipe, YAML or JSON.")],
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Change a place in the recipe."),
    ] = None,
    scale: Scale = 1.0,
    cache: Annotated[
        Path | None, typer.Option(help="Where files are kept (MATURA_CACHE, ~/.cache/matura).")
    ] = None,
    json: Json = False,
) -> None:
    """Download what a recipe's sources need, so that it can be climbed without the network.

    What is there already is not asked for again, and what was cut off goes on where it stopped.
    Nothing else in Matura uses the network, unless MATURA_OFFLINE=0 allows it.
    """
    from matura.data.network import Network, using
    from matura.ladder.drawn import drawn_fetched
    from matura.ladder.fetch import fetched
    from matura.ladder.recipe import load

    asked = load(recipe, set or (), scale=scale)
    with using(Network(offline=False, cache=cache, progress=out.bytes_here)):
        found = list(fetched(asked))
    if json:
        out.emit([one.as_dict() for one in found])
    else:
        out.draw(drawn_fetched(found))


def lesson(
    kind: Annotated[str, typer.Argument(help="A lesson, such as echo; a wrong name lists them.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The lesson's settings.")
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="Examples printed.")] = 5,
    split: Annotated[str, typer.Option(help="train, validation or exam.")] = "train",
    model: Annotated[
        Path | None, typer.Option(help="Model whose tokenizer counts and cuts words.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is made up.")] = 0,
    json: Json = False,
) -> None:
    """Print examples of a lesson, and how varied it is."""
    from matura.core.errors import RecipeError
    from matura.core.leaves import did_you_mean
    from matura.ladder.drawn import drawn_preview
    from matura.ladder.models import find
    from matura.ladder.preview import SPLITS, lesson_of, preview

    if split not in SPLITS:
        raise RecipeError(f"--split {split}: not known{did_you_mean(split, SPLITS)}")
    found = preview(
        lesson_of(kind, options or ()),
        count=count,
        seed=seed,
        split=SPLITS[split],
        tokenizer=find(model).template().tokenizer if model else None,
    )
    if json:
        out.emit(found.as_dict())
    else:
        out.draw(drawn_preview(found))
