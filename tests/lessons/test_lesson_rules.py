"""What each lesson teaches, item by item."""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from itertools import chain, islice, pairwise

import pytest
from pydantic import ValidationError

from matura.core.errors import RecipeError
from matura.core.rng import rng
from matura.core.types import Conversation, Given, Split, ToolCall
from matura.lessons import operators
from matura.lessons.arithmetic import Arithmetic
from matura.lessons.echo import Echo
from matura.lessons.format_lock import GRAMMARS, FormatLock
from matura.lessons.lesson import Lesson, kinds
from matura.lessons.operators import OPERATORS, Operators
from matura.lessons.phrasing import Grammar, is_for_exam
from matura.lessons.words import ENGLISH, GERMAN, MAX_PIECES, Words, word_split
from matura.talk.tools.calculator import Calculator
from matura.text.tokenizer import Tokenizer


def taken(lesson: Lesson, count: int = 1200, split: Split = "train") -> list[Conversation]:
    return list(islice(lesson.items(Given(rng(0, "rules"), None, split)), count))


def of(items: list[Conversation], *operators: str) -> list[Conversation]:
    return [item for item in items if item.meta["operator"] in operators]


def test_say_x_is_x_and_a_full_stop_with_its_case() -> None:
    """S001-09: `Say hello.`, `Say Hello.` and `Sag Hallo.`."""
    says = of(taken(FormatLock()), "SAY")
    for item in says:
        assert item.messages[0].content.endswith(item.meta["expected"])
        assert item.meta["expected"] == item.meta["payload"] + "."
    cases = Counter(
        "lower" if p.islower() else "upper" if p.isupper() else "mixed"
        for p in (item.meta["payload"] for item in says)
    )
    assert all(cases[case] > 50 for case in ("lower", "upper", "mixed"))
    for language, question in (("en", "Say {X}."), ("de", "Sag {X}.")):
        grammar = GRAMMARS[language]
        for split in ("train", "exam"):
            draws = (grammar.draw(rng(0, split, n), split).text for n in range(6000))
            if is_for_exam(question) == (split == "exam"):
                assert question in draws


def test_format_lock_s_fixed_answers_are_training_only() -> None:
    full = FormatLock(mode="full", math="include")
    train = taken(full)
    assert 60 < len(of(train, "FACT")) < 200
    assert len(of(train, "SUM")) > 100
    assert not of(taken(full, 300, "exam"), "FACT", "SUM")
    assert not of(taken(FormatLock(math="exclude")), "SUM")
    assert len(of(taken(FormatLock(math="only"), 100), "SUM")) == 100
    few = of(taken(FormatLock(math="minimal"), 2000), "SUM")
    assert 60 < len(few) < 140
    assert all(int(part) <= 10 for item in few for part in item.meta["payload"].split("+"))
    small = {item.meta["payload"] for item in of(taken(FormatLock()), "FACT")}
    large = {item.meta["payload"] for item in of(taken(full, 6000), "FACT")}
    assert len(large) > len(small)


def test_a_fifth_of_echo_is_not_to_be_echoed_and_half_of_it_is_contrasted() -> None:
    items = taken(Echo(), 4000)
    antis = of(items, "ANTI")
    assert 0.17 < len(antis) / len(items) < 0.23
    assert {item.meta["expected"] for item in antis} == {"Unknown.", "Unbekannt.", "Okay.", "Gut."}
    paired = sum(
        first.meta["payload"] == second.meta["payload"] and second.meta["operator"] == "ANTI"
        for first, second in pairwise(items)
    )
    assert 0.4 < paired / len(antis) < 0.6
    assert all(item.meta["expected"] == item.meta["payload"] for item in of(items, "ECHO"))


def test_echo_refuses_shares_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="not enough echoes"):
        Echo(anti=0.8, contrast=0.5)
    assert all(item.meta["operator"] == "ANTI" for item in taken(Echo(anti=1, contrast=0), 50))
    assert all(item.meta["operator"] == "ECHO" for item in taken(Echo(anti=0), 50))


@pytest.mark.parametrize("gibberish", ["exclude", "include", "only"])
def test_gibberish_is_in_or_out_as_asked(gibberish: str) -> None:
    known = {word.casefold() for word in (*ENGLISH, *GERMAN)}
    items = taken(Echo(gibberish=gibberish), 600)  # type: ignore[arg-type]
    made_up = [
        all(w.casefold() not in known and not w.isdigit() for w in item.meta["payload"].split())
        for item in items
    ]
    share = sum(made_up) / len(made_up)
    assert {"exclude": share == 0, "include": 0.4 < share < 0.6, "only": share == 1}[gibberish]


@pytest.mark.parametrize("split", ["train", "validation", "exam"])
def test_made_up_words_are_at_most_four_pieces(split: Split, tokenizer: Tokenizer) -> None:
    """PITFALLS C-08: longer spellings made a small model collapse."""
    stream = rng(0, "words")
    for codec in (tokenizer, Tokenizer.bytes_only("matura")):
        words = Words.of(split, "only", codec)
        for count in range(1, 5):
            for _ in range(40):
                payload = words.payload(stream, count)
                assert len(payload.split(" ")) == count
                for word in payload.split(" "):
                    assert len(codec.encode(word)) <= MAX_PIECES
                    assert word_split(word) == split


def test_case_never_moves_a_word_to_another_split() -> None:
    assert {word_split(w) for w in ("hello", "Hello", "HELLO")} == {word_split("hELLo")}


def test_operators_do_to_one_payload_three_things() -> None:
    items = taken(Operators(), 1200)
    for place in range(0, len(items), 3):
        group = items[place : place + 3]
        assert [item.meta["operator"] for item in group] == list(OPERATORS)
        (payload,) = {item.meta["payload"] for item in group}
        answers = [item.messages[-1].content for item in group]
        assert answers == [payload, f"[{payload}]", payload]
        assert all(payload in item.messages[0].content for item in group)
    counts = Counter(item.meta["bucket"] for item in items)
    assert set(counts) == {f"{op} x {n}" for op in OPERATORS for n in range(1, 5)}
    assert max(counts.values()) - min(counts.values()) <= 3


def test_extract_marks_exactly_one_part() -> None:
    marks = re.compile(r"""(["'`|*])(.+?)\1|\{(.+?)\}|<(.+?)>|\((.+?)\)""")
    for item in of(taken(Operators(), 1800), "EXTRACT"):
        template = item.meta["template"].replace("{X}", "X")
        assert [next(filter(None, m.groups()[1:])) for m in marks.finditer(template)] == ["X"]


def test_payloads_may_have_eight_words() -> None:
    items = taken(Operators(max_words=8), 2400)
    counts = Counter(item.meta["bucket"] for item in items)
    assert set(counts) == {f"{op} x {n}" for op in OPERATORS for n in range(1, 9)}
    assert all(
        item.meta["bucket"].endswith(f" {len(item.meta['payload'].split())}") for item in items
    )


def composed(grammar: Grammar) -> re.Pattern[str]:
    """What that grammar can compose at all, in training or not."""

    def slot(name: str) -> str:
        return "(?:" + "|".join(map(re.escape, sorted(set(grammar.slots[name])))) + ")"

    parts = [re.split(r"<(\w+)>", pattern) for pattern in grammar.patterns]
    spelled = (
        "".join(slot(part) if place % 2 else re.escape(part) for place, part in enumerate(pattern))
        for pattern in parts
    )
    return re.compile("|".join(spelled), re.IGNORECASE)


def test_novel_wordings_are_in_no_pattern_of_training_but_of_its_words() -> None:
    usual = [composed(grammar) for both in operators.GRAMMARS.values() for grammar in both.values()]
    words: dict[str, set[str]] = {"en": set(), "de": set()}
    for grammars in operators.GRAMMARS.values():
        for language, g in grammars.items():
            text = " ".join([*g.patterns, *chain(*g.slots.values())])
            words[language] |= set(re.findall(r"\w+", text.casefold()))
    for split, novel in (("validation", False), ("exam", True)):
        lesson = Operators(patterns="novel", max_words=8, german=0.3)
        for item in taken(lesson, 1200, split):  # type: ignore[arg-type]
            template = item.meta["template"]
            known = any(one.fullmatch(template) for one in usual)
            assert known != novel, template
            assert set(re.findall(r"\w+", template.casefold())) <= words[item.meta["language"]]
    with pytest.raises(RecipeError, match="not novel any more"):
        taken(Operators(patterns="novel"), 1)


def test_arithmetic_calls_the_calculator_with_what_it_answers() -> None:
    calculator = Calculator()
    items = taken(Arithmetic(), 1500)
    for item in of(items, "TOOL"):
        user, call, result, answer = item.messages
        assert call.calls == (ToolCall("calculator", {"expression": item.meta["payload"]}),)
        assert calculator.run(call.calls[0].arguments) == result.content == answer.content
        digits = Counter(re.findall(r"\d+", user.content))
        assert digits == Counter(re.findall(r"\d+", item.meta["payload"]))
    assert {re.sub(r"\d", "", item.meta["payload"]) for item in items} == {"+", "-", "*", "/"}
    assert all(re.fullmatch(r"-?\d+", i.meta["expected"]) for i in of(items, "TOOL"))


def test_a_sum_to_be_left_alone_follows_the_same_sum_to_be_worked_out() -> None:
    items = taken(Arithmetic(), 1500)
    direct = of(items, "DIRECT")
    assert 0.37 < len(direct) / len(items) < 0.43
    for first, second in pairwise(items):
        if second.meta["operator"] == "DIRECT":
            assert first.meta["payload"] == second.meta["payload"]
            assert not second.messages[-1].calls
            assert second.meta["expected"] in second.messages[0].content
    assert {i.meta["operator"] for i in taken(Arithmetic(direct=1), 20)} == {"DIRECT"}
    assert {i.meta["operator"] for i in taken(Arithmetic(direct=0), 20)} == {"TOOL"}


def test_every_part_of_a_wording_is_seen_in_training_and_in_exams() -> None:
    """The split keeps whole wordings apart, not their parts: that is what makes it learnable."""
    grammar = Grammar(
        "en", ["<a> <b>: {X}", "{X} - <b> <a>"], {"a": list("kmnpqr"), "b": list("stuvwxyz")}
    )
    assert grammar.size == 96
    for split in ("train", "exam"):
        drawn = {grammar.draw(rng(0, split, n), split).text.casefold() for n in range(2000)}
        parts = {part for text in drawn for part in re.findall(r"\b[k-z]\b", text)}
        assert parts >= set("kmnpqrstuvwxyz") - {"x"}
        share = len(drawn) / 96
        assert 0.7 < share < 0.9 if split == "train" else 0.1 < share < 0.3


def test_a_wording_s_case_never_moves_it_to_the_other_side() -> None:
    assert is_for_exam("Say {X}.") == is_for_exam("say {X}.")


def _grammars(value: object) -> list[Grammar]:
    if isinstance(value, Grammar):
        return [value]
    if isinstance(value, dict):
        return _grammars(tuple(value.values()))
    if isinstance(value, tuple):
        return [grammar for one in value for grammar in _grammars(one)]
    return []


def test_no_payload_word_instructs() -> None:
    """`Parrot never no` could be read two ways, and `never` was only ever an exam's payload."""
    wordings = [
        grammar
        for kind in kinds().values()
        for value in vars(import_module(kind.__module__)).values()
        for grammar in _grammars(value)
    ]
    assert len(wordings) > 10
    for grammar in wordings:
        text = " ".join([*grammar.patterns, *(f for slot in grammar.slots.values() for f in slot)])
        instructing = set(re.findall(r"\w+", re.sub(r"<\w+>", " ", text).casefold()))
        payloads = {"en": ENGLISH, "de": GERMAN}[grammar.language]
        assert not instructing & set(payloads), grammar.patterns[0]


def test_drilled_patterns_are_drawn_more_often_in_training_only() -> None:
    """They are special cases of patterns that are there, so exams may ask for them too."""

    def share(split: Split) -> float:
        echoes = of(taken(Echo(german=0), 4000, split), "ECHO")
        return sum(item.meta["template"].startswith("{X} - ") for item in echoes) / len(echoes)

    assert 0.15 < share("train") < 0.25
    assert 0.02 < share("exam") < 0.07
