"""A saved model is a stock Hugging Face folder, and a broken one is refused in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import shape, some_ids, spread, weights_of
from transformers import AutoModelForCausalLM

from matura.core.errors import StoreError
from matura.models import hf
from matura.models.decoder import Decoder

SHAPES: list[dict[str, Any]] = [
    {},
    {"tie_embeddings": True, "kv_heads": 4},
    {"qk_norm": True},
    {"qk_norm": True, "tie_embeddings": True, "kv_heads": 1, "rope_theta": 1e6},
    {"head_dim": 16, "norm_eps": 1e-5},
    {"qk_norm": True, "conv_layers": (0,), "tie_embeddings": True},
    {"qk_norm": True, "conv_layers": (1,), "conv_width": 4, "kv_heads": 2, "norm_eps": 1e-5},
]


def saved(folder: Path, **more: Any) -> Decoder:
    model = spread(shape(layers=2, **more), seed=5)
    hf.save(model, folder, bos_id=40, stop_ids=(41, 42), pad_id=43)
    return model


@pytest.mark.parametrize("more", SHAPES, ids=str)
def test_transformers_gives_the_same_logits(more: dict[str, Any], tmp_path: Path) -> None:
    """Both ways: it loads what we save, and we load what it saves."""
    ours = saved(tmp_path / "ours", **more)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", local_files_only=True, dtype=torch.float32
    ).eval()
    kind = "Lfm2" if more.get("conv_layers") else "Qwen3" if more.get("qk_norm") else "Llama"
    assert type(theirs).__name__ == f"{kind}ForCausalLM"
    assert sum(p.numel() for p in theirs.parameters()) == ours.config.parameters
    ids = some_ids(2, 32)
    with torch.no_grad():
        want = theirs(ids).logits
        torch.testing.assert_close(ours(ids), want, rtol=1e-5, atol=1e-5)
        theirs.save_pretrained(tmp_path / "theirs")
        again = hf.load(tmp_path / "theirs")
        assert hf.spell_config(again.config) == hf.spell_config(ours.config)
        assert torch.equal(again(ids), ours(ids))


def test_the_tags_travel_with_the_model(tmp_path: Path) -> None:
    saved(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    said = theirs.generation_config
    assert (said.bos_token_id, said.eos_token_id, said.pad_token_id) == (40, [41, 42], 43)
    assert said.do_sample is False


@pytest.mark.parametrize("more", SHAPES, ids=str)
def test_saved_and_loaded_is_the_same_bit_by_bit(more: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path, **more)
    again = hf.load(tmp_path)
    assert hf.spell_config(again.config) == hf.spell_config(model.config)
    assert weights_of(again) == weights_of(model)
    assert not again.training
    content = (tmp_path / hf.WEIGHTS).read_bytes()
    assert hf.weights_sha256(tmp_path) == hashlib.sha256(content).hexdigest()


def config(**changes: Any) -> Callable[[Path], None]:
    """Breaks the config by these keys; None takes one away."""

    def breaking(folder: Path) -> None:
        said = json.loads((folder / hf.CONFIG).read_text()) | changes
        said = {name: value for name, value in said.items() if value is not None}
        (folder / hf.CONFIG).write_text(json.dumps(said))

    return breaking


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Breaks the weights."""

    def breaking(folder: Path) -> None:
        found = load_file(folder / hf.WEIGHTS)
        change(found)
        save_file(found, folder / hf.WEIGHTS)

    return breaking


def pickled(folder: Path) -> None:
    (folder / hf.WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


NORM = "model.norm.weight"
BREAKINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / hf.CONFIG).unlink(), r"config\.json: no readable model config"),
    "no JSON": (lambda f: (f / hf.CONFIG).write_text("{\n\n"), "no readable model config"),
    "a list": (lambda f: (f / hf.CONFIG).write_text("[]"), "model_type None is not supported"),
    "another kind": (config(model_type="gpt2"), "model_type 'gpt2' is not supported"),
    "no width": (config(hidden_size=None), "the config lacks 'hidden_size'"),
    "wrong type": (config(vocab_size="many"), "the config misstates vocab_size: .*integer"),
    "two wrong": (config(vocab_size=-1, hidden_size=0), "the config misstates vocab_size"),
    "wrong heads": (config(num_key_value_heads=3), "misstates the shape: .*multiple"),
    "other positions": (
        config(rope_parameters=None, rope_scaling={"type": "yarn", "factor": 2.0}),
        "rope_type 'yarn' is not supported",
    ),
    "odd positions": (config(rope_parameters=[1]), "rope_parameters must be an object"),
    "biases": (config(mlp_bias=True), "mlp_bias: such biases are not supported in llama"),
    "another act": (config(hidden_act="gelu"), "hidden_act 'gelu' is not supported"),
    "no weights": (lambda f: (f / hf.WEIGHTS).unlink(), "no readable weights"),
    "pickled": (pickled, "pickled weights are not read"),
    "torn": (lambda f: (f / hf.WEIGHTS).write_bytes(b"\1" * 99), "no readable weights"),
    "one missing": (weights(lambda w: w.pop(NORM)), r"weights differ in \['model.norm.weight'\]"),
    "one more": (weights(lambda w: w.update(x=torch.ones(1))), r"weights differ in \['x'\]"),
    "cut": (
        weights(lambda w: w.update({NORM: w[NORM][:5].clone()})),
        r"model.norm.weight is \(5,\), the config says \(32,\)",
    ),
    "other width": (config(intermediate_size=64), r"the config says \(64, 32\)"),
}


@pytest.mark.parametrize(("breaking", "message"), BREAKINGS.values(), ids=BREAKINGS.keys())
def test_a_broken_folder_is_refused_in_one_line(
    breaking: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    saved(tmp_path)
    breaking(tmp_path)
    with pytest.raises(StoreError, match=message) as caught:
        hf.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        hf.load(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="nowhere"):
        hf.weights_sha256(tmp_path / "nowhere")
