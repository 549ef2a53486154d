"""Layers computed once more for their gradient: the same numbers, and much less kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import FP32, numbered, seeded, shape, spread
from torch import Tensor

from matura.learn import step
from matura.learn.objectives.next_token import NextToken
from matura.learn.step import Stepper
from matura.models.attending import attend_written
from matura.models.decoder import Decoder
from matura.models.lora import attach

LAYERS = 3
SHAPES = {
    "attention": {},
    "normalised": {"qk_norm": True, "kv_heads": 4},
    "convolutions": {"qk_norm": True, "conv_layers": (0, 2)},
    "untied biases": {"biases": "inputs", "tie_embeddings": False},
}


def model(kind: str, *, lora: bool = False) -> Decoder:
    made = spread(shape(layers=LAYERS, **SHAPES[kind])).train()
    if lora:
        targets = ("down_proj", "up_proj")
        attach(made, rank=2, alpha=4.0, targets=targets, generator=seeded(1))
        with torch.no_grad():
            for name, weight in made.named_parameters():
                if name.endswith("lora.up"):
                    weight.normal_(0.0, 0.2, generator=seeded(2))
    return made


def kept(stepper: Stepper) -> tuple[list[Tensor | None], int]:
    """The gradients, and how many bytes the forward pass kept for them, weights left out."""
    own = {weight.untyped_storage().data_ptr() for weight in stepper.model.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # or its place could be given to another
        return tensor

    for weight in stepper.model.parameters():
        weight.grad = None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        stepper.gradients(numbered(5), 40.0)
    return [weight.grad for weight in stepper.model.parameters()], sum(sizes.values())


@pytest.mark.parametrize("lora", [False, True], ids=["all", "lora"])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_same_bits_and_less_memory(kind: str, lora: bool) -> None:
    made = model(kind, lora=lora)
    stepper = Stepper(made, NextToken(), FP32)
    plain, whole = kept(stepper)
    made.recompute = True
    again, little = kept(stepper)
    for one, other in zip(plain, again, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert any(grad is not None for grad in plain)
    assert little < 0.45 * whole


def test_evaluating_keeps_nothing() -> None:
    made = model("attention")
    stepper = Stepper(made, NextToken(), FP32)
    plain = stepper.measure(numbered(6))
    made.recompute = True
    assert float(stepper.measure(numbered(6)).total) == float(plain.total)


@pytest.mark.slow
def test_compiled_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the compiler sees and cuts it, without the C++ that would only take its time."""
    made = model("convolutions")
    stepper = Stepper(made, NextToken(), FP32)
    eager, _ = kept(stepper)
    compiled: Any = torch.compile(step._trunk, backend="aot_eager_decomp_partition", dynamic=False)
    monkeypatch.setattr(stepper, "_trunk", compiled)
    monkeypatch.setattr(stepper, "_attend", attend_written)
    plain, whole = kept(stepper)
    made.recompute = True
    again, little = kept(stepper)
    for one, two, three in zip(eager, plain, again, strict=True):
        assert one is not None
        torch.testing.assert_close(two, three, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)
    assert little < 0.5 * whole
