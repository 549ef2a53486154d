"""A prepared corpus as a person reads it: what became of each source, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

HITS = 5


def drawn_corpus(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    """One row a source, then the largest groups of duplicates and the evaluation items found."""
    table = Table(title="prepared", title_justify="left")
    for head in ("source", "read", "dropped", "left out", "documents", "tokens"):
        table.add_column(head, justify="right" if head == "read" else "left")
    for name, one in record["sources"].items():
        listed = (one[key] for key in ("dropped", "left_out", "documents", "tokens"))
        table.add_row(escape(name), f"{one['read']:,}", *map(_lines, listed))
    yield table
    duplicates = record["duplicates"]
    for note in duplicates["notes"]:
        yield Text(f"mind: {note}")
    for cluster in duplicates["clusters"][:3]:
        yield Text(f"{cluster['left_out']:,} duplicates of {cluster['kept']}", style="dim")
    for hit in record["contamination"][:HITS]:
        yield Text(
            f"{hit['document']}: evaluation item {hit['item']} ({hit['rule']}):", style="dim"
        )
        yield Text(f"  {hit['text'][:160]!r}", style="dim")
    if (more := len(record["contamination"]) - HITS) > 0:
        yield Text(f"and {more} more in the record", style="dim")


def _lines(counts: Mapping[str, int]) -> str:
    return escape("\n".join(f"{count:,} {name}" for name, count in counts.items())) or "none"
