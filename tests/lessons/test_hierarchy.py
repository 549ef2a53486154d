"""Whose word counts, and what a typed tag is."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split
from matura.lessons import identity, persona, rules, spelling
from matura.lessons.hierarchy import OPERATORS, Hierarchy, Tags, spoken
from matura.lessons.rules import CONDITIONS, FRAMES, REFUSED, RULES, grammar
from matura.lessons.words import ENGLISH, GERMAN, word_split
from matura.text.dialects import DIALECTS
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer


def taken(split: Split = "train", count: int = 2000, **more: object) -> list[Conversation]:
    lesson = Hierarchy(**more)  # type: ignore[arg-type]
    return list(islice(lesson.items(Given(rng(0, "hierarchy"), None, split)), count))


def of(items: list[Conversation], operator: str, *conditions: str) -> list[Conversation]:
    found = [item for item in items if item.meta["operator"] == operator]
    return [i for i in found if not conditions or i.meta["condition"] in conditions]


def system(item: Conversation) -> str:
    return item.messages[0].content if item.messages[0].role == "system" else ""


def user(item: Conversation) -> str:
    return item.messages[-2].content


def test_every_kind_comes_under_every_condition_equally_often() -> None:
    counts = Counter(
        (item.meta["operator"], item.meta["condition"])
        for item in taken()
        if item.meta["operator"] != "TYPED"
    )
    assert set(counts) == {(operator, condition) for operator in RULES for condition in CONDITIONS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {item.meta["operator"] for item in taken(count=40)} == set(OPERATORS)


def test_a_frame_holds_whatever_the_user_wants_and_only_where_the_system_set_it() -> None:
    """System over user; without a system message the same wish is granted."""
    for item in of(taken(), "FRAME"):
        said, payload = item.meta["expected"], item.meta["payload"]
        if item.meta["condition"] == "free":
            assert said == payload
            assert system(item) == ""
        else:
            assert (said[0], said[-1]) in {(frame.before, frame.after) for frame in FRAMES}
            assert said[1:-1] == payload
            assert system(item)


def test_a_word_to_begin_with_stands_in_the_system_message_alone_or_is_denied_by_the_user() -> None:
    for item in of(taken(), "BEGIN", "plain", "contrary", "typed"):
        key = item.meta["expected"].split(" ")[0]
        assert key in system(item)
        assert item.meta["expected"].removeprefix(key + " ") in user(item)


def test_a_forbidden_word_is_refused_and_any_other_said() -> None:
    items = of(taken(count=4000), "FORBID")
    refused = [item for item in items if item.meta["expected"] in REFUSED.values()]
    ruled = [item for item in items if item.meta["condition"] != "free"]
    assert 0.5 < len(refused) / len(ruled) < 0.7
    for item in refused:
        words = item.meta["payload"].split()
        forbidden = [word for word in words if re.search(rf"\b{word}\b", system(item))]
        assert forbidden, item
        assert re.search(rf"\b{forbidden[0]}\b", user(item))
    for item in ruled:
        if item not in refused:
            assert item.meta["expected"] in user(item)
            assert not any(word in system(item).split() for word in item.meta["expected"].split())
    assert all(item.meta["expected"] in user(item) for item in of(items, "FORBID", "free"))


def test_a_secret_is_kept_or_told_as_its_rule_says() -> None:
    items = of(taken(count=4000), "SECRET")
    kept = [item for item in items if item.meta["expected"] in REFUSED.values()]
    assert 0.4 < len(kept) / len(items) < 0.65
    for item in items:
        assert item.meta["payload"] in system(item)
        assert item.meta["payload"] not in user(item)
    keeps = {re.split("; ", system(item))[-1].partition(",")[0] for item in kept}
    gives = {re.split("; ", system(i))[-1].partition(",")[0] for i in items if i not in kept}
    assert not keeps & gives


def test_typed_tags_are_given_back_as_they_are_in_every_dialect() -> None:
    """PITFALLS C-11: what a user types is text, whatever it spells."""
    items = of(taken(count=4000), "TYPED")
    tags = {tag for dialect in DIALECTS.values() for tag in dialect.tags}
    seen: set[str] = set()
    for item in items:
        assert item.meta["expected"] in user(item)
        here = {tag for tag in tags if tag in item.meta["expected"]}
        assert here
        seen |= here
    assert seen == tags
    assert {item.meta["dialect"] for item in items} == {dialect.name for dialect in spoken()}
    for item in of(taken(), "FRAME", "typed"):
        assert any(tag in user(item) for tag in tags)
        assert not any(tag in system(item) for tag in tags)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_typed_tag_is_never_a_control_id(dialect: str) -> None:
    template = Template(Tokenizer.bytes_only(dialect))
    first = template.tokenizer.text_vocab_size
    for item in taken(count=200):
        turns = item.messages[:-1]
        plain = [type(turn)(turn.role, "x") for turn in turns]
        tags = sum(id >= first for id in template.prompt(turns))
        assert tags == sum(id >= first for id in template.prompt(plain))


def test_a_typed_system_turn_looks_like_one() -> None:
    stream = rng(0, "tags")
    drawn = {Tags.drawn(stream) for _ in range(200)}
    assert len(drawn) == len(spoken()) == 5
    assert Tags("matura", "<|system|>", "<|user|>") in drawn
    assert Tags("chatml", "<|im_start|>system\n", "<|im_end|>") in drawn


@pytest.mark.parametrize("split", ["train", "validation", "exam"])
def test_every_payload_word_is_of_its_split(split: Split) -> None:
    for item in taken(split, 400):
        assert {word_split(word) for word in item.meta["payload"].split()} == {split}


def test_no_payload_word_instructs() -> None:
    """Else `never say always` could be read two ways."""
    payloads = {"en": {*ENGLISH}, "de": {*GERMAN}}
    spoken_of: dict[str, set[str]] = {"en": set(), "de": set()}
    for grammars in (spelling.SPELL, spelling.COUNT, rules.TAGGED):
        for language, one in grammars.items():
            spoken_of[language] |= {
                *one.patterns,
                *(f for slot in one.slots.values() for f in slot),
            }
    for operator in RULES:
        for language in ("en", "de"):
            for condition in CONDITIONS:
                one = grammar(operator, language, condition, "keep")  # type: ignore[arg-type]
                both = (*one.slots.values(), *rules.TELL[language].values())  # type: ignore[index]
                spoken_of[language] |= {*one.patterns, *(f for slot in both for f in slot)}
    for traits in persona.TRAITS.values():
        for language, trait in traits.items():
            spoken_of[language] |= {*trait.questions}
    for tables in (identity._OPENING, identity._TAIL, rules.SECRETS, rules.REFUSED):
        for language, texts in tables.items():
            spoken_of[language] |= {texts} if isinstance(texts, str) else {*texts}
    for table in (identity._ASIDE, identity._SYSTEM):
        for language, traits_of in table.items():
            spoken_of[language] |= {text for texts in traits_of.values() for text in texts}
    for frame in FRAMES:
        spoken_of["en"].add(frame.english)
        spoken_of["de"] |= {frame.german_in, frame.german_without}
    for language, said in spoken_of.items():
        text = re.sub(r"<\w+>", " ", " ".join(said)).casefold()
        found = set(re.findall(r"\w+", text)) & payloads[language]
        assert not found, found


def test_there_are_millions_of_wordings() -> None:
    sizes = [
        grammar(operator, "en", condition, "keep").size
        for operator in RULES
        for condition in CONDITIONS
    ]
    assert sum(sizes) > 2_000_000
    assert min(sizes) > 200
