"""Gradients written by hand are those that automatic differentiation finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import shape, some_ids, spread
from torch import Tensor

from matura.models.attending import (
    attend_fused,
    attend_spans,
    attend_written,
    blocks,
    nearby,
    rotate,
    starts,
    summed,
)
from matura.models.decoder import rotary_table, unseen
from matura.models.layers import neighbours


def some(*size: int, seed: int = 0) -> Tensor:
    """Normal numbers in double precision, with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)


def rotated_plainly(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def test_a_rotation_and_its_gradient() -> None:
    cos, sin = (table[None, :12, None].double() for table in rotary_table(shape()))
    weight = some(2, 12, 4, cos.shape[-1], seed=1).detach()
    found = []
    for turn in (rotate, rotated_plainly):
        x = some(*weight.shape)
        (turn(x, cos, sin) * weight).sum().backward()
        found.append((turn(x, cos, sin), x.grad))
    torch.testing.assert_close(*found)
    torch.testing.assert_close(found[0][0].norm(dim=-1), x.norm(dim=-1))  # nothing but turned


@pytest.mark.parametrize("length", [5, 32, 96, 128])
def test_attention_and_its_gradient(length: int) -> None:
    """In double precision, so that nothing but the formula can differ."""
    segments = torch.arange(length)[None].expand(2, length) // 40
    bias = unseen(length, segments, torch.zeros((), dtype=torch.float64))
    weight = some(2, 3, length, 8, seed=9).detach()
    found = []
    for attend in (attend_fused, attend_written):
        qkv = [some(2, 3, length, 8, seed=seed) for seed in range(3)]
        mixed = attend(*qkv, bias)
        (mixed * weight).sum().backward()
        found.append([mixed, *(x.grad for x in qkv)])
    for fused, written in zip(*found, strict=True):
        torch.testing.assert_close(written, fused, rtol=1e-6, atol=1e-6)  # scores are fp32


def test_blocks_cover_every_query_once() -> None:
    for length in range(1, 300):
        covered = [t for start, end in blocks(length) for t in range(start, end)]
        assert covered == list(range(length))
    assert [len(blocks(length)) for length in (256, 128, 64, 33, 1)] == [4, 4, 2, 1, 1]


@pytest.mark.parametrize("length", [8, 128])
def test_the_sum_over_blocks_is_one_product(length: int) -> None:
    with torch.no_grad():
        whole, other = some(2, 3, length, length).tril(), some(2, 3, length, 8, seed=1)
        cut = [whole[:, :, start:end, :end].contiguous() for start, end in blocks(length)]
        torch.testing.assert_close(summed(cut, other), whole.mT @ other)


def test_unseen_is_what_lies_ahead_or_in_another_segment() -> None:
    segments = torch.tensor([[1, 1, 2, 0]])
    bias = unseen(4, segments, torch.zeros((), dtype=torch.bfloat16))
    assert bias.dtype == torch.bfloat16
    allowed = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert (bias[0, 0] == 0).int().tolist() == allowed
    assert bool((bias[0, 0][torch.tensor(allowed) == 0] == float("-inf")).all())
    assert unseen(4, None, bias).shape == (1, 1, 4, 4)


PACKED = torch.tensor([[1] * 7 + [2] * 5, [1] * 12, [1, 2, 3] + [4] * 6 + [0] * 3])


def test_starts_are_where_a_span_begins() -> None:
    found = starts(PACKED)
    assert found.dtype == torch.int32
    assert found[:9].tolist() == [0, 7, 12, 24, 25, 26, 27, 33, 36]
    assert set(found[9:].tolist()) == {36}
    many = torch.arange(64).view(2, 32)
    sizes = {len(starts(many // width)) - 1 for width in range(1, 33)}
    assert sizes == {16, 32, 64, 128}  # few, each compiled once


@pytest.mark.parametrize("segments", [PACKED, PACKED[:1], torch.ones(2, 9, dtype=torch.int64)])
def test_spans_are_the_masked_attention_and_its_gradient(segments: Tensor) -> None:
    rows, length = segments.shape
    bias = unseen(length, segments, torch.zeros((), dtype=torch.float64))
    weight = some(rows, 3, length, 8, seed=9).detach()
    found = []
    for attend, reach in ((attend_fused, bias), (attend_spans, starts(segments))):
        qkv = [some(rows, 3, length, 8, seed=seed) for seed in range(3)]
        mixed = attend(*qkv, reach)
        (mixed * weight).sum().backward()
        found.append([mixed, *(x.grad for x in qkv)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("width", [2, 3, 5])
def test_what_is_near_does_not_depend_on_how_it_is_told(width: int) -> None:
    bias = unseen(PACKED.shape[1], PACKED, torch.zeros(()))
    found = nearby(starts(PACKED), torch.zeros(*PACKED.shape, 1), width)
    torch.testing.assert_close(found, neighbours(bias, width))


@pytest.mark.parametrize("more", [{}, {"conv_layers": (0,), "qk_norm": True}])
def test_a_whole_decoder_by_spans(more: dict[str, Any]) -> None:
    model = spread(shape(layers=2, **more))
    x = model.model.embed_tokens(some_ids(*PACKED.shape))
    places = torch.arange(PACKED.shape[1]).expand_as(PACKED)
    found = [
        model.trunk(x, *model.angles(places), reach, attend)
        for attend, reach in (
            (attend_fused, unseen(PACKED.shape[1], PACKED, x)),
            (attend_spans, starts(PACKED)),
        )
    ]
    torch.testing.assert_close(*found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("compiled", [False, True])
def test_spans_on_a_gpu(compiled: bool) -> None:
    """The flash kernel against dense attention in fp32: what is left is bf16's rounding."""
    segments = (torch.arange(1024) // 300).expand(3, 1024).cuda()
    bias = unseen(1024, segments, torch.zeros((), device="cuda"))
    weight = some(3, 4, 1024, 64, seed=9).detach().float().cuda()
    spans = torch.compile(attend_spans, dynamic=False) if compiled else attend_spans
    found = []
    for attend, reach, dtype in (
        (attend_fused, bias, torch.float32),
        (spans, starts(segments), torch.bfloat16),
    ):
        qkv = [
            some(3, 4, 1024, 64, seed=seed).detach().to("cuda", dtype).requires_grad_()
            for seed in range(3)
        ]
        mixed = attend(*qkv, reach)
        (mixed * weight.to(dtype)).sum().backward()
        found.append([x.float() for x in (mixed.detach(), *(x.grad for x in qkv))])
    for dense, flash in zip(*found, strict=True):
        assert float((dense - flash).norm() / dense.norm()) < 0.02
