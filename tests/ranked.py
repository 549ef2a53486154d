"""Processes that train the tiny model together: `started` runs this file once for each rank.

A rank does the tasks it is told to, one after the other in one team, and writes what came of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tiny import FP32, by_validation, fresh, numbered, seeded, settings, spread, trained, weights_of
from tiny import shape as shaped

from matura.core.errors import MaturaError, StoreError
from matura.core.store import Folder
from matura.learn import room
from matura.learn.checkpoint import State
from matura.learn.inherited import Inherited
from matura.learn.joint import Joint
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.parallel import Ranks
from matura.learn.rendezvous import meet
from matura.learn.sharded import Sharded, shard_asked
from matura.learn.step import Stepper
from matura.learn.team import Team
from matura.models.decoder import Decoder
from matura.models.lora import attach, merge

STEPS, ROWS = 16, 8
EXAMS = {5: 0.5, 10: 0.9, 15: 0.6, 16: 0.6}
TIMEOUT_S = 150.0
MORE = ("how", "shape", "rows", "inherits", "adapters")
"""What a task may say besides."""


def run(
    folder: Path,
    team: Team,
    until: int = STEPS,
    faults: Sequence[Mapping[str, Any]] = (),
    how: Mapping[str, Any] | None = None,
    shape: Mapping[str, Any] | None = None,
    rows: int = ROWS,
    inherits: str | None = None,
    adapters: bool = False,
) -> dict[str, Any]:
    """The tiny run in that folder, interrupted before step `until`: its losses and weights, and how
    many bytes this process had of weights and optimizer.

    `faults` happen to one rank before a step, each once, or each time if `always`. With `adapters`
    they learn, on a base of random weights, and the leader merges them in the end.
    """

    def batches(step: int) -> Any:
        if step == until:
            raise KeyboardInterrupt
        for fault in faults:
            if (fault["rank"], fault["step"]) == (team.rank, step):
                happen(fault, folder)
        return numbered(step, rows=rows)

    model = adapted(**(shape or {})) if adapters else fresh(**(shape or {}))
    team.place(model, "cpu")
    seen = team.onlooker(Stepper(model, NextToken(), FP32)).model
    every_s = 0.0 if faults else 1e9
    asked = settings(STEPS, checkpoint_every_s=every_s, **(how or {}))
    try:
        found = trained(
            folder,
            asked,
            model=model,
            batches=batches,
            evaluate=by_validation(seen, EXAMS),
            scratch=not adapters,
            team=team,
            inherits=None if inherits is None else Inherited(Folder.open(Path(inherits))),
        )
    except KeyboardInterrupt:
        return {"stopped": until}
    except MaturaError as problem:
        if any(fault["kind"] == "cannot write its part" for fault in faults):
            raise  # as it would end the process
        return {"refused": str(problem)}
    seen = team.whole(model)
    bits = weights_of(seen)
    weights = b"".join(bits[name] for name in sorted(bits) if not adapters or ".lora." in name)
    if adapters and team.leads:
        merge(seen)
    return {
        "merged": float(sum(w.detach().double().square().sum() for w in seen.parameters())),
        "done": [event["done"] for event in found.fitted.events],
        "bytes": sum(map(len, found.weights.values())),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "weights": array("f", weights).tolist(),
        "losses": {str(step): loss for step, loss in found.losses.items()},
        "best": found.fitted.best_step,
        "memory": dict(found.fitted.memory),
    }


def adapted(**more: Any) -> Decoder:
    """A model whose adapters learn."""
    model = spread(shaped(**more)).train()
    attach(model, rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj"), generator=seeded(4))
    return model


def happen(fault: Mapping[str, Any], folder: Path) -> None:
    """A fault, if it has not happened yet."""
    mark = folder.with_name(f"{fault['kind']}-{fault['step']}")
    if mark.exists() and not fault.get("always"):
        return
    mark.touch()
    match fault["kind"]:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "stuck":
            time.sleep(1000)
        case "raises":
            raise OSError("the disk is on fire")
        case "nan":
            spoilt(Stepper)
        case "drifts":
            drifted(Optimizer)
        case "killed after its part":
            killed_after(State, "write", fault["step"])
        case "killed before the record":
            killed_after(Joint, "_parts", fault["step"])
        case "cannot write its part":
            refused(State, fault["step"])


def spoilt(kind: type[Stepper]) -> None:
    """This process's next gradients are not numbers, twice: the second time is the same step."""
    whole, left = kind.gradients, [2]

    def gradients(self: Stepper, *given: Any, **more: Any) -> float:
        total = whole(self, *given, **more)
        if left[0]:
            left[0] -= 1
            for weight in self.model.parameters():
                if weight.grad is not None:
                    weight.grad.fill_(float("nan"))
        return total

    kind.gradients = gradients  # type: ignore[method-assign]


def drifted(kind: type[Optimizer]) -> None:
    """This process's next update is a little larger than that of the others."""
    whole, left = kind.step, [1]

    def step(self: Optimizer, factor: float) -> None:
        whole(self, factor * (1 + 1e-3 * left[0]))
        left[0] = 0

    kind.step = step  # type: ignore[method-assign]


def refused(kind: type[State], step: int) -> None:
    """This process's parts of checkpoints beyond that step have no room on the disk."""
    whole = kind.write

    def write(self: State, folder: Path) -> None:
        if self.step > step:
            raise StoreError(f"{folder.name}: cannot write: No space left on device")
        whole(self, folder)

    kind.write = write  # type: ignore[method-assign]


def killed_after(kind: type, call: str, step: int) -> None:
    """This process is killed where that call of its ends, in a checkpoint beyond that step: the one
    before may still be on its way to the disk."""
    whole = getattr(kind, call)

    def dies(self: Any, *given: Any, **more: Any) -> None:
        whole(self, *given, **more)
        if self.step > step:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(kind, call, dies)


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, size: int, port: int, **more: str) -> dict[str, str]:
    """What `torchrun` would tell a rank, and one thread."""
    here = Path(__file__).parent
    return {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{here.parent}{os.pathsep}{here}",
        **more,
    }


def started(
    size: int, tasks: Sequence[Mapping[str, Any]], folder: Path, **more: str
) -> list[subprocess.Popen[str]]:
    """One process a rank, at work."""
    port = free_port()
    spelled = json.dumps([dict(task) for task in tasks])
    return [
        subprocess.Popen(
            [sys.executable, __file__, spelled, str(folder)],
            env=environment(rank, size, port, **more),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def done(
    size: int, tasks: Sequence[Mapping[str, Any]], folder: Path, **more: str
) -> list[list[dict[str, Any]]]:
    """What each rank made of each task."""
    ranks = started(size, tasks, folder, **more)
    said = [rank.communicate(timeout=TIMEOUT_S)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * size, said
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(size)]


def _do(task: Mapping[str, Any], teams: Mapping[bool, Ranks]) -> dict[str, Any]:
    team = teams[task.get("exact", False)]
    there = task.get("memory", [None] * team.size)[team.rank]
    room.bytes_left = lambda: there  # type: ignore[assignment]
    match task["do"]:
        case "run":
            faults = task.get("faults", ())
            more = {name: task[name] for name in MORE if name in task}
            if task.get("only", team.rank) != team.rank:
                del more["how"]  # it is asked of one rank only
            return run(Path(task["folder"]), team, task.get("until", STEPS), faults, **more)
        case "compare":
            try:
                team.compare(task["facts"][team.rank])
            except MaturaError as problem:
                return {"refused": str(problem)}
            return {}
    raise ValueError(task["do"])


def main() -> None:
    """One rank."""
    tasks, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    tell = partial(print, file=sys.stderr)
    sharded = shard_asked()
    with Sharded(meet(), tell=tell) if sharded else Ranks(meet(), exact=False, tell=tell) as team:
        found = []
        for task in tasks:
            team.exact = task.get("exact", False)
            found.append(_do(task, {team.exact: team}))
        (folder / f"rank-{team.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
