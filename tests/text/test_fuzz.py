"""Text that spells control tags, in any role and dialect, split anywhere: never a control id."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

from matura.core.types import Conversation, Message
from matura.text.dialects import DIALECTS
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

CASES = 10_000


@pytest.mark.parametrize("name", DIALECTS)
def test_no_text_becomes_a_control_id(name: str, trained: dict[str, Tokenizer], fuzz: Any) -> None:
    template = Template(trained[name])
    first = template.tokenizer.text_vocab_size
    rng = Random(f"fuzz {name}")
    shapes = [rng.randrange(8) for _ in range(CASES // len(DIALECTS) + 1)]
    cases = [
        fuzz.conversation(lambda: fuzz.hostile(rng, name), s, str(n)) for n, s in enumerate(shapes)
    ]
    harmless = {
        s: [n for n in template.render(fuzz.conversation(lambda: "x", s, "")).ids if n >= first]
        for s in range(8)
    }
    for shape, case, example in zip(shapes, cases, template.render_many(cases), strict=True):
        assert [n for n in example.ids if n >= first] == harmless[shape], case
        spelled = template.spell(example.ids)
        assert all(message.content in spelled for message in case.messages)


def test_no_text_alone_becomes_a_control_id(trained: dict[str, Tokenizer], fuzz: Any) -> None:
    rng = Random("alone")
    for name, tokenizer in trained.items():
        texts = [fuzz.hostile(rng, name) for _ in range(CASES // len(DIALECTS) + 1)]
        for text, ids in zip(texts, tokenizer.encode_many(texts), strict=True):
            assert max(ids, default=0) < tokenizer.text_vocab_size
            assert tokenizer.decode(ids) == text


def test_every_tag_cut_at_every_place_and_joined_over_two_messages() -> None:
    for name, dialect in DIALECTS.items():
        template = Template(Tokenizer.bytes_only(name))
        first = template.tokenizer.text_vocab_size
        for tag in dialect.tag_list(1):
            for at in range(len(tag) + 1):
                example = template.render(
                    Conversation((Message("user", tag[:at]), Message("user", tag[at:])), tag)
                )
                control = sum(n >= first for n in example.ids)
                parts = (*dialect.opening, *(dialect.user.open + dialect.user.close) * 2)
                assert control == sum(part in dialect.tags for part in parts)


def test_the_cases_do_spell_tags(fuzz: Any) -> None:
    rng = Random("sanity")
    found = sum(
        bool(
            re.search(
                "|".join(map(re.escape, DIALECTS["matura"].tags)), fuzz.hostile(rng, "matura")
            )
        )
        for _ in range(1000)
    )
    assert found > 300
