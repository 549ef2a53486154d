"""A file of prompts that a model answers at every evaluation, so that one can watch it learn.

What is said is kept with what was expected in `eval_prompts.jsonl` of the stage's folder. It never
decides anything: neither the best step nor a gate.

Forms: JSON lines, or JSON with a list of entries, or MyPT's object of `prompts` and
`expected_outputs` by name. An entry is a text, or an object with `prompt` (or `messages`) and, if
wanted, `expected`, `system`, `name` and `max_tokens`. A prompt that begins with `<myPT_` is read by
its tags; any other is what a user says, and rendered by the run's own template either way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matura.core.disk import replace_atomically
from matura.core.errors import DataError
from matura.core.leaves import did_you_mean
from matura.core.ledger import Ledger, read_rows
from matura.core.types import Message, Task, Trace
from matura.data.lines import BadLine, decoded, refuse_utf16, whole
from matura.data.rows import json_name, json_of, messages, text_at
from matura.talk.rollout import Sampler, converse
from matura.talk.tool import Tool
from matura.text.dialects import dialect_named
from matura.text.prompts import read_prompt

SAID = "eval_prompts.jsonl"
"""In the stage's folder: a row for each prompt at each evaluation."""
MAX_TOKENS = 64
LIMIT_BYTES = 4 * 2**20
MOST = 1000
"""Prompts in a file: they are asked at every evaluation."""
SHOWN_CHARACTERS = 80
_KEYS = ("prompt", "messages", "expected", "system", "name", "max_tokens")
_WHOLE: Mapping[str, tuple[type, ...]] = {
    "prompts": (list, dict),
    "expected_outputs": (dict,),
    "system": (str,),
    "system_prompt": (str,),
    "description": (str,),
    "notes": (str, list, dict),
}
_DECODER = json.JSONDecoder()
_TAGGED = "<myPT_"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to be asked, and what should come back."""

    name: str
    messages: tuple[Message, ...]
    expected: str | None = None
    """None: nothing in particular, it is only to be looked at."""
    max_tokens: int = MAX_TOKENS


@dataclass(frozen=True, slots=True)
class _Entry:
    """A value in the file, and where it stands."""

    line: int
    value: object
    name: str
    expected: str | None = None


class _Pair(NamedTuple):
    """A key's line, where its value stands in the text, how it is spelled, and what it is."""

    line: int
    place: int
    text: str
    value: Any


def load(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in its order.

    Raises:
        DataError: it cannot be read, or is not such a file; the message begins with file and line.
    """
    raw = whole(path, LIMIT_BYTES)
    refuse_utf16(path, raw)
    try:
        text = decoded(raw.removeprefix(b"\xef\xbb\xbf"))
    except BadLine as problem:
        raise DataError(f"{path}: {problem}") from None
    found: dict[str, Prompt] = {}
    system, entries = _entries(path, text)
    for entry in entries:
        try:
            prompt = _prompt(entry, system)
            if prompt.name in found:
                raise BadLine(f"a second prompt is called {prompt.name!r}")
        except BadLine as problem:
            raise DataError(f"{path}:{entry.line}: {problem}") from None
        found[prompt.name] = prompt
    if not found:
        raise DataError(f"{path}: no prompts; expected a list of them, or one on each line")
    if len(found) > MOST:
        raise DataError(f"{path}: {len(found):,} prompts; at most {MOST:,} at every evaluation")
    return tuple(found.values())


def _entries(path: Path, text: str) -> tuple[str, Iterator[_Entry]]:
    """The system prompt for those that have none, and every entry with its line."""
    start = text.lstrip()
    at = len(text) - len(start)
    if start[:1] == "[":
        _check(path, text)
        return "", _listed(path, text, at)
    if start[:1] == "{" and not _by_line(path, start):
        _check(path, text)
        return _object(path, text, at)
    return "", _lines(path, text)


def _by_line(path: Path, start: str) -> bool:
    """Whether there is an object on each line, rather than one around everything."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return True
    try:
        first = json.loads(start.partition("\n")[0])
    except (ValueError, RecursionError):
        return False
    return not (isinstance(first, dict) and "prompts" in first)


def _check(path: Path, text: str) -> None:
    """Raises DataError with the line if the text as a whole is no JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as problem:
        where = f"{path}:{problem.lineno}"
        raise DataError(f"{where}: bad JSON at column {problem.colno}: {problem.msg}") from None
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path}:1: bad JSON: {problem}") from None


def _lines(path: Path, text: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _Entry(number, _value(path, number, line.removesuffix("\r")), f"line {number}")


def _value(path: Path, line: int, text: str) -> Any:
    try:
        return json_of(text)
    except BadLine as problem:
        raise DataError(f"{path}:{line}: {problem}") from None


def _listed(path: Path, text: str, at: int) -> Iterator[_Entry]:
    """The items of the list that opens at this place."""
    at, number = _skip(text, at + 1), 0
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        line, number = _line(text, at), number + 1
        yield _Entry(line, _value(path, line, text[at:end]), f"prompt {number}")
        at = _next(text, end)


def _pairs(path: Path, text: str, at: int) -> dict[str, _Pair]:
    """The keys of the object that opens at this place."""
    found: dict[str, _Pair] = {}
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        line = _line(text, at)
        if key in found:
            raise DataError(f"{path}:{line}: key {key!r} stands twice in one object")
        place = _skip(text, _skip(text, end) + 1)
        value, end = _DECODER.raw_decode(text, place)
        found[key] = _Pair(line, place, text[place:end], value)
        at = _next(text, end)
    return found


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _next(text: str, end: int) -> int:
    """Where the next item begins, or the bracket that closes."""
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _object(path: Path, text: str, at: int) -> tuple[str, Iterator[_Entry]]:
    """MyPT's form, or an object around a list."""
    pairs = _pairs(path, text, at)
    for key, pair in pairs.items():
        kinds = _WHOLE.get(key)
        if kinds is None:
            near = did_you_mean(key, _WHOLE)
            raise DataError(f"{path}:{pair.line}: unknown key {key!r}{near}")
        if not isinstance(pair.value, kinds):
            raise DataError(f"{path}:{pair.line}: {key!r} cannot be {json_name(pair.value)}")
    if "prompts" not in pairs:
        raise DataError(f"{path}:{_line(text, at)}: no 'prompts', only {sorted(pairs)[:8]}")
    system = next((pairs[key].value for key in ("system", "system_prompt") if key in pairs), "")
    asked, wanted = pairs["prompts"], pairs.get("expected_outputs")
    if isinstance(asked.value, list):
        if wanted is not None:
            raise DataError(f"{path}:{wanted.line}: 'expected_outputs' needs prompts with names")
        return system, _listed(path, text, asked.place)
    named = _pairs(path, text, asked.place)
    answers = {} if wanted is None else _pairs(path, text, wanted.place)
    for name, pair in answers.items():
        if name not in named:
            raise DataError(f"{path}:{pair.line}: {name!r} has an expected output, but no prompt")
        if not isinstance(pair.value, str):
            what = json_name(pair.value)
            raise DataError(f"{path}:{pair.line}: what is expected must be text, not {what}")
    return system, (
        _Entry(
            pair.line,
            _value(path, pair.line, pair.text),
            name,
            answers[name].value if name in answers else None,
        )
        for name, pair in named.items()
    )


def _prompt(entry: _Entry, system: str) -> Prompt:
    """What an entry asks.

    Raises:
        BadLine: what is wrong with it and what was expected.
    """
    value = {"prompt": entry.value} if isinstance(entry.value, str) else entry.value
    if not isinstance(value, dict):
        raise BadLine("expected a text, or an object with 'prompt' or 'messages'")
    for key in value:
        if key not in _KEYS:
            raise BadLine(f"unknown key {key!r}{did_you_mean(key, _KEYS)}")
    if ("prompt" in value) == ("messages" in value):
        raise BadLine(f"expected one of 'prompt' and 'messages', found {sorted(value)}")
    own = text_at(value, "system") if value.get("system") not in (None, "") else system
    if "messages" in value:
        turns = messages(value["messages"], ends="anywhere")
    else:
        asked = text_at(value, "prompt")
        turns = _tagged(asked) if asked.startswith(_TAGGED) else (Message("user", asked),)
    if turns[-1].role not in ("user", "tool"):
        raise BadLine(
            f"ends with role {turns[-1].role!r}; a prompt ends before the assistant speaks"
        )
    if own and turns[0].role != "system":
        turns = (Message("system", own), *turns)
    elif value.get("system") and turns[0].content != own:
        raise BadLine("two different system prompts, one under 'system' and one in the prompt")
    expected = entry.expected
    if value.get("expected") is not None:
        expected = text_at(value, "expected", empty="allowed")
    name = text_at(value, "name") if "name" in value else entry.name
    tokens = value.get("max_tokens", MAX_TOKENS)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise BadLine(f"'max_tokens' must be a whole number above 0, not {tokens!r}")
    return Prompt(name, turns, expected, tokens)


def _tagged(prompt: str) -> tuple[Message, ...]:
    """A prompt written by hand with MyPT's tags, of the newer form or the older one."""
    try:
        return read_prompt(prompt, dialect_named("mypt-legacy"))[0]
    except DataError as problem:
        raise BadLine(str(problem)) from None


# Asking


class Asking:
    """The prompts of a stage, and the file in which it notes what was said."""

    def __init__(self, prompts: Sequence[Prompt], work: Path, tools: Mapping[str, Tool]) -> None:
        self.prompts, self.path, self.tools = tuple(prompts), work / SAID, tools

    def ask(self, step: int, sampler: Sampler, ledger: Ledger) -> None:
        """Asks everything greedily and notes it, in the file and in the ledger.

        Rows of this step and of later ones, which a run that was killed had noted, are replaced.

        Raises:
            StoreError: the disk refuses, or the file is not what was written there.
        """
        tasks = [
            Task(prompt.name, prompt.expected or "", prompt.messages, max_tokens=prompt.max_tokens)
            for prompt in self.prompts
        ]
        heard = converse(sampler, tasks, tools=self.tools)
        rows = [
            _row(step, prompt, trace, sampler)
            for prompt, trace in zip(self.prompts, heard, strict=True)
        ]
        kept = [row for row in read_rows(self.path) if row["step"] < step]
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in [*kept, *rows])
        replace_atomically(self.path, text.encode())
        _tell(step, rows, ledger)


def _row(step: int, prompt: Prompt, trace: Trace, sampler: Sampler) -> dict[str, Any]:
    exact = trace.reply == prompt.expected and trace.finish_reason == "stop" and not trace.problems
    return {
        "step": step,
        "name": prompt.name,
        "prompt": "\n".join(
            turn.content if turn.role == "user" else f"{turn.role}: {turn.content}"
            for turn in prompt.messages
        ),
        "expected": prompt.expected,
        "output": sampler.template.spell(trace.ids),
        "reply": trace.reply,
        "finish_reason": trace.finish_reason,
        "problems": list(trace.problems),
        "error": trace.error,
        "as_expected": None if prompt.expected is None else exact,
    }


def _tell(step: int, rows: Sequence[Mapping[str, Any]], ledger: Ledger) -> None:
    known = [row["as_expected"] for row in rows if row["as_expected"] is not None]
    values: dict[str, float] = {"prompts/distinct": len({row["output"] for row in rows})}
    if known:
        values["prompts/as_expected"] = sum(known) / len(known)
    ledger.row(step - 1, values)
    told = [
        (
            row["name"],
            _short(row["prompt"]),
            _short(row["error"] or row["reply"]),
            "" if row["expected"] is None else _short(row["expected"]),
            {None: "", True: "yes", False: "no"}[row["as_expected"]],
        )
        for row in rows
    ]
    head = ("prompt", "asked", "said", "expected", "as expected")
    ledger.table(f"{ledger.stage}: step {step}: eval prompts", head, told)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} …"
