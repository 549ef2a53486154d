"""Processes that are killed, or disks that refuse, at a chosen call: no function is replaced."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

ON_DISK = ("posix", "_io", "io")
CHANGES = ("open", "write", "close", "fsync", "mkdir", "replace", "rename", "rmdir", "unlink")
"""Calls that change what is on disk: dying between two of them leaves the same as dying before."""


def at_call(number: int, act: Callable[[], None]) -> Callable[[FrameType, str, Any], None]:
    """A profiler that acts at the n-th call that changes the disk."""
    left = number

    def watch(frame: FrameType, event: str, called: Any) -> None:
        nonlocal left
        if event != "c_call":
            return
        owner = getattr(called, "__self__", None)
        module = getattr(called, "__module__", None) or type(owner).__module__
        if module in ON_DISK and called.__name__ in CHANGES:
            if left == 0:
                act()
            left -= 1

    return watch


def dies_at(number: int, work: Callable[[], object]) -> bool:
    """Whether a child that runs `work` is killed at its n-th system call, or ends before."""
    child = os.fork()
    if child == 0:
        try:
            sys.setprofile(at_call(number, lambda: os._exit(9)))
            work()
            sys.setprofile(None)
            os._exit(0)
        except BaseException as problem:  # the child must never return into pytest
            sys.setprofile(None)
            os.write(2, f"{problem!r}\n".encode())
            os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), f"the child failed with {code}"
    return code == 9
