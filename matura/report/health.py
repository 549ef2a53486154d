"""`data inspect --html`: health cards as one page that opens offline and holds no script.

What files say is escaped, and the page's policy forbids it to load anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import matura
from matura.core.disk import replace_atomically
from matura.core.ledger import spell_count
from matura.data.composition import KINDS
from matura.data.dedup import Duplicates
from matura.data.health import BINS, BYTES_A_TOKEN, LONG_LINE_CHARS, Card, Part, Sample, total
from matura.data.repeats import RUN_WORDS
from matura.report.charts import SERIES, bars
from matura.report.html import POLICY
from matura.report.style import STYLE

WIDTH, HEIGHT = 460, 210
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 12, 34
MORE_STYLE = """
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  gap: 10px; margin: 6px 0 0; }
.pairs pre { margin: 0; padding: 10px 12px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--paper); white-space: pre-wrap; overflow-wrap: anywhere; max-height: 22em;
  overflow: auto; unicode-bidi: isolate; }
.pairs .gone { color: var(--quiet); font-style: italic; }
.pairs span { display: block; color: var(--quiet); font-size: 12px; margin-bottom: 3px; }
.piece { border-top: 1px solid var(--line); padding: 12px 0 6px; overflow-wrap: anywhere; }
.named { display: grid; grid-template-columns: minmax(84px, max-content) minmax(0, 1fr);
  gap: 7px 14px; align-items: start; font-size: 14px; }
.named .meter { margin-top: 3px; }
.named dt { color: var(--quiet); } .named dd { margin: 0; }
.wide td { overflow-wrap: anywhere; }
.card h3:not(:first-child) { margin-top: 16px; }
svg .docs { fill: var(--s0); } svg .chars { fill: none; stroke: var(--s1); stroke-width: 2; }
svg .dot { fill: var(--s1); }
"""


def write(cards: Sequence[Card], path: Path) -> None:
    """Writes the page, whole or not at all.

    Raises:
        StoreError: the disk refuses.
    """
    replace_atomically(path, page(cards).encode("utf-8", "backslashreplace"))


def page(cards: Sequence[Card]) -> str:
    """The whole page."""
    body = "".join((*_head(cards), *(part for card in cards for part in _card(card))))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Health of a corpus</title><style>{STYLE}{MORE_STYLE}</style></head>"
        f"<body><main>{body}<footer>Matura {escape(matura.__version__)}. {_how(cards)}</footer>"
        "</main></body></html>\n"
    )


def _how(cards: Sequence[Card]) -> str:
    settings = Duplicates()
    counted = all(card.tokens_counted for card in cards)
    tokens = (
        "Tokens are counted by the model's tokenizer."
        if counted
        else f"Tokens are estimated at {BYTES_A_TOKEN:g} bytes each."
    )
    return (
        f"{tokens} Near duplicates share about {settings.threshold:.0%} of their runs of "
        f"{settings.ngram} words, by signatures of {settings.permutations} numbers. Kinds of text "
        "are told by what lines look like, languages by small words; both can be wrong about a "
        "document, hardly about a corpus."
    )


def _head(cards: Sequence[Card]) -> Iterator[str]:
    sums = total(cards)
    again = sum(card.exact.documents + card.near.documents for card in cards)
    about = "" if all(card.tokens_counted for card in cards) else "≈ "
    yield '<header><div class="kicker">Matura health card</div><h1>What the corpus is made of</h1>'
    yield _tiles(
        [
            (f"{len(cards)}", "source" if len(cards) == 1 else "sources"),
            (f"{sums['documents']:,}", "documents"),
            (f"{sums['bytes'] / 1e6:,.1f} MB", "of text"),
            (about + spell_count(sums["tokens"]), "tokens"),
            (about + spell_count(sums["unique_tokens"]), "tokens without repeats"),
            (f"{again / max(1, sums['documents']):.1%}", "duplicates"),
        ]
    )
    yield "</header>"
    if len(cards) > 1:
        yield "<h2>Composition</h2>"
        yield '<p class="quiet">Shares of characters, each source by itself.</p><div class="card">'
        for card in cards:
            yield f"<h3>{escape(card.name)}</h3>{_shares_bar(card, card.composition, KINDS)}"
        yield f"{_legend(KINDS)}</div>"


def _tiles(parts: Sequence[tuple[str, str]]) -> str:
    items = (f'<li><b class="num">{value}</b><span>{name}</span></li>' for value, name in parts)
    return f'<ul class="tiles">{"".join(items)}</ul>'


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><i style="background:var(--s{number % SERIES})"></i>{escape(name)}</li>'
        for number, name in enumerate(names)
    )
    return f'<ul class="legend num">{items}</ul>'


def _shares_bar(card: Card, parts: Mapping[str, Part], names: Sequence[str]) -> str:
    shares = [(name, card.share(parts[name])) for name in names]
    return bars(shares, ", ".join(f"{name} {share:.1%}" for name, share in shares))


def _card(card: Card) -> Iterator[str]:
    looked = "" if card.whole else f" The first {card.most:,} documents; there are more."
    yield f"<h2>{escape(card.name)}</h2>"
    yield f'<p class="quiet">{_cleaned(card)}{looked}</p>'
    yield '<div class="grid2">'
    yield f'<div class="card"><h3>Kinds of text</h3>{_parts(card, card.composition, KINDS)}'
    ranked = tuple(card.languages)[:SERIES]
    yield f"<h3>Languages</h3>{_parts(card, card.languages, ranked)}</div>"
    yield f'<figure class="card" style="margin:0"><h3>Length of a document</h3>{histogram(card)}'
    yield (
        '<ul class="legend"><li><i style="background:var(--s0)"></i>share of documents</li><li>'
        '<i style="background:var(--s1)"></i>share of text</li></ul></figure>'
    )
    yield f'<div class="card"><h3>Said again</h3>{_again(card)}</div>'
    yield f'<div class="card"><h3>What stands out</h3>{_odd(card)}</div>'
    yield "</div>"
    yield from _tables(card)
    yield from _samples(card)


def _cleaned(card: Card) -> str:
    if not card.cleaning:
        return f"{card.documents:,} documents, as they are; nothing was cleaned."
    told = card.cleaning
    why = ", ".join(f"{count:,} {escape(reason)}" for reason, count in told["dropped"].items())
    return (
        f"{told['read']:,} read = {told['kept']:,} kept ({told['changed']:,} changed) + "
        f"{sum(told['dropped'].values()):,} dropped{f': {why}' if why else ''}. "
        f"What follows is about the {told['made']:,} that came out."
    )


def _parts(card: Card, parts: Mapping[str, Part], names: Sequence[str]) -> str:
    """A bar, and what it shows in figures."""
    told = "".join(
        f'<li><i style="background:var(--s{number % SERIES})"></i>{escape(name)} '
        f"{card.share(parts[name]):.1%} in {parts[name].documents:,}</li>"
        for number, name in enumerate(names)
        if parts[name].documents
    )
    return f'{_shares_bar(card, parts, names)}<ul class="legend num">{told}</ul>'


def histogram(card: Card) -> str:
    """Documents by length, and how much of the text they are, over powers of two."""
    filled = [place for place, part in enumerate(card.bins) if part.documents]
    if not filled:
        return '<p class="quiet">no documents</p>'
    places = range(max(0, filled[0] - 1), min(len(card.bins), filled[-1] + 2))
    documents = [card.bins[place].documents / card.documents for place in places]
    characters = [card.share(card.bins[place]) for place in places]
    high = max(*documents, *characters, 0.01) * 1.06
    wide = (WIDTH - LEFT - RIGHT) / len(places)

    def up(share: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share / high, 1)

    marks = []
    step = next(s for s in (0.05, 0.1, 0.2, 0.25, 0.5) if high / s <= 5 or s == 0.5)
    for number in range(int(high / step) + 1):
        y = up(number * step)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        label = f'x="{LEFT - 6}" y="{y + 4}" text-anchor="end"'
        marks.append(f'<text class="tick" {label}>{100 * number * step:.0f} %</text>')
    every = -(-len(places) // 8)
    spots = []
    for number, place in enumerate(places):
        x = LEFT + wide * number
        least = BINS[place - 1] if place else 0
        most = f"to {BINS[place]:,}" if place < len(BINS) else "and more"
        part = card.bins[place]
        about = f"{least:,} {most} characters: {part.documents:,} documents"
        y = up(documents[number])
        marks.append(
            f'<rect class="docs" x="{x + wide * 0.12:.1f}" y="{y}" width="{wide * 0.76:.1f}" '
            f'height="{HEIGHT - BOTTOM - y:.1f}" rx="1.5"><title>{about}, '
            f"{characters[number]:.1%} of the text</title></rect>"
        )
        spots.append((round(x + wide / 2, 1), up(characters[number])))
        if number % every == 0:
            marks.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" '
                f'text-anchor="middle">{_size(least)}</text>'
            )
    line = " ".join(f"{'L' if i else 'M'}{x} {y}" for i, (x, y) in enumerate(spots))
    dots = "".join(f'<circle class="dot" cx="{x}" cy="{y}" r="2.6"/>' for x, y in spots)
    title = f"Length of documents of {escape(card.name)}: half below {card.lengths['half']:,}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} characters">'
        f"<title>{title} characters</title>{''.join(marks)}"
        f'<path class="chars" d="{line}"/>{dots}<text class="tick" x="{WIDTH - RIGHT}" '
        f'y="{HEIGHT - 4}" text-anchor="end">characters</text></svg>'
    )


def _size(characters: int) -> str:
    for unit, name in ((2**20, "M"), (2**10, "k")):
        if characters >= unit:
            return f"{characters // unit}{name}"
    return str(characters)


def _again(card: Card) -> str:
    count, repeats = max(1, card.documents), card.repeats
    rows = [
        ("exact copies", card.exact.documents / count, f"{card.exact.documents:,} documents"),
        ("near copies", card.near.documents / count, f"{card.near.documents:,} documents"),
        ("window overlap", card.overlap_characters / max(1, card.characters), "of the text"),
        (f"runs of {RUN_WORDS} words", repeats["runs"], "were there before in their document"),
        ("lines", repeats["lines"], "were there before in their document"),
        ("zlib takes", 1 - repeats["packed"], "of the bytes away"),
    ]
    told = "".join(
        f'<dt>{name}</dt><dd class="num">{share:.1%} <span class="quiet">{what}</span>'
        f'<span class="meter"><i style="width:{100 * min(1.0, share):.1f}%"></i></span></dd>'
        for name, share, what in rows
    )
    return f'<dl class="named">{told}</dl>'


def _odd(card: Card) -> str:
    rows = [
        (f"lines over {LONG_LINE_CHARS:,}", f"{card.long_lines.documents:,} of {card.lines:,}"),
        ("of the text", f"{card.long_lines.characters / max(1, card.characters):.1%}"),
        *(
            (name, f"{part.characters:,} in {part.documents:,} documents")
            for name, part in card.odd.items()
        ),
    ]
    told = "".join(f'<dt>{name}</dt><dd class="num">{value}</dd>' for name, value in rows)
    none = "" if card.odd else '<p class="quiet">No odd characters.</p>'
    return f'<dl class="named">{told}</dl>{none}'


def _tables(card: Card) -> Iterator[str]:
    rows = [
        ("longest line", f"{one['id']}:{one['line']}", f"{one['characters']:,}", one["beginning"])
        for one in card.longest_lines
    ]
    rows += [("most repetitive", id, f"{share:.0%}", "") for share, id in card.most_repetitive]
    rows += [(pair["why"], pair["id"], "", f"of {pair['of']}") for pair in card.pairs]
    yield "<details><summary><b>Where to look</b> "
    yield '<span class="quiet">longest lines, most repetitive documents, duplicates</span>'
    yield "</summary>"
    yield '<div class="scroll wide"><table><thead><tr><th scope="col">what</th>'
    yield '<th scope="col">where</th><th scope="col" class="r">size</th><th scope="col"></th></tr>'
    yield "</thead><tbody>"
    for what, where, size, more in rows:
        yield f'<tr><th scope="row">{escape(what)}</th><td>{escape(where)}</td>'
        yield f'<td class="r">{size}</td><td><code>{escape(more)}</code></td></tr>'
    yield "</tbody></table></div></details>"


def _samples(card: Card) -> Iterator[str]:
    about = "before and after cleaning" if card.cleaning else "as they are"
    yield f"<details><summary><b>{len(card.samples)} samples</b> "
    yield f'<span class="quiet">{about}, chosen by a hash</span></summary><div>'
    for sample in card.samples:
        yield f'<div class="piece"><b>{escape(sample.id)}:{sample.line}</b> '
        yield f'<span class="quiet">{escape(sample.what)}</span>{_sample(sample)}</div>'
    yield "</div></details>"


def _sample(sample: Sample) -> str:
    if sample.what == "unchanged":
        return f'<div class="pairs"><pre>{escape(sample.before)}</pre></div>'
    after = "left out" if sample.after is None else escape(sample.after)
    gone = ' class="gone"' if sample.after is None else ""
    return (
        f'<div class="pairs"><div><span>before</span><pre>{escape(sample.before)}</pre></div>'
        f"<div><span>after</span><pre{gone}>{after}</pre></div></div>"
    )
