"""Whether training is exact under `kill -9`: pre-training, a chat stage, and one of adapters.

Each stage of `exact.yaml` is killed while it trains, saves or evaluates, started again, killed
again; then it may end, and must have left what an undisturbed climb leaves: weights, adapter,
optimizer and everything else of the last checkpoint, metrics, answers, and all that its record says
but the clock. A parent imports once and forks every try, so that a kill costs no import.

    .venv/bin/python bench/exact.py --kills 100 --json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from kill import ROOT, kill, start, struck, torn, wait, warm

RECIPE = ROOT / "bench" / "exact.yaml"
SPREAD = 0.3
"""A try is killed after up to this part of what the stage takes undisturbed, from its first step
on."""
LOOK_S = 0.005
HANGS_S = 900.0
"""After which a try counts as hanging: an undisturbed stage takes seconds."""
SAME = ("model/*", "adapter/*", "data/*", "metrics.jsonl", "exams.json", "asked.json")
CLOCK = {"seconds", "peak_rss_bytes"}
"""What a record says that no two climbs share."""


@dataclass
class Tally:
    """What became of a stage's tries."""

    kills: int = 0
    ends: int = 0
    """Times that the stage was made to its end."""
    resumed: int = 0
    """Tries that went on from a checkpoint."""
    found: Counter[str] = field(default_factory=Counter)
    torn: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    stage_s: float = 0.0
    """What the stage takes undisturbed, from its first step to its end."""


def told(stage: Path) -> dict[str, str]:
    """The sha256 of all that a stage must come to, by path in it: files, what the last checkpoint
    holds, and its record without the clock.

    Raises:
        StoreError: something in it is torn.
    """
    from matura.core.record import digest
    from matura.core.store import RECORD, Checkpoints, Folder, sha256_of

    record = dict(Folder.open(stage).record)
    found = {
        path.relative_to(stage).as_posix(): sha256_of(path)
        for pattern in SAME
        for path in sorted(stage.glob(pattern))
    }
    states = Checkpoints(stage / "state")
    last = Folder.open(states.at(max(states.steps())))
    found |= {f"state/{name}": last.sha256(name) for name in last.record["files"]}
    numbers = {name: n for name, n in record["numbers"].items() if name not in CLOCK}
    said = {name: value for name, value in record.items() if name not in ("files", "sha256")}
    return found | {RECORD: digest(said | {"numbers": numbers})}


def trained(recipe: Path) -> tuple[str, tuple[str, ...]]:
    """The run's name, and the stages that train."""
    from matura.ladder.recipe import load

    found = load(recipe)
    return found.name, tuple(stage.name for stage in found.stages)


def seen(metrics: Path) -> tuple[int, int] | None:
    """What changes when a run writes its first row or goes on: the file anew, or longer."""
    try:
        found = metrics.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size


def trains(child: int, metrics: Path) -> int | None:
    """Waits until the child trains; its exit code, if it ended before."""
    before = seen(metrics)
    until = time.monotonic() + HANGS_S
    while seen(metrics) in (None, before) and time.monotonic() < until:
        code = wait(child, LOOK_S)
        if code is not None:
            return code
    return None


def undisturbed(recipe: Path, runs: Path, stages: tuple[str, ...]) -> dict[str, Any]:
    """A whole climb, stage by stage: what each came to, and its seconds from the first step on.

    Raises:
        SystemExit: it does not even climb undisturbed.
    """
    name, _ = trained(recipe)
    found: dict[str, Any] = {}
    for stage in stages:
        log = runs.with_suffix(".log")
        child = start(recipe, runs, log, "--until", stage)
        code = trains(child, runs / name / f"{stage}@1.work" / "metrics.jsonl")
        began = time.monotonic()
        code = wait(child, HANGS_S) if code is None else code
        if code != 0:
            raise SystemExit(f"the undisturbed climb ended with {code}: {log.read_text()[-2000:]}")
        found[stage] = (told(runs / name / f"{stage}@1"), time.monotonic() - began)
    return found


def torture(
    recipe: Path,
    runs: Path,
    stage: str,
    reference: dict[str, str],
    tally: Tally,
    kills: int,
    draw: Random,
) -> None:
    """Makes one stage, under as many kills as asked for, as often as that takes."""
    name, _ = trained(recipe)
    final, log = runs / name / f"{stage}@1", runs.with_suffix(".log")
    work = final.with_name(f"{final.name}.work")
    while (tally.kills < kills or not final.exists()) and not tally.failures:
        if final.exists():
            shutil.rmtree(final)
        log.unlink(missing_ok=True)
        child = start(recipe, runs, log, "--until", stage)
        code = trains(child, work / "metrics.jsonl")
        if code is None:
            enough = tally.kills >= kills
            code = wait(child, HANGS_S if enough else draw.uniform(0.0, SPREAD * tally.stage_s))
            code = kill(child) if code is None else code
            if code == -signal.SIGKILL and enough:
                tally.failures.append(f"{stage}: a try hangs")
        if code == -signal.SIGKILL:
            tally.kills += 1
            tally.found[struck(runs / name)] += 1
            tally.torn += torn(runs / name)
        elif code != 0:
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            tally.failures.append(f"{stage}: a try ended with {code}: {' | '.join(said)}")
        tally.resumed += log.read_text(errors="replace").count("resuming after step")
        if final.exists():
            tally.ends += 1
            ended = told(final)
            keys = reference.keys() | ended.keys()
            tally.unequal += sorted(key for key in keys if reference.get(key) != ended.get(key))
        print(f"\r{stage}: {tally.kills}/{kills} kills", end="", file=sys.stderr)


def measured(recipe: Path, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """So many kills in all, shared out among the stages."""
    began, draw = time.monotonic(), Random(seed)
    _, stages = trained(recipe)
    reference = undisturbed(recipe, folder / "undisturbed", stages)
    tallies: dict[str, Tally] = {}
    for number, stage in enumerate(stages):
        share = kills * (number + 1) // len(stages) - kills * number // len(stages)
        tally = tallies[stage] = Tally(stage_s=reference[stage][1])
        torture(recipe, folder / "killed", stage, reference[stage][0], tally, share, draw)
        if tally.failures:
            break
    every = list(tallies.values())
    compared = {stage: sorted(found) for stage, (found, _) in reference.items()}
    return {
        "kills": sum(tally.kills for tally in every),
        "completed": len(every) == len(stages) and not any(tally.failures for tally in every),
        "torn": sum(len(tally.torn) for tally in every),
        "all_equal": not any(tally.unequal for tally in every),
        "stages": {
            stage: {
                "kills": tally.kills,
                "made": tally.ends,
                "resumed": tally.resumed,
                "struck": dict(tally.found.most_common()),
                "compared": len(compared[stage]),
                "unequal": sorted({*tally.unequal}),
                "undisturbed_s": round(tally.stage_s, 1),
            }
            for stage, tally in tallies.items()
        },
        "compared": compared,
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "problems": [line for tally in every for line in (*tally.torn[:5], *tally.failures)],
    }


def main() -> int:
    """Parses, kills, prints; 0 if nothing was torn and every stage came to the same."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--kills", type=int, default=100)
    about.add_argument("--seed", type=int, default=0, help="of the moments")
    about.add_argument("--recipe", type=Path, default=RECIPE)
    about.add_argument("--folder", type=Path, help="where climbs lie meanwhile; default: /tmp")
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MATURA_COMPILE": "0"}
    warm(asked.recipe)
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="exact-") as folder:
        found = measured(asked.recipe, asked.kills, asked.seed, Path(folder))
    print(file=sys.stderr)
    if asked.json:
        print(json.dumps(found))
    else:
        told_of = {key: value for key, value in found.items() if key != "compared"}
        print("\n".join(f"{key:10} {value}" for key, value in told_of.items()))
    return 0 if found["completed"] and found["all_equal"] and not found["torn"] else 1


if __name__ == "__main__":
    sys.exit(main())
