"""One token after another, with as few operations a token as the arithmetic needs.

`Decoder.forward_cached` joins and casts weights at every call, which training needs and decoding
pays for: at one token a call that is most of the memory read. Here weights are laid out once, with
the gains of the norms before them multiplied in. The surprising thing: one row and many want
different layouts (docs/LOG.md). Where weights are large, the model's own are read and nothing is
copied. Prompts are read by the same weights. Tests hold all ways to the same logits.

Axes: B rows, T positions, S cached positions, N rows of a product, H heads, K key-value heads, G
queries of one of those, D head width, C model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.models.decoder import Cache, Decoder
from matura.models.layers import Adapter, Attention, Block, Gain, ShortConv

JOINED_BYTES = 2**30
"""A larger model's weights are used as they are: laid out, they are held up to twice more."""


class _Product:
    """A matrix, or several that read the same input, ready to multiply."""

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor | None],
        gain_C: Tensor | None,
        dtype: torch.dtype,
        *,
        join: bool,
    ) -> None:
        self._join = join
        self._gain_C = None
        if gain_C is not None and join:
            weights = [weight * gain_C for weight in weights]
        elif gain_C is not None:
            self._gain_C = gain_C.to(dtype)
        if join and len(weights) > 1:
            weights = [torch.cat(weights)]
            there = [bias for bias in biases if bias is not None]
            biases = [torch.cat(there) if there else None]
        # of a wide matrix, fp32 and one row, columns are read a third faster than rows
        here = weights[0].device.type == "cpu" and dtype == torch.float32
        if join and here and weights[0].shape[0] > weights[0].shape[1]:
            weights = [weights[0].mT.contiguous().mT]
        self._weights = [weight.to(dtype) for weight in weights]
        self._biases = [None if bias is None else bias.detach().to(dtype) for bias in biases]
        self._packs = join and here and _can_pack()
        self._packed: Tensor | None = None

    def __call__(self, x_NC: Tensor) -> Tensor:
        if self._gain_C is not None:
            x_NC = x_NC * self._gain_C
        if not self._join:
            both = zip(self._weights, self._biases, strict=True)
            made = [F.linear(x_NC, weight, bias) for weight, bias in both]
            return made[0] if len(made) == 1 else torch.cat(made, dim=-1)
        weight, bias = self._weights[0], self._biases[0]
        if len(x_NC) == 1 or not self._packs:
            return F.linear(x_NC, weight, bias)
        if self._packed is None:
            plain = weight.contiguous()
            self._packed = torch.ops.mkldnn._reorder_linear_weight(plain, PACKED_ROWS)
        made_NO: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_NC, self._packed, bias, "none", [], ""
        )
        return made_NO


PACKED_ROWS = 32
"""What oneDNN's blocks are chosen for; they fit other numbers of rows as well."""


def _can_pack() -> bool:
    """Whether oneDNN's own layout is there: what `torch.compile` multiplies by on x86."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


@dataclass(frozen=True)
class _Layer:
    inward: _Product
    outward: _Product
    gate_and_up: _Product
    down: _Product
    q_gain: Tensor | None = None
    k_gain: Tensor | None = None
    taps_WC: Tensor | None = None
    """Of a convolution, the nearest position first."""


class Decoding:
    """A decoder's weights as they are now, laid out to read prompts and to continue them."""

    def __init__(self, model: Decoder, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = model.config, dtype
        weights = list(model.parameters())
        size = torch.finfo(dtype).bits // 8 * sum(weight.numel() for weight in weights)
        self._join = size <= JOINED_BYTES
        c = self.config.hidden_size
        with torch.no_grad():
            self._table = model.model.embed_tokens.weight.to(dtype)
            self._head = self._product(model.lm_head, gain=model.model.norm)
            self._layers = [self._laid_out(block) for block in model.model.layers]  # type: ignore[arg-type]
            cos, sin = model.get_buffer("cos_SD"), model.get_buffer("sin_SD")
            half = self.config.head_width // 2
            signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
            self._cos_SD, self._sin_SD = cos.to(dtype), signed.to(dtype)
            self._least = torch.tensor((c * self.config.norm_eps) ** 0.5, device=cos.device)

    def read(self, ids_BT: Tensor, lasts_B: Tensor, cache: Cache) -> Tensor:
        """Logits BV, fp32, after each row's position `lasts_B` of prompts that start at 0; the
        cache is written in place, as `Decoder.hidden_cached` does."""
        rows, length = ids_BT.shape
        turn = self._cos_SD[None, :length, None], self._sin_SD[None, :length, None]
        x = F.embedding(ids_BT, self._table).flatten(0, 1)
        ends = torch.arange(rows, device=ids_BT.device) * length + lasts_B
        for number, layer in enumerate(self._layers, start=1):
            keys, values = cache.keys[number - 1], cache.values[number - 1]
            inward = layer.inward(self._normed(x)).view(rows, length, -1)
            if layer.taps_WC is None:
                mixed = self._attended_all(layer, inward, turn, keys, values)
            else:
                mixed = _convolved_all(layer.taps_WC, inward, keys[:, 0])
            mixed = mixed.flatten(0, 1)
            if number == len(self._layers):  # of other positions nothing is asked any more
                x, mixed = x[ends], mixed[ends]
            x = self._fed(layer, x.add_(layer.outward(mixed)))
        return self._head(self._normed(x)).float()

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
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            inward = layer.inward(self._normed(x_BC))
            if layer.taps_WC is None:
                mixed = self._attended(layer, inward, (cos, sin), places, reach, keys, values)
            else:
                mixed = _convolved(layer.taps_WC, inward, places_B, keys[:, 0])
            x_BC = self._fed(layer, x_BC.add_(layer.outward(mixed)))
        return self._head(self._normed(x_BC)).float()

    def _normed(self, x_NC: Tensor) -> Tensor:
        """Each row at length 1, but for eps: the norm without its gain and the root of C, which
        are in the weights after it. Three calls, where torch's own makes seven."""
        lengths_N1 = torch.linalg.vector_norm(x_NC, dim=-1, keepdim=True, dtype=torch.float32)
        normed: Tensor = x_NC / lengths_N1.hypot_(self._least)
        return normed.to(x_NC.dtype)

    def _fed(self, layer: _Layer, x_NC: Tensor) -> Tensor:
        """The residual stream, written in place, after a layer's feed-forward."""
        gate, up = layer.gate_and_up(self._normed(x_NC)).chunk(2, dim=-1)
        return x_NC.add_(layer.down(F.silu(gate).mul_(up)))

    def _turned(
        self, layer: _Layer, qkv: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: heads before the last axis."""
        c = self.config
        heads, width = c.heads, c.head_width
        qkv = qkv.view(*qkv.shape[:-1], heads + 2 * c.kv_heads, width)
        v = qkv[..., heads + c.kv_heads :, :]
        qk = qkv[..., : heads + c.kv_heads, :]
        if layer.q_gain is not None and layer.k_gain is not None:
            q = F.rms_norm(qk[..., :heads, :], (width,), layer.q_gain, c.norm_eps)
            k = F.rms_norm(qk[..., heads:, :], (width,), layer.k_gain, c.norm_eps)
            qk = torch.cat([q, k], dim=-2)
        cos, sin = turn
        qk = torch.addcmul(qk * cos, qk.roll(width // 2, -1), sin)
        return qk[..., :heads, :], qk[..., heads:, :], v

    def _attended_all(
        self,
        layer: _Layer,
        qkv: Tensor,
        turn: tuple[Tensor, Tensor],
        keys_BKSD: Tensor,
        values_BKSD: Tensor,
    ) -> Tensor:
        """What each position reads at those up to its own, B by T by H*D. What pads read is
        never used, and what they write lies beyond their row's positions."""
        rows, length, _ = qkv.shape
        q, k, v = (part.transpose(1, 2) for part in self._turned(layer, qkv, turn))
        keys_BKSD[:, :, :length] = k
        values_BKSD[:, :, :length] = v
        grouped = self.config.heads != self.config.kv_heads
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return mixed.transpose(1, 2).reshape(rows, length, -1)

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
        q, k, v = self._turned(layer, qkv, turn)
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
        q_BKGD = q.reshape(rows, c.kv_heads, c.heads // c.kv_heads, width)
        mixed = F.scaled_dot_product_attention(
            q_BKGD, keys_BKSD[:, :, :end], values_BKSD[:, :, :end], attn_mask=reach
        )
        return mixed.reshape(rows, c.heads * width)

    def _laid_out(self, block: Block) -> _Layer:
        mlp = block.mlp
        before, after = block.input_layernorm, block.post_attention_layernorm
        if block.self_attn is not None:
            attn: Attention = block.self_attn
            inward = self._product(attn.q_proj, attn.k_proj, attn.v_proj, gain=before)
            outward = self._product(attn.o_proj)
            more = {"q_gain": self._gain(attn.q_norm), "k_gain": self._gain(attn.k_norm)}
        else:
            assert block.conv is not None
            conv: ShortConv = block.conv
            inward = self._product(conv.in_proj, gain=before)
            outward = self._product(conv.out_proj)
            more = {"taps_WC": conv.conv.weight[:, 0].flip(1).mT.to(self.dtype)}
        return _Layer(
            inward=inward,
            outward=outward,
            gate_and_up=self._product(mlp.gate_proj, mlp.up_proj, gain=after),
            down=self._product(mlp.down_proj),
            **more,
        )

    def _product(self, *linears: nn.Linear, gain: Gain | None = None) -> _Product:
        """What multiplies by these; after `_normed`, if there is a gain."""
        root = self.config.hidden_size**0.5
        return _Product(
            [_whole(linear) for linear in linears],
            [linear.bias for linear in linears],
            None if gain is None else gain.weight.detach() * root,
            self.dtype,
            join=self._join,
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


def _convolved_all(taps_WC: Tensor, inward_BTC: Tensor, told_BSC: Tensor) -> Tensor:
    """What a short convolution makes of every position of prompts, BTC."""
    before, gate, x = inward_BTC.chunk(3, dim=-1)
    told = before * x
    length = told.shape[1]
    told_BSC[:, :length] = told
    heard = told * taps_WC[0]
    for back in range(1, min(len(taps_WC), length)):
        heard[:, back:].addcmul_(told[:, :-back], taps_WC[back])
    return gate * heard
