"""`bench/quality.py`: text is scored once, rates follow the clock, the best peer counts."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from matura.core.types import Document
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script of `bench/`, imported as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def test_each_held_out_token_is_scored_once(bench: Any) -> None:
    data = bench("quality_data")
    template = Template(Tokenizer.bytes_only("matura"))
    texts = ["abcdefgh", "x", "0123456789", "an end that is cut"]
    documents = [Document(text=text, id=text) for text in texts]
    ids, scored = data.rows(template, documents, 4, template.pad_id)
    assert ids.shape == (scored.shape[0], 5)
    assert bytes(ids[:, 1:][scored].tolist()).decode() == "".join(texts)
    # each row starts with what stands before its first target: the begin tag, or the last token
    assert ids[1, 0] == ids[0, 4] == ord("d")
    assert ids[0, 0] >= 256


def test_even_odds_cost_the_bits_of_the_vocabulary(bench: Any) -> None:
    data = bench("quality_data")
    ids = np.arange(45).reshape(9, 5) % 8
    scored = np.ones((9, 4), dtype=bool)
    scored[-1, 2:] = False
    held_out = data.HeldOut(ids, scored, bytes=17)
    even = held_out.bits_per_byte(lambda rows: torch.zeros(*rows.shape, 8))
    assert even == pytest.approx(34 * 3 / 17)

    def sure(rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((rows + 1) % 8, 8) * 100.0

    assert held_out.bits_per_byte(sure) == pytest.approx(0.0, abs=1e-6)


def test_rates_follow_the_clock(bench: Any) -> None:
    clock = bench("quality_clock")
    now = [10.0]
    run = clock.Clock(100.0, 0.5, lambda: now[0])
    assert run.begins()
    assert 0 < run.factor() < 0.1
    now[0] = 11.0
    assert run.factor() == pytest.approx(0.5)
    seen = []
    for now[0] in (13.0, 14.0, 49.0, 75.0, 78.0):
        assert run.begins()
        seen.append(run.factor())
    assert seen == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.44])
    # another step as long as most would end too late
    now[0] = 97.5
    assert not run.begins()
    assert run.steps == [10.0, 13.0, 14.0, 49.0, 75.0, 78.0]
    now[0] = 100.0
    assert run.factor() > 0


def test_the_peer_is_tuned(bench: Any) -> None:
    quality = bench("quality")
    assert quality.rates_to_try([300, 60, 120], {}, 60) == list(quality.RATES)
    tried = {1e-3: 2.5, 2e-3: 2.2, 4e-3: 2.3}
    assert quality.rates_to_try([60, 120], tried, 120) == [2e-3, 1e-3]


def found(quality: ModuleType) -> dict[str, Any]:
    """Two times, at one of which the peer's second rate wins."""

    def one(bpb: float, tokens: int, rate: float = 0.0) -> dict[str, Any]:
        return {"bpb": bpb, "tokens": tokens, "rate": rate}

    made: dict[str, Any] = quality.report(
        {"held_out_bytes": 10},
        {"60": one(2.0, 100), "300": one(1.4, 500)},
        {"60": [one(2.6, 50, 1e-3), one(2.4, 50, 2e-3)], "300": [one(1.3, 300, 2e-3)]},
        {},
    )
    return made


def test_the_best_of_each_time_is_told(bench: Any) -> None:
    said = found(bench("quality"))
    assert said["bpb"] == {"60": 2.0, "300": 1.4}
    assert said["bpb_transformers"] == {"60": 2.4, "300": 1.3}
    assert said["rate_transformers"]["60"] == 2e-3
    assert said["lowest_everywhere"] is False


def test_the_drawing_holds_every_run(bench: Any) -> None:
    svg = bench("quality_plot").drawing(found(bench("quality")))
    tree = ElementTree.fromstring(svg)
    circles = [each for each in tree.iter() if each.tag.endswith("circle")]
    assert len(circles) == 3 + 2 + 2
    assert "2.400 after 60 s" in svg
    assert "same" not in svg


@pytest.mark.slow
def test_a_run_ends_in_time_and_has_learned(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, shape = bench("quality_data"), bench("train_ours").SHAPES["mini"]
    said = data.prepare(tmp_path, shape, 400_000)
    assert 0 < said["held_out_bytes"] <= data.HELD_OUT_BYTES
    monkeypatch.setenv("BENCH_BEGAN", str(time.time()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, str(BENCH / "quality_ours.py"), str(tmp_path), str(tmp_path / "out")]
    asked = ["--shape=mini", "--seconds=25", "--clock=busy"]
    done = subprocess.run([*command, *asked], stdout=subprocess.PIPE, text=True, check=True)
    ours = json.loads(done.stdout)
    uniform = np.log2(shape.config.vocab_size) * said["held_out_tokens"] / said["held_out_bytes"]
    assert ours["steps"] > 5
    assert ours["bpb"] < 0.95 * uniform
