"""One made-up run for all tests of the command line, and a way to call it in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pretend import Pretended, model_folder, pretend

from matura.cli.main import main


@dataclass
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str


Call = Callable[[Sequence[object]], Said]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Pretended:
    """A whole run; nobody may write to it."""
    return pretend(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def chatty(tiny: Pretended, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder that belongs to no run."""
    return model_folder(tmp_path_factory.mktemp("hf") / "model", tiny.template)


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Call:
    """Runs `matura ARGUMENTS` in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(arguments: Sequence[object]) -> Said:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run
