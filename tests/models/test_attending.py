"""Gradients written by hand are those that automatic differentiation finds."""

from __future__ import annotations

import pytest
import torch
from tiny import shape
from torch import Tensor

from matura.models.attending import attend_fused, attend_written, blocks, rotate, summed
from matura.models.decoder import rotary_table, unseen


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
