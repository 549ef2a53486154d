"""Exact numbers have one spelling, and it reads back."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matura.core.numbers import spell


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(34, 2), "17"),
        (-3, "-3"),
        (0, "0"),
        (Fraction(5, 2), "2.5"),
        (Fraction(-1, 20), "-0.05"),
        (Fraction(2, -6), "-1/3"),
        (Fraction(7, 1024), "0.0068359375"),
    ],
)
def test_spelling(value: Fraction | int, text: str) -> None:
    assert spell(value) == text


@given(st.fractions())
def test_a_spelled_number_reads_back_exactly(value: Fraction) -> None:
    text = spell(value)
    assert Fraction(text) == value
    assert "e" not in text
    if "." in text:
        assert not text.endswith("0")
