"""What can be told of people and things, and how it is asked for: data of the lessons whose facts
are made up.

Every sentence starts with its subject and ends with its value, so that an answer starts with words
of the question and goes on as a copy. No word here is a payload word of `words`: those must be
free to stand for anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matura.lessons.words import Language

ValueKind = Literal["name", "place", "number", "word", "shade", "job"]


@dataclass(frozen=True, slots=True)
class Relation:
    """One thing that can be told of a subject `{S}`: its value `{V}`."""

    key: str
    value: ValueKind
    nouns: tuple[str, ...]
    """What a subject may be; empty if it is a person."""
    links: tuple[str, ...]
    """Ways to tell it, each a whole sentence without its full stop."""
    asks: tuple[str, ...]
    """Ways to ask for the value, without the question mark."""
    label: str
    """The value in a frame of its own, four words long."""
    who: tuple[str, ...] = ()
    """Ways to ask for the subject instead, where it is a person."""


OWNED: dict[Language, str] = {"en": "{O}'s {N}", "de": "{N} von {O}"}
PLAIN: dict[Language, str] = {"en": "the {N}", "de": "{N}"}
NAMED: dict[Language, str] = {"en": "The name is {V}", "de": "Der Name ist {V}"}
"""The frame of a person who is the answer."""

_PETS = ("puppy", "kitten", "pony", "gecko", "ferret", "canary", "foal")
_THINGS = ("van", "tent", "sofa", "scooter", "kite", "rug", "bike", "vase", "mug", "drone")
_DEVICES = ("laptop", "tablet", "phone", "vault", "account", "locker")
_PETS_DE = ("der Welpe", "das Kätzchen", "das Pony", "der Gecko", "das Fohlen", "das Lamm")
_THINGS_DE = (
    *("das Auto", "das Zelt", "das Sofa", "der Roller", "der Teppich", "die Vase", "der Becher"),
    *("der Koffer", "das Fahrrad", "der Schrank"),
)
_DEVICES_DE = ("der Laptop", "das Tablet", "das Handy", "der Tresor", "das Konto")

RELATIONS: dict[Language, tuple[Relation, ...]] = {
    "en": (
        Relation(
            "name",
            "name",
            _PETS,
            ("{S} is called {V}", "{S} has the name {V}"),
            ("what is {S} called", "what is the name of {S}", "which name does {S} have"),
            "The name is {V}",
        ),
        Relation(
            "home",
            "place",
            (),
            ("{S} lives in {V}", "{S} has a home in {V}"),
            ("where does {S} live", "in which town does {S} live", "in which place does {S} live"),
            "The place is {V}",
            ("who lives in {V}", "who has a home in {V}"),
        ),
        Relation(
            "origin",
            "place",
            (),
            ("{S} comes from {V}", "{S} is from {V}"),
            ("where does {S} come from", "from which town is {S}", "where is {S} from"),
            "The place is {V}",
            ("who comes from {V}", "who is from {V}"),
        ),
        Relation(
            "job",
            "job",
            (),
            ("{S} works as a {V}", "{S} has the job of a {V}"),
            ("what does {S} work as", "which job does {S} have", "what is the job of {S}"),
            "The job is {V}",
            ("who works as a {V}", "who has the job of a {V}"),
        ),
        Relation(
            "shade",
            "shade",
            _THINGS,
            ("{S} is {V}", "{S} has the shade {V}"),
            ("what shade is {S}", "which shade does {S} have", "what is the shade of {S}"),
            "The shade is {V}",
        ),
        Relation(
            "number",
            "number",
            _THINGS,
            ("{S} has the number {V}", "{S} has number {V}"),
            ("which number does {S} have", "what number is on {S}", "what is the number of {S}"),
            "The number is {V}",
        ),
        Relation(
            "made",
            "place",
            _THINGS,
            ("{S} was made in {V}", "{S} was built in {V}"),
            ("where was {S} made", "in which town was {S} made", "where was {S} built"),
            "The place is {V}",
        ),
        Relation(
            "password",
            "word",
            _DEVICES,
            ("{S} has the password {V}", "{S} needs the password {V}"),
            (
                "which password does {S} have",
                "what is the password of {S}",
                "what password does {S} need",
            ),
            "The password is {V}",
        ),
    ),
    "de": (
        Relation(
            "name",
            "name",
            _PETS_DE,
            ("{S} heißt {V}", "{S} hat den Namen {V}"),
            ("wie heißt {S}", "welchen Namen hat {S}", "wie wird {S} genannt"),
            "Der Name ist {V}",
        ),
        Relation(
            "home",
            "place",
            (),
            ("{S} wohnt in {V}", "{S} lebt in {V}"),
            ("wo wohnt {S}", "wo lebt {S}", "in welchem Ort wohnt {S}"),
            "Der Ort ist {V}",
            ("wer wohnt in {V}", "wer lebt in {V}"),
        ),
        Relation(
            "origin",
            "place",
            (),
            ("{S} kommt aus {V}", "{S} stammt aus {V}"),
            ("woher kommt {S}", "woher stammt {S}", "aus welchem Ort kommt {S}"),
            "Der Ort ist {V}",
            ("wer kommt aus {V}", "wer stammt aus {V}"),
        ),
        Relation(
            "job",
            "job",
            (),
            ("{S} arbeitet als {V}", "{S} ist von Beruf {V}"),
            ("als was arbeitet {S}", "welchen Beruf hat {S}", "was ist {S} von Beruf"),
            "Der Beruf ist {V}",
            ("wer arbeitet als {V}", "wer ist von Beruf {V}"),
        ),
        Relation(
            "shade",
            "shade",
            _THINGS_DE,
            ("{S} ist {V}", "{S} hat den Farbton {V}"),
            ("welchen Farbton hat {S}", "in welchem Farbton ist {S}", "was für ein Ton ist {S}"),
            "Der Farbton ist {V}",
        ),
        Relation(
            "number",
            "number",
            _THINGS_DE,
            ("{S} hat die Nummer {V}", "{S} trägt die Nummer {V}"),
            ("welche Nummer hat {S}", "welche Nummer trägt {S}"),
            "Die Nummer ist {V}",
        ),
        Relation(
            "made",
            "place",
            _THINGS_DE,
            ("{S} kommt aus {V}", "{S} ist aus {V}"),
            ("woher kommt {S}", "aus welchem Ort kommt {S}", "aus welchem Ort ist {S}"),
            "Der Ort ist {V}",
        ),
        Relation(
            "password",
            "word",
            _DEVICES_DE,
            ("{S} hat das Passwort {V}", "{S} braucht das Passwort {V}"),
            ("welches Passwort hat {S}", "welches Passwort braucht {S}"),
            "Das Passwort ist {V}",
        ),
    ),
}

MOST_TELLINGS = max(len(one.links) for relations in RELATIONS.values() for one in relations)

_NAMES = """
Anna Tom Mia Leo Ben Ella Max Nina Paul Lena Finn Clara Jonas Emma Noah Ida Felix Laura David Sara
Simon Julia Lukas Marie Peter Eva Martin Olga Oscar Hanna Karl Rita Kurt Vera Hugo Greta Otto Frida
Emil Nora Ali Yusuf Omar Leila Ivan Mila Carlos Lucia Diego Elena Marco Sofia Kenji Yuki Ravi Priya
Chen Mei Bruno Tina Ralf Silke Udo Gerda
"""
_SHADES = """
crimson scarlet turquoise beige maroon navy lilac khaki magenta teal indigo cyan bronze mauve olive
coral burgundy ochre mint rust lavender fuchsia azure ivory cream tan sepia umber jade plum ruby
amber red orange yellow green blue purple violet pink brown black white grey silver golden cherry
lemon peach sand taupe sage mustard russet vermilion auburn cobalt denim
"""
# `weiß` stands in `Ich weiß es nicht.`
_SHADES_DE = """
rot gelb grün blau lila rosa braun schwarz grau türkis beige orange violett golden silbern
oliv bordeaux petrol mint karmin purpur indigo khaki magenta cyan ocker creme koralle rostrot
hellblau dunkelrot zinnober flieder bronze anthrazit safran aubergine
"""
# none that starts with a vowel: `works as a surgeon`
_JOBS = """
plumber butcher tailor barber florist clerk waiter chef dentist postman gardener grocer jeweller
fisher shepherd weaver potter roofer welder mason carpenter brewer tutor coach vet surgeon reporter
librarian manager banker bouncer cleaner porter ranger scout smith guard guide chemist biologist
physicist pianist drummer poet composer cook cobbler cashier courier doctor teacher farmer sailor
painter writer singer dancer driver baker miller hunter soldier captain pilot nurse lawyer judge
"""
_JOBS_DE = """
Klempner Metzger Schneider Friseur Florist Kellner Koch Zahnarzt Briefträger Gärtner Juwelier
Fischer Schäfer Weber Töpfer Dachdecker Schweißer Maurer Schreiner Brauer Trainer Tierarzt Chirurg
Reporter Bankier Pförtner Förster Schmied Wächter Chemiker Biologe Physiker Pianist Dichter
Komponist Schuster Kassierer Kurier Pilot Richter Notar Tischler Winzer Imker Lotse Matrose Kapitän
Lehrer Arzt Bauer Maler Müller Jäger
"""
NAMES = tuple(_NAMES.split())
LISTED: dict[Language, dict[ValueKind, tuple[str, ...]]] = {
    "en": {"shade": tuple(_SHADES.split()), "job": tuple(_JOBS.split())},
    "de": {"shade": tuple(_SHADES_DE.split()), "job": tuple(_JOBS_DE.split())},
}
"""Values that are chosen from a list; places are made up, the rest numbers or ordinary words."""

UNKNOWN: dict[Language, str] = {"en": "I don't know.", "de": "Ich weiß es nicht."}
