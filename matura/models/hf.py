"""A decoder as a stock Hugging Face folder: `transformers` loads it unchanged, and so do we."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from matura.core.errors import StoreError
from matura.models.config import CONFIG, read_config, spell_config
from matura.models.decoder import Decoder, DecoderConfig
from matura.models.weights import (
    INDEX,
    WEIGHTS,
    Tensors,
    save_tensors,
    weight_files,
    weights_sha256,
)

__all__ = [
    "CONFIG",
    "GENERATION",
    "INDEX",
    "WEIGHTS",
    "load",
    "read_config",
    "save",
    "spell_config",
    "weight_files",
    "weights_sha256",
]

GENERATION = "generation_config.json"
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
NO_WEIGHTS = (".rotary_emb.inv_freq", ".masked_bias")
"""Endings of tensors that old folders hold although they are computed."""


def save(
    model: Decoder,
    folder: Path,
    *,
    bos_id: int | None,
    stop_ids: tuple[int, ...],
    pad_id: int | None,
    generation: Mapping[str, Any] | None = None,
) -> None:
    """`config.json`, `model.safetensors` (fp32) and `generation_config.json` into `folder`.

    `generation` is how answers are sampled where nobody says; greedily if absent.

    Raises:
        StoreError: the disk refuses the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        their_name(name, model.config): w.detach().contiguous()
        for name, w in model.named_parameters()
    }
    save_tensors(weights, folder / WEIGHTS, metadata={"format": "pt"})
    tokens = {"bos_token_id": bos_id, "eos_token_id": list(stop_ids), "pad_token_id": pad_id}
    _write(folder / CONFIG, spell_config(model.config) | tokens)
    _write(folder / GENERATION, {**(generation or {"do_sample": False}), **tokens})


def their_name(name: str, config: DecoderConfig) -> str:
    """What a weight of ours is called in the folder."""
    if config.conv_layers:
        for ours, theirs in LFM2_NAMES.items():
            name = name.replace(ours, theirs)
    return name


def load(folder: Path) -> Decoder:
    """The model in a folder, fp32, whatever it is stored as.

    Raises:
        StoreError: a file is missing or broken, or weights do not fit the config.
    """
    config = read_config(folder)
    with Tensors(folder) as found:
        model = Decoder(config)
        own = {their_name(name, config): weight for name, weight in model.named_parameters()}
        names = {name for name in found.names() if not name.endswith(NO_WEIGHTS)}
        if config.tie_embeddings:
            names.discard("lm_head.weight")
        if names != own.keys():
            other = sorted(names ^ own.keys())
            raise StoreError(f"{found.file(other[0])}: weights differ in {other[:5]}")
        with torch.no_grad():
            for name, weight in own.items():
                theirs = found.read(name)
                if theirs.shape != weight.shape:
                    raise StoreError(
                        f"{found.file(name)}: {name} is {tuple(theirs.shape)}, "
                        f"the config says {tuple(weight.shape)}"
                    )
                weight.copy_(theirs)
    return model.eval()


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
