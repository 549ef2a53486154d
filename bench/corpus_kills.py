"""Corpora that must be the same bytes: made under `kill -9`, and made by each engine."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from corpus import BENCH, ONE_THREAD, WORKERS, ours, prepare
from watch import processes

from matura.core.errors import StoreError
from matura.core.store import Folder

SPREAD = 0.5
"""A try is killed after up to this part of an undisturbed one."""


def sums(folder: Path) -> dict[str, str]:
    """The sha256 of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def engines(folder: Path, documents: int) -> dict[str, Any]:
    """The same corpus by one process, by two, and by two workers of a Ray cluster started here."""
    prepare(folder / "in", documents)
    told: dict[str, Any] = {"seconds": {}, "peak_rss_bytes": {}, "cpu_s": {}}
    found = {}
    for engine, workers in (("local", 1), ("local", WORKERS), ("ray", WORKERS)):
        label = f"{engine} {workers}"
        if engine == "ray" and find_spec("ray") is None:
            told["without"] = "ray: pip install 'matura[corpus]'"
            continue
        run = ours(folder / "in", folder / "out" / label, engine, workers)
        print(f"{label}: {run.seconds:.1f} s", file=sys.stderr)
        found[label] = sums(folder / "out" / label)
        told["seconds"][label] = round(run.seconds, 1)
        told["cpu_s"][label] = round(run.cpu_s, 1)
        told["peak_rss_bytes"][label] = run.peak_rss_bytes
    first = found["local 1"]
    told["equal"] = all(other == first for other in found.values())
    told["files"] = len(first)
    return told


def torture(folder: Path, documents: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kills the parent, or one worker, at random moments until `kills` kills have landed; compares
    every corpus that is made with an undisturbed one."""
    prepare(folder / "in", documents)
    whole_s = ours(folder / "in", folder / "whole").seconds
    whole = sums(folder / "whole")
    draw, landed, corpora = Random(seed), Counter[str](), 0
    unequal: list[str] = []
    torn: list[str] = []
    out = folder / "out"
    command = [sys.executable, str(BENCH / "corpus_ours.py"), str(folder / "in"), str(out)]
    command += [str(folder / "in" / "tokenizer"), str(WORKERS)]
    while landed.total() < kills or out.with_name("out.work").exists():
        with subprocess.Popen(
            command,
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        ) as running:
            if landed.total() < kills:
                time.sleep(draw.uniform(0.05, SPREAD) * whole_s)
                struck = strike(running.pid, draw)
                if struck:
                    landed[struck] += 1
                    print(f"\r{landed.total()}/{kills} kills", end="", file=sys.stderr)
            said = running.communicate()[1]
        if running.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"ended with {running.returncode}: {said[-2000:]}")
        if not out.exists():
            continue
        try:
            Folder.open(out)
        except StoreError as problem:
            torn.append(str(problem))
        if running.returncode == 0:
            corpora += 1
            found = sums(out)
            unequal += sorted(name for name in whole | found if whole.get(name) != found.get(name))
            if landed.total() < kills:
                shutil.rmtree(out)
    print(file=sys.stderr)
    return {
        "kills": landed.total(),
        "struck": dict(landed),
        "corpora": corpora,
        "torn": len(torn),
        "equal": corpora > 0 and not unequal and not torn,
        "unequal": unequal[:5],
        "whole_s": round(whole_s, 2),
        "documents": documents,
    }


def strike(pid: int, draw: Random) -> str | None:
    """Kills the parent two times of three, else one of its workers; None if there is no such one
    any more."""
    workers = sorted(set(processes(pid)) - {pid})
    which = draw.choice(workers) if workers and draw.random() < 1 / 3 else pid
    try:
        os.kill(which, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return "parent" if which == pid else "worker"


if __name__ == "__main__":
    sys.exit("run bench/corpus.py --kills or --engines")
