"""One writer per run folder."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from matura.core.errors import StoreError
from matura.core.lock import RunLock, held

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
