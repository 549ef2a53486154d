"""The health card of a corpus: what it is made of, what is in it twice, what stands out.

One pass, document by document; of each only some numbers stay, and its fingerprint, so that a card
takes about 1.4 kB a document, however long it is, and stops at a stated number of them.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Given
from matura.data.build import Readable
from matura.data.cleaner import Cleaner, Counts, Outcome, outcome
from matura.data.composition import KINDS, kind_of_text
from matura.data.dedup import Duplicates, Fingerprints, Found, duplicates_of, fingerprints
from matura.data.language import language
from matura.data.lengths import spread
from matura.data.oddities import odd_characters
from matura.data.repeats import Repeats, overlap_chars
from matura.text.tokenizer import Tokenizer

MOST = 50_000
"""Documents looked at where nothing else is asked for; their fingerprints and ids take 70 MB."""
SAMPLES = 10
SAMPLE_CHARS = 600
LANGUAGE_CHARS = 1500
"""A corpus needs less of each document than a cleaner that decides about one."""
LONG_LINE_CHARS = 1000
LONGEST = 5
BEGINNING_CHARS = 80
PAIRS = 5
BYTES_A_TOKEN = 4.0
"""What is assumed without a tokenizer, as token budgets of sources do."""
BATCH = 256
BATCH_CHARS = 2**21
BINS = tuple(2**power for power in range(5, 25))
"""Upper ends of the bars of lengths, in characters; the last one has no end."""
SIMILARITY = Duplicates()


@dataclass(frozen=True, slots=True)
class Sample:
    """A document around the first place where cleaning changed it; at its beginning if nothing
    did."""

    id: str
    line: int
    before: str
    after: str | None
    """None where it was dropped."""
    what: str
    """`unchanged`, `changed`, `in 12 pieces`, or why it was dropped."""


@dataclass(slots=True)
class Part:
    """How many documents and characters are of one sort."""

    documents: int = 0
    characters: int = 0

    def add(self, characters: int) -> None:
        """Counts one document."""
        self.documents += 1
        self.characters += characters


@dataclass(slots=True)
class Card:
    """What one source is like. All but `cleaning` and `samples` is about what cleaning kept."""

    name: str
    whole: bool = True
    """Whether the source was read to its end."""
    most: int = MOST
    documents: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: int = 0
    tokens_counted: bool = False
    """Whether a tokenizer counted them; if not, a token is taken for four bytes."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Characters of a document: least, quartiles, 0.99 quantile, most."""
    bins: list[Part] = field(default_factory=lambda: [Part() for _ in (*BINS, None)])
    """Documents by length, a bar for each of `BINS` and one for longer ones."""
    composition: dict[str, Part] = field(default_factory=lambda: {kind: Part() for kind in KINDS})
    languages: dict[str, Part] = field(default_factory=dict)
    exact: Part = field(default_factory=Part)
    """Documents that an earlier one equals."""
    near: Part = field(default_factory=Part)
    """Documents that are nearly an earlier one."""
    pairs: list[dict[str, Any]] = field(default_factory=list)
    """Some duplicates, with what they are duplicates of."""
    overlap_characters: int = 0
    """That stand in the window before as well."""
    unique_tokens: int = 0
    """Tokens without duplicates and overlaps: what there really is to learn from."""
    repeats: dict[str, float] = field(default_factory=dict)
    most_repetitive: list[tuple[float, str]] = field(default_factory=list)
    lines: int = 0
    long_lines: Part = field(default_factory=Part)
    """Lines beyond 1,000 characters (`documents` counts lines)."""
    longest_lines: list[dict[str, Any]] = field(default_factory=list)
    odd: dict[str, Part] = field(default_factory=dict)
    """Control and other characters that text seldom has: documents with them, and how many."""
    cleaning: dict[str, Any] = field(default_factory=dict)
    """read = kept + dropped by reason; empty where nothing was cleaned."""
    samples: list[Sample] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return asdict(self)

    def share(self, part: Part) -> float:
        """Of all characters."""
        return part.characters / max(1, self.characters)


def inspect(
    source: Readable,
    given: Given,
    *,
    name: str,
    cleaners: Sequence[Cleaner] = (),
    codec: Tokenizer | None = None,
    most: int = MOST,
    told: Callable[[str, int], None] | None = None,
) -> Card:
    """The card of a source, of its first `most` documents; `told` hears how many were looked at.

    Raises:
        DataError: the source's own, or there is nothing to look at.
    """
    looking = _Looking(Card(name, most=most, tokens_counted=codec is not None), codec)
    counts = Counts()
    items = iter(source.read(given))
    for item in islice(items, most):
        document = _as_document(item)
        if document.ids is not None:
            raise DataError(f"{name}: {document.id}: is made of token ids; there is no text")
        became = outcome(cleaners, document)
        counts.add(document, became)
        looking.add(document, became, cleaned=bool(cleaners))
        if told is not None and counts.read % BATCH == 0:
            told(name, counts.read)
    if not counts.read:
        raise DataError(f"{name}: the source yielded nothing")
    looking.card.whole = next(items, None) is None
    if cleaners:
        looking.card.cleaning = counts.as_dict() | {"samples": []}
    return looking.done()


def _as_document(item: Document | Conversation) -> Document:
    if isinstance(item, Document):
        return item
    turns = (f"{turn.role}: {' '.join(filter(None, _said(turn)))}" for turn in item.messages)
    return Document(text="\n".join(turns), id=item.id)


def _said(turn: Any) -> Iterator[str]:
    yield from (turn.context, turn.think, turn.content, turn.cite)
    yield from (f"{call.name}({dict(call.arguments)})" for call in turn.calls)


class _Looking:
    """One pass: sums that are added to, and batches for what is faster in one go."""

    def __init__(self, card: Card, codec: Tokenizer | None) -> None:
        self.card = card
        self._codec = codec
        self._repeats = Repeats()
        self._waiting: list[str] = []
        self._waiting_chars = 0
        self._prints: list[Fingerprints] = []
        self._ids: list[str] = []
        self._sizes: list[int] = []
        self._longest: list[tuple[int, int, str, int, str]] = []
        self._repetitive: list[tuple[float, int, str]] = []
        self._samples: list[tuple[bool, int, int, Sample]] = []
        self._last: Document | None = None

    def add(self, document: Document, became: Outcome, *, cleaned: bool) -> None:
        """Counts a document and what was made of it."""
        self._sample(document, became, cleaned)
        for made in became.made:
            self._count(made)

    def _count(self, document: Document) -> None:
        card, text = self.card, document.text
        card.documents += 1
        card.characters += len(text)
        self._ids.append(document.id)
        self._sizes.append(len(text))
        card.bins[int(np.searchsorted(BINS, len(text)))].add(len(text))
        kind = kind_of_text(text)
        card.composition[kind].add(len(text))
        tongue = "code" if kind == "code" else language(_some(text)).language
        card.languages.setdefault(tongue, Part()).add(len(text))
        for what, count in odd_characters(text).items():
            part = card.odd.setdefault(what, Part())
            part.documents += 1
            part.characters += count
        lines = text.split("\n")
        self._lines(document.id, lines)
        again = self._repeats.add(text, lines)
        _keep(self._repetitive, (again, -card.documents, document.id), LONGEST)
        if self._last is not None and _of_one(self._last.id, document.id):
            card.overlap_characters += overlap_chars(self._last.text, text)
        self._last = document
        self._waiting.append(text)
        self._waiting_chars += len(text)
        if len(self._waiting) >= BATCH or self._waiting_chars >= BATCH_CHARS:
            self._batch()

    def _lines(self, id: str, lines: list[str]) -> None:
        card = self.card
        card.lines += len(lines) - (lines[-1] == "")
        shortest = self._longest[0][0] if len(self._longest) == LONGEST else -1
        for number, line in enumerate(lines, start=1):
            if len(line) > shortest:
                place = (len(line), -card.documents, id, number, line[:BEGINNING_CHARS])
                _keep(self._longest, place, LONGEST)
                shortest = self._longest[0][0] if len(self._longest) == LONGEST else -1
            if len(line) > LONG_LINE_CHARS:
                card.long_lines.add(len(line))

    def _batch(self) -> None:
        texts, self._waiting, self._waiting_chars = self._waiting, [], 0
        self.card.bytes += sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        self._prints.append(fingerprints(texts, SIMILARITY))
        if self._codec is not None:
            self.card.tokens += sum(map(len, self._codec.encode_many(texts)))

    def _sample(self, document: Document, became: Outcome, cleaned: bool) -> None:
        """Keeps some documents, those that were changed first, chosen by what they say."""
        changed = cleaned and became.made != (document,)
        key = -zlib.crc32(f"{document.id}{document.text[:1000]}".encode("utf-8", "surrogatepass"))
        rank = (changed, key, -len(self._ids))
        if len(self._samples) < SAMPLES or rank > self._samples[0][:3]:
            _keep(self._samples, (*rank, sample_of(document, became)), SAMPLES)

    def done(self) -> Card:
        """The card, once everything was added."""
        card = self.card
        if self._waiting:
            self._batch()
        if self._codec is None:
            card.tokens = round(card.bytes / BYTES_A_TOKEN)
        if card.documents:
            self._duplicates()
            card.lengths = spread(self._sizes)
        card.repeats = self._repeats.shares()
        card.most_repetitive = [(a, id) for a, _, id in sorted(self._repetitive, reverse=True) if a]
        card.longest_lines = [
            {"characters": size, "id": id, "line": line, "beginning": beginning}
            for size, _, id, line, beginning in sorted(self._longest, reverse=True)
        ]
        card.samples = [sample for *_, sample in sorted(self._samples, reverse=True, key=_rank)]
        again = card.exact.characters + card.near.characters + card.overlap_characters
        card.unique_tokens = round(card.tokens * max(0.0, 1 - again / max(1, card.characters)))
        card.languages = dict(sorted(card.languages.items(), key=lambda pair: -pair[1].characters))
        card.odd = dict(sorted(card.odd.items()))
        return card

    def _duplicates(self) -> None:
        prints = Fingerprints(
            np.concatenate([one.exact for one in self._prints]),
            np.concatenate([one.signatures for one in self._prints]),
        )
        found = duplicates_of(prints, SIMILARITY)
        for which, part in (
            (found.is_exact, self.card.exact),
            ((found.of >= 0) & ~found.is_exact, self.card.near),
        ):
            part.documents = int(which.sum())
            part.characters = int(np.array(self._sizes)[which].sum())
            self.card.pairs += list(self._pairs(found, which))

    def _pairs(self, found: Found, which: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
        for place in np.flatnonzero(which)[:PAIRS].tolist():
            yield {
                "id": self._ids[place],
                "of": self._ids[int(found.of[place])],
                "why": found.reason(place),
            }


def _some(text: str) -> str:
    """Enough of a text to tell its language by: a third each from three places."""
    if len(text) <= LANGUAGE_CHARS:
        return text
    part, middle = LANGUAGE_CHARS // 3, len(text) // 2
    return "\n".join((text[:part], text[middle : middle + part], text[-part:]))


def _rank(kept: tuple[bool, int, int, Sample]) -> tuple[bool, int, int]:
    return kept[:3]


def _keep(heap: list[Any], thing: Any, most: int) -> None:
    """Adds to the largest things there were."""
    if len(heap) < most:
        heapq.heappush(heap, thing)
    else:
        heapq.heappushpop(heap, thing)


def _of_one(before: str, after: str) -> bool:
    """Whether two documents are pieces of one, by their ids."""
    base, mark, number = after.rpartition("#")
    return bool(mark) and number.isdigit() and before.startswith(f"{base}#")


def sample_of(document: Document, became: Outcome) -> Sample:
    """The document around the first change."""
    if not became.made:
        reason = became.dropped[0].reason
        return Sample(document.id, 1, _cut(document.text, 0), None, f"dropped: {reason}")
    before, after = document.text, became.made[0].text
    pieces = len(became.made)
    if pieces == 1 and after == before:
        return Sample(document.id, 1, _cut(before, 0), _cut(after, 0), "unchanged")
    same = _same(before, after)
    start = before.rfind("\n", 0, same) + 1
    what = "changed" if pieces == 1 else f"in {pieces} pieces, the first"
    line = before.count("\n", 0, start) + 1
    return Sample(document.id, line, _cut(before, start), _cut(after, start), what)


def _same(before: str, after: str) -> int:
    """How far two texts are the same from the beginning."""
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        if before[low:middle] == after[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, start: int) -> str:
    shown = text[start : start + SAMPLE_CHARS]
    return shown + "…" if len(text) > start + SAMPLE_CHARS else shown


def total(cards: Sequence[Card]) -> dict[str, int]:
    """What several sources have together."""
    sums: Counter[str] = Counter()
    for card in cards:
        for what in ("documents", "characters", "bytes", "tokens", "unique_tokens"):
            sums[what] += getattr(card, what)
    return dict(sums)
