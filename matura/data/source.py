"""Where documents and conversations come from. A kind of source is one file in `sources/`, found
by its name.

Splitting is not a source's business: `build` divides what it reads by content. Only a source that
makes its items up (`splits_itself`) is asked for each split in turn through `given.split`, as
lessons are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from matura.core.record import Frozen
from matura.core.types import Conversation, Document, Given

OWN = "own"
"""The licence of what lies in a folder of the user's: nobody else can say what it is."""
CHARS_PER_TOKEN = 4
"""Of text, as budgets are kept before anything is tokenised."""


class Source(Frozen, ABC):
    """One kind of source with its settings, as it stands in a recipe."""

    kind: str

    splits_itself: ClassVar[bool] = False
    """Whether `given.split` chooses what is read; if not, all is read and split by content."""

    remote: ClassVar[bool] = False
    """Whether reading it may need the network, which `data fetch` is given."""

    @abstractmethod
    def read(self, given: Given) -> Iterator[Document | Conversation]:
        """Every item, in an order that depends on nothing but the input and `given.rng`.

        Raises:
            DataError: `file:line: reason` at the first thing that is wrong with the input.
        """
