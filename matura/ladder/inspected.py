"""Health cards of paths or of a recipe's sources, made one after the other and drawn for the
eye."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from matura.core.ledger import spell_count
from matura.core.record import canonical
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.build import divided_by_content
from matura.data.cleaner import Cleaner
from matura.data.composition import KINDS
from matura.data.corpus import source_at
from matura.data.health import BYTES_A_TOKEN, LONG_LINE_CHARS, MOST, Card, Part, inspect
from matura.data.repeats import RUN_WORDS
from matura.data.source import Source
from matura.ladder.recipe import Recipe
from matura.text.tokenizer import Tokenizer

BAR = 20
COLOURS = {"code": "blue", "dialogue": "red", "structured": "green", "prose": "magenta"}
MARKS = {"code": "█", "dialogue": "▓", "structured": "▒", "prose": "░"}
"""Told apart without colours too."""


@dataclass(frozen=True)
class Asked:
    """A source to look at, and what cleans it first."""

    name: str
    source: Source
    cleaners: tuple[Cleaner, ...] = ()


def of_paths(
    paths: Sequence[Path],
    cleaners: Sequence[Cleaner],
    *,
    suffixes: Sequence[str] = (),
    encoding: str = "utf-8",
    layout: str | None = None,
    each: str | None = None,
) -> list[Asked]:
    """What is asked by naming files and folders.

    Raises:
        DataError: one of them is not there.
    """
    return [
        Asked(
            path.as_posix(),
            source_at(path, suffixes, encoding, layout=layout, each=each),
            tuple(cleaners),
        )
        for path in paths
    ]


def of_recipe(recipe: Recipe, cleaners: Sequence[Cleaner] = ()) -> Iterator[Asked]:
    """Each source of found text in a recipe, once, with the cleaners it has there; `cleaners` come
    after them. What is made up (lessons, repetition) is not looked at."""
    seen: set[str] = set()
    for stage in recipe.stages:
        for part in stage.mixture:
            if not isinstance(part.source, Source) or not divided_by_content(part.source):
                continue
            spelled = canonical([part.source, list(part.clean)])
            if spelled not in seen:
                seen.add(spelled)
                name = f"{stage.name}/{part.title}"
                yield Asked(name, part.source, (*part.clean, *cleaners))


def cards_of(
    asked: Sequence[Asked],
    *,
    codec: Tokenizer | None = None,
    most: int = MOST,
    told: Callable[[str, int], None] | None = None,
) -> Iterator[Card]:
    """A card for each, as it is done.

    Raises:
        DataError: a source's own, or it yields nothing.
    """
    for one in asked:
        yield inspect(
            one.source,
            Given(rng=rng(0, "inspect", one.name), tokenizer=codec),
            name=one.name,
            cleaners=one.cleaners,
            codec=codec,
            most=most,
            told=told,
        )


def drawn_cards(cards: Sequence[Card]) -> RenderableType:
    """A row for each source, then what is special about each."""
    table = Table(title="health", title_justify="left")
    table.add_column("source", overflow="fold")
    for head in ("docs", "tokens", "unique", "copies"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("composition", no_wrap=True)
    for card in cards:
        about = "" if card.tokens_counted else "≈"
        table.add_row(
            escape(card.name),
            f"{card.documents:,}" + ("" if card.whole else "+"),
            about + spell_count(card.tokens),
            spell_count(card.unique_tokens),
            _percent((card.exact.documents + card.near.documents) / max(1, card.documents)),
            _bar(card),
        )
    legend = Text("  ").join(Text(f"{MARKS[k]} {k}", style=COLOURS[k]) for k in KINDS)
    return Group(table, legend, *(Text(line) for card in cards for line in _notes(card)))


def shares(card: Card, parts: dict[str, Part], most: int) -> str:
    """The largest parts by characters, as words."""
    ranked = sorted(parts.items(), key=lambda pair: -pair[1].characters)
    told = [f"{name} {card.share(part):.0%}" for name, part in ranked if card.share(part) >= 0.005]
    return ", ".join(told[:most]) or "none"


def _percent(share: float) -> str:
    return "none" if share == 0 else "<0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _bar(card: Card) -> Text:
    text, at, sum_ = Text(), 0, 0.0
    for kind in KINDS:
        sum_ += card.share(card.composition[kind])
        text.append(MARKS[kind] * (round(BAR * sum_) - at), style=COLOURS[kind])
        at = round(BAR * sum_)
    return text


def _notes(card: Card) -> Iterator[str]:
    yield ""
    kinds, tongues = shares(card, card.composition, 4), shares(card, card.languages, 4)
    yield f"{card.name}: {kinds}; languages: {tongues}"
    if sizes := card.lengths:
        yield (
            f"  characters a document: {sizes['least']:,} to {sizes['most']:,}, half below "
            f"{sizes['half']:,}; {_percent(card.share(card.long_lines))} in lines over "
            f"{LONG_LINE_CHARS:,}"
        )
        yield (
            f"  said again within a document: {_percent(card.repeats['runs'])} of runs of "
            f"{RUN_WORDS} words, {_percent(card.repeats['lines'])} of lines; zlib leaves "
            f"{_percent(card.repeats['packed'])} of the bytes"
        )
    if not card.whole:
        yield f"  only the first {card.most:,} documents were looked at; --most takes more"
    if not card.tokens_counted:
        yield f"  tokens are estimated at {BYTES_A_TOKEN:g} bytes each; --model counts them"
    if card.cleaning:
        why = ", ".join(f"{n:,} {reason}" for reason, n in card.cleaning["dropped"].items())
        yield (
            f"  cleaned: {card.cleaning['read']:,} read = {card.cleaning['kept']:,} kept + dropped "
            f"({why or 'none'}); {card.cleaning['changed']:,} changed"
        )
    if card.overlap_characters:
        share = card.overlap_characters / max(1, card.characters)
        yield (
            f"  windows overlap: {share:.1%} of the text stands in the window before; "
            f"{card.unique_tokens:,} tokens are not said twice"
        )
    if card.pairs:
        yield f"  copies: {card.exact.documents:,} exact, {card.near.documents:,} near; such as"
    for pair in card.pairs[:3]:
        yield f"    {pair['id']}: {pair['why']} of {pair['of']}"
    if card.odd:
        odd = ", ".join(f"{part.characters:,} {name}" for name, part in card.odd.items())
        yield f"  odd characters: {odd}"
    for line in card.longest_lines[:1]:
        yield f"  longest line: {line['characters']:,} characters, {line['id']}:{line['line']}"
