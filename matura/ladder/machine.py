"""The machine a stage was made on, and the memory it took."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

from matura.core.ledger import Value

CLEAR_PEAK = "5"
"""What resets the peak in Linux's /proc/self/clear_refs."""


def forget_peak() -> None:
    """Starts measuring the peak anew, where the system lets one; elsewhere it is the process's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK, encoding="ascii")


def peak_rss_bytes() -> int:
    """The most memory this process held since `forget_peak`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine() -> dict[str, Value]:
    """Names and versions that explain a difference in speed or in the last bits."""
    found: dict[str, Value] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "processor": _processor(),
    }
    for package in ("torch", "tokenizers", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
