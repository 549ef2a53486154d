"""Sources that are not here yet, as a plan sees them: as large as they declare themselves, with the
library's own text in their place to be timed on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from matura.core.errors import NotHereError
from matura.core.record import Frozen
from matura.core.rng import fraction, rng
from matura.core.types import Document, Given
from matura.data.sources.stdlib import Stdlib
from matura.data.split import content_key
from matura.stages.origin import refuse_other_tokenizer, tokenizer_of
from matura.stages.parts import TokenizerSpec
from matura.stages.taken import taken
from matura.text.tokenizer import Tokenizer

STAND_IN_BYTES = 1_500_000
STAND_IN_VOCABULARY = 16_384
"""Of a tokenizer that is made in place of one that is not here: more takes longer to train, and its
tokens are hardly longer."""
Absent = Literal["refuse", "stand in"]
"""What becomes of a source that is not here: an error, or text in its place of the size that its
budget declares."""


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


def given_tokenizer(model: Path, spec: TokenizerSpec, absent: Absent) -> Tokenizer:
    """The tokenizer of a given model; one of its kind, made of other text, if that is not here."""
    try:
        refuse_other_tokenizer(model, spec)
        return tokenizer_of(model, spec.dialect)
    except NotHereError:
        if absent == "refuse":
            raise
    return _of_its_kind(spec)


def taken_tokenizer(path: Path, spec: TokenizerSpec, absent: Absent) -> Tokenizer:
    """The tokenizer that a recipe takes as it is; otherwise as `given_tokenizer`."""
    try:
        return taken(path, spec)
    except NotHereError:
        if absent == "refuse":
            raise
    return _of_its_kind(spec)


def _of_its_kind(spec: TokenizerSpec) -> Tokenizer:
    return Tokenizer.train(
        (document.text for document in stand_in()),
        vocab_size=min(spec.vocab_size, STAND_IN_VOCABULARY),
        dialect=spec.dialect,
        spare=spec.spare,
        split=spec.split,
    )
