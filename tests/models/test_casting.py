"""Weights in another type, in one file or in several, are those of the source, rounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import shape, spread

from matura.models import hf
from matura.models.casting import write_cast
from matura.models.weights import Tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("shard_bytes", "files"), [(10**9, 1), (6_000, 8)])
def test_each_tensor_is_the_rounded_one(
    dtype: torch.dtype, shard_bytes: int, files: int, tmp_path: Path
) -> None:
    hf.save(spread(shape(layers=2)), tmp_path / "a", bos_id=1, stop_ids=(2,), pad_id=3)
    (tmp_path / "b").mkdir()
    steps: list[tuple[int, int]] = []
    write_cast(
        tmp_path / "a",
        tmp_path / "b",
        dtype,
        shard_bytes=shard_bytes,
        told=lambda done, total: steps.append((done, total)),
    )
    found = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert found == [hf.WEIGHTS] if files == 1 else len(found) > 3
    with Tensors(tmp_path / "a") as old, Tensors(tmp_path / "b") as new:
        assert old.names() == new.names()
        assert steps == [(n, len(old.names())) for n in range(1, len(old.names()) + 1)]
        for name in old.names():
            assert torch.equal(new.read(name), old.read(name).to(dtype).float())
