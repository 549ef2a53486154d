"""The tools besides the calculator: results, named errors, limits, and what they remember."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from matura.core.types import Message, ToolCall
from matura.talk.rollout import MAX_RESULT_CHARACTERS, answer_call
from matura.talk.tool import Tool, ToolError, own_tools, toolbox
from matura.talk.tools import notes, search
from matura.talk.tools.convert import Convert
from matura.talk.tools.notes import Notes
from matura.talk.tools.search import Search

TEXT = "red lamp: 45\nblue lamp: 12\nchair: kefa lim\n\nthe lamp of the aunt"


def problem(tool: Tool, arguments: Mapping[str, Any]) -> str:
    with pytest.raises(ToolError) as caught:
        tool.run(arguments)
    assert len(str(caught.value)) <= 400
    return str(caught.value)


def searching(*messages: Message) -> Search:
    tool = Search()
    for message in messages:
        tool.hear(message)
    return tool


def test_the_toolbox_has_four_tools() -> None:
    assert set(toolbox()) == {"calculator", "convert", "notes", "search"}


@pytest.mark.parametrize("name", ["convert", "notes", "search"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"nonsense": "1"},
        {"amount": "3 km"},
        {"amount": 3, "to": "m"},
        {"set": "a"},
        {"set": "a", "to": None},
        {"get": ["a"]},
        {"list": True},
        {"query": 5},
        {"query": "a", "extra": "b"},
        {"get": "a", "set": "b", "to": "c"},
    ],
)
def test_wrong_arguments_are_an_error_the_model_can_read(
    name: str, arguments: dict[str, Any]
) -> None:
    record = answer_call(ToolCall(name, arguments), toolbox())
    assert not record.ok
    assert record.result.startswith("error: ")
    assert len(record.result) < 300


def test_convert_answers_and_refuses() -> None:
    assert Convert().run({"amount": "3 km", "to": "m"}) == "3000 m"
    assert problem(Convert(), {"amount": "3 km", "to": "kg"}) == "km is length, kg is weight"
    wrong = {"amount": "3 kilometrs", "to": "m"}
    assert problem(Convert(), wrong).endswith("did you mean 'kilometres'?")


def test_notes_are_kept_read_and_listed() -> None:
    tool = Notes()
    assert tool.run({"list": "all"}) == notes.EMPTY
    assert problem(tool, {"get": "x"}) == "no note 'x': there are no notes"
    assert tool.run({"set": " door ", "to": " red = 5 "}) == "ok"
    assert tool.run({"set": "lamp", "to": "a"}) == "ok"
    assert tool.run({"set": "door", "to": "red = 6"}) == "ok"
    assert tool.run({"get": "door"}) == "red = 6"
    assert tool.run({"list": "all"}) == "door, lamp"
    assert problem(tool, {"get": "dor"}) == "no note 'dor' (did you mean 'door'?)"
    assert "known: door, lamp" in problem(tool, {"get": "zzz"})


def test_notes_have_limits_and_a_full_list_is_a_result() -> None:
    tool = Notes()
    assert "needs a name" in problem(tool, {"set": " ", "to": "x"})
    assert "needs a name" in problem(tool, {"set": "x", "to": ""})
    assert "too long" in problem(tool, {"set": "x" * (notes.MAX_NAME + 1), "to": "y"})
    assert "too long" in problem(tool, {"set": "x", "to": "y" * (notes.MAX_TEXT + 1)})
    assert "one line" in problem(tool, {"set": "a, b", "to": "y"})
    assert "one line" in problem(tool, {"set": "a\nb", "to": "y"})
    for number in range(notes.MAX_NOTES):
        tool.run({"set": f"{number:0{notes.MAX_NAME}}", "to": "y" * notes.MAX_TEXT})
    assert "the most" in problem(tool, {"set": "another", "to": "y"})
    assert tool.run({"set": "0" * notes.MAX_NAME, "to": "z"}) == "ok"
    assert len(tool.run({"list": "all"})) <= MAX_RESULT_CHARACTERS
    assert len(problem(tool, {"get": "q" * 9999})) <= 400


def test_search_finds_the_line_with_most_of_the_rarest_words() -> None:
    tool = searching(Message("system", TEXT))
    assert tool.run({"query": "blue lamp"}) == "blue lamp: 12"
    assert tool.run({"query": "LAMP"}) == "red lamp: 45"
    assert tool.run({"query": "the chair, please"}) == "chair: kefa lim"
    assert problem(tool, {"query": "zorb"}) == "no line has 'zorb'"
    assert problem(tool, {"query": " ?! "}) == "no line has '?!'"
    assert "too long" in problem(tool, {"query": "x" * 201})
    assert problem(Search(), {"query": "x"}) == "there is no text to search"


def test_search_knows_a_pasted_text_from_a_request() -> None:
    assert searching(Message("user", "Where is the lamp?")).lines == []
    pasted = searching(Message("user", "lamp: 4\nchair: 5\n\nWhere is the lamp?"))
    assert pasted.lines == ["lamp: 4", "chair: 5"]
    first = searching(Message("user", "Where is the lamp?\n \nlamp: 4\nchair: 5"))
    assert first.lines == ["lamp: 4", "chair: 5"]
    given = searching(Message("user", "lamp?", context="lamp: 4"), Message("assistant", "a\nb"))
    assert given.lines == ["lamp: 4"]


def test_searching_the_longest_text_takes_milliseconds() -> None:
    line = " ".join(f"w{number}" for number in range(90))
    tool = searching(Message("system", "\n".join([line * 9] * 5_000 + ["last lamp"])))
    assert len(tool.lines) == search.MAX_LINES
    assert max(map(len, tool.lines)) <= search.MAX_LINE
    start = time.process_time()
    assert tool.run({"query": "w1 w2 lamp"}) == "last lamp"
    assert time.process_time() - start < 1.0


def test_each_conversation_has_its_own_tools_and_keeps_what_was_said() -> None:
    known = toolbox()
    call = ToolCall("notes", {"set": "door", "to": "red"})
    bad = ToolCall("notes", {"set": "", "to": "x"})
    said = [
        Message("system", TEXT),
        Message("user", "note it"),
        Message("assistant", calls=(call, bad, ToolCall("notes", {"get": "door"}))),
        Message("tool", "ok"),
    ]
    one, other = own_tools(known, said), own_tools(known)
    assert one["notes"].run({"get": "door"}) == "red"
    assert one["search"].run({"query": "chair"}) == "chair: kefa lim"
    assert other["notes"].run({"list": "all"}) == notes.EMPTY
    assert known["notes"].run({"list": "all"}) == notes.EMPTY
    assert one["calculator"] is known["calculator"]  # nothing to keep, nothing to copy
    later = own_tools(one)
    later["notes"].run({"set": "lamp", "to": "b"})
    later["search"].hear(Message("system", "shelf: 9"))
    assert one["notes"].run({"list": "all"}) == "door"
    assert problem(one["search"], {"query": "shelf"})
