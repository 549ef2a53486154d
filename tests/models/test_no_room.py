"""FAULTS A4 where weights are written, by other hands than Python's: a full disk is one line that
names the file, and nothing half-written stays."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny import fresh, seeded

from matura.core.errors import StoreError
from matura.models import adapter, hf
from matura.models.casting import write_cast
from matura.models.lora import attach


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond that; a write that would is refused as one to a full disk is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def saved(folder: Path) -> None:
    hf.save(fresh(), folder, bos_id=None, stop_ids=(1,), pad_id=0)


def adapted(folder: Path) -> None:
    model = hf.load(folder.parent / "base")
    attach(model, rank=16, alpha=4, targets=("up_proj",), generator=seeded(0))
    adapter.save(model, folder, base=folder.parent / "base")


def cast(folder: Path) -> None:
    folder.mkdir()
    write_cast(folder.parent / "base", folder, torch.bfloat16)


@pytest.mark.parametrize("write", [saved, adapted, cast])
def test_weights_that_a_disk_has_no_room_for(write: Callable[[Path], None], ram: Path) -> None:
    saved(ram / "base")
    with room_for(4096), pytest.raises(StoreError, match=r": cannot write: File too large$") as at:
        write(ram / "made")
    assert str(at.value).startswith(str(ram / "made"))
    assert list((ram / "made").iterdir()) == []
