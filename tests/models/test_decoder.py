"""The decoder gives the same answer whichever way it is asked."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tiny import shape, some_ids, spread
from torch import Tensor

from matura.learn.loop import seeded
from matura.models.attending import Attend, attend_fused, attend_written
from matura.models.decoder import Cache, Decoder, unseen

CONVOLVED = {"qk_norm": True, "conv_layers": (0,)}
WIDE = {"tie_embeddings": True, "hidden_size": 768, "heads": 12, "kv_heads": 12}
KINDS = pytest.mark.parametrize("more", [{}, {"qk_norm": True}, CONVOLVED], ids=str)
ATTENDS = pytest.mark.parametrize("attend", [attend_fused, attend_written])


def packed(model: Decoder, parts: list[Tensor], attend: Attend = attend_fused) -> list[Tensor]:
    """Each part's logits when all stand in one row."""
    ids = torch.cat(parts)[None]
    positions = torch.cat([torch.arange(len(part)) for part in parts])[None]
    segments = torch.cat([torch.full((len(p),), i) for i, p in enumerate(parts, start=1)])[None]
    with torch.no_grad():
        hidden = model.hidden(ids, positions_BT=positions, segments_BT=segments, attend=attend)
        return list(torch.split(model.head(hidden)[0], [len(part) for part in parts]))


@pytest.mark.parametrize("chunk", [1, 3, 20])
@KINDS
def test_cached_equals_uncached(chunk: int, more: dict[str, Any]) -> None:
    """C-26: a prompt read in pieces of any size is causal, and continues alike."""
    model = spread(shape(layers=2, **more))
    ids = some_ids(3, 20)
    cache = Cache.empty(model.config, 3, 32)
    with torch.no_grad():
        want = model(ids)
        got = []
        for start in range(0, 20, chunk):
            part = ids[:, start : start + chunk]
            positions = torch.arange(start, start + part.shape[1]).expand_as(part)
            got.append(model.forward_cached(part, positions, cache, span=20))
    torch.testing.assert_close(torch.cat(got, dim=1), want, rtol=1e-5, atol=1e-5)


@KINDS
def test_rows_of_a_cache_stand_at_their_own_positions(more: dict[str, Any]) -> None:
    model = spread(shape(layers=2, **more))
    ids = some_ids(2, 12)
    cache = Cache.empty(model.config, 2, 16)
    with torch.no_grad():
        # row 1 is only 7 long so far: what lies in its cache beyond is stale
        model.forward_cached(ids, torch.arange(12).expand(2, 12), cache)
        new = some_ids(2, 1, seed=9)
        got = model.forward_cached(new, torch.tensor([[12], [7]]), cache)
        alone = model(torch.cat((ids[1, :7], new[1]))[None])
        kept = model.forward_cached(new[1:], torch.tensor([[7]]), cache.keep(torch.tensor([1])))
    torch.testing.assert_close(got[1, 0], alone[0, -1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kept[0, 0], alone[0, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [7, 31, 64, 128])
def test_written_attention_equals_the_fused_one(length: int) -> None:
    """64 is long enough to be cut into two blocks, 128 into four."""
    model = spread(shape(layers=2, sequence_length=128))
    ids = some_ids(2, length)
    segments = (torch.arange(length) // 5)[None].expand(2, length)
    found = []
    for attend in (attend_fused, attend_written):
        model.zero_grad()
        hidden = model.hidden(ids, segments_BT=segments, attend=attend)
        model.head(hidden).square().mean().backward()
        found.append([hidden, *(p.grad for p in model.parameters())])
    for fused, written in zip(*found, strict=True):
        torch.testing.assert_close(written, fused, rtol=1e-4, atol=1e-5)


@ATTENDS
@KINDS
def test_packed_logits_equal_unpacked_ones(attend: Attend, more: dict[str, Any]) -> None:
    model = spread(shape(layers=2, **more))
    parts = [some_ids(n, seed=n) for n in (5, 9, 1, 2, 17)]
    for part, got in zip(parts, packed(model, parts, attend), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(got, model(part[None])[0], rtol=1e-5, atol=1e-5)


@ATTENDS
@KINDS
def test_no_packed_document_sees_another(attend: Attend, more: dict[str, Any]) -> None:
    """Users' pain 4: perturb one document, and the others' logits stay as they are bit by bit."""
    model = spread(shape(layers=2, **more))
    parts = [some_ids(n, seed=n) for n in (20, 15, 29)]
    before = packed(model, parts, attend)
    for changed in range(3):
        others = [*parts]
        others[changed] = (parts[changed] + 1) % model.config.vocab_size
        after = packed(model, others, attend)
        for i in range(3):
            assert torch.equal(before[i], after[i]) == (i != changed)


@KINDS
def test_no_position_sees_a_later_one(more: dict[str, Any]) -> None:
    model = spread(shape(layers=2, **more))
    ids = some_ids(1, 20)
    other = ids.clone()
    other[0, 11:] = (ids[0, 11:] + 1) % model.config.vocab_size
    with torch.no_grad():
        before, after = model(ids), model(other)
    assert torch.equal(before[0, :11], after[0, :11])
    assert not torch.equal(before[0, 11:], after[0, 11:])


def test_attention_is_what_the_layers_use() -> None:
    model = spread(shape(layers=2))
    seen = model.attention(some_ids(2, 12))
    assert [weights.shape for weights in seen] == [(2, 4, 12, 12)] * 2
    for weights in seen:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 12))
        assert not weights.triu(1).any()


@pytest.mark.parametrize("more", [{}, {"tie_embeddings": True}, WIDE, CONVOLVED], ids=str)
def test_a_fresh_model_guesses_by_chance_and_its_layers_do_nothing(more: dict[str, Any]) -> None:
    model = Decoder(shape(layers=2, **more)).start(seeded(0))
    ids = some_ids(8, 32)
    with torch.no_grad():
        logits = model(ids)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        layers = model.hidden(ids)
        x = model.model.embed_tokens(ids)
        bare = model.trunk(x, *model.angles(ids), unseen(32, None, x), attend_fused)
        model.model.layers = torch.nn.ModuleList()
        assert torch.equal(layers, bare)
        assert torch.equal(layers, model.hidden(ids))
    assert float(loss) == pytest.approx(math.log(model.config.vocab_size), rel=0.05)


def test_starting_is_a_function_of_the_seed() -> None:
    one, two, other = (Decoder(shape()).start(seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.lm_head.weight, two.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_bf16_is_for_computing_only() -> None:
    """C-20: the weights themselves stay fp32, and so do logits."""
    model = spread(shape(layers=2))
    ids = some_ids(2, 12)
    with torch.no_grad():
        want = model(ids)
    model.compute_dtype = torch.bfloat16
    got = model(ids)
    got.sum().backward()
    assert got.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert model.hidden(ids).dtype == torch.bfloat16
    torch.testing.assert_close(got, want, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_embeddings": True},
        {"qk_norm": True, "layers": 3},
        {"head_dim": 16},
        {"layers": 3, "qk_norm": True, "conv_layers": (0, 2), "conv_width": 4},
    ],
    ids=str,
)
def test_the_count_of_parameters_is_right(more: dict[str, Any]) -> None:
    config = shape(**more)
    assert config.parameters == sum(p.numel() for p in Decoder(config).parameters())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kv_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
        ({"heads": 5, "kv_heads": 5}, "hidden_size 32 is not a multiple of heads 5"),
        ({"head_dim": 7}, "even head width, not 7"),
        ({"hiden_size": 1}, "hiden_size"),
        ({"layers": 2, "conv_layers": (0,)}, "qk_norm: true"),
        ({"layers": 2, "qk_norm": True, "conv_layers": (2,)}, "the last of 2 layers is 1"),
        ({"layers": 2, "qk_norm": True, "conv_layers": (0, 1)}, "at least one layer has to attend"),
        ({"layers": 3, "qk_norm": True, "conv_layers": (1, 0)}, "each once, in rising order"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(more: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        shape(**more)
