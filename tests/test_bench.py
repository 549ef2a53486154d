"""`bench/kill.py`: what is torn is found, and where a kill struck."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from pretend import Pretended, pretend

from matura.core.disk import replace_atomically
from matura.core.store import Checkpoints

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def made(tmp_path: Path) -> Pretended:
    return pretend(tmp_path)


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of `bench/`, imported as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module(name)


def test_torn_things_are_found(made: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = module("kill", monkeypatch)
    assert list(kill.torn(made.run)) == []
    assert list(kill.torn(made.run / "not there")) == []
    work = made.run / "more@1.work"
    saved = Checkpoints(work / "state").save(3, lambda folder: replace_atomically(folder / "a", 1))
    (work / "asked.json").write_text("{}")
    (work / "half").mkdir()
    (made.run / "more@0.gone").mkdir()
    assert list(kill.torn(made.run)) == []
    for path, content in (
        (saved.path / "a", b""),
        (work / "asked.json", b"{"),
        (made.run / "base@1" / "data" / "folder.train.shard", b"no shard"),
        (made.run / "recipe.yaml", b"name: ["),
    ):
        kept = path.read_bytes()
        path.write_bytes(content)
        assert any(path.name in line for line in kill.torn(made.run)), path
        path.write_bytes(kept)
    (made.run / "chat@1" / "record.json").unlink()
    assert any("record.json" in line for line in kill.torn(made.run))


def test_where_a_kill_struck(made: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = module("kill", monkeypatch)
    assert kill.struck(made.run) == "between stages"
    work = made.run / "more@1.work"
    for path, place in (
        ("data/x", "data"),
        ("metrics.jsonl", "training"),
        ("state/step-00000001.work/x", "saving"),
        ("made.json", "exams"),
        ("record.json", "publishing"),
    ):
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).touch()
        assert kill.struck(made.run) == place
