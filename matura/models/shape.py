"""The shape of a decoder, and what of it cannot be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from matura.core.record import Frozen


class Stretched(Frozen):
    """Rotary positions of a model that reads further than it was first trained to."""

    kind: Literal["linear", "llama3"]
    """`linear` slows every rotation down; `llama3` only those that turn less than
    `low_freq_factor` times in the first context, those of more than `high_freq_factor` turns not
    at all, and what lies between by degrees (Dubey et al. 2024)."""
    factor: float = Field(ge=1, allow_inf_nan=False)
    low_freq_factor: PositiveFloat = 1.0
    high_freq_factor: PositiveFloat = 4.0
    original_length: PositiveInt = 8192
    """Positions of the first context."""

    @model_validator(mode="after")
    def _ordered(self) -> Stretched:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("low_freq_factor must be less than high_freq_factor")
        return self


class DecoderConfig(Frozen):
    """The shape of a decoder; widths not given follow from `hidden_size` and `heads`."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    sequence_length: PositiveInt
    head_dim: PositiveInt | None = None
    """Width of one head; `hidden_size / heads` if absent."""
    intermediate_size: PositiveInt | None = None
    """Width of the SwiGLU; 8/3 of `hidden_size` rounded up to a multiple of 64 if absent."""
    rope_theta: PositiveFloat = 10_000.0
    stretched: Stretched | None = None
    qk_norm: bool = False
    """RMS-normalise each head's queries and keys (Qwen3)."""
    tie_embeddings: bool = False
    norm_eps: PositiveFloat = 1e-6
    conv_layers: tuple[NonNegativeInt, ...] = ()
    """Layers that mix neighbouring positions by a short gated convolution instead of attending
    (LFM2); counted from 0."""
    conv_width: int = Field(default=3, ge=2)
    """Positions that such a layer reads, its own included."""
    biases: Literal["none", "inputs", "all"] = "none"
    """Of attention: none, on queries, keys and values (Qwen2), or on its output too."""
    family: Literal["llama", "mistral"] = "llama"
    """As what it is saved where nothing else tells: the two are one shape under two names."""

    @model_validator(mode="after")
    def _fits(self) -> DecoderConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        c = self.hidden_size
        if self.head_dim is None and c % self.heads:
            raise ValueError(f"hidden_size {c} is not a multiple of heads {self.heads}")
        if self.head_width % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.head_width}")
        if wrong := convolutions_refused(self.conv_layers, self.layers, self.qk_norm):
            raise ValueError(wrong)
        if self.biases != "none" and (
            self.conv_layers or (self.biases == "inputs" and self.qk_norm)
        ):
            raise ValueError(f"no model of this kind has biases {self.biases!r}")
        return self

    @property
    def head_width(self) -> int:
        """D: channels of one head."""
        return self.head_dim or self.hidden_size // self.heads

    @property
    def attending(self) -> tuple[int, ...]:
        """The layers that attend, the others being convolutions."""
        return tuple(n for n in range(self.layers) if n not in self.conv_layers)

    @property
    def inner_width(self) -> int:
        """Channels inside the SwiGLU."""
        return self.intermediate_size or math.ceil(self.hidden_size * 8 / 3 / 64) * 64

    @property
    def parameters(self) -> int:
        """How many numbers the model learns."""
        c, d = self.hidden_size, self.head_width
        attention = c * d * (2 * self.heads + 2 * self.kv_heads) + (2 * d if self.qk_norm else 0)
        if self.biases != "none":
            attention += d * (self.heads + 2 * self.kv_heads) + (c if self.biases == "all" else 0)
        convolution = 4 * c * c + self.conv_width * c
        mixing = len(self.attending) * attention + len(self.conv_layers) * convolution
        rest = self.layers * (3 * c * self.inner_width + 2 * c)
        return mixing + rest + c + self.vocab_size * c * (1 if self.tie_embeddings else 2)


def convolutions_refused(conv_layers: Sequence[int], layers: int, qk_norm: bool) -> str | None:
    """What is wrong with these layers being convolutions, if anything is."""
    if not conv_layers:
        return None
    if sorted(set(conv_layers)) != list(conv_layers):
        return f"conv_layers {list(conv_layers)}: each once, in rising order"
    if conv_layers[-1] >= layers:
        return f"conv_layers {list(conv_layers)}: the last of {layers} layers is {layers - 1}"
    if len(conv_layers) == layers:
        return "conv_layers: at least one layer has to attend, or nothing far away is read"
    if not qk_norm:
        return "conv_layers: models of this kind (LFM2) normalise queries and keys: qk_norm: true"
    return None
