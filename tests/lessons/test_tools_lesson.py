"""What the tools lesson teaches: choice by the request alone, chains, errors, and room for it."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice, pairwise

import pytest
from pydantic import ValidationError

from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split
from matura.core.units import UNITS, nearest_name, unit_named
from matura.lessons.arithmetic import Sum
from matura.lessons.phrasing import is_for_exam
from matura.lessons.tool_requests import CLAUSES, FIRST, RULES, SINGLE, SUM_RULES, SUMS, TOTALS
from matura.lessons.tool_steps import CLASHING, MISSPELT, OTHERS, SHRINKING, conversion, filled
from matura.lessons.tools import NO_TOOL, RECOVERY, SINGLES, TOLD, Tools
from matura.lessons.words import ENGLISH, GERMAN, word_split
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

SPLITS: tuple[Split, ...] = ("train", "validation", "exam")


def taken(split: Split = "train", count: int = 1200, **options: object) -> list[Conversation]:
    lesson = Tools(**options)  # type: ignore[arg-type]
    return list(islice(lesson.items(Given(rng(0, "test", split), None, split)), count))


def calls(item: Conversation) -> list[list[object]]:
    return json.loads(item.meta["calls"])  # type: ignore[no-any-return]


def test_every_stretch_has_every_kind_of_item() -> None:
    counts = Counter(item.meta["bucket"] for item in taken(count=1200))
    chains = {f"chain x {length}": 100 for length in (2, 3, 4)}
    ones = dict.fromkeys(SINGLES, 100) | {"notes": 200}
    expected = chains | ones | {NO_TOOL: 200, RECOVERY: 100, TOLD: 100}
    assert counts.keys() == expected.keys()
    assert all(abs(counts[bucket] - wanted) <= 12 for bucket, wanted in expected.items())
    shorter = Counter(item.meta["bucket"] for item in taken(count=600, longest=2))
    assert {bucket for bucket in shorter if "chain" in bucket} == {"chain x 2"}
    with pytest.raises(ValidationError):
        Tools(longest=5)


def test_what_is_learnt_last_can_come_more_often() -> None:
    kinds = Counter(item.meta["bucket"] for item in taken(count=1500, chains=6, longest=3))
    assert kinds["chain x 2"] == kinds["chain x 3"] == 300
    assert kinds["calculator"] == 100


def test_the_same_numbers_come_under_several_signs() -> None:
    sums = [item for item in taken(count=1500, sums=3) if item.meta["operator"] == "calculate"]
    signs: dict[frozenset[str], set[str]] = {}
    for item in sums:
        ((_, arguments, _, _),) = calls(item)
        found = re.fullmatch(r"(\d+)([-+*])(\d+)", str(arguments["expression"]))  # type: ignore[index]
        assert found is not None
        signs.setdefault(frozenset(found.groups()[::2]), set()).add(found[2])
    assert sum(len(each) > 1 for each in signs.values()) > len(signs) / 2
    assert {each for each in map(len, signs.values())} <= {1, 2, 3}


def test_one_number_and_one_name_go_through_every_tool() -> None:
    items = taken(count=1200)
    starts = [place for place, item in enumerate(items) if item.meta["bucket"] == "calculator"]
    assert len(starts) >= 95
    for start in starts[:-1]:
        group = items[start : start + 5]
        buckets = ["calculator", "convert", "notes", "search", NO_TOOL]
        assert [item.meta["bucket"] for item in group] == buckets
        number = group[1].meta["payload"]
        assert group[0].meta["payload"].split()[0] == number
        name = group[3].meta["payload"].split()[0]
        assert group[2].meta["payload"].split()[0] == name
        assert set(group[4].meta["payload"].split()) & {number, name}


def test_calls_and_answers_are_copies_of_what_stands_before() -> None:
    """What a small model can do: no word of a call or of an answer comes from nowhere."""
    for split in SPLITS:
        for item in taken(split, 360):
            seen = "".join(m.content + m.context for m in item.messages if m.role != "assistant")
            frame = {"all", "That", "does", "not", "work", "Das", "geht", "nicht", "and", "und"}
            for _, arguments, _, _ in calls(item):
                for value in arguments.values():  # type: ignore[attr-defined]
                    assert all(w in seen for w in set(re.findall(r"\w+", value)) - frame)
            assert all(w in seen for w in set(re.findall(r"\w+", item.meta["expected"])) - frame)


def test_chains_hand_on_what_came_out() -> None:
    for split in SPLITS:
        handed = 0
        for item in taken(split, 600):
            length = re.fullmatch(r"chain x (\d)", item.meta["bucket"])
            if not length:
                continue
            made = calls(item)
            assert len(made) == int(length[1])
            asked = item.messages[-2 * len(made) - 2].content
            for before, after in pairwise(made):
                found = re.search(r"\d+", str(before[2]))
                if found and found[0] not in asked and found[0] in json.dumps(after[1]):
                    handed += 1
        assert handed > 80


def test_errors_are_corrected_by_their_own_hint_or_told() -> None:
    items = taken(count=1800)
    retried = [calls(item) for item in items if item.meta["bucket"] == RECOVERY]
    assert {made[0][0] for made in retried} == {"convert", "notes", "search"}
    for failed, good in retried:
        assert (failed[3], good[3]) == (False, True)
        assert failed[0] == good[0]
        if failed[0] != "search":
            hint = re.search(r"did you mean '(.+?)'", str(failed[2]))
            assert hint
            assert hint[1] in json.dumps(good[1], ensure_ascii=False)
    told = [item for item in items if item.meta["bucket"] == TOLD]
    assert {calls(item)[0][0] for item in told} == {"calculator", "convert", "notes", "search"}
    for item in told:
        ((_, _, result, ok),) = calls(item)
        assert not ok
        assert item.meta["expected"].endswith(": " + str(result).removeprefix("error: "))


def test_numbers_names_and_sums_belong_to_one_split_in_all_lessons() -> None:
    """No sum that the calculator's exam may ask is ever worked out in training."""
    for split in SPLITS:
        for item in taken(split, 900):
            assert {word_split(word) for word in item.meta["payload"].split()} == {split}
            assert is_for_exam(item.meta["template"]) == (split == "exam")
            for name, arguments, _, _ in calls(item):
                expression = str(arguments.get("expression", ""))  # type: ignore[attr-defined]
                found = re.fullmatch(r"(\d+)([-+*])(\d+)", expression)
                if found:
                    assert name == "calculator"
                    assert Sum(int(found[1]), found[2], int(found[3])).split == split  # type: ignore[arg-type]


def test_a_text_is_there_whether_or_not_it_is_to_be_searched() -> None:
    for split in SPLITS:
        shown: Counter[tuple[str, str]] = Counter()
        for item in taken(split, 900):
            first = item.messages[0]
            text = first.context or (first.content if first.role == "system" else "")
            shown[item.meta["bucket"], "text" if "\n" in text else "none"] += 1
        assert shown["search", "none"] == 0
        for bucket in ("calculator", "convert", NO_TOOL):
            assert shown[bucket, "text"] > 8
            assert shown[bucket, "none"] > 8


def test_whole_conversations_fit_a_small_context() -> None:
    texts = [turn.content for item in taken(count=300) for turn in item.messages]
    texts += [json.dumps(made[1]) for item in taken(count=300) for made in calls(item)]
    template = Template(Tokenizer.train(texts, vocab_size=1500, dialect="matura", split="atoms"))
    for split in SPLITS:
        given = Given(rng(0, "fits", split), template.tokenizer, split)
        items = list(islice(Tools().items(given), 240))
        assert max(len(template.render(item).ids) for item in items) <= 200
        assert max(len(template.tokenizer.encode(i.meta["expected"])) for i in items) <= 60
        counts = Counter(item.meta["bucket"] for item in items)
        assert min(counts.values()) >= 18


def test_a_tokenizer_that_cuts_too_finely_gets_the_shortest_there_are() -> None:
    given = Given(rng(0, "bytes"), Tokenizer.bytes_only("matura"))
    items = list(islice(Tools(most_tokens=100).items(given), 60))
    assert len({item.meta["bucket"] for item in items}) == 10


def test_units_mean_what_the_tables_say() -> None:
    for pair in SHRINKING:
        assert re.fullmatch(r"[1-9]\d* \S+", conversion(f"1 {pair[0]}", pair[1]).result)
    for pair in (*SHRINKING, *OTHERS, *MISSPELT):
        assert re.fullmatch(r"-?\d+(\.\d+)? \S+", conversion(f"7 {pair[0]}", pair[1]).result)
    for one, other in CLASHING:
        assert " is " in conversion(f"1 {one}", other).result
    for name, _ in MISSPELT:
        assert nearest_name(name) == name
        assert unit_named(name) in UNITS


def test_there_are_thousands_of_wordings_and_every_clause_is_used() -> None:
    for language, least in (("en", 150), ("de", 40)):
        rules = RULES[language]
        for patterns in (*SINGLE.values(), *SUMS.values()):
            assert sum(map(rules.size, patterns)) >= least
        for start in (FIRST["convert"], FIRST["find"]):
            assert rules.size(f"{start[0]}<and>{CLAUSES['+']}<and><keeping>") > 20 * least
        for clause in (*CLAUSES.values(), *TOTALS.values()):
            assert rules.size(clause) >= 2
        for sign in SUM_RULES.values():
            assert rules.size(f"<{sign}>") >= 3


def test_no_word_of_a_request_is_a_payload_word() -> None:
    for language, payloads in (("en", ENGLISH), ("de", GERMAN)):
        rules = RULES[language]  # type: ignore[index]
        text = " ".join(part for patterns in rules.rules.values() for part in patterns)
        words = re.findall(r"\w+", re.sub(r"<\w+>|\{\w\}", " ", text).casefold())
        assert not set(words) & set(payloads)


def test_a_value_is_never_filled_in_again() -> None:
    assert filled("{k} and {k}: {v}", {"k": ("{v}", "b"), "v": "x{k}"}) == "{v} and b: x{k}"
