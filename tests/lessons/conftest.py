"""A real tokenizer, small enough to be trained in no time."""

from __future__ import annotations

from itertools import islice

import pytest

from matura.core.rng import rng
from matura.core.types import Given
from matura.lessons.lesson import kinds
from matura.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on what the lessons themselves say."""
    given = Given(rng(0, "tokenizer"))
    texts = [
        message.content
        for kind in kinds().values()
        for item in islice(kind().items(given), 300)  # type: ignore[call-arg]
        for message in item.messages
    ]
    return Tokenizer.train(texts, vocab_size=700, dialect="matura", split="atoms")
