"""LoRA: a frozen model, and beside its linears small products of two matrices that learn instead.

An adapted linear is W x + (alpha / rank) B A x. A starts random and B at zero, so that training
starts from the model as it is. `layers.joined` computes it; here adapters are put on, taken off,
merged, and counted.

Source: Hu et al. 2021, arXiv 2106.09685; the start of A is that of PEFT (Kaiming, uniform).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

import torch
from torch import nn

from matura.models.decoder import Decoder
from matura.models.layers import Adapter
from matura.models.pieces import whole
from matura.models.shape import DecoderConfig


def attach(
    model: Decoder,
    *,
    rank: int,
    alpha: float,
    targets: Collection[str],
    generator: torch.Generator,
) -> None:
    """Freezes the model and puts an adapter on each linear whose name is among the targets.

    Raises:
        ValueError: it has adapters already, or no linear of a name.
    """
    if any(True for _ in adapted(model)):
        raise ValueError("the model has adapters already: merge them first")
    found = {name: linear for name, linear in linears(model) if _last(name) in targets}
    if missing := {*targets} - {_last(name) for name in found}:
        raise ValueError(f"no layer has {sorted(missing)}")
    model.requires_grad_(False)
    for linear in found.values():
        adapter = Adapter(linear, rank, alpha)
        reach = linear.in_features**-0.5
        with torch.no_grad():  # drawn on the CPU: the same numbers whatever computes later
            adapter.down.uniform_(-reach, reach, generator=generator)
        linear.lora = adapter.to(linear.weight.device)


def detach(model: Decoder) -> None:
    """Takes the adapters off, as if they had never been there; all weights may learn again."""
    for _, linear, _ in [*adapted(model)]:
        del linear.lora
    model.requires_grad_(True)


def merge(model: Decoder) -> None:
    """Adds what each adapter has learnt to the weights beside it, in full precision, and takes it
    off."""
    with torch.no_grad():
        for _, linear, adapter in adapted(model):
            linear.weight += adapter.whole()
    detach(model)


def linears(model: Decoder) -> Iterator[tuple[str, nn.Linear]]:
    """The linears inside the layers, by name: those that can have an adapter."""
    for name, module in model.model.layers.named_modules(prefix="model.layers"):
        if isinstance(module, nn.Linear):
            yield name, module


def adapted(model: Decoder) -> Iterator[tuple[str, nn.Linear, Adapter]]:
    """The linears that have an adapter: name, linear, adapter."""
    for name, linear in linears(model):
        if isinstance(adapter := getattr(linear, "lora", None), Adapter):
            yield name, linear, adapter


def trained_parameters(config: DecoderConfig, *, rank: int, targets: Collection[str]) -> int:
    """How many numbers such adapters learn, without the model at hand."""
    c, inner = config.hidden_size, config.inner_width
    heads, kv = config.heads * config.head_width, config.kv_heads * config.head_width
    attending, convolving = len(config.attending), len(config.conv_layers)
    sizes = {  # in and out, and how many layers have one
        "q_proj": (c + heads, attending),
        "k_proj": (c + kv, attending),
        "v_proj": (c + kv, attending),
        "o_proj": (heads + c, attending),
        "in_proj": (c + 3 * c, convolving),
        "out_proj": (c + c, convolving),
        "gate_proj": (c + inner, config.layers),
        "up_proj": (c + inner, config.layers),
        "down_proj": (inner + c, config.layers),
    }
    return sum(rank * width * layers for width, layers in (sizes[name] for name in targets))


def frozen_sha256(model: Decoder) -> str | None:
    """A hash of all that does not learn, by name, shape and value; None where everything does."""
    frozen = [(name, w) for name, w in model.named_parameters() if not w.requires_grad]
    if not frozen:
        return None
    seen = hashlib.sha256()
    for name, weight in frozen:
        seen.update(f"{name}:{tuple(weight.shape)};".encode())
        seen.update(whole(weight).cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return seen.hexdigest()


def _last(name: str) -> str:
    return name.rpartition(".")[2]
