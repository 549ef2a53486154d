"""Questions with one short answer each, learnt by heart. Plain data; nothing here is ever
examined."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from matura.lessons.words import Language


class Fact(NamedTuple):
    """A question and its whole answer."""

    question: str
    answer: str
    language: Language = "en"


def _rows(pattern: str, table: str, language: Language = "en") -> tuple[Fact, ...]:
    """One fact for each `key=value` of the table."""
    pairs = (row.strip().split("=") for row in table.split(","))
    return tuple(Fact(pattern.format(key), f"{value}.", language) for key, value in pairs)


def _next(pattern: str, series: str, language: Language = "en") -> tuple[Fact, ...]:
    """One fact for each neighbouring pair of a series."""
    pairs = pairwise(series.split())
    return tuple(Fact(pattern.format(name), f"{after}.", language) for name, after in pairs)


_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Monday"
_TAGE = "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag Montag"
_NUMBERS = " ".join(map(str, range(22)))

MINIMAL: tuple[Fact, ...] = (
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
    *_next("What day comes after {}?", _DAYS),
    *_next("Welcher Tag kommt nach {}?", _TAGE, "de"),
    *_next("What number comes after {}?", _NUMBERS),
    *_rows(
        "What is the opposite of {}?",
        "hot=cold, big=small, up=down, left=right, day=night, good=bad, fast=slow, old=new,"
        "open=closed, yes=no, wet=dry, light=dark, early=late, full=empty, happy=sad, in=out",
    ),
    *_rows(
        "What colour is {}?",
        "the sky=Blue, grass=Green, snow=White, coal=Black, blood=Red, a lemon=Yellow",
    ),
)

FULL: tuple[Fact, ...] = (
    *_rows(
        "What is the capital of {}?",
        "France=Paris, Germany=Berlin, Italy=Rome, Spain=Madrid, Austria=Vienna, Poland=Warsaw,"
        "Japan=Tokyo, China=Beijing, Egypt=Cairo, Greece=Athens, Norway=Oslo, Sweden=Stockholm,"
        "Portugal=Lisbon, Ireland=Dublin, Russia=Moscow, Cuba=Havana, Peru=Lima, Kenya=Nairobi,"
        "India=New Delhi, Canada=Ottawa, Finland=Helsinki, Denmark=Copenhagen, Hungary=Budapest",
    ),
    *_rows(
        "Was ist die Hauptstadt von {}?",
        "Frankreich=Paris, Deutschland=Berlin, Italien=Rom, Spanien=Madrid, Polen=Warschau",
        "de",
    ),
    *_next(
        "What month comes after {}?",
        "January February March April May June July August September October November December"
        " January",
    ),
    *_next("What letter comes after {}?", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z"),
    *_rows(
        "Write {} as a word.",
        "0=zero, 1=one, 2=two, 3=three, 4=four, 5=five, 6=six, 7=seven, 8=eight, 9=nine, 10=ten,"
        "11=eleven, 12=twelve, 13=thirteen, 20=twenty, 30=thirty, 100=one hundred",
    ),
    *_rows(
        "What is a young {} called?",
        "dog=Puppy, cat=Kitten, cow=Calf, horse=Foal, sheep=Lamb, goat=Kid, hen=Chick, bear=Cub",
    ),
    *_rows("What does a {} say?", "dog=Woof, cat=Meow, cow=Moo, sheep=Baa, duck=Quack"),
    *_rows(
        "Which file ending has {}?",
        "Python=py, plain text=txt, JSON=json, Markdown=md, HTML=html, YAML=yaml, C=c, Rust=rs",
    ),
    *_rows(
        "What is the sign for {}?",
        "plus=+, minus=-, times=*, percent=%, at=@, hash=#, and=&, a question=?",
    ),
    *_rows(
        "What is measured in {}?",
        "metres=Length, grams=Mass, seconds=Time, volts=Voltage, watts=Power, litres=Volume",
    ),
    *_rows(
        "In Python, which word {}?",
        "defines a function=def, starts a loop over items=for, imports a module=import,"
        "defines a class=class, returns a value=return, raises an error=raise, waits=await",
    ),
)
