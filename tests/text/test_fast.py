"""Fast encoding gives the ids that `tokenizers` gives, or is not used."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.text.fast import LONG_LINE, fast_engine
from matura.text.tokenizer import PATTERNS, Tokenizer

pytest.importorskip("tiktoken")


@pytest.fixture(scope="module", params=list(PATTERNS))
def tokenizer(request: Any, fuzz: Any) -> Tokenizer:
    """One of each way to cut."""
    return Tokenizer.train(fuzz.corpus(), vocab_size=700, dialect="matura", split=request.param)


def slow(tokenizer: Tokenizer, text: str) -> list[int]:
    """What the other library says."""
    ids: list[int] = tokenizer._engine.encode(text, add_special_tokens=False).ids
    return ids


def test_every_character_gets_the_same_ids(tokenizer: Tokenizer) -> None:
    codes = [*range(0x3100), *range(0x3100, 0x110000, 61)]
    chars = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    for start in range(0, len(chars), 10_000):
        text = "\n".join(f"a{c}b1 {c}{c}.\t{c} x" for c in chars[start : start + 10_000])
        assert tokenizer.encode_many([text]) == [slow(tokenizer, text)]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text("ab \n.1", max_size=200))
def test_any_text_gets_the_same_ids(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer._fast is not None
    assert tokenizer.encode_array(text).tolist() == slow(tokenizer, text)
    assert tokenizer.encode_many([text, text]) == [slow(tokenizer, text)] * 2


def test_code_in_any_order_gets_the_same_ids(tokenizer: Tokenizer, fuzz: Any) -> None:
    draw = Random(0)
    text = "".join(fuzz.corpus())
    for _ in range(200):
        start = draw.randrange(len(text))
        piece = text[start : start + draw.randrange(400)]
        mixed = "".join(draw.sample(piece, len(piece)))
        assert tokenizer.encode_many([piece, mixed]) == [slow(tokenizer, t) for t in (piece, mixed)]


def test_what_it_is_not_made_for_goes_the_other_way(tokenizer: Tokenizer) -> None:
    fast = tokenizer._fast
    assert fast is not None
    long, half = "a" * (LONG_LINE + 1), "half a pair: \ud800!"
    assert [fast.takes(text) for text in ("ä\n" * LONG_LINE, long, half)] == [True, False, False]
    assert tokenizer.encode_many([long]) == [slow(tokenizer, long)]
    for text in (long, half):
        assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode_many(["x", half])[1]) == half


def test_a_vocabulary_in_another_order_is_left_alone(tokenizer: Tokenizer) -> None:
    vocab, merges = dict(tokenizer._vocab), tokenizer._model["merges"]
    pattern, values = PATTERNS[tokenizer.cut], tokenizer._values
    assert fast_engine(vocab, merges, values, pattern) is not None
    first, second = ("".join(pair) for pair in merges[:2])
    vocab[first], vocab[second] = vocab[second], vocab[first]
    assert fast_engine(vocab, merges, values, pattern) is None
