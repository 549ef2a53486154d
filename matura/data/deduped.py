"""A source without its duplicates, to be built from like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Given
from matura.data.dedup import Duplicates, Found, Tally
from matura.data.spool import Spool


class Documents(Protocol):
    """A source, cleaned or not."""

    @property
    def kind(self) -> str: ...

    def read(self, given: Given) -> Iterator[Document | Conversation]: ...


@dataclass(slots=True)
class DedupedSource:
    """A source of which each document is read that is like none before it.

    Which ones those are is known only when all are read, so nothing comes before that; what was
    read is kept on disk, and reading again does not read the source again.
    """

    source: Documents
    settings: Duplicates
    counts: Tally = field(default_factory=Tally)
    """Empty until the first reading."""
    _spool: Spool | None = None
    _found: Found | None = None

    @property
    def kind(self) -> str:
        """The source's own."""
        return self.source.kind

    def read(self, given: Given) -> Iterator[Document]:
        """What is no duplicate, in the order read.

        Raises:
            DataError: the source's own; it holds what is not text; or there is no room on the disk.
        """
        if self._spool is None or self._found is None:
            spool = Spool(self.settings)
            for item in self.source.read(given):
                spool.add(text_only(item))
            self._found = spool.found(spool.prints())
            self._spool, self.counts = spool, self._found.tally()
        yield from self._spool.kept(self._found)


def text_only(item: Document | Conversation) -> Document:
    """The item, if it can be compared with others as text.

    Raises:
        DataError: it is a conversation, or made of token ids.
    """
    if isinstance(item, Conversation):
        raise DataError(f"{item.id}: is a conversation; only documents are compared for duplicates")
    if item.ids is not None:
        raise DataError(f"{item.id}: is made of token ids; there is no text to compare")
    return item
