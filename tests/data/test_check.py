"""`check` says what is in a file, and everything that is wrong with it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from matura.core.errors import RecipeError
from matura.data.check import MOST_ERRORS, check, kind_of
from matura.text.shards import ShardWriter


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "jsonl"),
        ("a.JSONL.gz", "jsonl"),
        ("a.yaml", "recipe"),
        ("a.json", "recipe"),
        ("a.train.shard", "shard"),
        ("a.txt", "text"),
        ("a", "text"),
    ],
)
def test_kinds_are_told_by_name(name: str, kind: str) -> None:
    assert kind_of(Path(name)) == kind


def test_good_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    call = {"name": "calculator", "arguments": {"e": "1"}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "calls": [call]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "one"},
    ]
    row = json.dumps({"messages": turns, "language": "en"})
    path.write_bytes(gzip.compress(f"{row}\n\n{row}\n".encode()))
    report = check(path)
    assert report.ok
    assert report.rows == 2
    assert report.fields == {"messages": 2, "language": 2}
    assert report.counts["blank lines"] == 1
    assert report.counts["duplicates"] == 1
    assert report.counts["conversations"] == 2
    assert report.counts["assistant turns"] == 4
    assert report.counts["calls"] == 2
    assert report.first.splitlines()[1] == 'assistant: calculator({"e": "1"})'
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True


def test_errors_are_capped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("oops\n" * (MOST_ERRORS + 7))
    report = check(path)
    assert len(report.errors) == MOST_ERRORS
    assert report.errors_left_out == 7
    assert not report.ok


def test_text_and_shards(tmp_path: Path) -> None:
    text = tmp_path / "a.md"
    text.write_bytes(b"one\r\ntwo")
    report = check(text)
    assert report.ok
    assert report.counts["lines"] == 2
    assert report.counts["lines ending in CRLF"] == 1
    path = tmp_path / "a.shard"
    with ShardWriter(path, vocab_size=300, tokenizer_sha256="t") as writer:
        writer.add([1, 2, 3], [0.0, 1.0, 1.0])
    report = check(path)
    assert report.ok
    assert (report.rows, report.counts["tokens"], report.counts["trained tokens"]) == (1, 3, 2)
    assert report.first == "1 2 3"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "corrupt" in check(path).errors[0]
    path.write_bytes(content[:-1])
    assert "torn" in check(path).errors[0]
    path.write_bytes(b"")
    assert check(path).errors == [f"{path}: not a shard"]


def test_recipes_go_to_whoever_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: x")

    def good(path: Path) -> Mapping[str, Any]:
        return {"name": "x"}

    def bad(path: Path) -> Mapping[str, Any]:
        raise RecipeError(f"{path}:1: nmae (did you mean 'name'?)")

    assert check(path, recipe=good).ok
    assert check(path, recipe=bad).errors == [f"{path}:1: nmae (did you mean 'name'?)"]
    assert not check(path).ok
