"""A command with all the processes it starts: how long it took, and their memory together."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.1
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Watched:
    """What became of the command."""

    seconds: float
    cpu_s: float
    """Of all its processes, as they were last seen: what no other work on the machine changes."""
    peak_rss_bytes: int
    """The most at one moment, summed over all processes; what they share counts in each."""
    out: str


def watched(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Watched:
    """Runs it to the end.

    Raises:
        SystemExit: it fails; says its last words.
    """
    began = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        said = ["", ""]
        readers = [
            threading.Thread(target=lambda n=n, f=f: said.__setitem__(n, f.read()))
            for n, f in enumerate((process.stdout, process.stderr))
        ]
        for reader in readers:
            reader.start()
        peak = 0
        cpu_s: dict[int, float] = {}
        while process.poll() is None:
            family = processes(process.pid)
            cpu_s |= {one: used for one, (used, _) in family.items()}
            peak = max(peak, sum(resident for _, resident in family.values()))
            time.sleep(EVERY_S)
        for reader in readers:
            reader.join()
    if process.returncode:
        raise SystemExit(f"{command[:3]} ended with {process.returncode}:\n{said[1][-2000:]}")
    return Watched(time.monotonic() - began, sum(cpu_s.values()), peak, said[0])


def processes(root: int) -> dict[int, tuple[float, int]]:
    """The seconds of processor and the bytes in memory of a process and of all that descend from
    it."""
    seen: dict[int, tuple[int, float, int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            used = (int(fields[11]) + int(fields[12])) / TICKS
            seen[int(entry)] = int(fields[1]), used, int(fields[21]) * PAGE
    family, more = {root}, True
    while more:
        found = {one for one, (parent, *_) in seen.items() if parent in family} - family
        family |= found
        more = bool(found)
    return {one: seen[one][1:] for one in family if one in seen}
