"""What the assistant thinks and cites is learnt, read back, and no part of what it says."""

from __future__ import annotations

import pytest

from matura.core.errors import DataError
from matura.core.types import Conversation, Message, ToolCall
from matura.text.dialects import DIALECTS
from matura.text.template import WEIGHTED, Template
from matura.text.tokenizer import Tokenizer

MYPT = Template(Tokenizer.bytes_only("mypt"), weights=WEIGHTED)
ASKED = Message("user", "q")
CALL = ToolCall("search", {"query": "x"})


@pytest.mark.parametrize(
    "said",
    [
        Message("assistant", "a", think="t"),
        Message("assistant", "a", cite="c </myPT_cite>"),
        Message("assistant", "a", think="t <myPT_eot>", cite="c"),
        Message("assistant", "a", (CALL,), think="t", cite="c"),
        Message("assistant", "", (CALL,), think="t"),
    ],
)
def test_what_is_rendered_is_read_back(said: Message) -> None:
    example = MYPT.render(Conversation((ASKED, said), "x"))
    prompt = MYPT.prompt((ASKED,))
    found = MYPT.parse(example.ids[len(prompt) :])
    assert found.message == said
    assert not found.problems
    assert found.ended
    assert not set(example.ids[len(prompt) :]) & MYPT.forbidden_ids
    assert all(example.weights[len(prompt) :])


def test_asides_have_a_weight_of_their_own() -> None:
    said = Message("assistant", "a", think="t", cite="c")
    example = MYPT.render(Conversation((ASKED, said), "x"))
    shown = [
        (MYPT.spell((id,)), weight)
        for id, weight in zip(example.ids, example.weights, strict=True)
        if weight
    ]
    assert shown == [
        ("<myPT_think>", 1.5),
        ("t", 1.5),
        ("</myPT_think>", 1.5),
        ("a", 1.0),
        ("<myPT_cite>", 1.5),
        ("c", 1.5),
        ("</myPT_cite>", 1.5),
        ("</myPT_assistant>", 2.0),
        ("<myPT_eot>", 2.0),
    ]


def test_a_thought_that_never_ends_is_a_problem() -> None:
    control = MYPT.tokenizer.control
    ids = [control["<myPT_think>"], *MYPT.tokenizer.encode("t"), *MYPT.close_ids]
    assert "unclosed <myPT_think>" in MYPT.parse(ids).problems


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"mypt", "mypt-legacy"}))
def test_a_dialect_without_a_place_is_loud(dialect: str) -> None:
    template = Template(Tokenizer.bytes_only(dialect))
    for said in (Message("assistant", "a", think="t"), Message("assistant", "a", cite="c")):
        with pytest.raises(DataError, match=r"conversation x: .* no place for what is thought"):
            template.render(Conversation((ASKED, said), "x"))


def test_only_the_assistant_thinks() -> None:
    with pytest.raises(DataError, match="only the assistant can think or cite"):
        MYPT.render(Conversation((Message("user", "q", think="t"),), "x"))
