"""Prompts written by hand with tags become messages, and are rendered in today's form."""

from __future__ import annotations

import pytest

from matura.core.errors import DataError
from matura.core.types import Message
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

LEGACY = "<myPT_system>You are MyPT.<myPT_eot>\n<myPT_user>Say hi.<myPT_eot>\n<myPT_assistant>"
CANONICAL = "<myPT_system>You are MyPT.</myPT_system><myPT_user>Say hi.</myPT_user><myPT_assistant>"


def test_the_legacy_prompt_is_rendered_canonically() -> None:
    template = Template(Tokenizer.bytes_only("mypt-legacy"))
    messages, notice = template.from_prompt(LEGACY)
    assert messages == (Message("system", "You are MyPT."), Message("user", "Say hi."))
    assert "</myPT_" in notice
    assert template.spell(template.prompt(messages)) == CANONICAL
    assert template.from_prompt(CANONICAL) == (messages, "")
    turns = "<myPT_user>a</myPT_user><myPT_assistant>b</myPT_assistant><myPT_eot>"
    turns += "<myPT_user>c</myPT_user>"
    assert [m.role for m in template.from_prompt(turns)[0]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("dialect", "prompt"),
    [
        ("mypt", LEGACY),
        ("chatml", CANONICAL),
        ("mypt", "hello"),
        ("mypt", ""),
        ("mypt", "<myPT_user>x"),
        ("mypt", "<myPT_user>x</myPT_system>"),
        ("mypt", "<myPT_user>x</myPT_user> and more"),
        ("mypt", "</myPT_user>"),
        ("mypt", "<myPT_eot>"),
    ],
)
def test_a_prompt_that_cannot_be_read(dialect: str, prompt: str) -> None:
    with pytest.raises(DataError, match="prompt"):
        Template(Tokenizer.bytes_only(dialect)).from_prompt(prompt)
