"""`bench/cost.py`: rows hold the documents that they should, and what is timed is what it says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny import FP32

from matura.models.decoder import Decoder, DecoderConfig

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    found = importlib.import_module("cost")
    small = DecoderConfig(
        vocab_size=48, hidden_size=32, layers=1, heads=4, kv_heads=2, sequence_length=32
    )
    monkeypatch.setattr(found, "SHAPE", small)
    return found


def test_rows_hold_several_documents(cost: ModuleType) -> None:
    segments = cost.packed(16, 4).segments_BL
    assert segments.shape == (16, 33)
    assert bool((segments[:, 1:] >= segments[:, :-1]).all())
    counts = [len(row.unique()) for row in segments]
    assert max(counts) == 4
    assert sum(counts) / 16 > 3
    assert cost.packed(2, 1).segments_BL.unique().tolist() == [1]


def test_the_causal_stepper_sees_across_documents(cost: ModuleType) -> None:
    """Else the mask would be compared with itself."""
    model = Decoder(cost.SHAPE)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(float(weight.ndim == 1), 0.2, generator=torch.Generator().manual_seed(1))
    batch, objective = cost.packed(4, 4), cost.NextToken()
    many = cost.Stepper(model, objective, FP32).gradients(batch, 1.0)
    assert cost.Causal(model, objective, FP32).gradients(batch, 1.0) != many
    one = cost.packed(4, 1)
    alone = cost.Stepper(model, objective, FP32).gradients(one, 1.0)
    assert cost.Causal(model, objective, FP32).gradients(one, 1.0) == alone


def test_mask_and_saves_are_measured(cost: ModuleType, tmp_path: Path) -> None:
    found = cost.mask(2, 2, FP32)
    assert found["ratio"] > 0
    found = cost.saving(2, tmp_path, FP32)
    assert found["saves"] == 1
    assert 0 < found["wait_s"] <= found["longest_wait_s"]
    assert found["share"] == found["wait_s"] / found["every_s"]


def test_the_last_row_is_a_whole_one(cost: ModuleType, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert cost.last_row(metrics) == -1
    metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(3)))
    assert cost.last_row(metrics) == 2
    metrics.write_text(metrics.read_text() + '{"step": 3')
    assert cost.last_row(metrics) == 2
