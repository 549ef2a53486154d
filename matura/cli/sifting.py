"""`data dedup` and `data decontaminate`: what should not be learned twice, and what not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matura.cli import out
from matura.cli.climbing import Json
from matura.cli.reading import Each, Encoding, Layout, Paths, Suffix, named

Into = Annotated[Path, typer.Option(help="Folder for the shards; made if it is not there.")]


def dedup(
    paths: Paths,
    into: Into,
    threshold: Annotated[
        float, typer.Option(min=0.3, max=1, help="Share of word runs that near duplicates share.")
    ] = 0.8,
    exact: Annotated[
        bool, typer.Option("--exact", help="Leave out exact duplicates only.")
    ] = False,
    suffix: Suffix = None,
    encoding: Encoding = "utf-8",
    layout: Layout = None,
    each: Each = None,
    json: Json = False,
) -> None:
    """Write documents that are like none before them as text shards; the first path comes first.

    dedup.json beside them has the counts, the largest groups and examples. A recipe can do the same
    as it reads: dedup: near beside any source of text.
    """
    from matura.data.dedup import Duplicates
    from matura.data.sieve import dedup_into
    from matura.ladder.sifted import drawn_deduped

    settings = Duplicates(threshold=threshold, near=not exact)
    sources = named(paths, suffix, encoding, layout, each)
    report = dedup_into(into, sources, settings, told=out.documents_here)
    if json:
        out.emit(report.as_dict())
    else:
        out.draw(*drawn_deduped(report))
        out.tell(f"{into}: without duplicates; a recipe reads it with {_marked(into)}")


def decontaminate(
    paths: Paths,
    into: Into,
    against: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="Evaluation items: JSONL, or one a line; repeat it."),
    ],
    field: Annotated[
        list[str] | None,
        typer.Option(help="Of a JSON row, what is an item; every text if absent; repeat it."),
    ] = None,
    suffix: Suffix = None,
    encoding: Encoding = "utf-8",
    layout: Layout = None,
    each: Each = None,
    json: Json = False,
) -> None:
    """Write documents that hold no evaluation item as text shards; each hit with what matched.

    An item is found verbatim, by 13 words in a row, or lightly changed. A recipe can do the same as
    it reads: clean: [{kind: decontaminate, against: [FILE]}].
    """
    from matura.data.clean.decontaminate import items_of
    from matura.data.decontaminate import Index
    from matura.data.sieve import decontaminate_into
    from matura.ladder.sifted import drawn_decontaminated

    index = Index(item for file in against for item in items_of(file, field or ()))
    sources = named(paths, suffix, encoding, layout, each)
    report = decontaminate_into(into, sources, index, told=out.documents_here)
    if json:
        out.emit(report.as_dict())
    else:
        out.draw(*drawn_decontaminated(report))
        out.tell(f"{into}: free of these items; a recipe reads it with {_marked(into)}")
    for count, why in (
        (report.only_whole, "too short to be found but as a whole document"),
        (len(report.empty), "without a word, so not looked for"),
    ):
        if count:
            out.tell(f"mind: {count:,} of {report.items + len(report.empty):,} items {why}")


def _marked(folder: Path) -> str:
    return f"{{kind: marked, path: {folder}}}"
