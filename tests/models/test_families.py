"""Each family of open models computes what `transformers` computes, and stays what it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import some_ids
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from matura.core.errors import StoreError
from matura.models import hf
from matura.models.attending import attend_written
from matura.models.decoder import Cache, Decoder

VOCAB, LENGTH = 61, 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
    "rope_theta": 500.0,
}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama2": lambda: LlamaConfig(**SIZES, rms_norm_eps=1e-5),
    "llama3": lambda: LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "llama linear": lambda: LlamaConfig(**SIZES, rope_parameters=LINEAR),
    "llama biased": lambda: LlamaConfig(**SIZES, attention_bias=True),
    "qwen2": lambda: Qwen2Config(**SIZES, rope_parameters={"rope_theta": 1e6}),
    "qwen2 tied": lambda: Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
    "smollm2": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True, rms_norm_eps=1e-5),
    "mistral": lambda: MistralConfig(**SIZES, head_dim=8, sliding_window=None),
    "mistral, wide window": lambda: MistralConfig(**SIZES, head_dim=8, sliding_window=LENGTH),
}


def theirs(folder: Path, config: PreTrainedConfig, **how: Any) -> nn.Module:
    """A model with random weights everywhere, norms and biases too, saved in `folder`."""
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            centre = 1.0 if weight.ndim == 1 else 0.0
            weight.normal_(centre, 0.2, generator=generator)
    model.save_pretrained(folder, **how)
    return model


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(ids).logits
    return found


def cached(model: Decoder, ids: Tensor, cut: int) -> Tensor:
    """Logits of a prompt read at once and then one id after the other."""
    cache = Cache.empty(model.config, len(ids), ids.shape[1])
    places = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        parts = [model.forward_cached(ids[:, :cut], places[:, :cut], cache, span=cut)]
        for at in range(cut, ids.shape[1]):
            new = slice(at, at + 1)
            parts.append(model.forward_cached(ids[:, new], places[:, new], cache, span=at + 1))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_theirs_cached_and_uncached(name: str, tmp_path: Path) -> None:
    other = theirs(tmp_path, FAMILIES[name]())
    ours = hf.load(tmp_path)
    assert ours.config.parameters == sum(p.numel() for p in other.parameters())
    ids = some_ids(2, LENGTH, vocab=VOCAB)
    want = logits(other, ids)
    assert want.std() > 0.1
    torch.testing.assert_close(ours(ids), want, rtol=0, atol=1e-4)
    torch.testing.assert_close(cached(ours, ids, 40), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_answers_to_a_hundred_prompts_are_theirs(name: str, tmp_path: Path) -> None:
    """Whole rows read anew for every id, and one id at a time with what was read kept."""
    other: Any = theirs(tmp_path, FAMILIES[name]())
    ours = hf.load(tmp_path)
    prompts = some_ids(100, 8, vocab=VOCAB, seed=3)
    other.generation_config.eos_token_id = None
    want = other.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=24, do_sample=False
    )
    torch.testing.assert_close(ours(want), logits(other, want), rtol=0, atol=1e-4)
    rows = prompts
    with torch.no_grad():
        for _ in range(24):
            rows = torch.cat([rows, ours(rows)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(rows, want)
    picked = cached(ours, want[:, :-1], 8)[:, 7:].argmax(-1)
    assert torch.equal(picked, want[:, 8:])


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_again_it_is_the_same_stock_architecture(name: str, tmp_path: Path) -> None:
    other = theirs(tmp_path / "theirs", FAMILIES[name]())
    ours = hf.load(tmp_path / "theirs")
    hf.save(ours, tmp_path / "ours", bos_id=None, stop_ids=(1, 2), pad_id=0)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", local_files_only=True, dtype=torch.float32
    ).eval()
    assert type(again) is type(other)
    ids = some_ids(2, LENGTH, vocab=VOCAB)
    torch.testing.assert_close(logits(again, ids), logits(other, ids), rtol=0, atol=1e-6)
    assert hf.spell_config(hf.load(tmp_path / "ours").config) == hf.spell_config(ours.config)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama2", "qwen2 tied"])
def test_shards_and_half_precision(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    whole = theirs(tmp_path / "whole", FAMILIES[name]()).to(dtype)
    whole.save_pretrained(tmp_path / "cut", max_shard_size="8KB")  # type: ignore[operator]
    assert (tmp_path / "cut" / hf.INDEX).is_file()
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 2
    ours = hf.load(tmp_path / "cut")
    for name_, weight in ours.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, whole.get_parameter(name_).float())
    before = hf.weights_sha256(tmp_path / "cut")
    changed = sorted((tmp_path / "cut").glob("*.safetensors"))[-1]
    found = load_file(changed)
    save_file({key: value + 1 for key, value in found.items()}, changed)
    assert hf.weights_sha256(tmp_path / "cut") != before


def test_biases_have_the_same_gradients_packed_and_by_hand(tmp_path: Path) -> None:
    """The training path: segments, and attention with its gradient written out."""
    other = theirs(tmp_path, FAMILIES["qwen2"]())
    ids = some_ids(2, 32, vocab=VOCAB)
    other(ids).logits.logsumexp(-1).sum().backward()
    ours = hf.load(tmp_path)
    segments = torch.ones(2, 32, dtype=torch.long)
    hidden = ours.hidden(ids, segments_BT=segments, attend=attend_written)
    ours.head(hidden).logsumexp(-1).sum().backward()
    for name, weight in ours.named_parameters():
        want = other.get_parameter(name).grad
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, want, rtol=1e-3, atol=1e-3)
    packed = torch.cat([ids[:1], ids[1:]], dim=1)
    halves = torch.tensor([[1] * 32 + [2] * 32])
    places = torch.arange(32).repeat(2)[None]
    with torch.no_grad():
        together = ours(packed, positions_BT=places, segments_BT=halves)
        torch.testing.assert_close(together.view(2, 32, -1), ours(ids), rtol=1e-5, atol=1e-5)


def change(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    said = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in said.items() if v != "gone"}))


CONFIGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "code": ("llama2", {"auto_map": {"AutoModelForCausalLM": "m.X"}}, "auto_map names code"),
    "quantised": ("llama2", {"quantization_config": {"bits": 4}}, "quantised weights are not"),
    "yarn": ("llama2", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn' is not"),
    "dynamic": ("llama2", {"rope_scaling": {"type": "dynamic"}}, "rope_type 'dynamic' is not"),
    "longrope": ("llama2", {"rope_scaling": {"type": 3}}, "rope_type 3 is not"),
    "no factor": ("llama2", {"rope_scaling": {"type": "linear"}}, "the config lacks 'factor'"),
    "odd factor": (
        "llama linear",
        {"rope_parameters": {"rope_type": "linear", "factor": "two"}},
        "misstates stretched.factor",
    ),
    "odd order": (
        "llama3",
        {"rope_parameters": LLAMA3 | {"low_freq_factor": 9.0}},
        "misstates stretched: .*less than",
    ),
    "half a head": ("llama2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    "biased mlp": ("llama2", {"mlp_bias": True}, "mlp_bias"),
    "biased mistral": ("mistral", {"attention_bias": True}, "attention_bias"),
    "window": ("mistral", {"sliding_window": LENGTH - 1}, "sliding window of 95 positions"),
    "usual window": (
        "mistral",
        {"sliding_window": "gone", "max_position_embeddings": 8192},
        "sliding window of 4096",
    ),
    "odd window": ("mistral", {"sliding_window": "no"}, "sliding window of 'no'"),
    "used window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8},
        "sliding window of 8",
    ),
    "sliding layers": (
        "qwen3",
        {"layer_types": ["sliding_attention"] * 2, "sliding_window": 8},
        "sliding window of 8",
    ),
    "text for a number": ("qwen2", {"hidden_size": "32"}, "misstates hidden_size"),
    "truth for a number": ("qwen2", {"num_hidden_layers": True}, "misstates layers"),
    "a number for truth": ("qwen2", {"tie_word_embeddings": 1}, "misstates tie_embeddings"),
    "gemma": ("llama2", {"model_type": "gemma"}, "model_type 'gemma' is not supported"),
    "a list": ("llama2", {"model_type": ["llama"]}, "is not supported"),
}


@pytest.mark.parametrize(("name", "changes", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_configs_that_are_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    theirs(tmp_path, FAMILIES[name]())
    change(tmp_path, hf.CONFIG, **changes)
    with pytest.raises(StoreError, match=message) as caught:
        hf.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / hf.CONFIG))
    assert "\n" not in str(caught.value)


def first_shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def map_to(name: str) -> Callable[[Path], object]:
    """The index that sends one tensor elsewhere."""

    def breaking(folder: Path) -> None:
        said = json.loads((folder / hf.INDEX).read_text())
        said["weight_map"]["model.norm.weight"] = name
        (folder / hf.INDEX).write_text(json.dumps(said))

    return breaking


def stored_as_bytes(folder: Path) -> None:
    found = load_file(first_shard(folder))
    save_file({name: weight.to(torch.int8) for name, weight in found.items()}, first_shard(folder))


def without_one(folder: Path) -> None:
    found = load_file(first_shard(folder))
    found.pop(sorted(found)[0])
    save_file(found or {"x": torch.ones(1)}, first_shard(folder))


def pickled(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / hf.INDEX]:
        path.unlink()
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"\x80\x04")


INDEXES: dict[str, tuple[Callable[[Path], object], str]] = {
    "outside": (map_to("../x.safetensors"), "lies in '../x.safetensors'; expected"),
    "backslash": (map_to("..\\x.safetensors"), "expected a .safetensors file of this folder"),
    "absolute": (map_to("/etc/x.safetensors"), "expected a .safetensors file of this folder"),
    "pickle": (map_to("x.bin"), "lies in 'x.bin'; expected"),
    "not there": (map_to("x.safetensors"), r"lies in x\.safetensors$"),
    "no map": (lambda f: (f / hf.INDEX).write_text("{}"), "has no weight_map"),
    "a list": (lambda f: (f / hf.INDEX).write_text("[]"), "has no weight_map"),
    "no JSON": (lambda f: (f / hf.INDEX).write_text("{"), "no readable index of weights"),
    "shard gone": (lambda f: first_shard(f).unlink(), "00001-of-.*no readable weights"),
    "shard torn": (
        lambda f: first_shard(f).write_bytes(first_shard(f).read_bytes()[:-9]),
        "00001-of-.*no readable weights",
    ),
    "one less": (without_one, "00001-of-.*lacks|holds x"),
    "whole numbers": (stored_as_bytes, "00001-of-.*is stored as int8"),
    "pickled": (pickled, r"pytorch_model-.*bin: pickled weights are not read.*save_pretrained"),
}


@pytest.mark.parametrize(("breaking", "message"), INDEXES.values(), ids=INDEXES.keys())
def test_broken_shards_are_refused_by_name(
    breaking: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    theirs(tmp_path, FAMILIES["llama2"](), max_shard_size="12KB")
    hf.load(tmp_path)
    breaking(tmp_path)
    with pytest.raises(StoreError, match=message) as caught:
        hf.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_out_of_the_folder_is_no_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Caches are made of links, so links are followed; a name that leads elsewhere never is."""
    caplog.set_level(logging.ERROR)
    theirs(tmp_path / "blobs", FAMILIES["llama2"]())
    (tmp_path / "snapshot").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert hf.load(tmp_path / "snapshot").config.vocab_size == VOCAB
