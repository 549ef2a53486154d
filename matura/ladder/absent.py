"""Sources that are not here yet, as a plan sees them: as large as they declare themselves, with the
library's own text in their place to be timed on."""

from __future__ import annotations

from functools import cache

from matura.core.record import Frozen
from matura.core.rng import fraction, rng
from matura.core.types import Document, Given
from matura.data.sources.stdlib import Stdlib
from matura.data.split import content_key

STAND_IN_BYTES = 1_500_000


def declared(source: Frozen) -> int | None:
    """The tokens that a source says it holds at most; None if it does not say."""
    budget = getattr(source, "token_budget", None)
    return budget if isinstance(budget, int) else None


@cache
def stand_in() -> tuple[Document, ...]:
    """Documents that stand for those of any source, in an order that has nothing to do with their
    names."""
    read = Stdlib(max_bytes=STAND_IN_BYTES).read(Given(rng=rng(0, "stand in")))
    return tuple(sorted(read, key=lambda document: fraction(content_key(document), "sample")))
