"""A base model's tokenizer learns one of our dialects; ordinary text keeps its ids."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from foreign import foreign, sentence

from matura.core.errors import DataError, RecipeError
from matura.core.types import Conversation, Message
from matura.text.dialects import DIALECTS
from matura.text.folder import template_in, template_of, tokenizer_in
from matura.text.imported import ImportedTokenizer
from matura.text.taught import places, speaking


def base(at: Path, form: str = "headers") -> ImportedTokenizer:
    found = tokenizer_in(foreign(at, form, chat_template=None))
    assert isinstance(found, ImportedTokenizer)
    return found


def test_tags_that_are_there_stay_and_reserved_ones_come_before_new_ones(tmp_path: Path) -> None:
    own = base(tmp_path / "own")
    found = places(own, "llama3")
    reserved = [own.control[f"<|reserved_special_token_{n}|>"] for n in range(4)]
    assert found == dict(
        zip(["<|finetune_right_pad_id|>", "<|eom_id|>", "<|python_tag|>"], reserved, strict=False)
    )
    taught = speaking(own, "llama3")
    assert taught.control["<|eot_id|>"] == own.control["<|eot_id|>"]
    assert taught.vocab_size == own.vocab_size
    wider = speaking(own, "matura")
    assert wider.vocab_size == own.vocab_size + len(DIALECTS["matura"].tags) - 4
    rng = Random(1)
    for _ in range(30):
        text = sentence(rng) + "<|user|>"
        assert wider.decode(wider.encode(text)) == text
        assert not set(wider.control.values()) & set(wider.encode(text))
        plain = sentence(rng)
        assert wider.encode(plain) == own.encode(plain)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["matura", "chatml", "llama3"])
def test_transformers_renders_the_same(dialect: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    taught = speaking(base(tmp_path / "own"), dialect)
    taught.save(tmp_path / "taught")
    again = template_in(tmp_path / "taught")
    assert again.name == dialect
    assert again.tokenizer.sha256 == taught.sha256
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "taught", local_files_only=True)
    rng = Random(2)
    for case in range(40):
        messages = (
            Message("user", sentence(rng) + rng.choice(list(taught.control))),
            Message("assistant", sentence(rng)),
        )
        rows = [{"role": m.role, "content": m.content} for m in messages]
        ids = theirs.apply_chat_template(rows, tokenize=True, return_dict=False)
        assert tuple(ids) == again.render(Conversation(messages, str(case))).ids
    assert template_of(taught).stop_ids == again.stop_ids


def test_what_cannot_be_taught_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="speaks no dialect but its model's own"):
        speaking(base(tmp_path, "instructions"), "matura")
    with pytest.raises(RecipeError, match="no dialect 'chatlm'"):
        speaking(base(tmp_path), "chatlm")
