"""FAULTS B12: one recipe, climbed in two places by two processes whose hashes of text differ, makes
the same files: none holds a time, a path of the run, or an order that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pretend import recipe_text

from matura.core.store import Folder

CLIMB = """
import sys
from pathlib import Path
from matura.core.ledger import Ledger
from matura.ladder.climb import climb
from matura.ladder.recipe import load
sets = [f"stages.{stage}.{field}" for stage in ("base", "chat") for field in
        ("exams=[]", "train.tokens=1000", "train.checkpoint_every_s=1e6")]
climb(load(Path(sys.argv[1]), sets), Path(sys.argv[2]), ledger=Ledger(mode="quiet"))
"""
OWN = {"seconds", "peak_rss_bytes"}
"""What a record says of its making, and not of what was made."""
TIMED = ("timings.jsonl", "events.out")
"""Files of times, and the copy of the metrics that TensorBoard reads."""


def climbed(recipe: Path, runs: Path, hashes: str) -> dict[str, Any]:
    """What each stage's record says, its own making left out."""
    environment = {"PYTHONHASHSEED": hashes, "MATURA_COMPILE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CLIMB, str(recipe), str(runs)],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = {}
    for stage in ("tokenizer@1", "base@1", "chat@1"):
        folder = Folder.open(runs / "tiny" / stage)
        record = {name: value for name, value in folder.record.items() if name != "sha256"}
        numbers = {name: v for name, v in record["numbers"].items() if name not in OWN}
        files = {
            name: entry
            for name, entry in record["files"].items()
            if not any(part in name for part in TIMED)
        }
        found[stage] = record | {"numbers": numbers, "files": files}
        for name in files:
            assert str(runs).encode() not in (folder.path / name).read_bytes(), name
    return found


@pytest.mark.slow  # two processes, two small stages each
def test_two_climbs_of_one_recipe_are_one(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(recipe_text(tmp_path))
    one = climbed(tmp_path / "r.yaml", tmp_path / "here", "1")
    other = climbed(tmp_path / "r.yaml", tmp_path / "there" / "deeper", "4242")
    assert one == other
    files = one["chat@1"]["files"]
    assert {"model/model.safetensors", "model/tokenizer.json"} <= files.keys()
    assert any(name.startswith("data/") for name in files)
    assert any(name.startswith("state/") for name in files)
