"""Sixty conversation files that are wrong in sixty ways: sixty errors, each with line and reason,
and nothing on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matura.cli.main import main
from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.build import build
from matura.data.check import check
from matura.data.sources.jsonl import Jsonl
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

TEMPLATE = Template(Tokenizer.bytes_only("mypt"))
LINES = 40
"""Good rows before the bad one, so that shards are begun before it is found."""

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
H, G = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
CALL = {"role": "assistant", "calls": [{"name": "f", "arguments": {}}]}
ASKS = {"role": "assistant_toolcall", "name": "f", "arguments": {}}
GIVES = {"role": "toolresult", "name": "f", "content": "r"}
DEEP = "[" * 100 + "]" * 100


def messages(*turns: object) -> str:
    return json.dumps({"messages": turns})


def sharegpt(*turns: object, **more: object) -> str:
    return json.dumps({"conversations": turns, **more})


def alpaca(**fields: object) -> str:
    return json.dumps({"instruction": "i", "input": "", "output": "o"} | fields)


def episode(*turns: object, **more: object) -> str:
    return json.dumps({"messages": turns, "context": "episode_id: 1", **more})


def array(*turns: object) -> str:
    return json.dumps(turns)


def parts(*given: object) -> str:
    return array(Q, {"role": "assistant", "content": given})


def part(kind: object, text: object = "x") -> dict[str, Any]:
    return {"type": kind, "text": text}


def pair(**fields: object) -> str:
    return json.dumps({"prompt": "q", "completion": "a"} | fields)


def value(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


MESSAGES = {
    "cut off": ('{"messages": [{"role": "user"', "bad JSON at column 30"),
    "two rows on one line": (messages(Q, A) + messages(Q, A), "bad JSON at column"),
    "Python, not JSON": (str({"messages": [Q, A]}), "bad JSON at column 2"),
    "infinity": ('{"messages": [], "n": Infinity}', "Infinity is not JSON"),
    "too deep": (f'{{"messages": {DEEP}}}', "nested deeper than 64 at column"),
    "role twice": (
        '{"messages": [{"role": "user", "role": "assistant", "content": "q"}]}',
        "key 'role' stands twice",
    ),
    "messages twice": ('{"messages": [], "messages": []}', "key 'messages' stands twice"),
    "half a character": (
        messages(Q, {**A, "content": "\ud83d"}),
        r"2: 'content' holds \ud83d",
    ),
    "half a character in a call": (
        messages(Q, {**CALL, "calls": [{"name": "f", "arguments": {"a": "\udc00"}}]}),
        r"message 2: 'arguments' holds \udc00",
    ),
    "half a character in the id": (
        json.dumps({"messages": [Q, A], "id": "\udfff"}),
        r"'id' holds \udfff",
    ),
    "messages is an object": ('{"messages": {}}', "'messages' must be a list, not an object"),
    "messages is null": ('{"messages": null}', "'messages' must be a list, not null"),
    "nothing said": (messages(), "'messages' is empty"),
    "a message is null": (messages(Q, None), "message 2: expected an object with 'role'"),
    "role is a number": (messages({"role": 1, "content": "q"}), "message 1: unknown role 1"),
    "role in capitals": (messages({**Q, "role": "User"}), "did you mean 'user'?"),
    "content is a number": (messages(Q, {**A, "content": 4}), "'content' must be text, not"),
    "content is true": (messages(Q, {**A, "content": True}), "must be text, not true/false"),
    "an empty answer": (
        messages(Q, {**A, "content": ""}),
        "message 2: role 'assistant' with empty",
    ),
    "an answer of spaces": (
        messages(Q, {**A, "content": " \n"}),
        "message 2: the assistant's answer is nothing but white space",
    ),
    "an empty answer in the middle": (
        messages(Q, {**A, "content": []}, Q, A),
        "message 2: role 'assistant' with empty",
    ),
    "the assistant begins": (messages(A, Q, A), "message 1: role 'assistant' at the start"),
    "system alone": (messages({"role": "system", "content": "s"}), "ends with role 'system'"),
    "system comes late": (
        messages(Q, A, {"role": "system", "content": "s"}),
        "message 3: role 'system' after 'assistant'; expected 'user'",
    ),
    "nobody answers": (messages(Q, A, Q), "ends with role 'user'; expected the assistant's answer"),
    "a call nobody answers": (messages(Q, CALL), "ends with a call without its result"),
    "calls is an object": (
        messages(Q, {**A, "calls": {}}),
        "'calls' must be a list",
    ),
    "a misspelt key": (messages(Q, {**A, "contents": "b"}), "did you mean 'content'?"),
    "a row of another format": (sharegpt(H, G), "no 'messages', only ['conversations']"),
    "an array": (array(Q, A), "expected a JSON object {...}, found a list"),
}
SHAREGPT = {
    "unknown speaker": (sharegpt(H, {**G, "from": "gtp"}), "unknown 'from' 'gtp' (did you mean"),
    "speaker is a list": (sharegpt({**H, "from": []}), "message 1: unknown 'from' []"),
    "no value": (sharegpt(H, {"from": "gpt"}), "message 2: no 'value', only ['from']"),
    "value is null": (
        sharegpt(H, {**G, "value": None}),
        "2: 'value' must be text, not null",
    ),
    "empty value": (sharegpt({**H, "value": ""}, G), "message 1: 'value' is empty"),
    "gpt begins": (sharegpt(G, H, G), "message 1: role 'assistant' at the start"),
    "two humans": (sharegpt(H, H, G), "message 2: role 'user' after 'user'"),
    "both spellings": (sharegpt(H, A), "message 2: unknown key 'role'"),
    "system twice": (
        sharegpt({"from": "system", "value": "s"}, H, G, system="t"),
        "a system prompt both under 'system' and in 'conversations'",
    ),
    "a call that is no JSON": (
        sharegpt(H, {"from": "function_call", "value": "f(1)"}),
        "message 2: a call's bad JSON at column 1",
    ),
    "an unclosed call": (
        sharegpt(H, value('<tool_call>{"name": "f"}')),
        "without its </tool_call>",
    ),
    "words after a call": (
        sharegpt(H, value('<tool_call>{"name": "f"}</tool_call> so'), G),
        "message 2: text after </tool_call>: 'so'",
    ),
    "a result of nothing": (
        sharegpt(H, {"from": "observation", "value": "r"}),
        "2: role 'tool' after",
    ),
}
ALPACA = {
    "no output": (json.dumps({"instruction": "i"}), "no 'output', only ['instruction']"),
    "empty output": (alpaca(output=""), "'output' is empty"),
    "output of spaces": (alpaca(output="\t"), "'output' is nothing but white space"),
    "input is a list": (alpaca(input=["a"]), "'input' must be text, not a list"),
    "a lonely question": (alpaca(history=[["q"]]), "'history' 1 must be a pair [question, answer]"),
    "system is a number": (alpaca(system=1), "'system' must be text, not a number"),
}
MYPT = {
    "a result by another name": (
        episode(Q, ASKS, {**GIVES, "name": "g"}, A),
        "message 3: a result of 'g', but 'f' was called",
    ),
    "call without a name": (episode(Q, {"role": "assistant_toolcall"}), "message 2: no 'name'"),
    "arguments as text": (
        episode(Q, {**ASKS, "arguments": "x"}),
        "'arguments' of 'f' must be",
    ),
    "two calls at once": (episode(Q, ASKS, ASKS, GIVES, A), "message 3: role 'assistant' after"),
    "context of nobody": (
        episode({"role": "assistant_context", "content": "c"}, Q, A),
        "message 1: role 'assistant_context' must stand after 'user'",
    ),
    "context is a list": (episode(Q, A, context=["c"]), "'context' must be text, not a list"),
    "the user thinks": (episode({**Q, "think": "t"}, A), "message 1: role 'user' with 'think'"),
    "think is a number": (
        episode(Q, {**A, "think": 1}),
        "2: 'think' must be text",
    ),
}
NANOCHAT = {
    "an object": (messages(Q, A), "expected a JSON array [...] of messages, found an object"),
    "an empty array": ("[]", "'messages' is empty"),
    "only a question": (array(Q), "ends with role 'user'; expected the assistant's answer"),
    "a role of another format": (array(Q, {**A, "role": "gpt"}), "message 2: unknown role 'gpt'"),
    "python without output": (
        parts(part("python")),
        "message 2: ends with 'python'; expected 'python_output'",
    ),
    "output without python": (
        parts(part("python_output")),
        "message 2: part 1: 'python_output' without 'python'",
    ),
    "no words at the end": (parts(part("python"), part("python_output")), "parts end without text"),
    "a part of unknown type": (parts(part("image")), "'python' or 'python_output', found 'image'"),
}
PROMPT = {
    "completion of spaces": (pair(completion="  "), "'completion' is nothing but white space"),
    "prompt is a list": (pair(prompt=[Q]), "'prompt' must be text, not a list"),
}
GOOD: dict[str, tuple[Callable[[int], str], dict[str, tuple[str, str]]]] = {
    "messages": (lambda n: messages({**Q, "content": f"q{n}"}, A), MESSAGES),
    "sharegpt": (lambda n: sharegpt({**H, "value": f"q{n}"}, G), SHAREGPT),
    "alpaca": (lambda n: alpaca(instruction=f"i{n}"), ALPACA),
    "mypt": (lambda n: episode({**Q, "content": f"q{n}"}, A), MYPT),
    "nanochat": (lambda n: array({**Q, "content": f"q{n}"}, A), NANOCHAT),
    "prompt": (lambda n: pair(prompt=f"q{n}"), PROMPT),
}
CASES = {
    f"{format}-{name}": (good, bad, said)
    for format, (good, table) in GOOD.items()
    for name, (bad, said) in table.items()
}


def file(folder: Path, name: str) -> Path:
    """A good file of `LINES` rows and a blank line, then the bad row, then good ones."""
    good, bad, _ = CASES[name]
    path = folder / f"{name}.jsonl"
    rows = [*map(good, range(LINES)), "", bad, *map(good, range(LINES, LINES + 5))]
    path.write_text("\n".join(rows) + "\n", encoding="ascii")
    return path


def test_there_are_sixty_that_differ() -> None:
    assert len(CASES) >= 60
    assert len({(bad, said) for _, bad, said in CASES.values()}) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_file_is_one_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    path, said = file(tmp_path, name), CASES[name][2]
    out = tmp_path / "out"
    source = Jsonl(path=path)
    with pytest.raises(DataError) as caught:
        build(source, name="it", template=TEMPLATE, folder=out, seed=0, stage="chat")
    message = str(caught.value)
    assert message.startswith(f"{path}:{LINES + 2}: ")
    assert said in message
    assert message.isprintable()
    assert not list(out.iterdir())
    with pytest.raises(DataError) as again:
        list(source.read(Given(rng=rng(0))))
    assert str(again.value) == message
    report = check(path)
    assert report.errors == [message]  # the rows after it are read
    assert report.rows == LINES + 6
    assert report.counts["conversations"] == LINES + 5


def test_the_command_tells_all_of_them_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(file(tmp_path, name)) for name in CASES]
    assert main(["data", "check", "--json", *files]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(CASES)
    for line, (name, (_, _, said)) in zip(told, CASES.items(), strict=True):
        assert line.startswith(f"matura: {tmp_path / name}.jsonl:{LINES + 2}: ")
        assert said in line


def test_a_format_can_be_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(file(tmp_path, "alpaca-no output"))
    assert main(["data", "check", path, "--format", "alpacca"]) == 2
    assert "there is no format 'alpacca' (did you mean 'alpaca'?)" in capsys.readouterr().err
    assert main(["data", "check", path, "--format", "messages", "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert len(report["errors"]) == LINES + 6
    assert report["errors"][0].endswith("no 'messages', only ['input', 'instruction', 'output']")
    assert main(["data", "check", path]) == 1
    shown = capsys.readouterr().out
    assert "jsonl read as alpaca, 46 rows" in shown
    assert "first: user: i0" in shown
