"""`data prepare`: documents to token shards, on one machine or many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json
from matura.cli.reading import by_source, spelled

if TYPE_CHECKING:
    from matura.data.preparation import Found


Paths = Annotated[
    list[str],
    typer.Argument(metavar="[NAME=]PATH...", help="Folders, text, JSONL, parquet, text shards."),
]
Tokens = Annotated[Path | None, typer.Option(help="A model or a folder with a tokenizer, or:")]
Size = Annotated[
    int | None,
    typer.Option(min=257, max=1_000_000, help="Train one of this size on the corpus itself."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]KIND", help="code, prose, qa …, one after the other; repeat it."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="[NAME=]KEY=VALUE", help="Of the cleaner, where there is one."),
]
Suffixes = Annotated[
    list[str] | None,
    typer.Option("--suffix", metavar="[NAME=].SUFFIX", help="Of files in a folder; repeat it."),
]
Encodings = Annotated[
    list[str] | None,
    typer.Option("--encoding", metavar="[NAME=]ENCODING", help="Of text files; utf-8 if absent."),
]
Layouts = Annotated[
    list[str] | None,
    typer.Option("--layout", metavar="[NAME=]LAYOUT", help="Of JSON rows: '{q}\\n{a}'."),
]
Lists = Annotated[
    list[str] | None,
    typer.Option("--each", metavar="[NAME=]FIELD", help="The list that --layout spells."),
]
Threshold = Annotated[float, typer.Option(min=0.3, max=1, help="How alike near duplicates are.")]
Exact = Annotated[bool, typer.Option("--exact", help="Leave near duplicates in.")]
Items = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Evaluation items that may not be in it; repeat it."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes, or tasks at once; one for each core.")
]
EngineName = Annotated[
    str, typer.Option(help="local, or ray: the cluster at RAY_ADDRESS, or one started here.")
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Make it again where another lies there.")]


def prepare(
    paths: Paths,
    into: Annotated[Path, typer.Option(help="The corpus: a folder that is made.")],
    tokenizer: Tokens = None,
    vocab_size: Size = None,
    clean: Kinds = None,
    settings: Settings = None,
    suffix: Suffixes = None,
    encoding: Encodings = None,
    layout: Layouts = None,
    each: Lists = None,
    threshold: Threshold = 0.8,
    exact: Exact = False,
    against: Items = None,
    workers: Workers = None,
    engine: EngineName = "local",
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Make a corpus: read, clean, drop duplicates and evaluation items, split, tokenise.

    Run again, it goes on where it stopped; the result is the same bytes whatever the workers and
    the engine. A recipe trains on it with {kind: corpus, path: FOLDER}.

    What is said of how to read and clean is said of all sources, with NAME= in front of that one.
    """
    from matura.core.errors import RecipeError
    from matura.core.ledger import Ledger
    from matura.data.dedup import Duplicates
    from matura.data.engine import engine_named
    from matura.data.preparation import NewTokenizer, Wanted
    from matura.data.preparation import prepare as prepared
    from matura.ladder.prepared import drawn_corpus

    if (tokenizer is None) == (vocab_size is None):
        raise RecipeError("give --tokenizer or --vocab-size, one of the two")
    wanted = Wanted(
        sources=_found(
            paths,
            {
                "--clean": clean or (),
                "--set": settings or (),
                "--suffix": suffix or (),
                "--encoding": encoding or (),
                "--layout": layout or (),
                "--each": each or (),
            },
        ),
        tokenizer=_folder(tokenizer) if tokenizer else NewTokenizer(vocab_size=vocab_size or 0),
        duplicates=Duplicates(threshold=threshold, near=not exact),
        against=tuple(against or ()),
    )
    with Ledger() as ledger:

        def progress(doing: str, done: int, total: int) -> None:
            if ledger.stage != doing:
                ledger.clear()
                ledger.stage = doing
            ledger.progress(done, total, unit="parts")

        made = prepared(
            into,
            wanted,
            engine=engine_named(engine, workers),
            progress=progress,
            rebuild="rebuild" if rebuild else "keep",
        )
    told = {key: made.record[key] for key in ("sources", "duplicates", "contamination")}
    if json:
        out.emit({"folder": into.as_posix(), "tokenizer": made.record["tokenizer"], **told})
    else:
        out.draw(*drawn_corpus(told))
        out.tell(f"{into}: a recipe trains on it with {{kind: corpus, path: {into}}}")


def _found(paths: Sequence[str], options: Mapping[str, Sequence[str]]) -> tuple[Found, ...]:
    """The sources by their names, each read and cleaned as the options say of it.

    Raises:
        RecipeError: an option cannot be, or is of a source that is not there.
    """
    from matura.core.errors import RecipeError
    from matura.data.corpus import source_at
    from matura.data.preparation import Found
    from matura.ladder.settled import cleaner_of

    named = [_named(path) for path in paths]
    names = [name for name, _ in named]
    told = {option: by_source(option, given, names) for option, given in options.items()}
    found = []
    for name, path in named:
        kinds, settings = told["--clean"][name], told["--set"][name]
        if settings and len(kinds) != 1:
            raise RecipeError(
                f"--set is for one cleaner; {name} has {len(kinds)}: use a recipe, or --set "
                "NAME=KEY=VALUE for one source"
            )
        encoding, layout, each = (
            next(reversed(told[option][name]), None)
            for option in ("--encoding", "--layout", "--each")
        )
        source = source_at(
            path,
            told["--suffix"][name],
            encoding or "utf-8",
            layout=spelled(layout),
            each=each,
        )
        found.append(Found(name, source, tuple(cleaner_of(kind, settings) for kind in kinds)))
    return tuple(found)


def _named(asked: str) -> tuple[str, Path]:
    """A source's name, given or made of its path, and where it lies."""
    from matura.data.preparation import NAME

    name, given, path = asked.partition("=")
    if given and re.fullmatch(NAME, name):
        return name, Path(path)
    stem = Path(asked).resolve().name.split(".")[0].lower()
    return (re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_") or "text")[:64], Path(asked)


def _folder(path: Path) -> Path:
    """Where a tokenizer lies: in a folder of its own, in a model, or in a run."""
    from matura.ladder.models import find

    if (path / "tokenizer_config.json").is_file() and not (path / "record.json").is_file():
        return path
    return find(path).path
