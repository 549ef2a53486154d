"""One JSON array a file is read as rows are, a damaged item with its line and the others kept."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Conversation, Document, Given
from matura.data import arrays
from matura.data.arrays import is_array, rows
from matura.data.check import check
from matura.data.sources.jsonl import Jsonl

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
DIALOGUES = [
    {"id": "a", "said": [{"by": "user", "text": "two, please"}, {"by": "bot", "text": 'a "b" \\'}]},
    {"id": "b", "said": [{"by": "user", "text": "Grüße ]}"}]},
]


def read(source: Jsonl) -> list[Document | Conversation]:
    return list(source.read(Given(rng=rng(0))))


def problem_of(source: Jsonl) -> str:
    with pytest.raises(DataError) as caught:
        read(source)
    return str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.lists(JSON, max_size=6), st.sampled_from([None, 0, 2]), st.integers(8, 40))
def test_items_are_what_the_array_holds(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, piece: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    spelled = json.dumps(values, indent=indent, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + spelled.encode() + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "BUFFER_BYTES", piece)  # so that pieces end anywhere
        found = list(rows(path))
    assert [json.loads(raw) for _, raw in found] == values
    lines = spelled.split("\n")
    assert all(raw.split(b"\n")[0].decode() in lines[number - 1] for number, raw in found)


def test_a_layout_makes_documents_of_nested_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(DIALOGUES, indent=1).encode()))
    found = read(Jsonl(path=path, layout="{by}: {text}", each="said"))
    assert found == [
        Document(text='user: two, please\nbot: a "b" \\', id="a"),
        Document(text="user: Grüße ]}", id="b"),
    ]
    pairs = tmp_path / "b.jsonl"
    pairs.write_text('{"q": "{1}", "a": "<<1+1=2>>2"}\n')
    assert read(Jsonl(path=pairs, layout="{{{q}}}\n{a}")) == [
        Document(text="{{1}}\n<<1+1=2>>2", id="b.jsonl:1")
    ]
    assert problem_of(Jsonl(path=pairs, layout="{question}")) == (
        f"{pairs}:1: no 'question', only ['a', 'q']"
    )
    assert "1: 'a' must be a list, not text" in problem_of(
        Jsonl(path=pairs, layout="{q}", each="a")
    )
    pairs.write_text('{"q": [{"t": "x"}, {"t": 1}]}\n')
    assert "1: 'q' 2: 't' must be text" in problem_of(Jsonl(path=pairs, layout="{t}", each="q"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layout": "text"}, "no field in 'text'"),
        ({"layout": "{a} {"}, "a lone '{'"),
        ({"layout": "a} {b}"}, "a lone '}'"),
        ({"layout": "{ }"}, "names no field"),
        ({"each": "said"}, "'each' needs a 'layout'"),
        ({"layout": "{a}", "format": "alpaca"}, "'layout' makes documents"),
    ],
)
def test_a_wrong_layout_is_a_recipe_error(asked: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Jsonl.model_validate({"path": "a.jsonl", **asked})


def test_chats_come_in_arrays_too(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": f"i{n}", "output": "o"} for n in range(3)]))
    ids = ["alpaca.json:1", "alpaca.json:1.2", "alpaca.json:1.3"]  # all in one line
    assert [thing.id for thing in read(Jsonl(path=path))] == ids
    report = check(path)
    assert report.ok
    assert (report.kind, report.format, report.rows) == ("jsonl", "alpaca", 3)


ROW = '{\n "text": "fine"\n}'
BAD: dict[str, tuple[str, int, str]] = {
    "a comma too many": ('{"text": "a",}', 5, "bad JSON at column"),
    "nothing between commas": ("", 4, "bad JSON at column 1"),
    "no object": ('"text"', 5, "found text"),
    "two without a comma": ('{"text": "a"} {"text": "b"}', 5, "bad JSON at column 15"),
    "in its second line": ('{"text":\n "a" "b"}', 5, "bad JSON at line 2 of the item, column 6"),
    "a key twice": ('{"text": "a", "text": "b"}', 5, "key 'text' stands twice"),
    "no field": ('{"texts": "a"}', 5, "no 'text', only ['texts']"),
    "a number": ('{"text": 1}', 5, "'text' must be text, not a number"),
    "a bare word": ('{"text": nul}', 5, "bad JSON at column 10"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_item_is_named_by_its_line_and_costs_no_other(tmp_path: Path, name: str) -> None:
    bad, line, said = BAD[name]
    path = tmp_path / "a.json"
    path.write_text(f"[{ROW},\n\n{bad}\n,{ROW}]" if bad else f"[{ROW},\n,{ROW}]")
    message = problem_of(Jsonl(path=path))
    assert message.startswith(f"{path}:{line}: ")
    assert said in message
    report = check(path)
    assert report.errors == [message]
    assert (report.rows, report.counts["documents"]) == (3, 2)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"[{ROW}", 3, "the file ends inside its array"),
        (f"[{ROW},\n", 4, "the file ends inside its array"),
        (f'[{ROW}, {{"text": "a', 3, "the file ends inside its array"),
        (f"[{ROW}]\n\n[]", 5, "'[]' after the array's end"),
        (f"[{ROW},\n{{]", 4, "']' closes '{'"),
        (f"[{ROW},\n}}]", 4, "'}' closes '['"),
        (f"[{ROW},{ROW},]", 5, "bad JSON at column 1"),
    ],
)
def test_an_array_that_is_torn_is_an_error(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    message = problem_of(Jsonl(path=path))
    assert message.startswith(f"{path}:{line}: ")
    assert said in message
    assert check(path).errors == [message]


def test_limits_hold_and_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text": "short"},\n{"text": "' + "a" * 5000 + '"}]')
    assert problem_of(Jsonl(path=path, line_limit_bytes=4096)) == (
        f"{path}:2: item longer than 4,096 bytes"
    )
    for empty in ("[]", " [\n]\n"):
        path.write_text(empty)
        assert "no rows; expected JSON objects" in problem_of(Jsonl(path=path))
    path.write_text('{"name": "a recipe"}')
    assert not is_array(path)
    lines = tmp_path / "chats.jsonl"
    lines.write_text('[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]\n')
    assert not is_array(lines)
    assert isinstance(read(Jsonl(path=lines))[0], Conversation)
