"""A workspace as the documents have it, in memory, and a way to run their lines."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import Ran, Run, ran
from pretend import model_folder

from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

TINY = {
    "batch_size": 8,
    "block_size": 256,
    "learning_rate": 7e-5,
    "max_iters": 6,
    "eval_interval": 6,
}
"""A configuration under a documented name; found before the one that is shipped."""
CONFIGS = (
    "sft1/750M_phase3a1_alpha",
    "sft1/750M_phase3a1_beta",
    "sft1/750M_phase3a1_gamma",
    "sft1/750M_phase3a2",
    "sft1/750M_phase3a1_format_lock",
    "sft1/750M_phase3a2_minimal_qa",
)

EVAL_SETS: dict[str, dict[str, object]] = {
    "sft1/750M_phase3a2_minimal_qa": {
        "eval_sets": {"format_lock": "data/sft_format_lock_prepared"},
    }
}


@pytest.fixture(scope="module")
def workspace() -> Iterator[Path]:
    """The current folder: a base model, and tiny configurations under the documented names."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model_folder(Path("checkpoints/domain_v5"), Template(Tokenizer.bytes_only("mypt")))
        for name in CONFIGS:
            config = Path("configs", f"{name}.json")
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_text(json.dumps(TINY | EVAL_SETS.get(name, {})))
        yield Path(folder)


@pytest.fixture(scope="module")
def run(workspace: Path) -> Run:
    """Runs a line in the workspace; the same line again gives what it gave."""
    known: dict[str, Ran] = {}

    def once(line: str) -> Ran:
        if line not in known:
            known[line] = ran(line)
        return known[line]

    return once
