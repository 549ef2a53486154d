"""A decoder as a stock Hugging Face folder: `transformers` loads it unchanged, and so do we."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from matura.core.errors import StoreError
from matura.models.decoder import Decoder, DecoderConfig

WEIGHTS, CONFIG, GENERATION = "model.safetensors", "config.json", "generation_config.json"
CONVOLUTION, ATTENTION = "conv", "full_attention"
LFM2_NAMES = {
    "input_layernorm": "operator_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "self_attn.o_proj": "self_attn.out_proj",
    "self_attn.q_norm": "self_attn.q_layernorm",
    "self_attn.k_norm": "self_attn.k_layernorm",
    "model.norm.": "model.embedding_norm.",
}
"""Ours are Llama's; what LFM2 calls the same things."""


def save(
    model: Decoder, folder: Path, *, bos_id: int, stop_ids: tuple[int, ...], pad_id: int
) -> None:
    """`config.json`, `model.safetensors` (fp32) and `generation_config.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        _their_name(name, model.config): w.detach().contiguous()
        for name, w in model.named_parameters()
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    tokens = {"bos_token_id": bos_id, "eos_token_id": list(stop_ids), "pad_token_id": pad_id}
    _write(folder / CONFIG, spell_config(model.config) | tokens)
    _write(folder / GENERATION, {"do_sample": False, **tokens})


def spell_config(config: DecoderConfig) -> dict[str, Any]:
    """The config as Hugging Face spells it: LFM2 where some layers are convolutions, Qwen3 where
    queries and keys are normalised, Llama otherwise."""
    kind, name = ("qwen3", "Qwen3ForCausalLM") if config.qk_norm else ("llama", "LlamaForCausalLM")
    more: dict[str, Any] = {}
    if config.conv_layers:
        kind, name = "lfm2", "Lfm2ForCausalLM"
        more = {
            "layer_types": [
                CONVOLUTION if layer in config.conv_layers else ATTENTION
                for layer in range(config.layers)
            ],
            "conv_L_cache": config.conv_width,
            "conv_bias": False,
            "norm_eps": config.norm_eps,
            "block_auto_adjust_ff_dim": False,  # else another intermediate_size would be made of it
        }
    return {
        "architectures": [name],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.inner_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.sequence_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "torch_dtype": "float32",
        **more,
    }


def read_config(folder: Path) -> DecoderConfig:
    """The shape of the model in a folder.

    Raises:
        StoreError: no config, or one of a shape that Matura does not build.
    """
    path = folder / CONFIG
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise StoreError(f"{path}: no readable model config: {problem}") from problem
    kind = said.get("model_type") if isinstance(said, dict) else None
    if kind not in ("llama", "qwen3", "lfm2"):
        raise StoreError(f"{path}: model_type {kind!r} is not supported (llama, qwen3, lfm2)")
    rope = said.get("rope_parameters") or said.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise StoreError(f"{path}: rope_parameters must be an object, not {rope!r}")
    scaling = rope.get("rope_type", rope.get("type", "default"))  # `type` until transformers 4.45
    if scaling != "default":
        raise StoreError(f"{path}: rope_type {scaling!r} is not supported (default)")
    if said.get("attention_bias") or said.get("mlp_bias") or said.get("conv_bias"):
        raise StoreError(f"{path}: biases are not supported")
    if said.get("use_sliding_window"):
        raise StoreError(f"{path}: a sliding window is not supported")
    if (act := said.get("hidden_act", "silu")) != "silu":
        raise StoreError(f"{path}: hidden_act {act!r} is not supported (silu)")
    try:
        return DecoderConfig(
            vocab_size=said["vocab_size"],
            hidden_size=said["hidden_size"],
            layers=said["num_hidden_layers"],
            heads=said["num_attention_heads"],
            kv_heads=said.get("num_key_value_heads") or said["num_attention_heads"],
            head_dim=said.get("head_dim"),
            intermediate_size=said["intermediate_size"],
            sequence_length=said["max_position_embeddings"],
            rope_theta=said.get("rope_theta") or rope.get("rope_theta", 10_000.0),
            qk_norm=kind != "llama",
            tie_embeddings=bool(said.get("tie_word_embeddings", False)),
            norm_eps=said.get("norm_eps" if kind == "lfm2" else "rms_norm_eps", 1e-6),
            **(_convolutions(path, said) if kind == "lfm2" else {}),
        )
    except KeyError as problem:
        raise StoreError(f"{path}: the config lacks {problem}") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the shape"
        raise StoreError(f"{path}: the config misstates {where}: {first['msg']}") from problem


def _convolutions(path: Path, said: dict[str, Any]) -> dict[str, Any]:
    """Which layers of an LFM2 are convolutions, and how wide those are."""
    if said.get("block_auto_adjust_ff_dim", True):
        raise StoreError(f"{path}: block_auto_adjust_ff_dim is not supported: state the width")
    kinds = said["layer_types"]
    if not isinstance(kinds, list) or not {*map(str, kinds)} <= {CONVOLUTION, ATTENTION}:
        raise StoreError(f"{path}: layer_types must be a list of {CONVOLUTION!r}, {ATTENTION!r}")
    if len(kinds) != said["num_hidden_layers"]:
        raise StoreError(f"{path}: {len(kinds)} layer_types for {said['num_hidden_layers']} layers")
    return {
        "conv_layers": tuple(n for n, kind in enumerate(kinds) if kind == CONVOLUTION),
        "conv_width": said.get("conv_L_cache", 3),
    }


def _their_name(name: str, config: DecoderConfig) -> str:
    """What a weight of ours is called in the folder."""
    if config.conv_layers:
        for ours, theirs in LFM2_NAMES.items():
            name = name.replace(ours, theirs)
    return name


def load(folder: Path) -> Decoder:
    """The model in a folder, fp32.

    Raises:
        StoreError: a file is missing, or weights do not fit the config.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    if not path.exists() and list(folder.glob("*.bin")):
        raise StoreError(f"{folder}: pickled weights are not read; convert them to safetensors")
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as problem:
        raise StoreError(f"{path}: no readable weights: {problem}") from problem
    model = Decoder(config)
    own = {_their_name(name, config): weight for name, weight in model.named_parameters()}
    if config.tie_embeddings:
        found.pop("lm_head.weight", None)
    if found.keys() != own.keys():
        raise StoreError(f"{path}: weights differ in {sorted(found.keys() ^ own.keys())[:5]}")
    with torch.no_grad():
        for name, weight in own.items():
            if found[name].shape != weight.shape:
                raise StoreError(
                    f"{path}: {name} is {tuple(found[name].shape)}, "
                    f"the config says {tuple(weight.shape)}"
                )
            weight.copy_(found[name].float())
    return model.eval()


def weights_sha256(folder: Path) -> str:
    """The hash of the weights' file: what a score is proved against."""
    path = folder / WEIGHTS
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise StoreError(f"{path}: no readable weights: {problem}") from problem


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
