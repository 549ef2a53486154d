"""One writer per run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from matura.core.errors import StoreError
from matura.core.lock import LOCK, RunLock, held, holder

HOLD = """
import sys, time
from pathlib import Path
from matura.core.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_hears_the_first_ones_pid(tmp_path: Path) -> None:
    """FAULTS A8, A9: and a killed one's lock is free at once."""
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)], stdout=subprocess.PIPE
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        assert held(tmp_path)
        with (
            pytest.raises(StoreError, match=rf"in use by process {first.pid} on "),
            RunLock(tmp_path),
        ):
            pass
    finally:
        first.kill()
        first.communicate()
    assert not held(tmp_path)
    with RunLock(tmp_path):
        assert held(tmp_path)
        with pytest.raises(StoreError, match=rf"process {os.getpid()}"), RunLock(tmp_path):
            pass
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize(
    "note", [b'{"pid": 999999999, "host": "gone"}', b"", b"\xff{", b"[]", b'{"pid": 1}']
)
def test_what_a_dead_process_left_is_taken_over(note: bytes, tmp_path: Path) -> None:
    """FAULTS A9: after `kill -9` or a reboot the file is there, and nobody holds it, even if
    another process has that number now."""
    (tmp_path / LOCK).write_bytes(note)
    assert not held(tmp_path)
    with RunLock(tmp_path):
        assert held(tmp_path)
        assert json.loads((tmp_path / LOCK).read_bytes())["pid"] == os.getpid()
        assert holder(tmp_path).startswith(f"process {os.getpid()} on ")


def test_a_lock_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / LOCK).symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreError, match=r"\.lock: cannot open the lock"), RunLock(tmp_path):
        pass
    assert (tmp_path / "theirs").read_text() == "theirs"
