"""`bench/flips.py`: damage to any file of a checkpoint is noticed and named, and it can tell."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from matura.core.store import RECORD, Checkpoints

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def flips(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("flips")


@pytest.mark.slow
def test_sixty_damages_are_noticed_and_named(flips: ModuleType, tmp_path: Path) -> None:
    found = flips.measured(60, 1, tmp_path)
    assert found["problems"] == []
    assert found["kinds"].keys() == {"flip", "cut", "gone"}
    assert {"record.json", "state.json", "weights.safetensors"} < found["files"].keys()
    assert min(found["files"].values()) >= 4
    assert found["went_on"] == 2
    assert found["no_checkpoint_left"] == 3


def test_it_tells_what_nobody_notices(flips: ModuleType, tmp_path: Path) -> None:
    """A record without a hash of its own does not show that its step is another."""
    state = tmp_path / "state"
    for stop in (flips.OLDER, flips.NEWER):
        flips.trained(flips.whole(), state, stop)
    older = flips.tensors(flips.whole(), state)[1]  # wrong on purpose: it is the newer one's
    record = Checkpoints(state).at(flips.NEWER) / RECORD
    old = {n: v for n, v in json.loads(record.read_text()).items() if n != "sha256"}
    record.write_text(json.dumps({"steps": "0" * 99_999, **old, "schema": 1}))
    kept = flips.Kept("old", flips.whole, state, older, {}, ())
    tally = flips.Tally()
    flips.one(kept, RECORD, "flip", Random(0), tally, goes_on=False)
    assert len(tally.undetected) == 1
    flips.one(kept, "state.json", "gone", Random(0), tally, goes_on=True)
    assert (len(tally.undetected), tally.unnamed) == (1, [])
    assert (len(tally.not_older), len(tally.unequal)) == (1, 1)
