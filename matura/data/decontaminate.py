"""Evaluation items in training text: found by their words, whatever case, spacing or punctuation
they come in, and also when they were changed a little.

What is kept in memory grows with the items, never with the corpus. A hash only proposes: the words
behind it are compared before anything counts as a hit, so that no collision can drop a document.
Look before a document is cut into sections: an item that lies across a cut is in neither part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from matura.core.errors import DataError
from matura.core.record import Frozen
from matura.core.types import Conversation, Document, TextCodec
from matura.data.hashed import Hashes, Ids, Table, hashes_of, rolled
from matura.data.words import is_character, spans, words

Rule = Literal["exact", "run", "near"]

RULES: tuple[Rule, ...] = ("exact", "run", "near")
"""From the surest to the least sure; of one item in one document only the surest is reported."""
GRAM = 3
"""Words of the runs that the near rule counts. In an item of 8 words with one swapped, 3 of its 6
runs of three survive, but possibly none of its 4 runs of five."""
COMMON_SHARE = 0.02
COMMON_ITEMS = 20
"""A run of three in more items than this, and in more than that share of them, belongs to a
template of the items ("what is the capital of"): sharing it says nothing about one of them."""
TEXT_CHARS = 400
HITS_KEPT = 1000


class Rules(Frozen):
    """How alike a document and an item must be. Units: words, of which a Chinese, Japanese or Thai
    character is half a one."""

    least_words: int = Field(default=5, ge=1)
    """Items shorter than this are found only where they are the whole document."""
    ngram: int = Field(default=13, ge=GRAM)
    """A shared run of this many words is a hit, whatever stands around it."""
    near_words: int | None = Field(default=8, ge=6)
    """Items of at least this many words are also found lightly changed; None: they are not."""
    near_words_share: float = Field(default=0.8, gt=0, le=1)
    """Share of an item's words that must stand in a window of about its length."""
    near_runs_share: float = Field(default=0.4, gt=0, le=1)
    """Share of its runs of three words that must stand there too."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One evaluation item in one document."""

    document: str
    """The document's id."""
    item: str
    rule: Rule
    text: str
    """What matched, as the document spells it; the start of it if longer than `TEXT_CHARS`."""
    start: int
    """Characters before it in the document's text."""


@dataclass(slots=True)
class Findings:
    """What became of every document: read = kept + dropped."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents left out, by the surest rule that hit."""
    hits: list[Hit] = field(default_factory=list)
    """The first `HITS_KEPT` of them."""
    hits_left_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a record; empty if nothing was looked at."""
        return asdict(self) | {"dropped": dict(self.dropped)} if self.read else {}


Thing = TypeVar("Thing", Document, Conversation, Document | Conversation)


def decontaminated(
    things: Iterable[Thing], index: Index, findings: Findings, codec: TextCodec | None = None
) -> Iterator[Thing]:
    """The documents and conversations without any evaluation item; `findings` is kept up to date.
    Documents of token ids are looked into where `codec` says what they spell."""
    for thing in things:
        hits = index.hits(_as_document(thing, codec))
        findings.read += 1
        if not hits:
            findings.kept += 1
            yield thing
            continue
        findings.dropped[f"evaluation item, {hits[0].rule}"] += 1
        room = max(0, HITS_KEPT - len(findings.hits))
        findings.hits.extend(hits[:room])
        findings.hits_left_out += len(hits[room:])


def _as_document(thing: Document | Conversation, codec: TextCodec | None) -> Document:
    """A conversation as the text of its messages, one after the other; ids as what they spell."""
    if isinstance(thing, Document):
        if thing.ids is None or codec is None:
            return thing
        return Document(text=codec.decode(thing.ids), id=thing.id)
    return Document(text="\n".join(turn.content for turn in thing.messages), id=thing.id)


def survivors(documents: Iterable[Document], index: Index) -> list[Hit]:
    """The first `HITS_KEPT` hits in documents that are said to be clean; none if they are."""
    found: list[Hit] = []
    for document in documents:
        found.extend(index.hits(document)[: HITS_KEPT - len(found)])
        if len(found) >= HITS_KEPT:
            break
    return found


def refuse_survivors(documents: Iterable[Document], index: Index) -> None:
    """The last look at what is about to be trained on.

    Raises:
        DataError: an evaluation item is in it; says which, where and in what words.
    """
    if found := survivors(documents, index):
        first = found[0]
        raise DataError(
            f"{first.document}: holds the evaluation item {first.item!r} ({first.rule}): "
            f"{first.text[:120]!r}; {len(found)} hits in all; expected none after decontamination"
        )


class Index:
    """Evaluation items by their words: `hits` says which of them a document holds.

    An item's name need not be unique.
    """

    def __init__(self, items: Iterable[tuple[str, str]], rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.names: list[str] = []
        self.empty: list[str] = []
        """Names of items without a single word: nothing can be looked for."""
        self.only_whole = 0
        """Items so short that they are found only where they are the whole document."""
        self._vocabulary: dict[str, int] = {}
        self._short: dict[tuple[str, ...], list[int]] = {}
        self._longest_short = 0
        texts: list[list[int]] = []
        self._factors: list[int] = []
        for name, text in items:
            spelled = words(text)
            if not spelled:
                self.empty.append(name)
                continue
            factor = 2 if 2 * sum(map(is_character, spelled)) > len(spelled) else 1
            if len(spelled) < self.rules.least_words * factor:
                self._short.setdefault(tuple(spelled), []).append(len(self.names))
                self._longest_short = max(self._longest_short, len(spelled))
                self.only_whole += 1
                spelled = []
            number = self._vocabulary.setdefault
            texts.append([number(word, len(self._vocabulary) + 1) for word in spelled])
            self.names.append(name)
            self._factors.append(factor)
        self._ids = [np.array(text, dtype=np.int64) for text in texts]
        self._runs = self._run_tables()
        self._longest = max(self._runs, default=0)
        self._needs = np.zeros(len(self._ids), dtype=np.int64)
        self._reach = np.zeros(len(self._ids), dtype=np.int64)
        self._grams = self._gram_table()

    def __len__(self) -> int:
        return len(self.names)

    def hits(self, document: Document) -> list[Hit]:
        """The items it holds, the surest first, each once. Documents of token ids hold none."""
        if document.ids is not None:
            return []
        spelled = words(document.text)
        found: dict[int, tuple[Rule, int, int]] = {}
        if len(spelled) <= self._longest_short:
            whole = self._short.get(tuple(spelled), ())
            found.update((item, ("exact", 0, len(spelled))) for item in whole)
        known = self._vocabulary.get
        ids = np.fromiter((known(word, 0) for word in spelled), dtype=np.int64, count=len(spelled))
        self._look(ids, found)
        if not found:
            return []
        places = spans(document.text)
        hits = []
        for item, (rule, first, end) in found.items():
            start, stop = places[first][0], places[end - 1][1]
            text = document.text[start : min(stop, start + TEXT_CHARS)]
            hits.append(Hit(document.id, self.names[item], rule, text, start))
        return sorted(hits, key=lambda hit: (RULES.index(hit.rule), hit.start))

    def _run_tables(self) -> dict[int, Table]:
        """By length: all runs of `ngram` words, and shorter items as a whole."""
        entries: dict[int, list[tuple[Hashes, int]]] = {}
        for item, ids in enumerate(self._ids):
            if len(ids):
                length = min(len(ids), self.rules.ngram * self._factors[item])
                entries.setdefault(length, []).append((hashes_of(ids, length), item))
        return {
            length: Table(
                np.concatenate([hashes for hashes, _ in some]),
                np.repeat([item for _, item in some], [len(hashes) for hashes, _ in some]),
                np.concatenate([np.arange(len(hashes)) for hashes, _ in some]),
            )
            for length, some in sorted(entries.items())
        }

    def _gram_table(self) -> Table | None:
        """The near rule's runs of three, those of a template left out; fills in `_needs` (how many
        of them a candidate must show) and `_reach` (within how many words)."""
        least = self.rules.near_words
        if least is None:
            return None
        grams: dict[int, Hashes] = {}
        for item, ids in enumerate(self._ids):
            if len(ids) >= least * self._factors[item]:
                grams[item] = np.unique(hashes_of(ids, GRAM))
        if not grams:
            return None
        values, counts = np.unique(np.concatenate(list(grams.values())), return_counts=True)
        limit = max(COMMON_ITEMS, COMMON_SHARE * len(grams))
        common = values[counts > limit]
        for item, some in grams.items():
            needed = self._runs_needed(len(some))
            grams[item] = telling = some[~np.isin(some, common)]
            # at least one telling run, or every text in the template's words would be a hit
            self._needs[item] = max(1, needed - (len(some) - len(telling)))
            self._reach[item] = _window(len(self._ids[item]))
        lengths = [len(some) for some in grams.values()]
        if not sum(lengths):
            return None
        holders = np.repeat(list(grams), lengths)
        return Table(np.concatenate(list(grams.values())), holders, np.zeros_like(holders))

    def _runs_needed(self, runs: int) -> int:
        return max(1, int(runs * self.rules.near_runs_share))

    def _look(self, ids: Ids, found: dict[int, tuple[Rule, int, int]]) -> None:
        """Adds each item found in these words: its rule, its first word and the word after."""
        near: tuple[Table, Hashes] | None = None
        for length, hashes in rolled(ids, max(self._longest, GRAM)):
            if length == GRAM and self._grams:
                near = (self._grams, hashes)
            if table := self._runs.get(length):
                self._look_for_runs(table, length, ids, hashes, found)
        if near:
            self._look_near(*near, ids, found)

    def _look_for_runs(
        self,
        table: Table,
        length: int,
        ids: Ids,
        hashes: Hashes,
        found: dict[int, tuple[Rule, int, int]],
    ) -> None:
        done: dict[int, set[int]] = {}
        for place, row in zip(*(each.tolist() for each in table.find(hashes)), strict=True):
            seen = done.setdefault(row, set())
            entries = range(table.bounds[row], table.bounds[row + 1])
            if len(seen) == len(entries):  # a text of one word a thousand times would take an hour
                continue
            for entry in entries:
                item, offset = int(table.items[entry]), int(table.offsets[entry])
                before = found.get(item)
                if entry in seen or (before and before[0] == "exact"):
                    seen.add(entry)
                    continue
                text = self._ids[item]
                if not np.array_equal(ids[place : place + length], text[offset : offset + length]):
                    continue
                seen.add(entry)
                if before and before[1] <= place and place + length <= before[2]:
                    continue
                first, end = _shared(ids, place, text, offset)
                if end - first == len(text):
                    found[item] = ("exact", first, end)
                elif before is None or end - first > before[2] - before[1]:
                    found[item] = ("run", first, end)

    def _look_near(
        self, table: Table, hashes: Hashes, ids: Ids, found: dict[int, tuple[Rule, int, int]]
    ) -> None:
        """Where enough of an item's runs of three lie close together, its words are counted."""
        places, rows = table.find(hashes)
        if not len(places):
            return
        counts = table.bounds[rows + 1] - table.bounds[rows]
        starts = np.repeat(table.bounds[rows] - np.cumsum(counts) + counts, counts)
        items = table.items[starts + np.arange(len(starts))]
        places = np.repeat(places, counts)
        order = np.lexsort((places, items))
        items, places = items[order], places[order]
        later = np.arange(len(items)) + self._needs[items] - 1
        inside = np.minimum(later, len(items) - 1)
        close = (items[inside] == items) & (places[inside] - places <= self._reach[items])
        looked: dict[int, int] = {}
        for candidate in np.flatnonzero(close & (later < len(items))):
            item, place = int(items[candidate]), int(places[candidate])
            if item in found or place <= looked.get(item, -1):
                continue
            reach = int(self._reach[item])
            looked[item] = place + reach
            low = max(0, place - reach)
            region = ids[low : place + 2 * reach].tolist()
            if window := self._best_window(region, self._ids[item].tolist()):
                found[item] = ("near", low + window[0], low + window[1])

    def _best_window(self, region: list[int], text: list[int]) -> tuple[int, int] | None:
        """The part of the region that shares most words with the item, if it shares enough."""
        needed, there = len(text) * self.rules.near_words_share - 1e-9, set(region)
        # most candidates are questions of the same kind, and end here
        if len(region) < GRAM or sum(word in there for word in text) < needed:
            return None
        wanted, size = Counter(text), _window(len(text))
        grams = Counter(set(_grams(text)))
        shared = _overlaps(region, wanted, size)[GRAM - 1 :]
        runs = _overlaps(list(_grams(region)), grams, size - GRAM + 1)
        enough = (shared >= needed) & (runs >= self._runs_needed(len(grams)))
        if not enough.any():
            return None
        end = int(np.argmax(np.where(enough, shared, 0))) + GRAM
        ours = [at for at in range(max(0, end - size), end) if region[at] in wanted]
        return ours[0], ours[-1] + 1


def _window(words: int) -> int:
    """How many words of a document may hold a changed item of so many: some may be put in."""
    return words + 2 + words // 8


def _grams(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return zip(*(ids[shift:] for shift in range(GRAM)), strict=False)


def _overlaps(sequence: Sequence[Hashable], wanted: Counter[Any], size: int) -> Ids:
    """For each place: how much of what is wanted the `size` things up to there hold."""
    have: Counter[Hashable] = Counter()
    held, counts = 0, np.zeros(len(sequence), dtype=np.int64)
    for place, thing in enumerate(sequence):
        if thing in wanted:
            have[thing] += 1
            held += have[thing] <= wanted[thing]
        if place >= size and (old := sequence[place - size]) in wanted:
            held -= have[old] <= wanted[old]
            have[old] -= 1
        counts[place] = held
    return counts


def _shared(ids: Ids, place: int, text: Ids, offset: int) -> tuple[int, int]:
    """The whole run that document and item share around the part that is known to be equal."""
    left = min(place, offset)
    right = min(len(ids) - place, len(text) - offset)
    differ = np.flatnonzero(
        ids[place - left : place + right] != text[offset - left : offset + right]
    )
    cut = int(np.searchsorted(differ, left))
    first = place - left + (int(differ[cut - 1]) + 1 if cut else 0)
    end = place - left + int(differ[cut]) if cut < len(differ) else place + right
    return first, end
