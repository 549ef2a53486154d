"""Several processes on this machine: started, watched, and started again when one of them fails.

`torchrun` does the same for many machines. Here a failure is one line with its cause, a rank that
does not end is killed at once, and who fails at the same step three times is not started again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from matura.core.errors import RecipeError

LOOPBACK = "127.0.0.1"
RESTARTS = 3
SAME_STEP = 3
"""Failures in a row at one step after which it is not tried again."""
GRACE_S = 15.0
"""How long the others may take to end when one has: they name the cause within five seconds."""
POLL_S = 0.1
FINAL = (0, 2, 3, 130, 143)
"""Exit codes of a leader that starting again would not change."""
CAUSES, STORE_FD = "MATURA_CAUSES", "MATURA_STORE_FD"
"""As `matura.learn` spells them, which would import torch."""


@dataclass(frozen=True)
class Ended:
    """How the processes ended."""

    code: int
    cause: str | None = None
    """None if the leader has said it."""
    step: int | None = None
    again: bool = False


def supervise(
    arguments: Sequence[str],
    processes: int,
    *,
    logs: Path,
    tell: Callable[[str], None],
    command: Sequence[str] = (sys.executable, "-m", "matura"),
) -> int:
    """Runs `matura ARGUMENTS` in so many processes; the exit code. `logs` takes what all but the
    leader write.

    Raises:
        RecipeError: fewer than one process.
    """
    if processes < 1:
        raise RecipeError(f"--processes {processes}: expected at least 1")
    logs.mkdir(parents=True, exist_ok=True)
    steps: list[int | None] = []
    while True:
        ended = _once([*command, *arguments], processes, logs)
        if ended.code in FINAL:
            return ended.code
        if ended.cause is not None:
            tell(f"matura: {ended.cause}")
        if not ended.again:
            return ended.code
        steps.append(ended.step)
        last = steps[-SAME_STEP:]
        if len(last) == SAME_STEP and len(set(last)) == 1:
            where = "before the first step" if last[0] is None else f"at step {last[0]}"
            tell(
                f"matura: failed {SAME_STEP} times {where}, so it is not started again: look at "
                f"what this step reads and at {logs}, then run the same command"
            )
            return ended.code
        if len(steps) > RESTARTS:
            tell(f"matura: started again {RESTARTS} times, and no more")
            return ended.code
        tell(f"matura: going on from the newest checkpoint (restart {len(steps)} of {RESTARTS})")


def _once(command: Sequence[str], processes: int, logs: Path) -> Ended:
    with ExitStack() as stack:
        causes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="matura-")))
        listening = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        ranks: list[subprocess.Popen[bytes]] = []
        for rank in range(processes):
            follows = rank > 0
            log = stack.enter_context((logs / f"rank-{rank}.log").open("ab")) if follows else None
            ranks.append(
                subprocess.Popen(
                    command,
                    env=_environment(rank, processes, listening, causes),
                    stdin=subprocess.DEVNULL if follows else None,
                    stdout=log,
                    stderr=log,
                    pass_fds=() if follows else (listening.fileno(),),
                    start_new_session=True,  # Ctrl-C comes here, and is passed on once
                )
            )
        listening.close()
        asked = _wait(ranks)
        return _ended(ranks, asked, causes)


def _environment(
    rank: int, processes: int, listening: socket.socket, causes: Path
) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // processes)
    own = {STORE_FD: str(listening.fileno())} if rank == 0 else {}
    return {
        "OMP_NUM_THREADS": str(threads),
        "TORCH_CPP_LOG_LEVEL": "FATAL",  # pages of stack for a connection that a rank's death cut
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(listening.getsockname()[1]),
        CAUSES: str(causes),
        **own,
    }


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> tuple[int | None, set[int]]:
    """Waits until all have ended; the signal that asked for it, and whom it had to kill."""
    asked: list[int] = []
    killed: set[int] = set()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for rank in ranks[:1] if len(asked) == 1 else ranks:
            if rank.poll() is None:
                rank.send_signal(signal.SIGTERM if len(asked) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    until_s: float | None = None
    try:
        while any(rank.poll() is None for rank in ranks):
            failed = any(rank.returncode not in (None, 0) for rank in ranks)
            if until_s is None and (failed or ranks[0].returncode is not None):
                until_s = time.monotonic() + GRACE_S
            if until_s is not None and time.monotonic() > until_s:
                for number, rank in enumerate(ranks):
                    if rank.poll() is None:
                        killed.add(number)
                        rank.kill()
            time.sleep(POLL_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return (asked[0] if asked else None), killed


def _ended(
    ranks: Sequence[subprocess.Popen[bytes]], waited: tuple[int | None, set[int]], causes: Path
) -> Ended:
    asked, killed = waited
    code = ranks[0].returncode
    if asked is not None and code != 0:
        return Ended(143 if asked == signal.SIGTERM else 130)
    if code in FINAL and code != 0 and 0 not in killed:
        return Ended(code)
    if all(rank.returncode == 0 for rank in ranks):
        return Ended(0)
    notes = [_read(causes / f"rank-{rank}.json") for rank in range(len(ranks))]
    steps = [note["step"] for note in notes if note.get("step") is not None]
    step = max(steps, default=None)
    for number, rank in enumerate(ranks):
        if rank.returncode is not None and rank.returncode < 0 and number not in killed:
            name = signal.Signals(-rank.returncode).name
            where = "" if step is None else f" at step {step}"
            return Ended(1, f"rank {number} was killed by {name}{where}", step, again=True)
    first = next((note for note in notes if note), {})
    if first.get("rank") == 0 and code == 1 and 0 not in killed:
        return Ended(1, None, first.get("step"), again=bool(first.get("again")))
    cause = first.get("cause") or _plainly(ranks)
    return Ended(1, str(cause), first.get("step", step), again=bool(first.get("again")))


def _plainly(ranks: Sequence[subprocess.Popen[bytes]]) -> str:
    codes = [f"rank {n} with {rank.returncode}" for n, rank in enumerate(ranks) if rank.returncode]
    return f"ended without a word: {', '.join(codes)}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # a rank that was killed says nothing
        return {}
