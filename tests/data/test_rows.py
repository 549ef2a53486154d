"""Rows as what they are: the three kinds, both spellings of calls, and every policy for bytes."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Conversation, Document, Given, Message, ToolCall
from matura.data.conversations import item
from matura.data.lines import BadLine
from matura.data.rows import messages, parsed
from matura.data.sources.jsonl import Jsonl

GIVEN = Given(rng=rng(0))


def read(path: Path, content: bytes) -> list[Document | Conversation]:
    path.write_bytes(content)
    return list(Jsonl(path=path).read(GIVEN))


def test_the_three_kinds_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert read(path, b'{"text": "a b"}') == [Document(text="a b", id="a.jsonl:1")]
    turns = (Message("user", "q"), Message("assistant", "a"))
    asked = json.dumps({"messages": [{"role": t.role, "content": t.content} for t in turns]})
    assert read(path, asked.encode()) == [Conversation(turns, id="a.jsonl:1")]
    found = read(path, b'{"prompt": "q", "completion": "a", "id": 7, "system": "s"}')
    assert found == [Conversation((Message("system", "s"), *turns), id="7")]


def test_bytes_follow_their_policies(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = '\ufeff{"text": "ä\\r\\n\u2028 \\u0000 b"}\r\n\r\n{"text": "last, no line end"}'
    found = read(path, rows.encode())
    assert [thing.text for thing in found if isinstance(thing, Document)] == [
        "ä\r\n\u2028 \0 b",
        "last, no line end",
    ]
    assert found[1].id == "a.jsonl:3"
    packed = tmp_path / "no-ending"  # gzip is known by its first bytes, too
    assert [thing.id for thing in read(packed, gzip.compress(rows.encode()))] == [
        "no-ending:1",
        "no-ending:3",
    ]


def test_both_spellings_of_a_call_are_one(tmp_path: Path) -> None:
    ours = {"role": "assistant", "calls": [{"name": "calculator", "arguments": {"e": "1+1"}}]}
    theirs = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "calculator", "arguments": '{"e": "1+1"}'},
            }
        ],
    }
    result = {"role": "tool", "content": "2", "tool_call_id": "call_1"}
    rest = [result, {"role": "assistant", "content": [{"type": "text", "text": "Two."}]}]
    first, second = (messages([{"role": "user", "content": "q"}, c, *rest]) for c in (ours, theirs))
    assert first == second
    assert first[1].calls == (ToolCall("calculator", {"e": "1+1"}),)
    assert first[3] == Message("assistant", "Two.")


def test_a_prompt_may_end_with_the_user_or_a_result() -> None:
    asked = [{"role": "user", "content": "q"}]
    assert messages(asked, ends="anywhere") == (Message("user", "q"),)
    with pytest.raises(BadLine, match="expected the assistant's answer"):
        messages(asked)


def test_notes_are_kept_and_limits_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "q", "completion": "a", "language": "de", "x": [1]}\n' * 5)
    found = list(Jsonl(path=(path, path), limit=7).read(GIVEN))
    assert len(found) == 7
    assert isinstance(found[0], Conversation)
    assert found[0].meta == {"language": "de"}
    path.write_text('{"body": "x"}\n{"text": "y"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: no 'body', only \['text'\]"):
        list(Jsonl(path=path, format="text", field="body").read(GIVEN))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_comes_through_unchanged(text: str) -> None:
    for ascii_only in (True, False):
        row = parsed(json.dumps({"text": text}, ensure_ascii=ascii_only))
        assert item(row, "text", "x") == Document(text=text, id="x")


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["role", "content", "messages", "calls", "name", "text"]), inner
            )
        ),
    )
)
def test_any_json_is_an_item_or_a_bad_line(value: object) -> None:
    row = {"messages": value}
    for format in ("messages", "text", "prompt"):
        with suppress(BadLine):
            item(row, format, "x")
