"""How much memory this process may still take, before the system refuses it or ends the process.

The surprising thing: on Linux too much memory is seldom refused. The process is killed without a
word, so what may be taken is asked before and not tried.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60
"""Control groups without a limit say a number of this size, or `max`."""


def bytes_left(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take; None where the system does not say.

    The least of what the machine has available, what the control groups it runs in allow
    (containers, batch systems), and what `ulimit -v` allows. Swap is not counted. `root` is where
    `proc` and `sys` are.
    """
    found = [*_machine(root), *_groups(root), *_limit(root)]
    return max(0, min(found)) if found else None


def _machine(root: Path) -> Iterator[int]:
    for name, kilobytes in _fields(root / "proc/meminfo"):
        if name == "MemAvailable":
            yield kilobytes * 1024


def _groups(root: Path) -> Iterator[int]:
    """What each control group above this process has left; the kernel gives back cached files that
    nobody uses before it refuses."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, place = [*line.split(":", 2), "", ""][:3]
        if kinds == "":
            base, limit, used, cached = "sys/fs/cgroup", "max", "current", "inactive_file"
        elif "memory" in kinds.split(","):
            base, limit, used = "sys/fs/cgroup/memory", "limit_in_bytes", "usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        own = root / base / place.lstrip("/")
        for group in (own, *own.parents):
            most, now = (_number(group / f"memory.{name}") for name in (limit, used))
            if most is not None and now is not None and most < UNLIMITED:
                spare = dict(_fields(group / "memory.stat")).get(cached, 0)
                yield most - now + spare
            if group == root / base:
                break


def _limit(root: Path) -> Iterator[int]:
    """`ulimit -v` counts addresses, used or not."""
    for line in _text(root / "proc/self/limits").splitlines():
        if line.startswith("Max address space"):
            soft = line.split()[3]
            used = dict(_fields(root / "proc/self/status")).get("VmSize")
            if soft.isdigit() and used is not None:
                yield int(soft) - used * 1024


def _fields(path: Path) -> Iterator[tuple[str, int]]:
    """The lines `name: number` or `name number` of a file."""
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            yield words[0].rstrip(":"), int(words[1])


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""
