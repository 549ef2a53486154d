"""A decoder's shape as `config.json` spells it, both ways: what is written is the stock
architecture that was read.

The surprising thing: whatever would change what the model computes and is not built here is refused
by name. A config is somebody's data; code that it names is never run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from matura.core.errors import StoreError
from matura.models.shape import DecoderConfig

CONFIG = "config.json"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "lfm2")
NAMES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
}
CONVOLUTION, ATTENTION = "conv", "full_attention"
WINDOW = {"mistral": 4096}
"""What `transformers` takes for a `sliding_window` that the config leaves out."""
SCALED = {
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_length",
}
"""Theirs and ours, of llama3 positions."""


def family(config: DecoderConfig) -> str:
    """The `model_type` that such a shape has."""
    if config.conv_layers:
        return "lfm2"
    if config.qk_norm:
        return "qwen3"
    return "qwen2" if config.biases == "inputs" else config.family


def spell_config(config: DecoderConfig) -> dict[str, Any]:
    """The config as Hugging Face spells it: LFM2 where some layers are convolutions, Qwen3 where
    queries and keys are normalised, Qwen2 where they are biased, else Llama or Mistral."""
    kind = family(config)
    rope = _spell_rope(config)
    more: dict[str, Any] = {}
    if config.stretched is not None:
        more["rope_scaling"] = {name: v for name, v in rope.items() if name != "rope_theta"}
    if kind == "lfm2":
        more |= {
            "layer_types": [
                CONVOLUTION if layer in config.conv_layers else ATTENTION
                for layer in range(config.layers)
            ],
            "conv_L_cache": config.conv_width,
            "conv_bias": False,
            "norm_eps": config.norm_eps,
            "block_auto_adjust_ff_dim": False,  # else another intermediate_size would be made of it
        }
    if kind == "mistral":
        more["sliding_window"] = None  # else 4096
    if kind in ("qwen2", "qwen3"):
        more["use_sliding_window"] = False
    return {
        "architectures": [NAMES[kind]],
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
        "rope_parameters": rope,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": config.biases == "all",
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "torch_dtype": "float32",
        **more,
    }


def _spell_rope(config: DecoderConfig) -> dict[str, Any]:
    spelled: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if (how := config.stretched) is not None:
        spelled |= {"rope_type": how.kind, "factor": how.factor}
        if how.kind == "llama3":
            spelled |= {theirs: getattr(how, ours) for theirs, ours in SCALED.items()}
    return spelled


def read_config(folder: Path) -> DecoderConfig:
    """The shape of the model in a folder.

    Raises:
        StoreError: no config, or one of a shape that Matura does not build.
    """
    path = folder / CONFIG
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise StoreError(f"{path}: no readable model config: {problem}") from problem
    kind = said.get("model_type") if isinstance(said, dict) else None
    if kind not in FAMILIES:
        raise StoreError(f"{path}: model_type {kind!r} is not supported ({', '.join(FAMILIES)})")
    try:
        _refuse(path, said, kind)
        return DecoderConfig.model_validate(_shape(path, said, kind), strict=True)
    except KeyError as problem:
        raise StoreError(f"{path}: the config lacks {problem}") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the shape"
        raise StoreError(f"{path}: the config misstates {where}: {first['msg']}") from problem


def _shape(path: Path, said: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The fields of `DecoderConfig` that the config gives."""
    rope = _rope(path, said)
    heads = said["num_attention_heads"]
    found: dict[str, Any] = {
        "vocab_size": said["vocab_size"],
        "hidden_size": said["hidden_size"],
        "layers": said["num_hidden_layers"],
        "heads": heads,
        "kv_heads": _given(said, "num_key_value_heads", heads),
        "head_dim": said.get("head_dim"),
        "intermediate_size": said["intermediate_size"],
        "sequence_length": said["max_position_embeddings"],
        "rope_theta": _given(rope, "rope_theta", _given(said, "rope_theta", 10_000.0)),
        "stretched": _stretched(path, rope),
        "qk_norm": kind in ("qwen3", "lfm2"),
        "tie_embeddings": _given(said, "tie_word_embeddings", False),
        "norm_eps": said.get("norm_eps" if kind == "lfm2" else "rms_norm_eps", 1e-6),
        "biases": "inputs" if kind == "qwen2" else "all" if said.get("attention_bias") else "none",
        "family": "mistral" if kind == "mistral" else "llama",
    }
    return found | (_convolutions(path, said) if kind == "lfm2" else {})


def _given(said: Mapping[str, Any], name: str, usual: Any) -> Any:
    """What the config says, null meaning nothing."""
    return usual if said.get(name) is None else said[name]


def _refuse(path: Path, said: Mapping[str, Any], kind: str) -> None:
    """Raises StoreError for what a model of this kind may have and ours have not."""
    if said.get("auto_map"):
        raise StoreError(
            f"{path}: auto_map names code to run, which Matura never does; give a model of a stock "
            "architecture"
        )
    if said.get("quantization_config"):
        raise StoreError(f"{path}: quantised weights are not supported; give bf16, fp16 or fp32")
    for name in ("mlp_bias", "conv_bias", "attention_bias"):
        built = name == "attention_bias" and kind in ("llama", "qwen3")
        if said.get(name) and not built:
            raise StoreError(f"{path}: {name}: such biases are not supported in {kind}")
    if (act := said.get("hidden_act", "silu")) not in ("silu", "swish"):
        raise StoreError(f"{path}: hidden_act {act!r} is not supported (silu)")
    if (part := said.get("partial_rotary_factor", 1.0)) != 1.0:
        raise StoreError(f"{path}: partial_rotary_factor {part!r} is not supported")
    _refuse_window(path, said, kind)


def _refuse_window(path: Path, said: Mapping[str, Any], kind: str) -> None:
    """A window as long as the context hides nothing; any shorter one is refused."""
    if kind in ("llama", "lfm2"):
        return
    sliding = "sliding_attention" in (said.get("layer_types") or ())
    if kind != "mistral" and not said.get("use_sliding_window") and not sliding:
        return
    window, context = said.get("sliding_window", WINDOW.get(kind)), said["max_position_embeddings"]
    if window is None and not sliding:
        return
    if not isinstance(window, int) or not isinstance(context, int) or window < context:
        raise StoreError(
            f"{path}: a sliding window of {window!r} positions is not supported; in a copy of the "
            f"folder, set max_position_embeddings ({context!r}) to no more than that"
        )


def _rope(path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of rotary positions, whichever key says it."""
    for name in ("rope_scaling", "rope_parameters"):  # the older one is the stronger one
        told = said.get(name)
        if told and not isinstance(told, dict):
            raise StoreError(f"{path}: {name} must be an object, not {told!r}")
        if told:
            return {str(key): value for key, value in told.items()}
    return {}


def _stretched(path: Path, rope: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = rope.get("rope_type", rope.get("type", "default"))  # `type` until transformers 4.45
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise StoreError(f"{path}: rope_type {kind!r} is not supported (default, linear, llama3)")
    found = {"kind": kind, "factor": rope["factor"]}
    if kind == "llama3":
        found |= {ours: rope[theirs] for theirs, ours in SCALED.items()}
    return found


def _convolutions(path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
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
