"""What MyPT's iterations come to, key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compat.mypt.configuring import Config
from compat.mypt.horizons import Horizon, counted
from matura.data.sources.prepared import Prepared
from matura.stages.parts import Train
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

TEMPLATE = Template(Tokenizer.bytes_only("mypt"))
USUAL: dict[str, Any] = {"max_iters": 40, "batch_size": 4, "learning_rate": 3e-5}


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    """40 episodes of 64 tokens each."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{i:027}"},
                {"role": "assistant", "content": "y" * 30},
            ]
        }
        for i in range(40)
    ]
    for name in ("train", "val"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return Prepared(path=tmp_path)


def made(data: Prepared, *, heart: bool = False, length: int = 64, **more: Any) -> Horizon:
    return counted(Config.model_validate(USUAL | more), data, TEMPLATE, length, heart=heart)


def test_iterations_are_epochs(data: Prepared) -> None:
    horizon = made(data)
    assert horizon.train["epochs"] == 40 * 4 / 40
    assert made(data, grad_accum_steps=1, max_iters=20).train["epochs"] == 2
    assert horizon.train["batch_tokens"] == pytest.approx(4 * 64, abs=12)


def test_fifty_six_exposures_become_three_unless_asked_for_again(data: Prepared) -> None:
    much = made(data, max_iters=560)
    assert much.train["epochs"] == 3
    assert "56.0 epochs" in much.told[0]
    assert "--allow-overexposure" in much.told[0]
    by_heart = made(data, max_iters=560, heart=True)
    assert by_heart.train["epochs"] == 56
    assert by_heart.max_repeats > 56


@pytest.mark.parametrize(
    ("key", "value", "field", "becomes"),
    [
        ("learning_rate", 3e-4, "matrix_learning_rate", Train().matrix_learning_rate),
        ("learning_rate", 3e-5, "learning_rate", pytest.approx(Train().learning_rate / 10)),
        ("weight_decay", 0.05, "weight_decay", 0.05),
        ("grad_clip", 0.5, "clip", 0.5),
        ("neftune_alpha", 5, "neftune", 5),
        ("segment_position_reset", False, "positions", "row"),
        ("batch_sampling_mode", "random", "order", "random"),
        ("episode_min_tokens", 9, "min_tokens", 9),
        ("eval_interval", 5, "evaluations", 8),
        ("warmup_iters", 4, "warmup_tokens", pytest.approx(4 * 4 * 64, rel=0.1)),
        ("warmup_iters", 0.1, "warmup_tokens", pytest.approx(4 * 4 * 64, rel=0.1)),
    ],
)
def test_each_key_changes_what_is_trained(
    data: Prepared, key: str, value: Any, field: str, becomes: Any
) -> None:
    assert made(data, **{key: value}).train[field] == becomes
