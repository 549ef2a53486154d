"""Corpora that must be the same bytes: made under `kill -9`, and made by each engine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from corpus import BENCH, ONE_THREAD, WORKERS, ours, ours_command, prepare
from corpus_chain import Step, hub, lay_out, steps
from watch import processes

from matura.data.engine import DEATHS

KILLED = 0.7
"""The share of all tries that are to be killed; some end first."""
TASKS = ("hashed", "gather", "shard")
"""What is done part by part. Ray's own processes are called `ray::` too."""
LOOK_S, BUSY_S = 0.02, 0.15
"""How often it is looked for workers that work, and how long one is left alone at most."""


def sums(folder: Path) -> dict[str, str]:
    """The sha256 of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def engines(folder: Path, documents: int, kills: int = 0) -> dict[str, Any]:
    """The same corpus by one process, by two, and by two workers of a Ray cluster started here; and
    once more by such a cluster whose workers are killed while they work."""
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
    if kills and find_spec("ray"):
        out = folder / "out" / "ray, killed"
        told["killed"] = _workers_killed(ours_command(folder / "in", out, "ray", WORKERS), kills)
        found[out.name] = sums(out)
    told["equal"] = all(other == first for other in found.values())
    told["unequal"] = [name for name, other in found.items() if other != first]
    told["files"] = len(first)
    return told


def _workers_killed(command: Sequence[str], kills: int, seed: int = 0) -> dict[str, int]:
    """Runs it to the end, while Ray's workers are killed at work; how many, by what they did."""
    draw, struck = Random(seed), Counter[str]()
    with subprocess.Popen(
        command,
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while running.poll() is None and struck.total() < kills:
            doing = {pid: _task_of(pid) for pid in processes(running.pid)}
            # the same piece of work may be struck three times, then it is taken for what kills
            busy = [(p, task) for p, task in doing.items() if task and struck[task] < DEATHS - 1]
            if busy:
                time.sleep(draw.uniform(0, BUSY_S))
                pid, task = draw.choice(busy)
                if _task_of(pid) == task:  # and not done with it meanwhile
                    os.kill(pid, signal.SIGKILL)
                    struck[task] += 1
            time.sleep(LOOK_S)
        said = running.communicate()[1]
    if running.returncode:
        raise SystemExit(f"ended with {running.returncode}: {said[-2000:]}")
    return dict(struck)


def _task_of(pid: int) -> str | None:
    """The part of `data prepare` that a worker of Ray has in hand, which it shows as its name."""
    try:
        title = Path("/proc", str(pid), "cmdline").read_bytes().partition(b"\0")[0].decode()
    except OSError:
        return None
    task = title.removeprefix("ray::").strip()
    return task if title.startswith("ray::") and task in TASKS else None


@dataclass
class _Kills:
    """What is left to be done, and what was struck."""

    left: int
    draw: Random
    landed: Counter[str] = field(default_factory=Counter)
    """By step."""
    who: Counter[str] = field(default_factory=Counter)
    amid: int = 0
    """While something unfinished lay on the disk."""
    went_on: int = 0
    """Kills of a worker that its parent outlived."""


def torture(folder: Path, documents: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kills the commands of the whole chain, or one of their workers, at random moments until
    `kills` kills have landed, each command run again as it was; compares every file that a chain
    makes with an undisturbed one's."""
    files = lay_out(folder / "in", documents)
    began = time.monotonic()
    with hub(files) as url:
        chain = steps(url, WORKERS)
        # the least that a command takes before it does anything: no kill is spent on that
        idle_s = _timed(["--help"], folder, url)
        quiet = _begun(folder / "quiet", folder / "in")
        took = [_run(step, quiet, url) for step in chain]
        whole = _made(quiet, chain)
        struck = _Kills(kills, Random(seed))
        chains, unequal = 0, []
        while struck.left or not chains:
            place = _begun(folder / f"chain-{chains}", folder / "in")
            for step, took_s in zip(chain, took, strict=True):
                _struck(step, place, url, (idle_s, 1.05 * took_s), struck)
            chains += 1
            found = _made(place, chain)
            names = sorted(name for name in whole | found if whole.get(name) != found.get(name))
            unequal += [f"chain {chains}: {name}" for name in names]
            shutil.rmtree(place)
    print(file=sys.stderr)
    return {
        "kills": struck.landed.total(),
        "struck": dict(struck.landed),
        "who": dict(struck.who),
        "amid": struck.amid,
        "outlived": struck.went_on,
        "chains": chains,
        "equal": chains > 0 and not unequal,
        "unequal": unequal[:5],
        "files": len(whole),
        "quiet_s": [f"{step.name} {took_s:.1f}" for step, took_s in zip(chain, took, strict=True)],
        "seconds": round(time.monotonic() - began),
        "documents": documents,
    }


def _begun(place: Path, inputs: Path) -> Path:
    """A folder with the chain's own inputs."""
    shutil.copytree(inputs, place)
    return place


def _made(place: Path, chain: Sequence[Step]) -> dict[str, str]:
    """The sha256 of every file that the chain made. What was fetched has its time of change in the
    record beside it, which is left out."""
    found: dict[str, str] = {}
    for name in sorted({step.makes for step in chain}):
        found |= {f"{name}/{path}": sha256 for path, sha256 in sums(place / name).items()}
        for record in (place / name).rglob("*.download.json"):
            told = json.loads(record.read_bytes())
            del told["mtime_ns"]
            spelled = json.dumps(told, sort_keys=True).encode()
            path = record.relative_to(place).as_posix()
            found[path] = hashlib.sha256(spelled).hexdigest()
    return found


def _started(words: Sequence[str], place: Path, url: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(BENCH.parent), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        words,
        cwd=place,
        env={**os.environ, **ONE_THREAD, "HF_ENDPOINT": url, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def _timed(words: Sequence[str], place: Path, url: str) -> float:
    began = time.monotonic()
    with _started([sys.executable, "-m", "matura", *words], place, url) as running:
        running.communicate()
    return time.monotonic() - began


def _run(step: Step, place: Path, url: str) -> float:
    """Seconds that it takes undisturbed."""
    began = time.monotonic()
    with _started(step.command, place, url) as running:
        _refuse(step, running.communicate()[1], running.returncode)
    print(f"{step.name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return time.monotonic() - began


def _struck(
    step: Step, place: Path, url: str, moments: tuple[float, float], struck: _Kills
) -> None:
    """Runs a step until it has ended well, killed on the way as often as chance has it."""
    while True:
        with _started(step.command, place, url) as running:
            who = None
            if struck.left and struck.draw.random() < KILLED:
                time.sleep(struck.draw.uniform(*moments))
                amid = _unfinished(step, place)
                if running.poll() is None and (who := strike(running.pid, struck.draw)):
                    struck.left -= 1
                    struck.landed[step.name] += 1
                    struck.who[who] += 1
                    struck.amid += amid
                    print(f"\r{struck.landed.total()} kills", end="", file=sys.stderr)
            said = running.communicate()[1]
        if running.returncode == 0:
            struck.went_on += who == "worker"
            return
        if running.returncode != -signal.SIGKILL:
            _refuse(step, said, running.returncode)
        if step.once and (place / step.makes).exists():
            return  # killed after all was done: a script looks whether it is there


def _unfinished(step: Step, place: Path) -> bool:
    """Whether something lies there that is being made."""
    if step.name == "fetch":
        return any((place / step.makes).rglob("*.part"))
    return (place / step.works_in).exists()


def _refuse(step: Step, said: str, code: int) -> None:
    if code:
        raise SystemExit(f"{step.name} ended with {code}: {said[-2000:]}")


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
