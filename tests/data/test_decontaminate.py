"""Every planted item is found, changed a little or not; clean text is left alone; a collision of
hashes drops nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
import pytest

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data import hashed
from matura.data.decontaminate import (
    HITS_KEPT,
    Findings,
    Index,
    Rules,
    decontaminated,
    refuse_survivors,
    survivors,
)
from matura.data.hashed import Hashes
from matura.data.sources.stdlib import Stdlib
from matura.data.split import sections
from matura.data.words import spans, words

PEOPLE = ["merchant", "teacher", "farmer", "widow", "captain", "baker", "pilot", "nurse", "judge"]
PEOPLE += ["painter", "clerk", "tailor", "sailor", "miner", "drummer", "engineer", "gardener"]
DONE = ["counted", "carried", "sorted", "painted", "measured", "weighed", "packed", "polished"]
DONE += ["borrowed", "labelled", "ordered", "collected", "delivered", "returned"]
THINGS = ["baskets", "lanterns", "bricks", "violins", "kettles", "maps", "barrels", "candles"]
THINGS += ["tickets", "pebbles", "curtains", "spoons", "ropes", "helmets", "jars", "ribbons"]
PLACES = ["harbour", "orchard", "attic", "chapel", "market", "cellar", "library", "meadow"]
PLACES += ["quarry", "bakery", "tower", "museum", "courtyard", "workshop", "station"]
KINDS = ["copper", "wooden", "faded", "narrow", "crimson", "heavy", "silver", "crooked", "empty"]

Change = Callable[[str, Random], str]


def question(r: Random) -> str:
    """One of six shapes, of 8 to 29 words."""
    who, did, what, where, how = (
        lambda words=words: r.choice(words) for words in (PEOPLE, DONE, THINGS, PLACES, KINDS)
    )
    match r.randrange(6):
        case 0:
            return (
                f"The {who()} {did()} {r.randint(2, 990)} {how()} {what()} near the {where()}, and "
                f"on Monday the {who()} {did()} {r.randint(2, 990)} more. How many {what()} are "
                "left?"
            )
        case 1:
            return (
                f"Why did the {who()} leave {r.randint(2, 990)} {how()} {what()} in the {where()}, "
                f"when the {who()} wanted {what()}?"
            )
        case 2:
            return f"Which {what()} did the {how()} {who()} take, {did()} before the {where()}?"
        case 3:
            return (
                f"If {r.randint(2, 990)} {what()} weigh {r.randint(2, 990)} grams, what do "
                f"{r.randint(2, 990)} {how()} {what()} from the {where()} weigh?"
            )
        case 4:
            return f"Name the {how()} {where()} where {what()} were {did()}."
        case _:
            return (
                f"A {who()}'s {what()}, {how()} and {how()}, were {did()} at the {where()}; nobody "
                f"but the {who()} saw it, so the {who()} {did()} the {what()} again. Who saw it?"
            )


def verbatim(text: str, r: Random) -> str:
    return text


def other_case(text: str, r: Random) -> str:
    return r.choice([str.upper, str.lower, str.title, str.swapcase])(text)


def other_spacing(text: str, r: Random) -> str:
    return re.sub(" ", lambda _: r.choice([" ", "  ", "\t", "\u00a0", " \n", "\u2003"]), text)


def other_punctuation(text: str, r: Random) -> str:
    return re.sub("[,.;?]", lambda _: r.choice(["", "!", " -", "…"]), text).replace("'", "’")


def swapped(text: str, r: Random) -> str:
    parts = text.split()
    parts[r.randrange(len(parts))] = r.choice(["zebra", "under", "seven", "blue"])
    return " ".join(parts)


def inserted(text: str, r: Random) -> str:
    parts = text.split()
    parts.insert(r.randrange(1, len(parts)), r.choice(["really", "old", "then", "not"]))
    return " ".join(parts)


def deleted(text: str, r: Random) -> str:
    parts = text.split()
    del parts[r.randrange(len(parts))]
    return " ".join(parts)


def reordered(text: str, r: Random) -> str:
    clauses = re.split(r"(?<=[,;.])\s", text)
    if len(clauses) < 2:
        parts = text.split()
        half = len(parts) // 2
        clauses = [" ".join(parts[:half]), " ".join(parts[half:])]
    at = r.randrange(len(clauses) - 1)
    clauses[at : at + 2] = clauses[at + 1], clauses[at]
    return " ".join(clauses)


def in_lines(text: str, r: Random, before: str) -> str:
    parts, found = text.split(), []
    while parts:
        cut = r.randint(3, 6)
        found.append(before + " ".join(parts[:cut]))
        parts = parts[cut:]
    return "\n".join(found)


def in_hash_comment(text: str, r: Random) -> str:
    return in_lines(text, r, "    # ")


def in_slash_comment(text: str, r: Random) -> str:
    return in_lines(text, r, "  // ")


def in_quotes(text: str, r: Random) -> str:
    return 'ask("' + text.replace(", ", ', "\n    "') + '")'


def in_escaped_string(text: str, r: Random) -> str:
    return '{"q": "\\n' + in_lines(text, r, "").replace("\n", "\\n") + '\\n"}'


def over_a_line_break(text: str, r: Random) -> str:
    at = r.choice([match.start() for match in re.finditer(" ", text)])
    return f"{text[:at]}\r\n{text[at + 1 :]}"


def swapped_in_comment(text: str, r: Random) -> str:
    return in_hash_comment(other_case(swapped(text, r), r), r)


def swapped_and_reordered(text: str, r: Random) -> str:
    return swapped(reordered(text, r), r)


CHANGES: list[Change] = [
    verbatim,
    other_case,
    other_spacing,
    other_punctuation,
    swapped,
    inserted,
    deleted,
    reordered,
    in_hash_comment,
    in_slash_comment,
    in_quotes,
    in_escaped_string,
    over_a_line_break,
    swapped_in_comment,
    swapped_and_reordered,
]
ONLY_SPELLING = {
    "verbatim",
    "other_case",
    "other_spacing",
    "other_punctuation",
    "over_a_line_break",
}
ONLY_SPELLING |= {"in_hash_comment", "in_slash_comment", "in_quotes", "in_escaped_string"}


@cache
def questions() -> tuple[str, ...]:
    stream = rng(0, "decontaminate")
    return tuple(dict.fromkeys(question(stream) for _ in range(1300)))[:1000]


@cache
def index() -> Index:
    return Index((str(number), text) for number, text in enumerate(questions()))


@cache
def clean() -> tuple[Document, ...]:
    source = Stdlib(kind="stdlib", max_bytes=2_500_000)
    given = Given(rng=rng(0, "clean"))
    return tuple(part for document in source.read(given) for part in sections(document, 2000))


def document(text: str, id: str = "d") -> Document:
    return Document(text=text, id=id)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_planted_items_are_found(change: Change) -> None:
    """Each of 1,000 items, changed so, somewhere in clean text."""
    stream, hosts, missed = rng(0, "plant", change.__name__), clean(), []
    for start in range(0, 1000, 10):  # ten to a document, each between two pieces of clean text
        host = iter(hosts[start // 10].text.splitlines())
        changed = {str(n): change(questions()[n], stream) for n in range(start, start + 10)}
        pieces = [f"{next(host, '')}\n{next(host, '')}\n{text}\n" for text in changed.values()]
        whole = "".join(pieces)
        hits = {hit.item: hit for hit in index().hits(document(whole))}
        missed += [text for name, text in changed.items() if name not in hits]
        for name in changed.keys() & hits.keys():
            hit = hits[name]
            assert whole.startswith(hit.text, hit.start)
            if change.__name__ in ONLY_SPELLING:
                assert hit.rule == "exact"
                assert words(hit.text) == words(questions()[int(name)])
            else:
                assert len(set(words(hit.text)) & set(words(changed[name]))) >= 5
    allowed = 0 if change.__name__ in ONLY_SPELLING else 10
    assert len(missed) <= allowed, f"{len(missed)} of 1000 missed: {missed[:5]}"


def test_clean_text_is_left_alone() -> None:
    assert len(clean()) > 1000
    findings = Findings()
    kept = list(decontaminated(clean(), index(), findings))
    assert len(kept) == findings.kept == findings.read == len(clean()), findings.hits
    assert not survivors(clean(), index())


def test_an_item_inside_longer_words_is_no_hit() -> None:
    found = Index([("q", "art is long but our")], Rules(near_words=None))
    assert found.hits(document("He said: Art is long, but our lives are short."))
    assert not found.hits(document("the part is long but our time is not"))
    assert not found.hits(document("art is long but ours is not"))
    assert found.hits(document("x=art_is_long(but.our)"))


def test_short_items_are_found_as_whole_documents_only() -> None:
    found = Index([("gold", "Forty-two!"), ("none", " ?! "), ("ja", "東京はどこ")])
    assert (len(found), found.only_whole, found.empty) == (2, 2, ["none"])
    assert [hit.text for hit in found.hits(document(" “FORTY two” \n"))] == ["FORTY two"]
    assert not found.hits(document("I am forty two years old"))
    assert found.hits(document("東京はどこ?"))
    assert not found.hits(document("東京はどこですか"))
    assert not found.hits(document("", "empty"))
    assert not Index([]).hits(document("whatever stands here"))


def test_thirteen_words_in_a_row_are_a_hit_and_twelve_are_not() -> None:
    text = [f"word{n}" for n in range(40)]
    found = Index([("long", " ".join(text))])
    around = ["before", *text[7:20], "after"]
    (hit,) = found.hits(document(" ".join(around)))
    assert (hit.rule, hit.text) == ("run", " ".join(text[7:20]))
    assert not found.hits(document(" ".join(["before", *text[7:19], "after"])))
    (hit,) = found.hits(document(" ".join([*text[7:20], "and", *text[3:30]])))
    assert hit.text == " ".join(text[3:30]) or hit.text == " ".join(text[7:20])


def test_what_all_items_share_is_no_hit() -> None:
    """Items of one template: another question of the template is none of them."""
    names = [f"name{n}" for n in range(300)]
    found = Index((name, f"What is the capital of the country {name}?") for name in names)
    assert not found.hits(document("What is the capital of the country Atlantis?"))
    (hit,) = found.hits(document("so what's the capital of the country name7, then?"))
    assert (hit.item, hit.rule) == ("name7", "near")


def test_text_in_other_scripts_and_forms_is_found() -> None:
    asked = "Straße und Café liegen ﬁnster an der Ecke ½ Meile weiter"
    again = "STRASSE UND CAFE\u0301 LIE\u00adGEN FINSTER AN DER ECKE １⁄２ MEILE WEITER"
    (hit,) = Index([("de", asked)]).hits(document(f"… „{again}“ …"))
    assert (hit.rule, hit.text) == ("exact", again)
    asked = "请问从火车站到最近的图书馆应该怎么走?"
    (hit,) = Index([("zh", asked)]).hits(document(f"他说:{asked}谢谢。"))
    assert (hit.rule, hit.text) == ("exact", asked[:-1])
    for text in ("a\u0301ﬁ™ \u1112\u1161\u11ab½x", "İstanbul ŉ ǰ\u200b1️⃣ नमस्ते สวัสดี", "\ud800 a"):
        assert len(words(text)) == len(spans(text))


def test_colliding_hashes_drop_no_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """With only four hashes there are, everything looks like a hit, and only the planted is one."""

    def weak(hashes: Hashes, ids: Hashes) -> Hashes:
        return (hashes * np.uint64(3) + ids) & np.uint64(3)

    monkeypatch.setattr(hashed, "mixed", weak)
    found = Index((text, text) for text in questions()[:12])
    assert not [hit for part in clean()[:8] for hit in found.hits(part)]
    asked = questions()[5]
    assert [hit.item for hit in found.hits(document(f"{clean()[0].text[:400]}\n{asked}"))] == [
        asked
    ]


def test_everything_is_counted_and_nothing_survives() -> None:
    asked = questions()
    tokens = Document(text="", id="tokens", ids=(1, 2, 3))
    some = [document(text, str(n)) for n, text in enumerate(asked[:5])]
    given = [*clean()[:20], *some, tokens, document(swapped(asked[9], rng(0, "s")), "near")]
    findings = Findings()
    kept = list(decontaminated(iter(given), index(), findings))
    assert kept == [*clean()[:20], tokens]
    assert findings.read == findings.kept + findings.dropped.total() == len(given)
    assert findings.dropped["evaluation item, exact"] == 5
    exact = [hit for hit in findings.hits if hit.rule == "exact"]
    assert [(hit.document, hit.item) for hit in exact] == [(str(n), str(n)) for n in range(5)]
    refuse_survivors(kept, index())
    with pytest.raises(DataError, match="3: holds the evaluation item '3'"):
        refuse_survivors([*kept, some[3]], index())


def test_what_is_remembered_is_bounded() -> None:
    findings = Findings()
    hits = HITS_KEPT + 100
    found = Index([("q", "only five words are here")])
    many = (document("Only five words are here.", str(n)) for n in range(hits))
    assert not list(decontaminated(many, found, findings))
    assert (len(findings.hits), findings.hits_left_out) == (HITS_KEPT, 100)


@pytest.mark.parametrize("rule", ["run", "near"])
def test_one_word_over_and_over_takes_no_hour(rule: str) -> None:
    count = 300 if rule == "run" else 12
    found = Index([("ha", " ".join(["ha"] * count)), ("haha", "ha ha he " * count)])
    assert found.hits(document("ha " * 50_000))


def test_plain_words_are_those_of_their_places() -> None:
    draw = rng(0, "words")
    for _ in range(2000):
        text = "".join(chr(draw.randrange(128)) for _ in range(draw.randrange(40)))
        assert words(text) == [text[a:b].lower() for a, b in spans(text)]
