"""Units and exact conversion between them: one table for lesson data, tool results and graders.

Everything is a rational number, so 1 in is 2.54 cm and 1 F is not 0.5555555555555556 K.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fractions import Fraction

from matura.core.errors import MaturaError
from matura.core.numbers import spell

MAX_AMOUNT = 60
"""Characters of an amount: with a number this short no conversion is dear."""

_AMOUNT = re.compile(r"\s*(-?[0-9]+(?:\.[0-9]+)?(?:/[0-9]+)?)\s*(\S.*?)\s*")
_NAMES = re.compile(r"[^\W\d_]+")
_NEAR = 0.7


class UnitError(MaturaError):
    """An amount that cannot be read or converted; its text says why."""


@dataclass(frozen=True, slots=True)
class Unit:
    """`symbol` is how results spell it; `names` are the other spellings that are understood."""

    symbol: str
    kind: str
    """What it measures; only units of one kind are converted into each other."""
    size: Fraction
    """In the first unit of its kind."""
    zero: Fraction = Fraction(0)
    """Where its zero lies, in the first unit of its kind: only temperatures have one."""
    names: tuple[str, ...] = ()


def _table(kind: str, rows: str) -> list[Unit]:
    """One unit a line: `symbol size name name ...`, a size with `@` before where its zero lies."""
    units = []
    for row in rows.strip().splitlines():
        symbol, size, *names = row.split()
        size, _, zero = size.partition("@")
        units.append(Unit(symbol, kind, Fraction(size), Fraction(zero or 0), tuple(names)))
    return units


UNITS: tuple[Unit, ...] = (
    *_table(
        "length",
        """
        m 1 metre metres meter meters
        mm 1/1000 millimetre millimetres millimeter millimeters
        cm 1/100 centimetre centimetres centimeter centimeters
        dm 1/10 decimetre decimetres decimeter decimeters
        km 1000 kilometre kilometres kilometer kilometers
        in 254/10000 inch inches
        ft 3048/10000 foot feet
        yd 9144/10000 yard yards
        mi 1609344/1000 mile miles
        """,
    ),
    *_table(
        "weight",
        """
        g 1 gram grams gramm
        mg 1/1000 milligram milligrams milligramm
        kg 1000 kilogram kilograms kilogramm kilo kilos
        t 1000000 tonne tonnes tonnen
        oz 28349523125/1000000000 ounce ounces
        lb 45359237/100000 pound pounds lbs
        """,
    ),
    *_table(
        "time",
        """
        s 1 second seconds sekunde sekunden
        ms 1/1000 millisecond milliseconds millisekunden
        min 60 minute minutes minuten
        h 3600 hour hours stunde stunden
        d 86400 day days tag tage
        wk 604800 week weeks woche wochen
        """,
    ),
    *_table(
        "volume",
        """
        l 1 litre litres liter liters
        ml 1/1000 millilitre millilitres milliliter milliliters
        cl 1/100 centilitre centilitres centiliter centiliters
        """,
    ),
    *_table(
        "temperature",
        """
        K 1 kelvin
        C 1@5463/20 celsius °C
        F 5/9@45967/180 fahrenheit °F
        """,
    ),
    *_table(
        "data",
        """
        B 1 byte bytes
        kB 1000 kilobyte kilobytes
        MB 1000000 megabyte megabytes
        GB 1000000000 gigabyte gigabytes
        """,
    ),
)
"""Every unit there is; sizes are exact by definition (an inch is 2.54 cm, a pound 453.59237 g)."""

_EXACT = {name: unit for unit in UNITS for name in (unit.symbol, *unit.names)}
_FOLDED = {name.casefold(): unit for name, unit in reversed(_EXACT.items())}


def unit_named(name: str) -> Unit:
    """The unit of that symbol or name, whatever its case if that leaves no doubt.

    Raises:
        UnitError: there is none; the text names the nearest full name if one is near.
    """
    unit = _EXACT.get(name) or _FOLDED.get(name.casefold())
    if unit is None:
        shown = name if len(name) <= 20 else name[:20] + "…"
        near = nearest_name(name) if len(name) <= 20 else None
        raise UnitError(f"unknown unit {shown!r}" + (f", did you mean {near!r}?" if near else ""))
    return unit


def nearest_name(name: str) -> str | None:
    """The full name that a misspelt one most likely stands for."""
    known = sorted({other for other in _FOLDED if len(other) > 3 and _NAMES.fullmatch(other)})
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=_NEAR)
    return near[0] if near else None


def convert(amount: str, to: str) -> str:
    """An amount such as `2.5 km` in another unit: `2500 m`, exactly.

    Raises:
        UnitError: no number with a unit, an unknown unit, two kinds of unit, or a temperature
            below absolute zero.
    """
    if len(amount) > MAX_AMOUNT:
        raise UnitError(f"the amount is too long, at most {MAX_AMOUNT} characters")
    found = _AMOUNT.fullmatch(amount)
    if found is None:
        raise UnitError("the amount must be a number and its unit, such as 2.5 km")
    number, name = found.groups()
    source, target = unit_named(name), unit_named(to.strip())
    if source.kind != target.kind:
        raise UnitError(f"{source.symbol} is {source.kind}, {target.symbol} is {target.kind}")
    base = _number(number) * source.size + source.zero
    if source.kind == "temperature" and base < 0:
        raise UnitError("that is below absolute zero")
    return f"{spell((base - target.zero) / target.size)} {target.symbol}"


def _number(text: str) -> Fraction:
    """`12`, `-2.5` or `1/3`."""
    top, _, bottom = text.partition("/")
    if bottom and not int(bottom):
        raise UnitError("division by zero")
    return Fraction(top) / int(bottom or 1)
