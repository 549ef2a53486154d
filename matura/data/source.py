"""Where documents and conversations come from. A kind of source is one file in `sources/`, found
by its name.

Splitting is not a source's business: `build` divides what it reads by content. Only a source that
makes its items up (`splits_itself`) is asked for each split in turn through `given.split`, as
lessons are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from matura.core.record import Frozen
from matura.core.types import Conversation, Document, Given

OWN, MADE_UP, UNKNOWN = "own", "made up", "unknown"
"""Licences: of what lies in a folder of the user's, for nobody else can say what it is; of what
nobody wrote; of what does not say, and is read all the same because it was asked for."""
CHARS_PER_TOKEN = 4
"""Of text, as budgets are kept before anything is tokenised."""


class Source(Frozen, ABC):
    """One kind of source with its settings, as it stands in a recipe."""

    kind: str

    splits_itself: ClassVar[bool] = False
    """Whether `given.split` chooses what is read; if not, all is read and split by content."""

    holds_out: ClassVar[bool] = False
    """Whether one that splits itself has text for exams too, read with the split `exam`."""

    remote: ClassVar[bool] = False
    """Whether reading it may need the network, which `data fetch` is given."""

    @abstractmethod
    def read(self, given: Given) -> Iterator[Document | Conversation]:
        """Every item, in an order that depends on nothing but the input and `given.rng`.

        Raises:
            DataError: `file:line: reason` at the first thing that is wrong with the input.
        """

    def licence(self) -> str | None:
        """Under which its text may be used; None if nobody says."""
        return OWN


def about(source: Frozen) -> dict[str, Any]:
    """What a record says of a source besides its counts: its licence, and where its tokens come
    from if it was mixed before."""
    licence, origins = getattr(source, "licence", None), getattr(source, "origins", None)
    return {
        "licence": MADE_UP if licence is None else licence() or UNKNOWN,
        "origins": {} if origins is None else origins(),
    }
