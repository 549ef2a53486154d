"""`bench/exact.py`: what is compared is all that a stage leaves but the clock."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from matura.core.disk import replace_atomically
from matura.core.store import Checkpoints, publish, work_place

BENCH = Path(__file__).parent.parent / "bench"
FILES = {
    "model/model.safetensors": b"weights",
    "adapter/adapter_model.safetensors": b"adapter",
    "data/x.train.shard": b"rows",
    "metrics.jsonl": b'{"step": 0}\n',
    "exams.json": b"{}",
    "timings.jsonl": b'{"step": 0, "tokens_per_s": 1.0}\n',
}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("exact")


def stage(
    folder: Path,
    files: dict[str, bytes] | None = None,
    state: bytes = b"optimizer",
    steps: tuple[int, ...] = (3, 9),
    **numbers: Any,
) -> Path:
    """A made stage with checkpoints, the last of which holds `state`."""
    final = folder / "base@1"
    work = work_place(final)
    for name, content in (FILES | (files or {})).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(work / name, content)
    for step in steps:
        held = state if step == 9 else b"older"
        Checkpoints(work / "state").save(
            step, lambda place, held=held: replace_atomically(place / "optimizer", held)
        )
    usual = {"steps": 9, "seconds": 1.0, "peak_rss_bytes": 5}
    return publish(work, final, {"asked": {"seed": 0}, "numbers": usual | numbers}).path


def test_the_clock_and_older_checkpoints_are_no_difference(
    exact: ModuleType, tmp_path: Path
) -> None:
    slow = {"timings.jsonl": b'{"step": 0, "tokens_per_s": 0.5}\n'}
    one = exact.told(stage(tmp_path / "one"))
    assert one == exact.told(stage(tmp_path / "two", slow, steps=(5, 9), seconds=99.0))
    assert {"metrics.jsonl", "state/optimizer", "record.json"} < one.keys()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *((name, {"files": {name: b"other"}}) for name in FILES if name != "timings.jsonl"),
        ("state/optimizer", {"state": b"other"}),
        ("record.json", {"best_step": 3}),
    ],
)
def test_anything_else_is(
    name: str, other: dict[str, Any], exact: ModuleType, tmp_path: Path
) -> None:
    one, two = exact.told(stage(tmp_path / "one")), exact.told(stage(tmp_path / "two", **other))
    assert {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)} == {name}


def test_training_is_seen_by_its_first_row(exact: ModuleType, tmp_path: Path) -> None:
    metrics: Path = tmp_path / "metrics.jsonl"
    changes: list[Callable[[], object]] = [
        lambda: metrics.write_bytes(b"1\n"),
        lambda: replace_atomically(metrics, b"2\n"),  # as a run that resumes does
        lambda: metrics.write_bytes(b"2\n3\n"),
    ]
    before = exact.seen(metrics)
    assert before is None
    for change in changes:
        change()
        assert exact.seen(metrics) not in (None, before)
        before = exact.seen(metrics)
