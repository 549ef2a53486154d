"""MyPT's documents write a call into what the assistant says: it is read as the call it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from matura.core.types import Conversation, Message, ToolCall
from matura.data.conversations import Format, format_of, item
from matura.data.lines import BadLine
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

RESULT = '{"results": [{"title": "Python", "url": "python.org"}]}'
CALLS = {
    "as documented": (
        '<myPT_tool>{"name": "web_search", "args": {"query": "Python tutorials"}}</myPT_tool>'
    ),
    "as the repository has it": (
        '<myPT_toolcall>{"name": "web_search", "query": "Python tutorials"}</myPT_toolcall>'
    ),
    "arguments in a text": (
        '<myPT_tool>\n{"name": "web_search", "arguments": "{\\"query\\": \\"Python tutorials\\"}"}'
        "\n</myPT_tool>\n"
    ),
}


def row(said: str, *, result: str = "tool", **more: Any) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": "Search for Python tutorials"},
        {"role": "assistant", "content": said},
        {"role": result, "content": RESULT},
        {"role": "assistant", "content": "There is one at python.org."},
    ]
    return {"system": "You are MyPT.", "messages": turns, **more}


def read(row: dict[str, Any]) -> Conversation:
    found = item(row, format_of(row), "x:1")
    assert isinstance(found, Conversation)
    return found


@pytest.mark.parametrize("said", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("more", "format"), [({}, "messages"), ({"context": "episode_id: s_1"}, "mypt")]
)
def test_s003_24_a_call_in_its_tags_is_a_call(
    said: str, more: dict[str, Any], format: Format
) -> None:
    for result in ("tool", "toolresult"):
        made = row(said, result=result, **more)
        if result == "tool":
            assert format_of(made) == format
        assert read(made).messages == (
            Message("system", "You are MyPT."),
            Message("user", "Search for Python tutorials"),
            Message("assistant", "", (ToolCall("web_search", {"query": "Python tutorials"}),)),
            Message("tool", RESULT),
            Message("assistant", "There is one at python.org."),
        )


def test_the_call_is_learnt_and_its_result_only_read() -> None:
    template = Template(Tokenizer.bytes_only("mypt"))
    example = template.render(read(row(CALLS["as documented"])))
    learnt = template.spell(
        [id for id, w in zip(example.ids, example.weights, strict=True) if w > 0]
    )
    assert "<myPT_toolcall>" in learnt
    assert '"query"' in learnt
    assert "python.org." in learnt
    assert "results" not in learnt


def test_words_before_a_call_stay_words() -> None:
    said = read(row("Let me look. " + CALLS["as documented"])).messages[2]
    assert (said.content, said.calls[0].name) == ("Let me look. ", "web_search")


def test_a_tag_that_is_only_spelled_stays_text() -> None:
    """PITFALLS C-11: nothing is read as a call but what a result follows."""
    call = CALLS["as documented"]
    turns = [{"role": "user", "content": call}, {"role": "assistant", "content": call}]
    assert [turn.content for turn in read({"messages": turns}).messages] == [call, call]


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ('{"name": "f", ', "message 2: a call's bad JSON at column"),
        ("[1]", "message 2: a call must be an object with 'name', not a list"),
        ('{"args": {}}', "message 2: no 'name'"),
        ('{"name": "f", "args": [1]}', "message 2: 'arguments' of 'f' must be an object"),
        ('{"name": "f", "args": {}, "arguments": {}}', "message 2: a call has its arguments twice"),
        ('{"name": "f", "args": {}, "x": 1}', "message 2: a call has an unknown key 'x'"),
    ],
)
def test_a_call_that_is_none_is_said_with_its_place(inner: str, said: str) -> None:
    with pytest.raises(BadLine, match="^" + said):
        read(row(f"<myPT_tool>{inner}</myPT_tool>"))


def test_odd_messages_are_bad_lines() -> None:
    for odd in ([3, {"role": "tool"}], [{"content": "a"}, {"role": "tool"}], {}, None, [{}, []]):
        with pytest.raises(BadLine):
            item(json.loads(json.dumps({"messages": odd})), "messages", "x:1")
