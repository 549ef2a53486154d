"""One token at a time says what the model says, whatever it is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from matura.models import decoding, lora
from matura.models.decoder import Cache, Decoder, DecoderConfig
from matura.models.decoding import Decoding

VOCAB, LENGTH = 53, 40
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "layers": 3,
    "heads": 4,
    "kv_heads": 2,
    "sequence_length": LENGTH,
}
SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "ungrouped, tied": {"kv_heads": 4, "tie_embeddings": True},
    "normalised": {"qk_norm": True, "head_dim": 16},
    "biased inputs": {"biases": "inputs"},
    "all biased": {"biases": "all"},
    "convolutions": {"conv_layers": (0, 2), "qk_norm": True, "conv_width": 4},
    "stretched": {"stretched": {"kind": "llama3", "factor": 4.0, "original_length": 10}},
}
PLACES = {"alike": [6, 6, 6], "apart": [3, 11, 7], "at the start": [0, 1, 2]}


def model_of(shape: dict[str, Any]) -> Decoder:
    """A random model none of whose parameters is at its start."""
    model = Decoder(DecoderConfig(**SIZES | shape))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            middle = 1.0 if weight.ndim == 1 else 0.0
            weight.normal_(middle, 0.3, generator=generator)
    return model


def filled(model: Decoder, dtype: torch.dtype = torch.float32) -> Cache:
    """A cache with something at every place."""
    cache = Cache.empty(model.config, 3, LENGTH, dtype=dtype)
    generator = torch.Generator().manual_seed(2)
    for tensor in [*cache.keys, *cache.values]:
        tensor.normal_(generator=generator)
    return cache


def copied(cache: Cache) -> Cache:
    return Cache([k.clone() for k in cache.keys], [v.clone() for v in cache.values])


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("joined", [2**30, 0], ids=["joined", "as they are"])
def test_a_step_is_the_models_own(
    shape: dict[str, Any], places: list[int], joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "JOINED_BYTES", joined)
    model = model_of(shape)
    ours, theirs = filled(model), filled(model)
    ids = torch.tensor([5, 17, 40])
    with torch.no_grad():
        got = Decoding(model).step(ids, places, ours)
        expected = model.forward_cached(ids[:, None], torch.tensor(places)[:, None], theirs)[:, 0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)
    for mine, other in zip(ours.keys + ours.values, theirs.keys + theirs.values, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[9, 9, 9], [1, 9, 4], [5]], ids=["alike", "apart", "alone"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("joined", [2**30, 0], ids=["joined", "as they are"])
def test_prompts_are_read_and_continued_as_the_model_does(
    shape: dict[str, Any], lengths: list[int], joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "JOINED_BYTES", joined)
    model = model_of(shape)
    laid_out, rows = Decoding(model), len(lengths)
    ours, theirs = (Cache.empty(model.config, rows, LENGTH) for _ in range(2))
    ids = torch.randint(VOCAB, (rows, max(lengths)), generator=torch.Generator().manual_seed(4))
    lasts = torch.tensor(lengths) - 1
    with torch.no_grad():
        got = laid_out.read(ids, lasts, ours)
        places = torch.arange(ids.shape[1]).expand_as(ids)
        read = model.forward_cached(ids, places, theirs, span=ids.shape[1])
        expected = read[torch.arange(rows), lasts]
        for step in range(3):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)
            said, at = expected.argmax(-1), [length + step for length in lengths]
            assert torch.equal(got.argmax(-1), said)
            got = laid_out.step(said, at, ours)
            expected = model.forward_cached(said[:, None], torch.tensor(at)[:, None], theirs)[:, 0]
    for mine, other in zip(ours.keys + ours.values, theirs.keys + theirs.values, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_logits_of_a_usual_size_differ_by_less_than_1e_5() -> None:
    model = Decoder(DecoderConfig(**SIZES)).start(torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
        model.lm_head.weight.normal_(0.0, 32**-0.5, generator=generator)
        for rows in (1, 32):
            ids = torch.randint(VOCAB, (rows, 7), generator=generator)
            empty = Cache.empty(model.config, rows, LENGTH)
            got = Decoding(model).read(ids, torch.full((rows,), 6), empty)
            torch.testing.assert_close(got, model(ids)[:, -1], atol=1e-5, rtol=0.0)


def test_adapters_are_heard() -> None:
    model = model_of({})
    generator = torch.Generator().manual_seed(3)
    targets = ["q_proj", "v_proj", "down_proj"]
    lora.attach(model, rank=2, alpha=4, targets=targets, generator=generator)
    plain = Decoding(model)
    with torch.no_grad():
        for _, _, adapter in lora.adapted(model):
            adapter.up.normal_(generator=generator)
    ids, places = torch.tensor([1, 2, 3]), [4, 4, 4]
    with torch.no_grad():
        got = Decoding(model).step(ids, places, filled(model))
        unheard = plain.step(ids, places, filled(model))
        expected = model.forward_cached(ids[:, None], torch.full((3, 1), 4), filled(model))[:, 0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(unheard, expected, atol=1e-2)


def test_in_bf16_it_is_as_far_off_as_the_model_is() -> None:
    model = model_of({"qk_norm": True})
    ids, places = torch.tensor([5, 17, 40]), [6, 6, 6]
    at = torch.full((3, 1), 6)
    with torch.no_grad():
        exact = model.forward_cached(ids[:, None], at, filled(model))[:, 0]
        got = Decoding(model, torch.bfloat16).step(ids, places, filled(model, torch.bfloat16))
        model.compute_dtype = torch.bfloat16
        rough = model.forward_cached(ids[:, None], at, filled(model, torch.bfloat16))[:, 0]
    assert got.dtype == torch.float32
    assert float((got - exact).norm()) < 2 * float((rough - exact).norm())
