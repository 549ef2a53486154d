"""Exact arithmetic for a model that cannot do it: a parser over rationals that has nothing to
escape from.

No `eval`, no names, no floats, no signals: the cost of any input is bounded by its length, its
depth and the size of every number on the way, so the answer or the named error comes within 10 ms
in any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

from matura.core.numbers import spell
from matura.talk.tool import Tool, ToolError

# The limits together bound the time: the dearest of 400 characters tried here took 1 ms of CPU.
MAX_CHARACTERS = 400
MAX_DEPTH = 32
MAX_BITS = 1024
MAX_RESULT_CHARACTERS = 320

DIGITS = frozenset("0123456789")
SPACES = frozenset(" \t\n")
TOO_BIG = "the number is too big"
HINTS = {
    ",": "write numbers without commas",
    "e": "write numbers without exponents",
    "%": "percent is not known, divide by 100",
    "=": "leave out the equals sign",
}


class Calculator(Tool):
    """Works out one arithmetic expression exactly."""

    name: ClassVar[str] = "calculator"
    description: ClassVar[str] = "Works out one arithmetic expression exactly: + - * / ** and ( )."
    parameters: ClassVar[Mapping[str, str]] = {"expression": "such as (12 + 7) * 3 / 2"}

    def run(self, arguments: Mapping[str, Any]) -> str:
        """The value of `expression`, spelled by `core.numbers.spell`.

        Raises:
            ToolError: the expression is not plain arithmetic, has no value, or costs too much.
        """
        text = spell(evaluate(self.text_argument(arguments, "expression")))
        if len(text) > MAX_RESULT_CHARACTERS:
            raise ToolError(TOO_BIG)
        return text


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression of `+ - * / ** ^ ( )`, whole numbers and decimals.

    Precedence is Python's: `-2**2` is -4, `2**3**2` is 512, `2**-1` is 1/2; `^` means `**`.

    Raises:
        ToolError: anything else, division by zero, or a limit of this module.
    """
    if len(expression) > MAX_CHARACTERS:
        raise ToolError(f"the expression is too long, at most {MAX_CHARACTERS} characters")
    parser = _Parser(_tokens(expression))
    value = parser.sum(0)
    parser.end()
    return value


def _tokens(expression: str) -> list[str]:
    """Numbers, operators and parentheses; a number keeps its digits as text."""
    found: list[str] = []
    at = 0
    while at < len(expression):
        character = expression[at]
        start = at
        if character in SPACES:
            at += 1
            continue
        if character in DIGITS or character == ".":
            while at < len(expression) and (expression[at] in DIGITS or expression[at] == "."):
                at += 1
        elif character in "+-*/^()":
            at += 2 if expression[at : at + 2] in ("**", "//") else 1
        else:
            hint = HINTS.get(character)
            shown = character if character.isprintable() else f"U+{ord(character):04X}"
            raise ToolError(f"unknown character {shown!r}" + (f": {hint}" if hint else ""))
        found.append(expression[start:at])
    return found


class _Parser:
    """Recursive descent with a depth limit; each method reads one level of precedence."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> str:
        """The next token, or nothing at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        """The next token, stepped over."""
        token = self.peek()
        self.at += 1
        return token

    def end(self) -> None:
        """Nothing may be left."""
        if self.peek():
            raise ToolError(f"unexpected {_short(self.peek())}")

    def sum(self, depth: int) -> Fraction:
        """Products, added and subtracted from the left."""
        value = self.product(depth)
        while self.peek() in ("+", "-"):
            sign = self.take()
            other = self.product(depth)
            value = _checked(value + other if sign == "+" else value - other)
        return value

    def product(self, depth: int) -> Fraction:
        """Signed powers, multiplied and divided from the left."""
        value = self.signed(depth)
        while self.peek() in ("*", "/"):
            sign = self.take()
            other = self.signed(depth)
            if sign == "/" and not other:
                raise ToolError("division by zero")
            value = _checked(value * other if sign == "*" else value / other)
        return value

    def signed(self, depth: int) -> Fraction:
        """A power behind any number of minus signs."""
        minus = False
        while self.peek() == "-":
            self.take()
            minus = not minus
        value = self.power(depth)
        return -value if minus else value

    def power(self, depth: int) -> Fraction:
        """An atom, raised to what stands right of it."""
        base = self.atom(depth)
        if self.peek() not in ("**", "^"):
            return base
        self.take()
        return _power(base, self.signed(_deeper(depth)))

    def atom(self, depth: int) -> Fraction:
        """A number, or a sum in parentheses."""
        token = self.take()
        if token == "(":
            value = self.sum(_deeper(depth))
            if self.take() != ")":
                raise ToolError("a parenthesis is not closed")
            return value
        if token and token[0] in "0123456789.":
            return _number(token)
        if token:
            raise ToolError(f"unexpected {_short(token)}")
        raise ToolError("the expression is empty" if not self.tokens else "a number is missing")


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise ToolError(f"the expression is nested too deeply, at most {MAX_DEPTH} levels")
    return depth + 1


def _number(token: str) -> Fraction:
    """A whole number or a decimal, exactly; `.5` is read, `5.` and `1.2.3` are not."""
    whole, dot, decimals = token.partition(".")
    if "." in decimals or (dot and not decimals):
        raise ToolError(f"not a number: {_short(token)}")
    return _checked(Fraction(int(whole + decimals or "0"), 10 ** len(decimals)))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """`base ** exponent`, refused before it is computed if the result would be too big."""
    if exponent.denominator != 1:
        raise ToolError("an exponent must be a whole number")
    if not base and exponent < 0:
        raise ToolError("division by zero")
    times = exponent.numerator
    if base in (0, 1, -1):  # any exponent is cheap here, but Python would still loop over its bits
        return Fraction(1) if times == 0 else base if times % 2 or base >= 0 else -base
    bits = max(base.numerator.bit_length(), base.denominator.bit_length()) - 1
    if max(1, bits) * abs(times) > MAX_BITS:
        raise ToolError(TOO_BIG)
    return _checked(Fraction(base**times))


def _checked(value: Fraction) -> Fraction:
    """`value`, if it keeps to the size limit: no later step can then be expensive."""
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise ToolError(TOO_BIG)
    return value


def _short(token: str) -> str:
    return repr(token if len(token) <= 20 else token[:20] + "…")
