"""Word problems made up from a seed, shaped like GSM8K's: chats to time training with, no lesson.

A question tells what somebody has and one to five things that happen to it; the answer works
them out one after the other, each by a call of the calculator whose result is read. Names, things,
places, days, numbers and the order of what happens are drawn, so hardly two are alike: over 10^12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from matura.core.rng import Rng, rng
from matura.core.types import Conversation, Message, ToolCall

CALCULATOR = "calculator"
STEPS = (1, 1, 2, 2, 2, 3, 3, 3, 4, 5)
"""How many things happen, each count as often as it stands here: rows fill as with GSM8K, whose
questions and answers are of very uneven length, only if lengths are."""
ASIDE = 0.3
"""How often something is told after a step that is no part of the sum."""
LARGEST = 5_000
"""Amounts grow no further, so that their spelling stays as long as in GSM8K."""

NAMES = (
    *("Ada", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo"),
    *("Ida", "Jonas", "Klara", "Leo", "Mina", "Noah", "Olga", "Paul"),
)
THINGS = (
    *("apples", "books", "cards", "clips", "coins", "eggs"),
    *("flowers", "letters", "marbles", "pencils", "shells", "stamps"),
)
PLACES = ("market", "school", "library", "village fair", "harbour", "bakery", "old mill", "park")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


ASIDES = (
    "{friend} comes by.",
    "It rains all day long, so nobody goes out.",
    "Everybody at the {place} likes the {things} very much and says so.",
    "{name} and {friend} have known each other since they went to the same school.",
)
"""Sentences without an amount, which make lengths as uneven as in GSM8K."""


@dataclass(frozen=True)
class Happening:
    """One thing that can happen to an amount, as it is told and as it is worked out."""

    sign: str
    told: tuple[str, ...]
    worked: tuple[str, ...]


HAPPENINGS = (
    Happening(
        "+",
        (
            "On {day} {name} gets {n} more {things} from {friend} at the {place}.",
            "Then {friend} brings {n} {things} along to the {place} and leaves all of them there.",
        ),
        (
            "After the {n} new {things} are put to those that were there before, {name} has ",
            "{friend} adds {n} {things}, so that the whole of it comes to ",
        ),
    ),
    Happening(
        "-",
        (
            "On {day} {name} gives {n} of the {things} to {friend}, who asked for them politely.",
            "At the {place} {n} {things} are lost, and nobody ever finds them again.",
        ),
        (
            "Of these {n} {things} are gone after that {day}, so what is left over is ",
            "Without the {n} {things} that are not there any more, {name} still has ",
        ),
    ),
    Happening(
        "*",
        (
            "By {day} there are {n} times as many {things} as {name} had the day before.",
            "{friend} counts again and finds {n} times the number of {things}.",
        ),
        (
            "There are {n} times as many {things} as before that, which makes it ",
            "Every one of the {things} counts {n} times now, so {name} has ",
        ),
    ),
    Happening(
        "/",
        (
            "On {day} {name} shares all the {things} evenly among {n} friends and keeps one part.",
            "Then the {things} are put in {n} boxes of the same size, of which {name} takes one.",
        ),
        (
            "Shared evenly among {n}, each part of the {things} comes to exactly ",
            "One of {n} equal boxes holds this many of the {things}: ",
        ),
    ),
)


def problems(count: int, seed: int) -> Iterator[Conversation]:
    """So many chats, the same ones each time."""
    draw = rng(seed, "bench", "problems")
    for number in range(count):
        yield _problem(draw, f"problem-{number}")


def _problem(draw: Rng, name: str) -> Conversation:
    who, friend = draw.sample(NAMES, 2)
    scene = {"name": who, "friend": friend, "things": draw.choice(THINGS)}
    amount = draw.randint(12, 96)
    told = [f"{who} keeps {amount} {scene['things']} in a box at the {draw.choice(PLACES)}."]
    said: list[Message] = []
    for _ in range(draw.choice(STEPS)):
        happening, n, after = _drawn(draw, amount)
        slots = scene | {"n": str(n), "day": draw.choice(DAYS), "place": draw.choice(PLACES)}
        told.append(draw.choice(happening.told).format_map(slots))
        if draw.random() < ASIDE:
            told.append(draw.choice(ASIDES).format_map(slots))
        expression = f"{amount}{happening.sign}{n}"
        words = draw.choice(happening.worked).format_map(slots)
        words = f"{words}{amount} {happening.sign} {n} = "
        if said:
            words = f" {scene['things']}. {words}"
        call = ToolCall(CALCULATOR, {"expression": expression})
        said += [Message("assistant", words, (call,)), Message("tool", str(after))]
        amount = after
    told.append(f"How many {scene['things']} does {who} have in the end?")
    said.append(Message("assistant", f" {scene['things']}.\n#### {amount}"))
    return Conversation((Message("user", " ".join(told)), *said), name)


def _drawn(draw: Rng, amount: int) -> tuple[Happening, int, int]:
    """What happens next, to how many, and how many there are then; never less than one."""
    while True:
        happening = draw.choice(HAPPENINGS)
        match happening.sign:
            case "+":
                n = draw.randint(3, 95)
                after = amount + n
            case "-":
                n = draw.randint(2, 60)
                after = amount - n
            case "*":
                n = draw.randint(2, 6)
                after = amount * n
            case _:
                n = draw.choice([n for n in range(2, 13) if amount % n == 0] or [1])
                after = amount // n
        if n > 1 and 1 < after <= LARGEST:
            return happening, n, after
