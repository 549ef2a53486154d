"""The step that a GPU records says what the model says, wherever its rows stand."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from test_decoding import LENGTH, PLACES, SHAPES, copied, filled, model_of

from matura.models import lora
from matura.models.decoder import Cache, Decoder
from matura.models.decoding import Decoding
from matura.models.graphed import Graphed, Static, laid_out, span_of

gpu = pytest.mark.gpu
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("span", [12, LENGTH])
def test_a_step_of_one_shape_is_the_models_own(
    shape: dict[str, Any], places: list[int], span: int
) -> None:
    model = model_of(shape)
    ours = filled(model)
    theirs = copied(ours)
    ids = torch.tensor([5, 17, 40])
    with torch.no_grad():
        got = Static(model, torch.float32).step(ids, torch.tensor(places), ours, span)
        expected = model.forward_cached(ids[:, None], torch.tensor(places)[:, None], theirs)[:, 0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)
    for mine, other in zip(ours.keys + ours.values, theirs.keys + theirs.values, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_adapters_are_in_the_weights() -> None:
    model = model_of({})
    generator = torch.Generator().manual_seed(3)
    lora.attach(model, rank=2, alpha=4, targets=["q_proj", "down_proj"], generator=generator)
    with torch.no_grad():
        for _, _, adapter in lora.adapted(model):
            adapter.up.normal_(generator=generator)
        ids, places = torch.tensor([1, 2, 3]), [4, 9, 4]
        got = Graphed(model).step(ids, places, filled(model))
        expected = Decoding(model).step(ids, places, filled(model))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


def test_a_span_holds_what_is_needed_and_there_are_few() -> None:
    for needed in range(1, 2001):
        assert needed <= span_of(needed, 2000) <= 2000
    assert {span_of(needed, 2000) for needed in range(1, 2001)} == {256, 512, 1024, 2000}


def test_a_cache_that_is_gone_is_forgotten() -> None:
    model = model_of({})
    steps = Graphed(model)
    for _ in range(3):
        steps.step(torch.tensor([1, 2, 3]), [4, 4, 4], filled(model))
    gc.collect()
    assert steps._known == {}


def test_a_cpu_decodes_as_ever() -> None:
    assert isinstance(laid_out(model_of({}), torch.float32), Decoding)


def said(model: Decoder, steps: Any, rows: int, tokens: int, device: str) -> list[list[int]]:
    """Greedy continuations of rows that stand at different places."""
    cache = Cache.empty(model.config, rows, LENGTH, device=device)
    ids = torch.arange(rows, device=device)
    places, found = [row % 3 for row in range(rows)], []
    for _ in range(tokens):
        ids = steps.step(ids, places, cache).argmax(-1)
        places = [place + 1 for place in places]
        found.append(ids.tolist())
    return found


@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=(gpu, no_gpu), id="recorded")]
)
def test_greedy_answers_are_those_of_the_plain_path(rows: int, device: str) -> None:
    with torch.no_grad():
        model = model_of({"qk_norm": True}).to(device)
        plain, static = Decoding(model), Graphed(model)
        expected = said(model, plain, rows, 30, device)
        assert said(model, static, rows, 30, device) == expected
        assert said(model, static, rows, 30, device) == expected
