"""Sums, never means: whatever a step is cut into, its loss and gradient are the same."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import FP32, LENGTH, numbered, shape, some_ids, spread
from torch import Tensor

from matura.learn.batch import Batch
from matura.learn.objectives import next_token
from matura.learn.objectives.next_token import CHUNK, MOST_ROWS, NextToken, chunk_rows
from matura.learn.step import Stepper
from matura.models.decoder import Decoder

N, C, V = CHUNK + 300, 8, 20  # two chunks, the second one uneven


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, C, generator=generator, requires_grad=True)
    head = torch.randn(V, C, generator=generator, requires_grad=True)
    weights = torch.randint(-1, 3, (N,), generator=generator).float() * 0.7
    return hidden, head, some_ids(N, vocab=V), weights


def test_fused_equals_the_plain_definition_and_its_gradient() -> None:
    hidden, head, targets, weights = rows()
    nats = F.cross_entropy(hidden @ head.T, targets, reduction="none")
    want = (nats * weights).sum()
    wanted = torch.autograd.grad(want * 0.3, (hidden, head))
    got = NextToken().fused(hidden, head, targets, weights)
    found = torch.autograd.grad(got * 0.3, (hidden, head))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", [0, 1, CHUNK, CHUNK + 1, N])
def test_logits_are_made_where_something_is_learned(
    trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code sees whole chunks only, as many as the trained targets need."""
    hidden, head, targets, _ = rows()
    weights = torch.zeros(N)
    weights[torch.randperm(N, generator=torch.Generator().manual_seed(1))[:trained]] = 2.0
    chunks: list[int] = []

    def spied(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chunks.append(len(tensors[2]))
        return next_token._chunk(*tensors)

    monkeypatch.setattr(next_token, "_compiled", lambda: spied)
    for compiled in (False, True):
        got = NextToken().fused(hidden, head, targets, weights, compiled=compiled)
        nats = F.cross_entropy(hidden @ head.T, targets, reduction="none")
        torch.testing.assert_close(got, (nats * weights).sum(), rtol=1e-5, atol=1e-4)
        wanted = torch.autograd.grad((nats * weights).sum(), (hidden, head))
        for ours, theirs in zip(torch.autograd.grad(got, (hidden, head)), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    assert chunks == [CHUNK] * math.ceil(trained / CHUNK)


def test_fused_holds_for_loud_logits() -> None:
    hidden, head, targets, weights = rows()
    got = NextToken().fused(hidden * 1e3, head * 1e3, targets, weights)
    assert bool(torch.isfinite(got))


def test_plain_is_cross_entropy_over_what_is_trained() -> None:
    model, batch = spread(shape()), numbered(0)
    logits = model(batch.inputs_BT)
    loss = NextToken()(logits, batch)
    trained = batch.target_weights_BT > 0
    assert not trained.all()
    want = F.cross_entropy(logits[trained], batch.targets_BT[trained])
    torch.testing.assert_close(loss.total / loss.weight, want)
    assert float(loss.weight) == int(trained.sum())


def gradients(model: Decoder, batch: Batch, micro_rows: int | None = None) -> list[Tensor]:
    model.zero_grad()
    weight = float(batch.target_weights_BT.abs().sum())
    Stepper(model, NextToken(), FP32).gradients(batch, weight, micro_rows=micro_rows)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_a_stepper_computes_what_autograd_computes() -> None:
    model, batch = spread(shape(layers=2, tie_embeddings=True, qk_norm=True)), numbered(0)
    ours = gradients(model, batch)
    logits = model(batch.inputs_BT, positions_BT=batch.positions_BT, segments_BT=batch.segments_BT)
    loss = NextToken()(logits, batch)
    theirs = torch.autograd.grad(loss.total / loss.weight, list(model.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro_rows", [1, 3, 7])
def test_accumulating_gives_the_gradient_of_the_whole(micro_rows: int) -> None:
    """Users' pain 20: 8 rows at once, one by one, and cut unevenly."""
    model, batch = spread(shape()), numbered(0, rows=8)
    batch.weights_BL[1, :12] = 0.0  # rows that weigh unlike: a mean of means would be wrong
    batch.weights_BL[6] *= 3.0
    for whole, cut in zip(
        gradients(model, batch), gradients(model, batch, micro_rows), strict=True
    ):
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-6)


def test_two_uneven_micro_batches_sum_to_the_whole() -> None:
    model, batch = spread(shape()), numbered(0, rows=8)
    batch.weights_BL[:2, : LENGTH // 2] = 0.0
    stepper = Stepper(model, NextToken(), FP32)
    whole = stepper.measure(batch)
    cuts = [slice(0, 2), slice(2, 8)]
    parts = [
        stepper.measure(Batch(batch.ids_BL[c], batch.weights_BL[c], batch.segments_BL[c]))
        for c in cuts
    ]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    torch.testing.assert_close(sum(p.weight for p in parts), whole.weight)
    means = sum(p.total / p.weight for p in parts) / 2
    assert not torch.allclose(torch.as_tensor(means), whole.total / whole.weight, rtol=1e-3)


def test_padding_changes_no_gradient() -> None:
    """C-47: padding counted in the loss made it look small."""
    model, batch = spread(shape()), numbered(0)
    longer = Batch(
        F.pad(batch.ids_BL, (0, 9), value=1),
        F.pad(batch.weights_BL, (0, 9), value=1.0),
        F.pad(batch.segments_BL, (0, 9), value=0),
    )
    for bare, padded in zip(gradients(model, batch), gradients(model, longer), strict=True):
        torch.testing.assert_close(padded, bare, rtol=1e-4, atol=1e-6)


def test_a_gpu_makes_more_logits_at_once() -> None:
    assert chunk_rows(2048, "cpu") == chunk_rows(200_000, "cpu") == CHUNK
    assert chunk_rows(65_536, "cuda") == 4096
    assert chunk_rows(2048, "cuda") == MOST_ROWS
    assert chunk_rows(10**7, "cuda") == CHUNK
    assert all(chunk_rows(vocab, "cuda") % CHUNK == 0 for vocab in (50_257, 50_304, 151_936))
