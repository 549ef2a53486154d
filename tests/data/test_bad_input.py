"""Whatever is wrong with an input file is one line: which file, which row, what was expected."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.check import check
from matura.data.source import Source
from matura.data.sources.folder import Folder
from matura.data.sources.jsonl import Jsonl

GOOD = b'{"text": "fine"}\n'


def chat(*turns: dict[str, object]) -> bytes:
    return json.dumps({"messages": list(turns)}).encode()


def user(content: object = "hi") -> dict[str, object]:
    return {"role": "user", "content": content}


def assistant(content: object = "hello", **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": content, **more}


TOOL: dict[str, object] = {"role": "tool", "content": "4"}
CALL = {"calls": [{"name": "calculator", "arguments": {"expression": "2+2"}}]}

# Each is the second row of a file whose first row is good, and what the message must say.
TEXT_ROWS: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"hello", "bad JSON at column 1"),
    "cut off": (b'{"text": "a', "bad JSON at column"),
    "single quotes": (b"{'text': 'a'}", "bad JSON at column 2"),
    "trailing comma": (b'{"text": "a",}', "bad JSON"),
    "two objects": (b'{"text": "a"} {"text": "b"}', "bad JSON at column 15"),
    "raw control character": (b'{"text": "a\x01b"}', "bad JSON at column 12"),
    "raw NUL": (b'{"text": "a\x00b"}', "bad JSON at column 12"),
    "raw tab in text": (b'{"text": "a\tb"}', "bad JSON"),
    "bad escape": (rb'{"text": "\q"}', "bad JSON"),
    "NaN": (b'{"text": "a", "n": NaN}', "NaN is not JSON"),
    "a list": (b'["a"]', "expected a JSON object {...}, found a list"),
    "a number": (b"12", "found a number"),
    "null": (b"null", "found null"),
    "endless number": (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "bad JSON"),
    "key twice": (b'{"text": "a", "text": "b"}', "key 'text' stands twice"),
    "inner key twice": (b'{"text": "a", "m": {"k": 1, "k": 2}}', "key 'k' stands twice"),
    "too deep": (
        b'{"text": "a", "m": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        "nested deeper than 64",
    ),
    "no field": (b'{"txt": "a"}', "no 'text', only ['txt']"),
    "null text": (b'{"text": null}', "'text' must be text, not null"),
    "number text": (b'{"text": 5}', "'text' must be text, not a number"),
    "list text": (b'{"text": ["a"]}', "'text' must be text, not a list"),
    "empty text": (b'{"text": ""}', "'text' is empty"),
    "half a surrogate": (rb'{"text": "a\ud800b"}', r"'text' holds \ud800"),
    "latin-1": ('{"text": "é"}'.encode("latin-1"), "byte 11 (0xe9) is not valid UTF-8"),
    "cut UTF-8": (b'{"text": "\xc3"}', "is not valid UTF-8"),
    "overlong UTF-8": (b'{"text": "\xc0\xaf"}', "is not valid UTF-8"),
    "id is a list": (b'{"text": "a", "id": []}', "'id' must be text or a whole number"),
    "huge line": (b'{"text": "' + b"a" * 5000 + b'"}', "line longer than 4,096 bytes"),
}

CHAT_ROWS: dict[str, tuple[bytes, str]] = {
    "messages is text": (b'{"messages": "hi"}', "'messages' must be a list, not text"),
    "messages is empty": (chat(), "'messages' is empty"),
    "message is text": (b'{"messages": ["hi"]}', "message 1: expected an object with 'role'"),
    "no role": (chat({"content": "hi"}), "message 1: no 'role'"),
    "unknown role": (chat({"role": "asistant", "content": "a"}), "did you mean 'assistant'?"),
    "no content": (chat(user(), {"role": "assistant"}), "message 2: no 'content'"),
    "null content": (chat(user(None), assistant()), "message 1: 'content' must be text, not null"),
    "empty answer": (chat(user(), assistant("")), "message 2: role 'assistant' with empty"),
    "empty question": (chat(user(""), assistant()), "message 1: role 'user' with empty"),
    "starts with the assistant": (chat(assistant()), "message 1: role 'assistant' at the start"),
    "two users": (
        chat(user(), user()),
        "message 2: role 'user' after 'user'; expected 'assistant'",
    ),
    "two assistants": (chat(user(), assistant(), assistant()), "expected 'user'"),
    "late system": (chat(user(), {"role": "system", "content": "s"}), "message 2: role 'system'"),
    "no answer": (chat(user()), "ends with role 'user'; expected the assistant's answer"),
    "result of nothing": (chat(user(), TOOL), "message 2: role 'tool' after 'user'"),
    "call without result": (
        chat(user(), assistant("", **CALL)),
        "ends with a call without its result",
    ),
    "unanswered call": (chat(user(), assistant("", **CALL), user()), "expected 1 tool result(s)"),
    "two results": (chat(user(), assistant("", **CALL), TOOL, TOOL), "message 4: role 'tool'"),
    "user calls": (chat({**user(), **CALL}), "role 'user' cannot call tools"),
    "unknown key": (chat({**user(), "contnt": "x"}), "did you mean 'content'?"),
    "picture": (chat(user([{"type": "image_url"}])), "has a part that is not text"),
    "call without name": (chat(user(), assistant("", calls=[{"arguments": {}}])), "no 'name'"),
    "call with a list": (
        chat(user(), assistant("", calls=[{"name": "c", "arguments": []}])),
        "'arguments' of 'c' must be an object, not a list",
    ),
    "bad argument JSON": (
        chat(user(), assistant("", tool_calls=[{"function": {"name": "c", "arguments": "{"}}])),
        "'arguments' of 'c': bad JSON",
    ),
    "both spellings": (chat(user(), assistant("", tool_calls=[1], **CALL)), "both 'calls' and"),
    "another kind of row": (b'{"text": "a"}', "no 'messages', only ['text']"),
    "two system prompts": (
        json.dumps(
            {"system": "a", "messages": [{"role": "system", "content": "b"}, user(), assistant()]}
        ).encode(),
        "both under 'system' and in 'messages'",
    ),
}

PROMPT_ROWS: dict[str, tuple[bytes, str]] = {
    "no completion": (b'{"prompt": "a"}', "no 'completion', only ['prompt']"),
    "empty prompt": (b'{"prompt": "", "completion": "b"}', "'prompt' is empty"),
    "number": (b'{"prompt": 1, "completion": "b"}', "'prompt' must be text, not a number"),
}

FIRST = {"text": GOOD, "messages": chat(user(), assistant()) + b"\n"}
ROWS = [
    pytest.param(first, row, said, id=f"{kind}-{name}")
    for kind, first, table in (
        ("text", GOOD, TEXT_ROWS),
        ("chat", FIRST["messages"], CHAT_ROWS),
        ("prompt", b'{"prompt": "a", "completion": "b"}\n', PROMPT_ROWS),
    )
    for name, (row, said) in table.items()
]


def problem_of(source: Source) -> str:
    with pytest.raises(DataError) as caught:
        list(source.read(Given(rng=rng(0))))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("first", "row", "said"), ROWS)
def test_a_bad_row_is_named_with_its_line(
    tmp_path: Path, first: bytes, row: bytes, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(first + b"\n" + row + b"\n" + first)
    message = problem_of(Jsonl(path=path, line_limit_bytes=4096 if b"a" * 5000 in row else 2**20))
    assert message.startswith(f"{path}:3: ")  # the blank line counts
    assert said in message


@pytest.mark.parametrize(("first", "row", "said"), ROWS)
def test_the_checker_says_the_same_and_goes_on(
    tmp_path: Path, first: bytes, row: bytes, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(first + row + b"\n" + first + row + b"\n")
    report = check(path)
    if "line longer" in said:  # under the real limit it is a good row
        assert report.ok
        return
    assert [error.split(": ")[0] for error in report.errors] == [f"{path}:2", f"{path}:4"]
    assert all(said in error and "\n" not in error for error in report.errors)
    assert report.rows == 4


def _gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _flipped(content: bytes) -> bytes:
    packed = bytearray(_gz(content))
    packed[-6] ^= 255
    return bytes(packed)


FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", "no rows"),
    "blank lines only": ("a.jsonl", b"\n \r\n\n", "no rows"),
    "byte-order mark only": ("a.jsonl", b"\xef\xbb\xbf", "no rows"),
    "UTF-16": ("a.jsonl", GOOD.decode().encode("utf-16"), "expected UTF-8"),
    "unknown kind": ("a.jsonl", b'{"body": "a"}\n', "no known field; expected 'text', 'messages'"),
    "two kinds": ("a.jsonl", b'{"text": "a", "messages": []}\n', "say which with `format`"),
    "empty gzip file": ("a.jsonl.gz", b"", "no rows"),
    "no gzip": ("a.jsonl.gz", GOOD, "damaged gzip data"),
    "truncated gzip": ("a.jsonl.gz", _gz(GOOD * 500)[:-9], "ends early"),
    "flipped bit": ("a.jsonl.gz", _flipped(GOOD * 500), "damaged gzip data"),
    "gzip bomb": ("a.jsonl.gz", _gz(b" " * 40_000_000), "line longer than"),
}


@pytest.mark.parametrize(("name", "content", "said"), FILES.values(), ids=FILES)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = problem_of(Jsonl(path=path))
    assert message.startswith(f"{path}:")
    assert said in message
    assert check(path).errors == [message]


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no such file"),
        (_folder, "is a folder; expected a file"),
        (_pipe, "is not a regular file"),
        (lambda path: path.symlink_to("itself"), "no such file"),
    ],
    ids=["missing", "folder", "pipe", "dead link"],
)
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "rows.jsonl"
    make(path)
    assert problem_of(Jsonl(path=path)) == check(path).errors[0]
    assert said in check(path).errors[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)
    assert problem_of(Jsonl(path=path)) == f"{path}: permission denied"


TEXTS: dict[str, tuple[bytes, str]] = {
    "latin-1": ("one\ncafé\n".encode("latin-1"), ":2: byte 4 (0xe9) is not valid UTF-8 (is it"),
    "NUL": (b"one\ntwo\n\0", ":3: a NUL byte"),
    "UTF-16": ("text".encode("utf-16"), ": looks like UTF-16"),
    "too large": (b"a" * 2000, ": larger than 1,024 bytes"),
    "only white space": (b" \n", ": no text in files ending in"),
    "empty": (b"", ": no text in files ending in"),
}


@pytest.mark.parametrize(("content", "said"), TEXTS.values(), ids=TEXTS)
def test_a_bad_text_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    message = problem_of(Folder(path=tmp_path, file_limit_bytes=1024))
    assert message.startswith(str(tmp_path))
    assert said in message
    if "1,024" not in said:
        assert not check(tmp_path / "a.txt").ok


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    assert problem_of(Folder(path=tmp_path / "no")) == f"{tmp_path / 'no'}: no such folder"
    assert "no text in files ending in .txt" in problem_of(Folder(path=tmp_path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "a", "enc": 1}, "enc"),
        ({"path": "a", "encoding": "utf-9"}, "unknown encoding 'utf-9'"),
        ({"path": "a", "suffixes": ["txt"]}, "each with its dot"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Folder.model_validate(settings)


def test_there_are_more_than_forty_kinds() -> None:
    assert len(ROWS) + len(FILES) + len(TEXTS) > 60
