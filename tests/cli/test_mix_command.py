"""`data mix` says what was asked and got, in words and as JSON; wrong names of folders are usage
errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from matura.cli.main import main


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, count in (("new", 900), ("wiki", 500)):
        for split in ("train", "val"):
            Path(name, split).mkdir(parents=True)
            np.zeros(count, "<u4").tofile(Path(name, split, "a.bin"))
        Path(name, "dataset_metadata.json").write_text("{}")
    return tmp_path


def test_shares_are_said(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["data", "mix", "new", "wiki", "--share", "wiki=0.1", "--into", "mixed"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "mixed: 1,000 tokens for training" in said
    assert "wiki: 100 tokens = 10.00% (asked 10.00%), 500 for validation" in said
    assert main([*line, "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert [(part["path"], part["train"]) for part in parts] == [("new", 900), ("wiki", 100)]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--share", "wiky=0.1"], 2, "did you mean 'wiki'"),
        (["--share", "wiki=much"], 2, "expected wiki=NUMBER"),
        (["--share", "wiki=0.6"], 1, "has 500 tokens, 1,350 are asked for"),
    ],
)
def test_what_cannot_be_is_said(
    folders: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, said: str
) -> None:
    assert main(["data", "mix", "new", "wiki", "--into", "mixed", *more]) == code
    assert said in capsys.readouterr().err
    assert not Path("mixed").exists()
