"""Conversions are exact, reversible where they should be, and refuse what makes no sense."""

from __future__ import annotations

from fractions import Fraction

import pytest

from matura.core.units import MAX_AMOUNT, UNITS, UnitError, convert, nearest_name, unit_named


@pytest.mark.parametrize(
    ("amount", "to", "result"),
    [
        ("3 km", "m", "3000 m"),
        ("2.5km", "m", "2500 m"),
        ("1 in", "cm", "2.54 cm"),
        ("1 mile", "m", "1609.344 m"),
        ("1 lb", "g", "453.59237 g"),
        ("1 oz", "g", "28.349523125 g"),
        ("90 min", "h", "1.5 h"),
        ("1 m", "yd", "1250/1143 yd"),
        ("0.1 km", "m", "100 m"),
        ("1/3 h", "min", "20 min"),
        ("0 C", "F", "32 F"),
        ("-40 F", "C", "-40 C"),
        ("100 °C", "K", "373.15 K"),
        ("0 K", "F", "-459.67 F"),
        ("7 weeks", "d", "49 d"),
        ("1 GB", "kB", "1000000 kB"),
        ("3 Stunden", "Minuten", "180 min"),
        ("5 METRES", "CM", "500 cm"),
        ("-2 kg", "g", "-2000 g"),
        ("  4   l ", " ml ", "4000 ml"),
    ],
)
def test_exact_values(amount: str, to: str, result: str) -> None:
    assert convert(amount, to) == result


@pytest.mark.parametrize(
    ("amount", "to", "reason"),
    [
        ("3 km", "kg", "km is length, kg is weight"),
        ("3 C", "m", "C is temperature, m is length"),
        ("3 metrs", "cm", "unknown unit 'metrs', did you mean 'metres'?"),
        ("3 m", "quux", "unknown unit 'quux'"),
        ("3", "m", "a number and its unit"),
        ("km", "m", "a number and its unit"),
        ("", "m", "a number and its unit"),
        ("3.", "m", "unknown unit '.'"),
        ("1e9 m", "km", "unknown unit 'e9 m'"),
        ("1,000 m", "km", "unknown unit ',000 m'"),
        ("٣ km", "m", "a number and its unit"),
        ("1/0 m", "km", "division by zero"),
        ("-1 K", "C", "absolute zero"),
        ("-300 C", "K", "absolute zero"),
        ("9" * 70 + " m", "km", "too long"),
        ("1 " + "m" * 57, "km", "unknown unit 'mmmmmmmmmmmmmmmmmmmm…'"),
        ("1 m\nkm", "cm", "a number and its unit"),
    ],
)
def test_everything_else_is_a_named_error(amount: str, to: str, reason: str) -> None:
    with pytest.raises(UnitError) as caught:
        convert(amount, to)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


def test_there_and_back_is_where_one_started() -> None:
    for first in UNITS:
        for second in UNITS:
            if first.kind == second.kind:
                there = convert(f"35/7 {first.symbol}", second.symbol)
                assert convert(there, first.symbol) == f"5 {first.symbol}"


def test_every_name_means_one_unit() -> None:
    names = [name for unit in UNITS for name in (unit.symbol, *unit.names)]
    assert len(names) == len(set(names))
    for unit in UNITS:
        assert unit.size > 0
        assert isinstance(unit.size, Fraction)
        assert all(unit_named(name) is unit for name in (unit.symbol, *unit.names))
        assert all(unit_named(name.upper()) is unit for name in unit.names if len(name) > 3)


def test_only_full_names_are_guessed() -> None:
    assert nearest_name("kilometrs") == "kilometres"
    assert nearest_name("Stundn") == "stunden"
    assert nearest_name("q") is None
    assert nearest_name("blue") is None


def test_the_longest_amount_is_cheap_and_right() -> None:
    digits = "9" * (MAX_AMOUNT - 3)
    assert convert(f"{digits} km", "m") == f"{digits}000 m"
