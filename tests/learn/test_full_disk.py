"""FAULTS A4 in mid-run: a disk that is full at any checkpoint is one line that names the file, what
was whole stays, nothing half-written does, and making room is all it takes to go on."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import numbered, settings, trained

from matura.core.errors import StoreError
from matura.learn.batch import Batch


@pytest.fixture(autouse=True)
def room() -> Iterator[tuple[int, int]]:
    """As large a file as one wants, afterwards again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield before
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_whose_disk_is_full_keeps_its_checkpoint_and_goes_on(
    room: tuple[int, int], ram: Path
) -> None:
    straight = trained(ram / "straight", settings(10))

    def batches(step: int) -> Batch:
        if step == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, room[1]))
        return numbered(step)

    with pytest.raises(StoreError) as caught:
        trained(ram / "full", settings(10), batches=batches)
    said = str(caught.value)
    assert said.startswith(str(ram / "full"))
    assert said.endswith(f"cannot write: {os.strerror(errno.EFBIG)}")
    assert "\n" not in said
    assert [path.name for path in (ram / "full").iterdir()] == ["step-00000005"]
    resource.setrlimit(resource.RLIMIT_FSIZE, room)
    found = trained(ram / "full", settings(10))
    assert sorted(found.losses) == list(range(5, 10))
    assert found.weights == straight.weights
