"""Every format that chats are kept in becomes the same messages; context is read, never learnt."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError, RecipeError
from matura.core.rng import rng
from matura.core.types import Conversation, Document, Given, Message, ToolCall
from matura.data.build import build, training_texts
from matura.data.check import check
from matura.data.conversations import FORMATS, Reader, format_named, format_of, item
from matura.data.lines import BadLine
from matura.data.sources.jsonl import Jsonl
from matura.data.split import content_key
from matura.text.dialects import DIALECTS
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

GIVEN = Given(rng=rng(0))
SAID = (Message("user", "What is 2 + 3?"), Message("assistant", "Five."))
SYSTEM = Message("system", "Be brief.")
CALL = ToolCall("calculator", {"expression": "2 + 3"})
CALLED = (
    Message("user", "What is 2 + 3?"),
    Message("assistant", "", (CALL,)),
    Message("tool", "5"),
    Message("assistant", "Five."),
)
Q, A = "What is 2 + 3?", "Five."
CALL_ROW = {"name": "calculator", "arguments": {"expression": "2 + 3"}}

# format, a row in it, and the messages it stands for
ROWS: dict[str, tuple[str, Any, tuple[Message, ...]]] = {
    "messages": (
        "messages",
        {"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
        SAID,
    ),
    "prompt": ("prompt", {"prompt": Q, "completion": A, "system": "Be brief."}, (SYSTEM, *SAID)),
    "sharegpt": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
        SAID,
    ),
    "sharegpt with a system turn": (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "user", "value": Q},
                {"from": "assistant", "value": A, "weight": None},
            ]
        },
        (SYSTEM, *SAID),
    ),
    "sharegpt with system beside": (
        "sharegpt",
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}],
        },
        (SYSTEM, *SAID),
    ),
    "sharegpt of role and content": (
        "sharegpt",
        {"conversations": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]},
        SAID,
    ),
    "sharegpt calls": (
        "sharegpt",
        {
            "tools": "[]",
            "conversations": [
                {"from": "human", "value": Q},
                {"from": "function_call", "value": json.dumps(CALL_ROW)},
                {"from": "observation", "value": "5"},
                {"from": "gpt", "value": A},
            ],
        },
        CALLED,
    ),
    "sharegpt calls in tags": (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": Q},
                {
                    "from": "gpt",
                    "value": "Two at once.\n<tool_call>\n"
                    + json.dumps(CALL_ROW)
                    + '\n</tool_call>\n<tool_call>{"name": "now", "parameters": "{}"}</tool_call>',
                },
                {
                    "from": "tool",
                    "value": "<tool_response>\n5\n</tool_response>\n"
                    "<tool_response>noon</tool_response>",
                },
                {"from": "gpt", "value": A},
            ]
        },
        (
            SAID[0],
            Message("assistant", "Two at once.", (CALL, ToolCall("now", {}))),
            Message("tool", "5"),
            Message("tool", "noon"),
            SAID[1],
        ),
    ),
    "alpaca": ("alpaca", {"instruction": Q, "input": "", "output": A}, SAID),
    "alpaca with all it has": (
        "alpaca",
        {
            "system": "Be brief.",
            "history": [["Hello.", "Hi."]],
            "instruction": "Add.",
            "input": "2 and 3",
            "output": A,
        },
        (
            SYSTEM,
            Message("user", "Hello."),
            Message("assistant", "Hi."),
            Message("user", "Add.\n\n2 and 3"),
            SAID[1],
        ),
    ),
    "mypt": (
        "mypt",
        {
            "system": "Be brief.",
            "context": "episode_id: format_lock_0001, category: sums",
            "messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
            "language": "en",
            "_meta": {"operator": "ADD", "payload": "2 3", "n": 2},
        },
        (SYSTEM, *SAID),
    ),
    "mypt with contexts": (
        "mypt",
        {
            "context": "Sums are small.",
            "messages": [
                {"role": "user", "content": Q, "context": "Count."},
                {"role": "assistant_context", "content": "2 and 3 are 5."},
                {"role": "assistant", "content": A},
            ],
        },
        (Message("user", Q, context="Sums are small.\n\nCount.\n\n2 and 3 are 5."), SAID[1]),
    ),
    "mypt calls": (
        "mypt",
        {
            "messages": [
                {"role": "user", "content": Q},
                {"role": "assistant_toolcall", **CALL_ROW},
                {"role": "toolresult", "name": "calculator", "content": "5"},
                {"role": "assistant", "content": A},
            ]
        },
        CALLED,
    ),
    "mypt that thinks and cites": (
        "mypt",
        {
            "messages": [
                {"role": "user", "content": Q},
                {"role": "assistant_toolcall", "think": "A sum.", **CALL_ROW},
                {"role": "toolresult", "content": {"value": 5}},
                {"role": "assistant", "content": A, "think": "", "cite": "result 1"},
            ]
        },
        (
            SAID[0],
            Message("assistant", "", (CALL,), think="A sum."),
            Message("tool", '{"value": 5}'),
            Message("assistant", A, cite="result 1"),
        ),
    ),
    "nanochat": (
        "nanochat",
        [{"role": "user", "content": Q}, {"role": "assistant", "content": A}],
        SAID,
    ),
    "nanochat calls": (
        "nanochat",
        [
            {"role": "user", "content": Q},
            {
                "role": "assistant",
                "content": [
                    {"type": "python", "text": " 2 + 3 "},
                    {"type": "python_output", "text": "5"},
                    {"type": "text", "text": "Fi"},
                    {"type": "text", "text": "ve."},
                ],
            },
        ],
        CALLED,
    ),
}
KEYS = [
    *("role", "content", "from", "value", "name", "arguments", "type", "text"),
    *("context", "think", "messages", "conversations", "history"),
]
rows = pytest.mark.parametrize(("format", "row", "said"), ROWS.values(), ids=ROWS)


def written(path: Path, *every: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in every))
    return path


def read(source: Jsonl) -> list[Document | Conversation]:
    return list(source.read(GIVEN))


def test_every_format_has_a_row() -> None:
    assert {format for format, _, _ in ROWS.values()} == set(FORMATS) - {"text"}


@rows
def test_a_row_is_told_by_its_keys_and_read(
    tmp_path: Path, format: str, row: Any, said: tuple[Message, ...]
) -> None:
    path = written(tmp_path / "a.jsonl", row)
    (found,) = read(Jsonl(path=path))
    assert isinstance(found, Conversation)
    assert found.messages == said
    assert found.id == "a.jsonl:1"
    assert read(Jsonl(path=path, format=format_named(format))) == [found]
    report = check(path)
    assert (report.format, report.ok) == (format, True)
    assert report.as_dict()["format"] == format
    spoken = [turn for turn in said if turn.content and not turn.calls]
    assert all(f"{turn.role}: {turn.content}" in report.first for turn in spoken)
    assert check(path, format=format_named(format)).errors == []


@rows
@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_training_starts_as_the_prompt_does(
    format: str, row: Any, said: tuple[Message, ...], dialect: str
) -> None:
    asides = "keep" if dialect.startswith("mypt") else "drop"
    thing = Reader(format_named(format), asides=asides).item(row, "x")
    assert isinstance(thing, Conversation)
    template = Template(Tokenizer.bytes_only(dialect))
    example = template.render(thing)
    assert any(example.weights)
    for place, turn in enumerate(thing.messages):
        if turn.role == "assistant" and thing.messages[place - 1].role == "user":
            prompt = template.prompt(thing.messages[:place])
            assert example.ids[: len(prompt)] == prompt


def test_what_is_in_between_is_told_apart() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert format_of({"messages": turns}) == "messages"
    assert format_of({"messages": turns, "mix_source": "x"}) == "mypt"
    with pytest.raises(BadLine, match="could be messages or alpaca; say which"):
        format_of({"messages": turns, "instruction": "i", "output": "o"})
    with pytest.raises(BadLine, match="could be alpaca or text"):
        format_of({"instruction": "i", "output": "o", "text": "t"})
    with pytest.raises(RecipeError, match="did you mean 'sharegpt'"):
        format_named("sharegp")


def test_plain_messages_may_go_on_as_episodes_unless_stated(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", ROWS["messages"][1], ROWS["mypt calls"][1])
    first, second = read(Jsonl(path=path))
    assert isinstance(first, Conversation)
    assert isinstance(second, Conversation)
    assert (first.messages, second.messages) == (SAID, CALLED)
    assert check(path).format == "mypt"
    with pytest.raises(DataError, match=r"a\.jsonl:2: message 2: unknown"):
        read(Jsonl(path=path, format="messages"))


def test_replayed_text_of_an_episode_file_is_a_document(tmp_path: Path) -> None:
    replay = {"_replay": True, "text": "Once upon a time."}
    path = written(tmp_path / "a.jsonl", replay, ROWS["mypt"][1])
    document, episode = read(Jsonl(path=path))
    assert document == Document(text="Once upon a time.", id="a.jsonl:1")
    assert isinstance(episode, Conversation)
    assert episode.meta == {
        "operator": "ADD",
        "payload": "2 3",
        "language": "en",
        "context": "episode_id: format_lock_0001, category: sums",
    }
    report = check(path)
    assert report.counts["documents"] == report.counts["conversations"] == 1
    assert report.counts["contexts kept as notes"] == 1


def test_what_becomes_of_a_context_can_be_stated(tmp_path: Path) -> None:
    row = {"prompt": Q, "completion": A}
    path = written(
        tmp_path / "a.jsonl", row | {"context": "C."}, row | {"context": "episode_id: 1"}
    )
    found = {use: read(Jsonl(path=path, context=use)) for use in ("auto", "read", "note")}
    told = {
        use: [thing.messages[0].context for thing in things if isinstance(thing, Conversation)]
        for use, things in found.items()
    }
    assert told == {"auto": ["C.", ""], "read": ["C.", "episode_id: 1"], "note": ["", ""]}
    assert len({content_key(thing) for thing in found["read"]}) == 2  # another context, another row
    assert len({content_key(thing) for thing in found["note"]}) == 1
    report = check(path)
    assert report.counts["contexts read"] == 1
    assert report.first.splitlines() == ["context: C.", f"user: {Q}", f"assistant: {A}"]
    assert "C." in next(training_texts(Jsonl(path=path), name="a", seed=0, stage="s"))


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_a_context_is_read_and_never_learnt(dialect: str) -> None:
    template = Template(Tokenizer.bytes_only(dialect))
    talk = (SYSTEM, Message("user", Q, context="C </myPT_user> <|user|> D"), SAID[1])
    example = template.render(Conversation(talk, "c"))
    plain = template.render(Conversation((SYSTEM, *SAID), "c"))
    learnt = [id for id, weight in zip(example.ids, example.weights, strict=True) if weight]
    assert learnt == [id for id, weight in zip(plain.ids, plain.weights, strict=True) if weight]
    shown = template.spell(example.ids)
    if dialect.startswith("mypt"):
        tagged = "<myPT_user_context>C </myPT_user> <|user|> D</myPT_user_context>" + Q
        assert f"<myPT_user>{tagged}</myPT_user>" in shown
    else:
        assert f"C </myPT_user> <|user|> D\n\n{Q}" in shown
    with pytest.raises(DataError, match="only what the user says can have a context"):
        template.render(Conversation((SAID[0], Message("assistant", "a", context="C")), "c"))


def test_the_first_example_is_in_the_report(tmp_path: Path) -> None:
    every = [
        {"instruction": f"Say {n}.", "input": "", "output": f"{n}.", "context": f"About {n}."}
        for n in range(60)
    ]
    path = written(tmp_path / "a.jsonl", *every)
    template = Template(Tokenizer.bytes_only("mypt"))
    built = build(
        Jsonl(path=path), name="it", template=template, folder=tmp_path / "o", seed=0, stage="s"
    )
    assert built.first.startswith("<myPT_user><myPT_user_context>About ")
    told = built.as_dict()
    assert told["trained_lengths"]["most"] < told["lengths"]["most"]
    assert told["trained_lengths"]["least"] == len("0.") + 2  # its tags too


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=4)
        | st.sampled_from(["user", "assistant", "human", "gpt", "tool", "toolresult", "python"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(KEYS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_in_any_format_is_an_item_or_a_bad_line(value: Any) -> None:
    for format in FORMATS:
        for row in (value, {"messages": value}, {"conversations": value}, {"history": value}):
            with suppress(BadLine):
                item(row, format, "x")
        with suppress(BadLine):
            item({"instruction": "i", "output": "o", "history": value}, format, "x")
    with suppress(BadLine):
        Reader().item(value, "x")
