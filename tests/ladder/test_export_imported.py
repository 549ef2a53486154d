"""Models that others made are exported with the same proof as ours, tokenizers and all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import foreign
from gguf import GGUFReader
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from matura.core.errors import UnprovenError
from matura.core.ledger import Ledger
from matura.ladder.asked import Asked, asked
from matura.ladder.export import Exported, Format, published, way
from matura.ladder.models import find

QUIET = Ledger(mode="quiet")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 5e5,
}
FAMILIES: dict[str, tuple[str, Callable[..., PreTrainedConfig]]] = {
    "llama 3": ("headers", lambda **size: LlamaConfig(**SIZES, **size, rope_parameters=LLAMA3)),
    "smollm2": ("chatml", lambda **size: LlamaConfig(**SIZES, **size, tie_word_embeddings=True)),
    "qwen 2.5": (
        "chatml",
        lambda **size: Qwen2Config(**SIZES, **size, rope_parameters={"rope_theta": 1e6}),
    ),
    "qwen 3": (
        "chatml",
        lambda **size: Qwen3Config(**SIZES, **size, head_dim=16, tie_word_embeddings=True),
    ),
    "mistral": (
        "instructions",
        lambda **size: MistralConfig(**SIZES, **size, head_dim=8, sliding_window=None),
    ),
    "mistral, bytes": (
        "headers",
        lambda **size: MistralConfig(**SIZES, **size, head_dim=8, sliding_window=None),
    ),
    "llama 2": ("pipes", lambda **size: LlamaConfig(**SIZES, **size)),
}
PIECES = ("instructions", "pipes")
"""Forms whose tokenizer is a SentencePiece-style one."""


def stock(folder: Path, family: str, *, chats: bool = True) -> Path:
    """A model of that family as a hub has it: the template in the tokenizer's config, rows that no
    token has; or a base model, which has no template."""
    form, config = FAMILIES[family]
    foreign(folder, form, **({} if chats else {"chat_template": None}))
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() + 5
    model = AutoModelForCausalLM.from_config(config(vocab_size=size)).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(float(weight.ndim == 1), 0.2, generator=generator)
    model.save_pretrained(folder)
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    return folder


def exported(
    source: Path,
    into: Path,
    format: Format,
    breaking: Callable[[Path], None] = lambda made: None,
) -> Exported:
    """The export, asked a tenth of what the command asks; with something done to it between
    writing and proving."""
    found = find(source)
    whole = asked(found.template(), 256)
    few = Asked(whole.conversations[::8], whole.prompts[::10], whole.texts[::4])
    write, prove = way(found, few, format, "f32", QUIET)

    def both(made: Path) -> None:
        write(made)
        breaking(made)

    return published(into, {"format": format}, both, prove, QUIET)


def checks(made: Exported) -> dict[str, dict[str, Any]]:
    return {check["check"]: check for check in made.proof["checks"]}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_the_hub_is_exported_as_hf(family: str, tmp_path: Path) -> None:
    made = exported(stock(tmp_path / "source", family), tmp_path / "out", "hf")
    found = checks(made)
    assert found["chat template and tokenizer"]["texts"] >= 10
    assert found["ids by transformers"]["texts"] >= 10
    said = found["answers by transformers"]
    assert said["greedy_equal"] + said["greedy_ties"] == said["prompts"] >= 8
    assert said["largest_difference"] <= 1e-4
    # its template pastes in what is said, tags too: that is told, and never taken for a proof
    assert found["ids by transformers"]["spell_a_tag"] >= 1
    assert any("spells a control tag" in line for line in made.proof["not_checked"])
    assert find(tmp_path / "out").template().chats


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_the_hub_is_exported_as_gguf(family: str, tmp_path: Path) -> None:
    found = checks(exported(stock(tmp_path / "source", family), tmp_path / "out", "gguf"))
    assert found["chat template"]["texts"] >= 10
    assert found["answers after rounding"]["greedy_equal"] >= 8
    form = FAMILIES[family][0]
    assert (found["pieces"] if form in PIECES else found["cutting"])["texts"] > 400
    if form == "instructions":  # a space before every stretch of text, as llama.cpp has it
        assert found["pieces"]["other_ids"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_a_base_model_has_no_chats_to_prove(format: Format, tmp_path: Path) -> None:
    made = exported(stock(tmp_path / "source", "smollm2", chats=False), tmp_path / "out", format)
    found = checks(made)
    assert found["plain text"]["texts"] == found["plain text"]["equal"] >= 10
    assert "chats: the model has no chat template" in made.proof["not_checked"]
    assert not find(tmp_path / "out").template().chats if format == "hf" else True


@pytest.mark.slow
def test_where_the_source_does_not_say_the_ends_of_a_turn_the_export_does(tmp_path: Path) -> None:
    source = stock(tmp_path / "source", "smollm2")
    (source / "generation_config.json").unlink()
    config = json.loads((source / "config.json").read_text()) | {"eos_token_id": None}
    (source / "config.json").write_text(json.dumps(config))
    made = exported(source, tmp_path / "out", "hf")
    end = Tokenizer.from_file(str(source / "tokenizer.json")).token_to_id("<|im_end|>")
    ends = json.loads((made.folder / "generation_config.json").read_text())["eos_token_id"]
    assert ends == sorted(find(source).template().stop_ids)
    assert end in ends


@pytest.mark.slow
def test_a_base_model_of_pieces_is_exported_as_gguf(tmp_path: Path) -> None:
    made = exported(stock(tmp_path / "source", "llama 2", chats=False), tmp_path / "out", "gguf")
    found = checks(made)["pieces"]
    told = next(line for line in made.proof["not_checked"] if "gives other ids" in line)
    assert 0 < found["other_ids"] < found["texts"] / 2
    assert f"{found['other_ids']} of {found['texts']}" in told
    assert "begins with a space, or follows a tag" in told


def scores(folder: Path) -> None:
    field = GGUFReader(folder / "model.gguf", "r+").fields["tokenizer.ggml.scores"]
    for at in (field.data[-1], field.data[-2]):
        field.parts[at][0] += 1


def marking(folder: Path) -> None:
    field = GGUFReader(folder / "model.gguf", "r+").fields["tokenizer.ggml.add_space_prefix"]
    field.parts[field.data[0]][0] = not field.parts[field.data[0]][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (scores, r"tokens do not hold: scores\[\d+\] is"),
        (marking, "add_space_prefix is False, not True"),
    ],
)
def test_a_broken_file_of_pieces_is_never_published(
    breaking: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnprovenError, match=message):
        exported(stock(tmp_path / "source", "mistral"), tmp_path / "out", "gguf", breaking)
    assert not (tmp_path / "out").exists()
