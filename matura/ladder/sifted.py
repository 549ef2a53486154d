"""What was left out as a duplicate or for an evaluation item, for the eye."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from matura.data.sieve import Decontaminated, Deduped

CLUSTERS, PAIRS, HITS = 5, 3, 10
TEXT_CHARS = 100


class Counted(Protocol):
    """What became of a source's documents."""

    read: int
    kept: int

    @property
    def dropped(self) -> Mapping[str, int]: ...


def drawn_deduped(report: Deduped) -> Iterator[RenderableType]:
    """What became of each source, the largest groups, and a few pairs that differ."""
    yield _sources("without duplicates", report.sources)
    if report.clusters:
        table = Table(title="most duplicated", title_justify="left")
        table.add_column("kept")
        table.add_column("left out", justify="right")
        table.add_column("such as")
        for cluster in report.clusters[:CLUSTERS]:
            such = ", ".join(cluster.ids[:2])
            table.add_row(escape(cluster.kept), f"{cluster.duplicates:,}", escape(such))
        yield table
    for pair in [pair for pair in report.pairs if pair.change][:PAIRS]:
        yield Text(f"{pair.similarity:.2f} alike: {pair.dropped}, left out for {pair.kept}")
        yield Text(pair.change, style="dim")


def drawn_decontaminated(report: Decontaminated) -> Iterator[RenderableType]:
    """What became of each source, and what matched."""
    yield _sources(f"without {report.items:,} evaluation items", report.sources)
    hits = [hit for findings in report.sources.values() for hit in findings.hits]
    if hits:
        table = Table(title="what matched", title_justify="left")
        for head in ("document", "item", "rule", "text"):
            table.add_column(head)
        for hit in hits[:HITS]:
            text = " ".join(hit.text.split())[:TEXT_CHARS]
            table.add_row(*map(escape, (hit.document, hit.item, hit.rule, text)))
        yield table
    more = len(hits) + sum(one.hits_left_out for one in report.sources.values()) - HITS
    if more > 0:
        yield Text(f"and {more:,} more", style="dim")


def _sources(title: str, sources: Mapping[str, Counted]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in ("source", "read", "kept", "dropped"):
        table.add_column(head, justify="left" if head in ("source", "dropped") else "right")
    for name, one in sources.items():
        dropped = "\n".join(f"{number:,} {why}" for why, number in sorted(one.dropped.items()))
        table.add_row(escape(name), f"{one.read:,}", f"{one.kept:,}", escape(dropped) or "none")
    return table
