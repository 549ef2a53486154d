"""FAULTS D4: a name that leads elsewhere, or is none, is refused before any folder is made and
before anything outside is opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pretend import model_folder, recipe_text

from compat.mypt import generate, train
from matura.cli.main import main
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

NAMES = (
    "../../x",
    "../x",
    "/tmp/x",
    "..",
    ".",
    "",
    "(scratch)",
    "a b",
    "a/b",
    "a\\b",
    "x\n",
    "x\0y",
    "UPPER",
    "-x",
    ".hidden",
    "x.work",
    "x@1",
    "\u2025/x",  # two dot leader
    "\uff0e\uff0e\uff0fx",  # full-width dots and slash
    "\u202ex",
    "n" * 10_000,
)
MAKES = ("os.mkdir", "os.rename", "os.symlink", "os.link", "os.remove", "os.rmdir")
_seen: list[tuple[str, str]] | None = None


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in MAKES:
        _seen.append((event, str(given[0])))
    elif event == "open" and isinstance(given[0], str):
        _seen.append((event, given[0]))


@contextmanager
def heard() -> Iterator[list[tuple[str, str]]]:
    """What this process makes, and what it opens that is no part of Python or of this project."""
    global _seen
    if not hasattr(sys, "_heard_by_hostile_names"):
        sys.addaudithook(_hear)  # it can never be taken away again
        sys._heard_by_hostile_names = True  # type: ignore[attr-defined]
    found: list[tuple[str, str]] = []
    _seen = found
    try:
        yield found
    finally:
        _seen = None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, chats and a configuration, three folders deep."""
    root = tmp_path_factory.mktemp("names") / "a" / "b" / "c"
    model_folder(root / "checkpoints" / "base", Template(Tokenizer.bytes_only("mypt")))
    (root / "data").mkdir()
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    for name in ("train", "val"):
        (root / "data" / f"{name}.jsonl").write_text(f"{row}\n" * 20)
    (root / "c.json").write_text('{"max_iters": 2, "batch_size": 4, "learning_rate": 1e-4}')
    (root / "r.yaml").write_text(recipe_text(root))
    return root


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def refused(done: int, found: list[tuple[str, str]], place: Path, said: str) -> None:
    """By an exit code and a line that says why, with nothing made and nothing opened so named."""
    assert done in (1, 2)
    assert [made for made in found if made[0] != "open"] == []
    outside = [path for _, path in found if path.startswith(("..", "/tmp/x")) or "\0" in path]
    assert outside == []
    assert "Traceback" not in said
    assert sorted(path.name for path in place.iterdir()) == [
        "c.json", "checkpoints", "data", "r.yaml", "text",
    ]  # fmt: skip
    assert [path.name for path in (place / "checkpoints").iterdir()] == ["base"]


NAMED = ("name", "stages.0.name", "stages.0.mixture.0.name")


def test_of_a_recipe(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run, a stage and a source: each is refused by itself."""
    for name in NAMES[::3]:
        spelled = '"' + "".join(_escaped(letter) for letter in name) + '"'
        sets = [word for where in NAMED for word in ("--set", f"{where}={spelled}")]
        with heard() as found:
            done = main(["run", "r.yaml", *sets])
        said = capsys.readouterr().err
        refused(done, found, place, said)
        assert all(f"--set {where}=" in said for where in NAMED), said[:500]


def _escaped(letter: str) -> str:
    return letter if letter.isalnum() and letter.isascii() else f"\\u{ord(letter):04x}"


def test_of_a_model_that_is_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        line = ["--init_from_model", "base", "--dataset_dir", "data", "--config_file", "c.json"]
        with heard() as found:
            done = train.main([f"--model_name={name}", *line])
        refused(done, found, place, capsys.readouterr().err)


def test_of_a_model_that_is_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        if name in (".", "..", ""):
            continue  # folders that are there, and no models
        with heard() as found:
            done = generate.main([f"--model_name={name}", "--prompt", "x"])
        refused(done, found, place, capsys.readouterr().err)


def test_a_good_name_is_heard_to_make_something(place: Path, tmp_path: Path) -> None:
    with heard() as found:
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "x").write_text("x")
    assert ("os.mkdir", str(tmp_path / "made")) in found
    assert ("open", str(tmp_path / "made" / "x")) in found
