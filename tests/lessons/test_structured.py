"""What the lesson in structured answers makes, and that its exam shares nothing with it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import pytest

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split, TextCodec
from matura.lessons import signatures, structured
from matura.lessons.field_names import KEYS, RESERVED
from matura.lessons.phrasing import Grammar, is_for_exam
from matura.lessons.records import Style, plain_words, spell_json, tell
from matura.lessons.signatures import NO_TOOL, REQUESTS, TOOLS
from matura.lessons.structured import FORMS, Structured
from matura.lessons.words import ENGLISH, GERMAN, MAX_PIECES, Words, word_split
from matura.text.tokenizer import Tokenizer

SPLITS: tuple[Split, ...] = ("train", "validation", "exam")


def taken(
    lesson: Structured, count: int, split: Split = "train", codec: TextCodec | None = None
) -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(0, "structured"), codec, split)), count))


@pytest.fixture(scope="module")
def train() -> list[Conversation]:
    return taken(Structured(), 10_000)


@pytest.fixture(scope="module")
def exam() -> list[Conversation]:
    return taken(Structured(), 3_000, "exam")


def of(items: list[Conversation], *operators: str) -> list[Conversation]:
    return [item for item in items if item.meta["operator"] in operators]


def leaves(value: object) -> Iterator[Any]:
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list):
        yield from value
    else:
        yield value


def test_ten_thousand_items_come_out_the_same_twice(train: list[Conversation]) -> None:
    assert len(train) == 10_000
    assert taken(Structured(), 10_000) == train


def test_none_of_them_shares_words_wording_or_schema_with_the_exam(
    train: list[Conversation], exam: list[Conversation]
) -> None:
    """PITFALLS C-06."""

    def words(items: list[Conversation]) -> set[str]:
        return {word.casefold() for item in items for word in item.meta["payload"].split()}

    def named(items: list[Conversation], key: str) -> set[str]:
        return {item.meta[key].casefold() for item in items if key in item.meta}

    assert not words(train) & words(exam)
    assert {word_split(word) for word in words(exam)} == {"exam"}
    assert not named(train, "template") & named(exam, "template")
    assert not named(train, "schema_key") & named(exam, "schema_key")
    records = of(exam, *FORMS)
    assert all(is_for_exam(item.meta["template"]) for item in records)
    assert all(is_for_exam(item.meta["schema_key"]) for item in records)
    asked = {item.messages[0].content.casefold() for item in train}
    assert not asked & {item.messages[0].content.casefold() for item in exam}


def test_answers_are_strict_json_with_only_what_the_prompt_says(
    train: list[Conversation],
) -> None:
    for item in of(train, *structured.JSON_OPERATORS):
        question, answer = item.messages[0].content, item.messages[-1].content
        value = json.loads(answer)
        assert spell_json(value) == answer
        for leaf in leaves(value):
            if not isinstance(leaf, bool):
                assert str(leaf) in question
        for name in value:
            assert name in question or item.meta["operator"] == "CALL"


def test_types_follow_the_schema_alone(train: list[Conversation]) -> None:
    """`code 407` is `"407"` under `code` and 407 under `code#`."""
    types = {"number": (int, float), "bool": (bool,), "text": (str,), "list": (list,)}
    seen: Counter[str] = Counter()
    for item in of(train, *FORMS):
        value = json.loads(item.meta["expected"])
        for spelled in item.meta["schema_key"].split()[1:]:
            where, type_ = spelled.rstrip("?").split(":")
            group, key = where.split(".")
            inner = value[group] if group else value
            if spelled.endswith("?") and key not in inner:
                continue
            assert type(inner[key]) in types[type_]
            digits = isinstance(inner[key], str) and inner[key].replace(".", "").isdigit()
            seen[type_ + (" of digits" if digits else "")] += 1
    assert set(seen) == {"number", "bool", "text", "text of digits", "list"}
    assert min(seen.values()) > 1000


def test_a_flat_record_is_asked_for_again_with_other_types(train: list[Conversation]) -> None:
    again = [
        (first, second)
        for first, second in pairwise(train)
        if first.meta["operator"] == second.meta["operator"] == "RECORD"
        and first.meta["payload"] == second.meta["payload"]
    ]
    share = len(again) / (len(of(train, "RECORD")) - len(again))
    assert 0.4 < share < 0.6
    assert all(one.meta["expected"] != two.meta["expected"] for one, two in again)


def test_lines_are_names_and_values_in_the_order_of_the_schema() -> None:
    for item in of(taken(Structured(lines=True, prose=0, german=0), 800), *FORMS):
        places: list[int] = []
        for name, value in json.loads(item.meta["expected"]).items():
            for inner, said in value.items() if isinstance(value, dict) else [(name, value)]:
                key = f"{name}.{inner}" if isinstance(value, dict) else name
                told = ", ".join(said) if isinstance(said, list) else said
                if isinstance(said, bool):
                    told = "yes" if said else "no"
                places.append(f"\n{item.messages[0].content}\n".find(f"{key}: {told}"))
        assert -1 not in places
        assert places == sorted(places)


def test_optional_fields_are_left_out_where_the_text_is_silent(
    train: list[Conversation], exam: list[Conversation]
) -> None:
    for items in (train, exam):
        optional = of(items, "OPTIONAL")
        absent = Counter(item.meta["absent"] for item in optional)
        assert set(absent) == {"0", "1", "2"}
        assert absent["0"] < 0.6 * len(optional)
        for item in optional:
            asked = item.meta["schema_key"].count(":")
            assert len(json.loads(item.meta["expected"])) == asked - int(item.meta["absent"])
            assert ("?" in item.meta["schema"]) != ("optional" in item.meta["schema"])
        assert {item.meta["absent"] for item in of(items, "RECORD", "NESTED")} == {"0"}


def test_nested_records_hold_one_object_and_as_many_values_as_said(
    train: list[Conversation],
) -> None:
    for item in of(train, "NESTED"):
        value = json.loads(item.meta["expected"])
        inner = [part for part in value.values() if isinstance(part, dict)]
        assert len(inner) == 1
        assert inner[0]
        assert len(value) - 1 + len(inner[0]) == int(item.meta["bucket"][-1])


def test_a_call_is_of_a_listed_tool_and_none_is_of_none(train: list[Conversation]) -> None:
    for item in of(train, "CALL", "DIRECT", "NONE"):
        names = re.findall(r"(\w+)\(", item.meta["tools"])
        assert len(names) == len(set(names)) == int(item.meta["bucket"][-1])
        assert item.meta["tools"] in item.messages[0].content
        if item.meta["operator"] == "NONE":
            assert item.meta["tool"] not in names
            assert item.meta["expected"] == NO_TOOL[item.meta["language"]]  # type: ignore[index]
        elif item.meta["operator"] == "DIRECT":
            assert item.meta["expected"] in item.messages[0].content
        else:
            call = json.loads(item.meta["expected"])
            assert call["name"] == item.meta["tool"]
            signature = re.search(rf"\b{call['name']}\((.*?)\)", item.meta["tools"])
            assert signature
            listed = [re.sub(r"#|:bool", "", one) for one in signature[1].split(", ")]
            assert list(call["arguments"]) == listed


def test_names_of_arguments_are_read_not_remembered(train: list[Conversation]) -> None:
    used: dict[str, set[str]] = {}
    for item in of(train, "CALL"):
        call = json.loads(item.meta["expected"])
        used.setdefault(call["name"], set()).add(" ".join(call["arguments"]))
    assert set(used) == {tool.name for tools in TOOLS.values() for tool in tools}
    assert all(len(names) >= 2 for names in used.values())


def test_shares_hold_in_every_stretch(train: list[Conversation]) -> None:
    for start in range(0, 10_000, 2_000):
        stretch = train[start : start + 2_000]
        assert 0.37 < len(of(stretch, "CALL", "DIRECT", "NONE")) / 2_000 < 0.43
        assert 0.18 < len(of(stretch, "CALL")) / 2_000 < 0.22
        for operator in ("DIRECT", "NONE"):
            assert 0.07 < len(of(stretch, operator)) / 2_000 < 0.13
    assert not of(taken(Structured(tools=0), 200), "CALL", "DIRECT", "NONE")
    assert not of(taken(Structured(tools=1), 200), *FORMS)
    buckets = {item.meta["bucket"] for item in train}
    assert {f"RECORD x {n}" for n in range(1, 5)} <= buckets
    assert {f"{form} x {n}" for form in ("OPTIONAL", "NESTED") for n in range(2, 5)} <= buckets


def test_a_copy_of_a_request_is_no_request(train: list[Conversation]) -> None:
    """Else the tool's own words alone would tell that it is to be called."""
    direct = of(train, "DIRECT")
    share = sum(len(item.meta["expected"].split()) > 2 for item in direct) / len(direct)
    assert 0.25 < share < 0.55


def test_both_languages_and_both_notations_are_there(train: list[Conversation]) -> None:
    german = [item for item in train if item.meta["language"] == "de"]
    assert 0.07 < len(german) / len(train) < 0.13
    for items in (german, of(train, *FORMS)):
        records = of(items, *FORMS)
        worded = [
            i for i in records if re.search(r" (text|number|zahl|list|bool)", i.meta["schema"])
        ]
        assert 0.3 < len(worded) / len(records) < 0.5


def test_larger_settings_ask_for_more(train: list[Conversation]) -> None:
    large = taken(Structured(max_fields=7, max_tools=5), 800)
    most = max(len(list(leaves(json.loads(i.meta["expected"])))) for i in of(large, *FORMS))
    assert most >= 7
    assert {i.meta["bucket"][-1] for i in of(large, "NONE")} == set("12345")
    assert Structured(size="run4").max_examples == 800


def test_names_can_be_made_up() -> None:
    """Then only the prompt says which there are: known ones are soon remembered."""
    items = taken(Structured(invented=0.5, german=0), 1500)
    known = RESERVED | {name for tool in TOOLS["en"] for a in tool.arguments for name in a.names}
    new = 0
    for item in of(items, *FORMS, "CALL"):
        answer = json.loads(item.meta["expected"])
        names = list(answer["arguments"] if item.meta["operator"] == "CALL" else answer)
        assert all(re.search(rf"\b{name}\b", item.messages[0].content) for name in names)
        assert len({name in known for name in names}) <= 1
        new += bool(names) and names[0] not in known
    assert 0.4 < new / len(of(items, *FORMS, "CALL")) < 0.6


def test_optional_fields_can_come_more_often() -> None:
    more = Counter(
        item.meta["operator"] for item in taken(Structured(optional=3, contrast=0), 2500)
    )
    assert more["RECORD"] == more["NESTED"]
    assert abs(more["OPTIONAL"] - 3 * more["NESTED"]) < 12


@pytest.mark.parametrize("declined", [0.0, 0.25, 1.0])
def test_how_often_no_tool_fits_can_be_set(declined: float) -> None:
    items = taken(Structured(declined=declined), 2000)
    calls, none, direct = (len(of(items, kind)) for kind in ("CALL", "NONE", "DIRECT"))
    assert calls == none + direct
    assert abs(none / calls - declined) < 0.07


def test_prose_tells_facts_without_their_names() -> None:
    plain = of(taken(Structured(prose=0), 600), *FORMS)
    told = of(taken(Structured(prose=1), 600), *FORMS)
    cue = re.compile(r"costs |years old|is not |called |weighs |lives in ")
    assert not [item for item in plain if cue.search(item.messages[0].content)]
    assert len([item for item in told if cue.search(item.messages[0].content)]) > 100


@pytest.mark.parametrize("vocabulary", [0, 400, 1200])
def test_made_up_words_keep_to_their_pieces(vocabulary: int, train: list[Conversation]) -> None:
    """PITFALLS C-08, for three tokenizers."""
    if vocabulary:
        texts = [item.messages[0].content for item in train[:1500]]
        codec = Tokenizer.train(texts, vocab_size=vocabulary, dialect="matura", split="atoms")
    else:
        codec = Tokenizer.bytes_only("matura")
    for split in SPLITS:
        for item in taken(Structured(gibberish="only"), 150, split, codec):
            for word in item.meta["payload"].split():
                assert len(codec.encode(word)) <= MAX_PIECES, word
                assert word_split(word) == split


def test_items_fit_a_small_context(train: list[Conversation]) -> None:
    """With 2,048 ids as a small model has them: braces and quotes are one token each."""
    texts = [message.content for item in train[:3000] for message in item.messages]
    codec = Tokenizer.train(texts, vocab_size=2048, dialect="matura", split="atoms")
    items = taken(Structured(), 1500, codec=codec)
    answers = [len(codec.encode(item.meta["expected"])) for item in items]
    whole = [
        len(codec.encode(i.messages[0].content)) + a for i, a in zip(items, answers, strict=True)
    ]
    assert max(answers) <= 66
    assert max(whole) <= 180
    assert sorted(whole)[int(0.95 * len(whole))] <= 130


def _grammars(value: object) -> Iterator[Grammar]:
    if isinstance(value, Grammar):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _grammars(part)


def test_no_payload_word_instructs_or_names_a_field() -> None:
    payloads = {"en": set(ENGLISH), "de": set(GERMAN)}
    wordings = [g for m in (structured, signatures) for v in vars(m).values() for g in _grammars(v)]
    assert len(wordings) > 20
    for grammar in wordings:
        text = " ".join([*grammar.patterns, *(f for slot in grammar.slots.values() for f in slot)])
        instructing = set(re.findall(r"\w+", re.sub(r"<\w+>", " ", text).casefold()))
        assert not instructing & payloads[grammar.language], grammar.patterns[0]
    for language, tools in TOOLS.items():
        names = {name for tool in tools for arg in tool.arguments for name in arg.names}
        assert not {*names, *(tool.name for tool in tools)} & payloads[language]
        told = set(re.findall(r"\w+", " ".join(KEYS[language].cues.values())))
        assert not {word.casefold() for word in told} & payloads[language]
    stream = rng(0, "words")
    for split in SPLITS:
        words = Words.of(split, "include", None)
        for _ in range(300):
            drawn = plain_words(words, stream, 3, "en")
            assert not {word.casefold() for word in drawn} & RESERVED


def test_wordings_are_by_the_thousand() -> None:
    assert structured.GRAMMARS["en"].size > 5_000
    assert structured.GRAMMARS["de"].size > 1_000
    assert sum(grammar.size for grammar in REQUESTS["en"].values()) > 5_000
    assert structured.FRAMES["en"].size > 100


def test_a_text_tells_each_fact_once() -> None:
    stream, words = rng(0, "tell"), Words.of("train", "exclude", None)
    for count in range(1, 5):
        for form in FORMS:
            for _ in range(40):
                told = tell(words, stream, form, max(2, count), "en", Style())
                lines = re.findall(r"\b[a-z]+(?=(?: |: | = | is | are )\S)", told.text)
                for field in told.fields:
                    assert (field.key in lines) == (field.fact is not None)
                assert told.payload
