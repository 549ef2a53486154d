"""The judges of `bench/`: what is torn is found, and arithmetic is counted right."""

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


def test_arithmetic_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    train = module("train", monkeypatch)
    tiny = train.SHAPES["tiny"]
    layer = 4 * 192 * 192 + 3 * 192 * 512
    matrices = 6 * (4 * layer + 2048 * 192)
    attention = 12 * 4 * 192 * 256
    assert tiny.flops_per_token(0.0) == matrices
    assert tiny.flops_per_token(1.0) == matrices + attention
    assert tiny.flops_per_token(0.5) == matrices + attention / 2
    assert tiny.tokens == 4096


@pytest.mark.slow
def test_training_is_measured_against_its_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("MATURA_COMPILE", "0")
    train = module("train", monkeypatch)
    small = train.shape(32, 1, 2, 300, 4, 32)
    found = train.measure(small, 0.2, 1, tmp_path)
    for name in ("tok_s", "ratio_fp32", "ratio_bf16", "mfu", "mfu_whole_square"):
        assert found[name] > 0, name
    work = small.flops_per_token(0.5) / small.flops_per_token(1.0)
    assert found["mfu"] / found["mfu_whole_square"] == pytest.approx(work, rel=0.02)
    assert found["gemm_peak_gflops"].keys() == {"fp32", "bf16"}
    assert found["transformers_tok_s"].keys() == {"fp32", "bf16"}
    assert isinstance(found["without"], list)
    assert [path.name for path in tmp_path.iterdir()] == ["random.shard"]
