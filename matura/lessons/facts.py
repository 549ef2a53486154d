"""Questions with one short answer each, learnt by heart. Plain data: relations, each of which asks
the same thing about many things.

`format_lock` asks them in one wording and never examines them; `knowledge` asks them in many and
examines whether they were remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from matura.lessons.words import Language


class Fact(NamedTuple):
    """A question and its whole answer."""

    question: str
    answer: str
    language: Language = "en"


class Relation(NamedTuple):
    """What one thing is to another: `Paris` to `France`."""

    question: str
    """The plain question, with `{}` for what is asked about."""
    names: tuple[str, ...]
    """What the answer can be called inside a wording, with `{X}`: `the capital of {X}`."""
    pairs: Mapping[str, str]
    """What is asked about, and the answer without its full stop."""
    language: Language = "en"

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Each pair as the plain question and its answer."""
        return tuple(
            Fact(self.question.format(key), f"{value}.", self.language)
            for key, value in self.pairs.items()
        )


def _table(table: str) -> dict[str, str]:
    """`key=value, key=value`."""
    pairs = (row.strip().split("=") for row in table.split(","))
    return dict((key, value) for key, value in pairs)


def _next(series: str) -> dict[str, str]:
    """Each name of a series and the one after it."""
    return dict(pairwise(series.split()))


_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Monday"
_TAGE = "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag Montag"
_NUMBERS = " ".join(map(str, range(22)))

EVERYDAY: tuple[Relation, ...] = (
    Relation(
        "What day comes after {}?", ("the day after {X}", "the day that follows {X}"), _next(_DAYS)
    ),
    Relation(
        "Welcher Tag kommt nach {}?",
        ("der Tag nach {X}", "der Tag, der auf {X} folgt"),
        _next(_TAGE),
        "de",
    ),
    Relation(
        "What number comes after {}?",
        ("the number after {X}", "the number that follows {X}"),
        _next(_NUMBERS),
    ),
    Relation(
        "What is the opposite of {}?",
        ("the opposite of {X}", "the reverse of {X}"),
        _table(
            "hot=cold, big=small, up=down, left=right, day=night, good=bad, fast=slow, old=new,"
            "open=closed, yes=no, wet=dry, light=dark, early=late, full=empty, happy=sad, in=out"
        ),
    ),
    Relation(
        "What colour is {}?",
        ("the colour of {X}", "the colour that goes with {X}"),
        _table("the sky=Blue, grass=Green, snow=White, coal=Black, blood=Red, a lemon=Yellow"),
    ),
)

GENERAL: tuple[Relation, ...] = (
    Relation(
        "What is the capital of {}?",
        ("the capital of {X}", "the capital city of {X}"),
        _table(
            "France=Paris, Germany=Berlin, Italy=Rome, Spain=Madrid, Austria=Vienna, Poland=Warsaw,"
            "Japan=Tokyo, China=Beijing, Egypt=Cairo, Greece=Athens, Norway=Oslo, Sweden=Stockholm,"
            "Portugal=Lisbon, Ireland=Dublin, Russia=Moscow, Cuba=Havana, Peru=Lima, Kenya=Nairobi,"
            "India=New Delhi, Canada=Ottawa, Finland=Helsinki, Denmark=Copenhagen, Hungary=Budapest"
        ),
    ),
    Relation(
        "Was ist die Hauptstadt von {}?",
        ("die Hauptstadt von {X}", "die Hauptstadt des Landes {X}"),
        _table("Frankreich=Paris, Deutschland=Berlin, Italien=Rom, Spanien=Madrid, Polen=Warschau"),
        "de",
    ),
    Relation(
        "What month comes after {}?",
        ("the month after {X}", "the month that follows {X}"),
        _next(
            "January February March April May June July August September October November December"
            " January"
        ),
    ),
    Relation(
        "What letter comes after {}?",
        ("the letter after {X}", "the letter that follows {X}"),
        _next("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"),
    ),
    Relation(
        "Write {} as a word.",
        ("the word for the number {X}", "the number {X} as a word"),
        _table(
            "0=zero, 1=one, 2=two, 3=three, 4=four, 5=five, 6=six, 7=seven, 8=eight, 9=nine,"
            "10=ten, 11=eleven, 12=twelve, 13=thirteen, 20=twenty, 30=thirty, 100=one hundred"
        ),
    ),
    Relation(
        "What is a young {} called?",
        ("the word for a young {X}", "the young of a {X}"),
        _table(
            "dog=Puppy, cat=Kitten, cow=Calf, horse=Foal, sheep=Lamb, goat=Kid, hen=Chick, bear=Cub"
        ),
    ),
    Relation(
        "What does a {} say?",
        ("the sound of a {X}", "the sound that a {X} makes"),
        _table("dog=Woof, cat=Meow, cow=Moo, sheep=Baa, duck=Quack"),
    ),
    Relation(
        "Which file ending has {}?",
        ("the file ending of {X}", "the file ending for {X}"),
        _table(
            "Python=py, plain text=txt, JSON=json, Markdown=md, HTML=html, YAML=yaml, C=c, Rust=rs"
        ),
    ),
    Relation(
        "What is the sign for {}?",
        ("the sign for {X}", "the symbol for {X}"),
        _table("plus=+, minus=-, times=*, percent=%, at=@, hash=#, and=&, a question=?"),
    ),
    Relation(
        "What is measured in {}?",
        ("the thing measured in {X}", "the quantity that {X} measure"),
        _table(
            "metres=Length, grams=Mass, seconds=Time, volts=Voltage, watts=Power, litres=Volume"
        ),
    ),
    Relation(
        "In Python, which word {}?",
        ("the Python word that {X}", "the word that in Python {X}"),
        _table(
            "defines a function=def, starts a loop over items=for, imports a module=import,"
            "defines a class=class, returns a value=return, raises an error=raise, waits=await"
        ),
    ),
)

_SMALL_TALK: tuple[Fact, ...] = (
    Fact("Hi!", "Hello."),
    Fact("Hello!", "Hello."),
    Fact("Good morning!", "Good morning."),
    Fact("Good evening!", "Good evening."),
    Fact("Goodbye!", "Goodbye."),
    Fact("How are you?", "Fine."),
    Fact("Are you ready?", "Yes."),
    Fact("Are you there?", "Yes."),
    Fact("Can you hear me?", "Yes."),
    Fact("Are you a person?", "No."),
    Fact("Is snow hot?", "No."),
    Fact("Is fire hot?", "Yes."),
    Fact("Is ice cold?", "Yes."),
    Fact("Can fish fly?", "No."),
    Fact("Thank you!", "You are welcome."),
    Fact("Hallo!", "Hallo.", "de"),
    Fact("Guten Morgen!", "Guten Morgen.", "de"),
    Fact("Guten Abend!", "Guten Abend.", "de"),
    Fact("Wie geht es dir?", "Gut.", "de"),
    Fact("Bist du bereit?", "Ja.", "de"),
    Fact("Bist du ein Mensch?", "Nein.", "de"),
    Fact("Danke!", "Bitte.", "de"),
)

MINIMAL: tuple[Fact, ...] = (
    *_SMALL_TALK,
    *(fact for relation in EVERYDAY for fact in relation.facts),
)
FULL: tuple[Fact, ...] = tuple(fact for relation in GENERAL for fact in relation.facts)
