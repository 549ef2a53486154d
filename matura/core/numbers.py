"""How an exact number is written: one spelling for lesson data, tool results and graders.

A lesson that writes 2.50 where the calculator says 2.5 teaches a model to distrust its tool.
"""

from __future__ import annotations

from fractions import Fraction


def spell(value: Fraction | int) -> str:
    """`17` if whole, `2.5` if its decimals end, `a/b` in lowest terms otherwise; never rounded."""
    value = Fraction(value)
    top, bottom = value.numerator, value.denominator
    if bottom == 1:
        return str(top)
    twos = (bottom & -bottom).bit_length() - 1
    rest, fives = bottom >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{top}/{bottom}"
    places = max(twos, fives)
    digits = str(abs(top) * 10**places // bottom).rjust(places + 1, "0")
    return f"{'-' if top < 0 else ''}{digits[:-places]}.{digits[-places:]}"
