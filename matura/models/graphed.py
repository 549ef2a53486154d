"""Decoding on a GPU: a step is recorded once as a CUDA graph, and replayed.

At one token a step a GPU is done before Python has launched the next of hundreds of kernels. A
recorded step is one launch; but it does the same to the same memory each time, so where rows stand
is a tensor, each row reads a whole span of the cache, and what lies beyond its own place is masked.
Not recorded, the step runs anywhere, and tests hold it to `Decoding`.

Axes: B rows, S cached positions, H heads, K key-value heads, D head width, C model width, V
vocabulary.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.models.decoder import Cache, Decoder
from matura.models.decoding import Decoding
from matura.models.layers import Adapter, Block, Gain

SPAN = 256
"""Positions that the first graph of a cache reads; each further one reads twice as many."""
FIRST = 3
"""Steps of a cache that are made without a graph: recording one costs several."""


class Steps(Protocol):
    """What continues rows by one token."""

    def step(self, ids_B: Tensor, places: list[int], cache: Cache) -> Tensor:
        """Logits BV, fp32, after one more id in each row, at its own place."""


def laid_out(model: Decoder, dtype: torch.dtype) -> Steps:
    """A model's weights as they are now, ready for one token after another where they lie."""
    return Graphed(model, dtype) if model.device.type == "cuda" else Decoding(model, dtype)


@dataclass(frozen=True)
class _Layer:
    before: Tensor
    inward: Tensor
    inward_bias: Tensor | None
    outward: Tensor
    outward_bias: Tensor | None
    after: Tensor
    gate_and_up: Tensor
    down: Tensor
    q_gain: Tensor | None = None
    k_gain: Tensor | None = None
    taps_WC: Tensor | None = None
    """Of a convolution, the nearest position first."""


class Static:
    """One more token in each row; no shape and no branch depends on what was said or where."""

    def __init__(self, model: Decoder, dtype: torch.dtype) -> None:
        self.config, self.dtype, self.device = model.config, dtype, model.device
        with torch.no_grad():
            self._table = model.model.embed_tokens.weight.detach().to(dtype)
            tied = self.config.tie_embeddings
            self._head = self._table if tied else model.lm_head.weight.detach().to(dtype)
            self._last = model.model.norm.weight.detach().to(dtype)
            self._layers = [_laid_out(block, dtype) for block in model.model.layers]  # type: ignore[arg-type]
            cos, sin = model.get_buffer("cos_SD"), model.get_buffer("sin_SD")
            half = self.config.head_width // 2
            signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
            self._cos_SD, self._sin_SD = cos.to(dtype), signed.to(dtype)

    def step(self, ids_B: Tensor, places_B: Tensor, cache: Cache, span: int) -> Tensor:
        """Logits BV, fp32; the cache is written in place, and `span` of its positions are read:
        more than any place."""
        shape, eps = (self.config.hidden_size,), self.config.norm_eps
        reach_B11S = (torch.arange(span, device=self.device) <= places_B[:, None])[:, None, None]
        turn = (self._cos_SD[places_B][:, None], self._sin_SD[places_B][:, None])
        x_BC = F.embedding(ids_B, self._table)
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            normed = F.rms_norm(x_BC, shape, layer.before, eps)
            inward = F.linear(normed, layer.inward, layer.inward_bias)
            if layer.taps_WC is None:
                mixed = self._attended(layer, inward, turn, places_B, reach_B11S, keys, values)
            else:
                mixed = _convolved(layer.taps_WC, inward, places_B, keys[:, 0])
            x_BC = x_BC + F.linear(mixed, layer.outward, layer.outward_bias)
            both = F.linear(F.rms_norm(x_BC, shape, layer.after, eps), layer.gate_and_up)
            gate, up = both.chunk(2, dim=-1)
            x_BC = x_BC + F.linear(F.silu(gate) * up, layer.down)
        return F.linear(F.rms_norm(x_BC, shape, self._last, eps), self._head).float()

    def _attended(
        self,
        layer: _Layer,
        inward: Tensor,
        turn: tuple[Tensor, Tensor],
        places_B: Tensor,
        reach_B11S: Tensor,
        keys_BKSD: Tensor,
        values_BKSD: Tensor,
    ) -> Tensor:
        """What each row's token reads at all its positions, B by H*D."""
        c = self.config
        rows, width, span = len(inward), c.head_width, reach_B11S.shape[-1]
        heads = [c.heads, c.kv_heads, c.kv_heads]
        q, k, v = torch.split(inward.view(rows, -1, width), heads, dim=1)
        if layer.q_gain is not None and layer.k_gain is not None:
            q = F.rms_norm(q, (width,), layer.q_gain, c.norm_eps)
            k = F.rms_norm(k, (width,), layer.k_gain, c.norm_eps)
        q, k = _turned(q, *turn), _turned(k, *turn)
        where = places_B[:, None, None, None].expand(rows, c.kv_heads, 1, width)
        keys_BKSD.scatter_(2, where, k[:, :, None].to(keys_BKSD.dtype))
        values_BKSD.scatter_(2, where, v[:, :, None].to(values_BKSD.dtype))
        mixed = F.scaled_dot_product_attention(
            q.reshape(rows, c.kv_heads, -1, width),  # heads that share keys stand as queries
            keys_BKSD[:, :, :span],
            values_BKSD[:, :, :span],
            attn_mask=reach_B11S,
        )
        return mixed.reshape(rows, c.heads * width)


@dataclass
class _Recorded:
    """What was recorded for one cache."""

    steps: int = 0
    graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = field(default_factory=dict)
    """By span, with where its logits come to lie."""
    ids_B: Tensor | None = None
    places_B: Tensor | None = None


class Graphed:
    """A decoder's steps, recorded for each cache and span once they are worth it.

    A graph holds addresses and keeps no cache alive: it is forgotten with its cache.
    """

    def __init__(self, model: Decoder, dtype: torch.dtype = torch.float32) -> None:
        self._static = Static(model, dtype)
        self._known: dict[int, tuple[weakref.ref[Cache], _Recorded]] = {}

    def step(self, ids_B: Tensor, places: list[int], cache: Cache) -> Tensor:
        """Logits BV, fp32, after one more id in each row, at its own place; the cache is written
        in place."""
        known = self._of(cache)
        known.steps += 1
        span = span_of(max(places) + 1, cache.keys[0].shape[2])
        told = torch.tensor(places)
        if known.steps <= FIRST or self._static.device.type != "cuda":
            return self._static.step(ids_B, told.to(ids_B.device), cache, span)
        if known.ids_B is None or known.places_B is None:
            known.ids_B, known.places_B = ids_B.clone(), told.to(ids_B.device)
        known.ids_B.copy_(ids_B)
        known.places_B.copy_(told)
        if span not in known.graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = self._static.step(known.ids_B, known.places_B, cache, span)
            known.graphs[span] = (graph, logits)
        graph, logits = known.graphs[span]
        graph.replay()
        return logits.clone()

    def _of(self, cache: Cache) -> _Recorded:
        key = id(cache)
        if key not in self._known:
            gone = weakref.ref(cache, lambda _: self._known.pop(key, None))
            self._known[key] = (gone, _Recorded())
        return self._known[key][1]


def span_of(needed: int, length: int) -> int:
    """How many positions are read where so many are needed: few different numbers, so that few
    graphs are recorded."""
    span = SPAN
    while span < needed:
        span *= 2
    return min(span, length)


def _laid_out(block: Block, dtype: torch.dtype) -> _Layer:
    mlp = block.mlp
    gate_and_up, _ = _joined(dtype, mlp.gate_proj, mlp.up_proj)
    if block.self_attn is not None:
        attn = block.self_attn
        inward, bias = _joined(dtype, attn.q_proj, attn.k_proj, attn.v_proj)
        outward, outward_bias = _joined(dtype, attn.o_proj)
        q_gain, k_gain, taps = _gain(attn.q_norm, dtype), _gain(attn.k_norm, dtype), None
    else:
        assert block.conv is not None
        inward, bias = _joined(dtype, block.conv.in_proj)
        outward, outward_bias = _joined(dtype, block.conv.out_proj)
        taps = block.conv.conv.weight[:, 0].flip(1).mT.to(dtype).contiguous()
        q_gain = k_gain = None
    return _Layer(
        before=block.input_layernorm.weight.detach().to(dtype),
        inward=inward,
        inward_bias=bias,
        outward=outward,
        outward_bias=outward_bias,
        after=block.post_attention_layernorm.weight.detach().to(dtype),
        gate_and_up=gate_and_up,
        down=_joined(dtype, mlp.down_proj)[0],
        q_gain=q_gain,
        k_gain=k_gain,
        taps_WC=taps,
    )


def _joined(dtype: torch.dtype, *linears: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weights of what reads the same input, as one; with what adapters beside them add."""
    weights, biases = [], []
    for linear in linears:
        weight, adapter = linear.weight.detach(), getattr(linear, "lora", None)
        if isinstance(adapter, Adapter):
            weight = weight + adapter.whole().detach()
        weights.append(weight.to(dtype))
        if linear.bias is not None:
            biases.append(linear.bias.detach().to(dtype))
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    return weight, torch.cat(biases) if biases else None


def _gain(gain: Gain | None, dtype: torch.dtype) -> Tensor | None:
    return None if gain is None else gain.weight.detach().to(dtype)


def _turned(x_BHD: Tensor, cos_B1D: Tensor, sin_B1D: Tensor) -> Tensor:
    return torch.addcmul(x_BHD * cos_B1D, x_BHD.roll(x_BHD.shape[-1] // 2, -1), sin_B1D)


def _convolved(taps_WC: Tensor, inward: Tensor, places_B: Tensor, told_BSC: Tensor) -> Tensor:
    """What a short convolution makes of each row's last positions, BC."""
    before, gate, x = inward.chunk(3, dim=-1)
    told = before * x
    where = places_B[:, None, None].expand(len(told), 1, told.shape[1])
    told_BSC.scatter_(1, where, told[:, None].to(told_BSC.dtype))
    heard = told * taps_WC[0]
    for back in range(1, len(taps_WC)):
        there = told_BSC.gather(1, (where - back).clamp(min=0))[:, 0].to(told.dtype)
        heard = heard + there * (places_B >= back)[:, None] * taps_WC[back]
    return gate * heard
