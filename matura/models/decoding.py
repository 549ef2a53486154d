"""One token after another, with as few operations a token as the arithmetic needs.

`Decoder.forward_cached` joins and casts weights at every call, which training needs and decoding
pays for: at one token a call that is most of the memory read. Here weights are laid out once; where
they are large, the model's own are read and nothing is copied. Tests hold both to the same logits.

Axes: B rows, T positions, S cached positions, H heads, K key-value heads, G queries of one of
those, D head width, C model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.models.decoder import Cache, Decoder
from matura.models.layers import Adapter, Attention, Block, Gain, ShortConv

JOINED_BYTES = 2**30
"""A larger model's weights are used as they are: joining saves calls, which it does not notice."""


@dataclass(frozen=True)
class _Product:
    """A matrix, or several that read the same input, ready to multiply."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]

    def __call__(self, x: Tensor) -> Tensor:
        if len(self.weights) == 1:
            return F.linear(x, self.weights[0], self.biases[0])
        both = zip(self.weights, self.biases, strict=True)
        return torch.cat([F.linear(x, weight, bias) for weight, bias in both], dim=-1)


@dataclass(frozen=True)
class _Layer:
    before: Tensor
    inward: _Product
    outward: _Product
    after: Tensor
    gate_and_up: _Product
    down: _Product
    q_gain: Tensor | None = None
    k_gain: Tensor | None = None
    taps_WC: Tensor | None = None
    """Of a convolution, the nearest position first."""


class Decoding:
    """A decoder's weights as they are now, laid out to say one token after another."""

    def __init__(self, model: Decoder, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = model.config, dtype
        weights = list(model.parameters())
        size = torch.finfo(dtype).bits // 8 * sum(weight.numel() for weight in weights)
        self._join = size <= JOINED_BYTES
        with torch.no_grad():
            self._table = model.model.embed_tokens.weight.to(dtype)
            tied = self.config.tie_embeddings
            self._head = self._table if tied else model.lm_head.weight.to(dtype)
            self._last = model.model.norm.weight.detach().to(dtype)
            self._layers = [self._laid_out(block) for block in model.model.layers]  # type: ignore[arg-type]
            cos, sin = model.get_buffer("cos_SD"), model.get_buffer("sin_SD")
            half = self.config.head_width // 2
            signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
            self._cos_SD, self._sin_SD = cos.to(dtype), signed.to(dtype)

    def step(self, ids_B: Tensor, places: list[int], cache: Cache) -> Tensor:
        """Logits BV, fp32, after one more id in each row, at its own place; the cache is written
        in place, as `Decoder.forward_cached` does."""
        alike = len(set(places)) == 1
        places_B = torch.tensor(places[:1] if alike else places, device=ids_B.device)
        reach = None
        if not alike:
            span = torch.arange(1 + max(places), device=ids_B.device)
            reach = (span[None, :] <= places_B[:, None])[:, None, None]
        cos, sin = self._cos_SD[places_B][:, None], self._sin_SD[places_B][:, None]
        x_BC = F.embedding(ids_B, self._table)
        shape, eps = (self.config.hidden_size,), self.config.norm_eps
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            inward = layer.inward(F.rms_norm(x_BC, shape, layer.before, eps))
            if layer.taps_WC is None:
                mixed = self._attended(layer, inward, (cos, sin), places, reach, keys, values)
            else:
                mixed = _convolved(layer.taps_WC, inward, places_B, keys[:, 0])
            x_BC = x_BC + layer.outward(mixed)
            both = layer.gate_and_up(F.rms_norm(x_BC, shape, layer.after, eps))
            gate, up = both.chunk(2, dim=-1)
            x_BC = x_BC + layer.down(F.silu(gate).mul_(up))
        return F.linear(F.rms_norm(x_BC, shape, self._last, eps), self._head).float()

    def _attended(
        self,
        layer: _Layer,
        qkv: Tensor,
        turn: tuple[Tensor, Tensor],
        places: list[int],
        reach: Tensor | None,
        keys_BKSD: Tensor,
        values_BKSD: Tensor,
    ) -> Tensor:
        """What each row's token reads at all its positions, B by H*D."""
        c = self.config
        rows, width = qkv.shape[0], c.head_width
        qkv = qkv.view(rows, c.heads + 2 * c.kv_heads, width)
        v = qkv[:, c.heads + c.kv_heads :]
        if layer.q_gain is not None and layer.k_gain is not None:
            q = F.rms_norm(qkv[:, : c.heads], (width,), layer.q_gain, c.norm_eps)
            k = F.rms_norm(qkv[:, c.heads : -c.kv_heads], (width,), layer.k_gain, c.norm_eps)
            qk = torch.cat([q, k], dim=1)
        else:
            qk = qkv[:, : c.heads + c.kv_heads]
        cos, sin = turn
        qk = torch.addcmul(qk * cos, qk.roll(width // 2, -1), sin)
        k = qk[:, c.heads :]
        if reach is None:
            here, end = places[0], places[0] + 1
            keys_BKSD[:, :, here] = k
            values_BKSD[:, :, here] = v
        else:
            end = reach.shape[-1]
            every = torch.arange(rows, device=qkv.device)
            at = torch.tensor(places, device=qkv.device)
            keys_BKSD[every, :, at] = k
            values_BKSD[every, :, at] = v
        q_BKGD = qk[:, : c.heads].reshape(rows, c.kv_heads, c.heads // c.kv_heads, width)
        mixed = F.scaled_dot_product_attention(
            q_BKGD, keys_BKSD[:, :, :end], values_BKSD[:, :, :end], attn_mask=reach
        )
        return mixed.reshape(rows, c.heads * width)

    def _laid_out(self, block: Block) -> _Layer:
        mlp = block.mlp
        if block.self_attn is not None:
            attn: Attention = block.self_attn
            inward = self._product(attn.q_proj, attn.k_proj, attn.v_proj)
            outward = self._product(attn.o_proj)
            more = {"q_gain": self._gain(attn.q_norm), "k_gain": self._gain(attn.k_norm)}
        else:
            assert block.conv is not None
            conv: ShortConv = block.conv
            inward, outward = self._product(conv.in_proj), self._product(conv.out_proj)
            more = {"taps_WC": conv.conv.weight[:, 0].flip(1).mT.to(self.dtype)}
        return _Layer(
            before=block.input_layernorm.weight.detach().to(self.dtype),
            inward=inward,
            outward=outward,
            after=block.post_attention_layernorm.weight.detach().to(self.dtype),
            gate_and_up=self._product(mlp.gate_proj, mlp.up_proj),
            down=self._product(mlp.down_proj),
            **more,
        )

    def _product(self, *linears: nn.Linear) -> _Product:
        weights = [_whole(linear) for linear in linears]
        biases: list[Tensor | None] = [linear.bias for linear in linears]
        if self._join and len(linears) > 1:
            weights = [torch.cat(weights)]
            there = [bias for bias in biases if bias is not None]
            biases = [torch.cat(there) if there else None]
        return _Product(
            tuple(weight.to(self.dtype) for weight in weights),
            tuple(None if bias is None else bias.detach().to(self.dtype) for bias in biases),
        )

    def _gain(self, gain: Gain | None) -> Tensor | None:
        return None if gain is None else gain.weight.detach().to(self.dtype)


def _whole(linear: nn.Linear) -> Tensor:
    """A linear's weight, with what an adapter beside it adds."""
    weight = linear.weight.detach()
    adapter = getattr(linear, "lora", None)
    return weight + adapter.whole().detach() if isinstance(adapter, Adapter) else weight


def _convolved(taps_WC: Tensor, inward: Tensor, places_B: Tensor, told_BSC: Tensor) -> Tensor:
    """What a short convolution makes of each row's last positions, BC."""
    before, gate, x = inward.chunk(3, dim=-1)
    told = before * x
    every = torch.arange(len(told), device=told.device)
    at = places_B.expand(len(told))
    told_BSC[every, at] = told
    heard = told * taps_WC[0]
    for back in range(1, len(taps_WC)):
        there = told_BSC[every, (at - back).clamp(min=0)].to(told.dtype)
        heard = heard + there * (at >= back)[:, None] * taps_WC[back]
    return gate * heard
