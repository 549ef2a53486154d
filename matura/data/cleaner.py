"""What is done to raw text before it is learnt from. A kind of text is one file in `clean/`, found
by its name.

A cleaner sees one document at a time and remembers nothing, so that it gives the same on any
worker. What must be compared across documents (duplicates, leaks) is no cleaner's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from matura.core.errors import DataError
from matura.core.record import Frozen
from matura.core.types import Conversation, Document, Given
from matura.data.source import Source

SAMPLES = 3
SAMPLE_LINES = 4
SAMPLE_CHARS = 100


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document, or a piece of one, that was left out."""

    reason: str
    """A fixed phrase without figures, so that it can be counted."""
    id: str


class Unfit(ValueError):
    """Raised by `Cleaner.texts`: why a text is not to be learnt from; becomes a Dropped."""


class Cleaner(Frozen, ABC):
    """One kind of text with its limits, as they stand in a recipe."""

    kind: str

    def clean(self, document: Document) -> Iterator[Document | Dropped]:
        """One or more documents, or exactly one Dropped. Pieces of a document are `<id>#<n>`.

        Raises:
            DataError: the document is made of token ids; there is no text to clean.
        """
        if document.ids is not None:
            raise DataError(f"{document.id}: is made of token ids; {self.kind} cleans text")
        try:
            texts = self._fit(document.text)
        except Unfit as why:
            yield Dropped(reason=str(why), id=document.id)
            return
        if len(texts) == 1:
            yield replace(document, text=texts[0])
            return
        for number, text in enumerate(texts):
            yield Document(text=text, id=f"{document.id}#{number}")

    @abstractmethod
    def texts(self, text: str) -> Sequence[str]:
        """What is kept of a text, in one piece or several.

        Raises:
            Unfit: nothing is.
        """

    def _fit(self, text: str) -> list[str]:
        if not text.strip():
            raise Unfit("empty")
        # Neither can be text: no encoder takes the one, and the other means a binary file.
        if "\0" in text:
            raise Unfit("NUL character")
        if not encodes(text):
            raise Unfit("lone surrogate")
        if not (kept := [piece for piece in self.texts(text) if piece.strip()]):
            raise Unfit("nothing left")
        return kept


def encodes(text: str) -> bool:
    """Whether UTF-8 can spell it: JSON's `\\ud800` alone is a Python character and no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document; one of the two is never empty."""

    made: tuple[Document, ...]
    dropped: tuple[Dropped, ...]
    """The document, or those of its pieces that a later cleaner left out; `<kind>: <reason>`."""


@dataclass(slots=True)
class Counts:
    """What became of all documents: read = kept + sum of dropped."""

    read: int = 0
    read_chars: int = 0
    kept: int = 0
    """Documents of which something was made, however many pieces."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Documents of which nothing was made, by the first reason met."""
    made: int = 0
    """Documents that came out."""
    pieces_dropped: dict[str, int] = field(default_factory=dict)
    """Pieces of kept documents that were left out."""
    changed: int = 0
    """Kept documents that came out other than they went in."""
    samples: list[str] = field(default_factory=list)
    """Of the first changed documents, the first changed lines before and after, to be shown."""

    def add(self, document: Document, outcome: Outcome) -> None:
        """Counts one document."""
        self.read += 1
        self.read_chars += len(document.text)
        if not outcome.made:
            reason = outcome.dropped[0].reason
            self.dropped[reason] = self.dropped.get(reason, 0) + 1
            return
        self.kept += 1
        self.made += len(outcome.made)
        for piece in outcome.dropped:
            self.pieces_dropped[piece.reason] = self.pieces_dropped.get(piece.reason, 0) + 1
        if outcome.made != (document,):
            self.changed += 1
            if len(self.samples) < SAMPLES:
                self.samples.append(first_change(document, outcome.made[0]))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words for a record."""
        return asdict(self)


def outcome(cleaners: Sequence[Cleaner], document: Document) -> Outcome:
    """One document through all cleaners, each fed with what the one before it kept."""
    pieces, dropped = [document], []
    for cleaner in cleaners:
        kept = []
        for piece in pieces:
            for thing in cleaner.clean(piece):
                if isinstance(thing, Dropped):
                    dropped.append(replace(thing, reason=f"{cleaner.kind}: {thing.reason}"))
                else:
                    kept.append(thing)
        pieces = kept
    return Outcome(made=tuple(pieces), dropped=tuple(dropped))


def cleaned(
    cleaners: Sequence[Cleaner], documents: Iterable[Document], counts: Counts
) -> Iterator[Document]:
    """What the cleaners keep, in the order read. `counts` is right for what was consumed."""
    for document in documents:
        found = outcome(cleaners, document)
        counts.add(document, found)
        yield from found.made


@dataclass(slots=True)
class CleanedSource:
    """A source whose documents are cleaned as they are read, to be built like any other."""

    source: Source
    cleaners: tuple[Cleaner, ...]
    counts: Counts = field(default_factory=Counts)
    """Of the last reading."""

    @property
    def kind(self) -> str:
        """The source's own."""
        return self.source.kind

    def read(self, given: Given) -> Iterator[Document]:
        """What the cleaners keep, in the order read.

        Raises:
            DataError: the source's own, or it holds conversations, which nothing here cleans.
        """
        self.counts = counts = Counts()
        yield from cleaned(self.cleaners, self._documents(given), counts)
        if not counts.kept:
            raise DataError(
                f"{self.kind}: cleaning left nothing of {counts.read}: {counts.dropped}"
            )

    def _documents(self, given: Given) -> Iterator[Document]:
        for item in self.source.read(given):
            if isinstance(item, Conversation):
                raise DataError(f"{item.id}: is a conversation; cleaning is for documents")
            yield item


def first_change(before: Document, after: Document) -> str:
    """The id and the lines from the first difference on, `-` before and `+` after."""
    old, new = before.text.split("\n"), after.text.split("\n")
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    shown = [f"{before.id}:{same + 1}"]
    for sign, lines in (("-", old), ("+", new)):
        shown += [f"{sign} {line[:SAMPLE_CHARS]!r}" for line in lines[same : same + SAMPLE_LINES]]
    return "\n".join(shown)
