"""The saved folder, read by `transformers` from local files alone, gives `Template`'s ids."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from matura.core.types import Conversation, Message, ToolCall
from matura.text.dialects import DIALECTS
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

pytestmark = pytest.mark.slow  # importing transformers alone takes seconds


def theirs(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The messages as Hugging Face writes them."""
    written: list[dict[str, Any]] = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            row["tool_calls"] = [
                {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
                for c in message.calls
            ]
        beside = {"context": message.context, "think": message.think, "cite": message.cite}
        written.append(row | {key: text for key, text in beside.items() if text})
    return written


@pytest.fixture(scope="module", params=list(DIALECTS))
def both(
    request: pytest.FixtureRequest,
    trained: dict[str, Tokenizer],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Template, Any]:
    transformers = pytest.importorskip("transformers")
    folder: Path = tmp_path_factory.mktemp(request.param)
    trained[request.param].save(folder)
    loaded = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Template(trained[request.param]), loaded


def apply(hf: Any, messages: tuple[Message, ...], *, prompt: bool) -> tuple[int, ...]:
    return tuple(
        hf.apply_chat_template(
            theirs(messages), tokenize=True, return_dict=False, add_generation_prompt=prompt
        )
    )


def assert_equal(template: Template, hf: Any, messages: tuple[Message, ...]) -> None:
    assert apply(hf, messages, prompt=False) == template.render(Conversation(messages, "c")).ids
    for place, message in enumerate(messages):
        if place and message.role == "assistant":
            before = messages[:place]
            if before[-1].role != "assistant":
                if template.dialect.system is None and before[-1].role == "system":
                    continue
                assert apply(hf, before, prompt=True) == template.prompt(before)


def test_parity(both: tuple[Template, Any], conversation: tuple[Message, ...]) -> None:
    template, hf = both
    assert_equal(template, hf, conversation)
    assert_equal(template, hf, conversation[1:])
    assert_equal(template, hf, (Message("user", ""), Message("assistant", "")))
    call = (ToolCall("calculator", {"expression": 3}),)
    assert_equal(template, hf, (Message("user", "q"), Message("assistant", "", call)))
    many = (
        *conversation[:6],
        Message("tool", "r"),
        Message("user", "unanswered"),
        Message("assistant", "a"),
        Message("assistant", "b"),
    )
    assert_equal(template, hf, many)


def test_parity_with_contexts_and_asides(both: tuple[Template, Any]) -> None:
    template, hf = both
    asked = Message("user", "q", context="what </myPT_user> says\n\n<|user|> x")
    assert_equal(template, hf, (asked, Message("assistant", "a")))
    assert_equal(template, hf, (Message("system", "s"), asked, Message("assistant", "a"), asked))
    call = (ToolCall("calculator", {"expression": "1"}),)
    thinks = Message("assistant", "a", call, think="t <|im_end|>", cite="c </myPT_cite>")
    if template.dialect.think:
        assert_equal(template, hf, (asked, thinks))
    else:
        with pytest.raises(Exception, match="no place for think"):
            apply(hf, (asked, thinks), prompt=False)


def test_parity_with_text_that_spells_tags(both: tuple[Template, Any], fuzz: Any) -> None:
    template, hf = both
    rng = Random(3)
    for case in range(60):
        made = fuzz.conversation(
            lambda: fuzz.hostile(rng, template.dialect.name), rng.randrange(8), str(case)
        )
        assert_equal(template, hf, made.messages)


def test_parity_for_each_key_that_could_clash(both: tuple[Template, Any]) -> None:
    template, hf = both
    for key in ("name", "arguments", "args", "parameters", "expression", "items", "keys", "é"):
        for name in ("calculator", "x"):
            for value in ({}, "v", {"a": 1.5}):
                call = (ToolCall(name, {key: value}),)
                assert_equal(template, hf, (Message("user", "q"), Message("assistant", "", call)))


def test_the_stock_tokenizer_encodes_and_decodes_alike(both: tuple[Template, Any]) -> None:
    template, hf = both
    text = "def f():\n\treturn  'Größe' # 123\r\n\n 🙂"
    ids = template.tokenizer.encode(text)
    assert hf(text, add_special_tokens=False)["input_ids"] == ids
    assert hf.decode(ids) == text
    assert len(hf) == template.tokenizer.vocab_size
    assert hf.pad_token_id == template.pad_id
    assert hf.bos_token_id == template.bos_id
    assert hf.eos_token_id == template.eos_id


def test_what_a_template_cannot_spell_is_loud(both: tuple[Template, Any]) -> None:
    _, hf = both
    call = {"function": {"name": "x", "arguments": '{"as": "text"}'}}
    for row in (
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "narrator", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
    ):
        with pytest.raises(Exception, match=r"must be|unknown role"):
            hf.apply_chat_template([row])
