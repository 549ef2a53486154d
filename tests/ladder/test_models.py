"""What MODEL names: a run, a stage, a Hugging Face folder; everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretend import Pretended, model_folder, pretend

from matura.core.errors import StoreError
from matura.ladder.models import find


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pretended:
    return pretend(tmp_path_factory.mktemp("models"))


def test_a_run_is_its_last_passed_stage(made: Pretended, tmp_path: Path) -> None:
    found = find(made.run)
    assert (found.name, found.speaks) == ("tiny/chat@1", "chat")
    assert found.path == made.run / "chat@1" / "model"
    failed = find(pretend(tmp_path, echo=20).run)
    assert (failed.name, failed.speaks) == ("tiny/base@1", "text")


def test_a_stage_and_its_model_folder(made: Pretended) -> None:
    assert find(made.run / "base@1").name == "tiny/base@1"
    inside = find(made.run / "base@1" / "model")
    assert inside.name == "tiny/base@1"
    assert inside.run == made.run


def test_a_foreign_folder(made: Pretended, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", made.template)
    found = find(folder)
    assert (found.path, found.stage, found.speaks) == (folder, None, "chat")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StoreError, match=r"tokenizer\.json"):
        find(folder)


def test_refusals(made: Pretended, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"not there.*'tiny'"):
        find(made.run.parent / "tinny")
    with pytest.raises(StoreError, match="no model"):
        find(made.run / "tokenizer@1")
    with pytest.raises(StoreError, match="runs in it: tiny"):
        find(made.run.parent)
    (tmp_path / "chat@1.work").mkdir()
    with pytest.raises(StoreError, match="not finished"):
        find(tmp_path / "chat@1.work")
    with pytest.raises(StoreError, match="no stage has passed"):
        find(pretend(tmp_path, stages=0).run)
