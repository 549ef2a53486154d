"""What llama.cpp calls the parts of our decoders, both ways, and the order it wants rows in.

Written down here for reading back; writing asks the `gguf` package's own tables, so that a proof
compares two sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matura.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from matura.models.shape import DecoderConfig

ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "lfm2": "lfm2",
}
"""By `model_type`."""
FREQUENCIES = "rope_freqs.weight"
"""Not a weight: by how much each rotation of llama3 positions is slowed down."""
PARTS: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    "shortconv.conv": "conv.conv",
}
"""Theirs within a layer, and ours."""
WHOLE: Mapping[str, str] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output.weight": "lm_head.weight",
    "output_norm.weight": "model.norm.weight",
    "token_embd_norm.weight": "model.norm.weight",
}
"""Outside the layers; LFM2 has its last norm under the first norm's name."""
_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")


def our_name(theirs: str) -> str | None:
    """What our decoder calls a tensor of a GGUF file; None if it has no such tensor."""
    if theirs in WHOLE:
        return WHOLE[theirs]
    hit = _LAYER.fullmatch(theirs)
    if hit is None or hit[2] not in PARTS:
        return None
    return f"model.layers.{hit[1]}.{PARTS[hit[2]]}.{hit[3]}"


def turned_heads(name: str, config: DecoderConfig, architecture: str) -> int | None:
    """How many heads the rows of a query or key projection are, where llama.cpp wants the two
    halves of each head interleaved; else None."""
    if architecture != "llama":
        return None
    part = name.rpartition(".")[0].rpartition(".")[2]
    return {"q_proj": config.heads, "k_proj": config.kv_heads}.get(part)


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows of each head from halves (i and i + D/2 turn together) to neighbours (2i and 2i + 1)."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def halved(rows: Tensor, heads: int) -> Tensor:
    """The way back."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def header(config: DecoderConfig, architecture: str) -> dict[str, Any]:
    """The shape as the file's header says it, without the architecture's name in front.

    Raises:
        DataError: llama.cpp has no such model.
    """
    if config.stretched is not None and config.stretched.kind == "llama3":
        _refuse(architecture != "llama", f"llama3 positions in {architecture}")
    _refuse(config.biases == "all" and architecture != "llama", f"biases in {architecture}")
    kv_heads: Any = config.kv_heads
    if config.conv_layers:
        kv_heads = [0 if n in config.conv_layers else kv_heads for n in range(config.layers)]
    found: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.sequence_length,
        "embedding_length": config.hidden_size,
        "block_count": config.layers,
        "feed_forward_length": config.inner_width,
        "attention.head_count": config.heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": config.head_width,
        "attention.value_length": config.head_width,
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "rope.dimension_count": config.head_width,
        "rope.freq_base": float(config.rope_theta),
    }
    if config.conv_layers:
        found["shortconv.l_cache"] = config.conv_width
    if config.stretched is not None and config.stretched.kind == "linear":
        found |= {
            "rope.scaling.type": "linear",
            "rope.scaling.factor": float(config.stretched.factor),
        }
    return found


def _refuse(wrong: bool, what: str) -> None:
    if wrong:
        raise DataError(f"llama.cpp knows no {what}; export it as --format hf")


def slowing(config: DecoderConfig) -> Tensor | None:
    """By how much each of the D/2 rotations is slowed down, fp32; None without llama3 positions."""
    if config.stretched is None or config.stretched.kind != "llama3":
        return None
    import torch

    from matura.models.decoder import slowed

    half = torch.arange(0, config.head_width, 2, dtype=torch.int64).float() / config.head_width
    turning = 1.0 / (config.rope_theta**half)
    return turning / slowed(turning, config.stretched)
