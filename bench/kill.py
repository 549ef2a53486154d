"""Whether a climb survives `kill -9`: the smoke recipe, killed at random moments, always resumed.

A parent imports everything once and forks a child for each try: the child runs `matura run`, the
parent kills its process group. So a restart costs no import, and a hundred kills take minutes.
After each kill all that stands under its final name is opened and verified.

    .venv/bin/python bench/kill.py --kills 100 --json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "smoke.yaml"
SPREAD = 0.4
"""A try is killed after up to this part of an uninterrupted climb: several kills to each climb."""
MOST_TRIES = 60
"""Of one climb: beyond that it is not getting anywhere."""
HANGS = 20.0
"""Times an uninterrupted climb, after which a try counts as hanging."""
LOOK_EVERY_S = 0.001


@dataclass
class Tally:
    """What became of all tries."""

    kills: int = 0
    climbs: int = 0
    resumed: int = 0
    """Tries that went on from a checkpoint inside a stage."""
    torn: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    """What each kill left lying there: where in the climb it struck."""
    unequal: list[str] = field(default_factory=list)


def warm(recipe: Path) -> None:
    """Imports all that a climb imports, so that children need not; starts no thread."""
    import torch  # noqa: F401
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: F401

    import matura.cli.climbing
    import matura.cli.main
    import matura.ladder.climb
    import matura.learn.loop
    import matura.learn.objectives.next_token
    import matura.models.special_rows
    import matura.report.html
    import matura.stages.selection  # noqa: F401
    from matura.ladder.recipe import load

    load(recipe)  # pydantic builds its schemas once
    gc.collect()
    gc.freeze()


def start(recipe: Path, runs: Path, log: Path, *more: str) -> int:
    """A child, in its own process group, that climbs on one thread; its process id.

    `more` are options of `matura run`.
    """
    child = os.fork()
    if child:
        with suppress(OSError):  # the child does the same: whoever comes first
            os.setpgid(child, child)
        return child
    code = 99
    try:
        os.setpgid(0, 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        import torch

        from matura.cli.main import main

        torch.set_num_threads(1)
        code = main(["run", str(recipe), "--runs", str(runs), "--json", *more])
        sys.stdout.flush()
    except BaseException:  # whatever happened, never back into the parent's code
        traceback.print_exc()
    os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The child's exit code, or None if it still runs after that time."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        left = until - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(left, LOOK_EVERY_S))


def kill(child: int) -> int:
    """Ends the child and everything it started, at once; its exit code, if it was faster."""
    os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def torn(run: Path) -> Iterator[str]:
    """One line for each thing that stands under its final name and is not whole."""
    from matura.core.disk import read_json
    from matura.core.errors import MaturaError
    from matura.core.store import Checkpoints, Folder, parse_address
    from matura.ladder.recipe import load
    from matura.text.shards import Shard

    if not run.is_dir():
        return
    whole = [path for path in sorted(run.iterdir()) if path.is_dir() and "@" in path.name]
    checks: list[tuple[Path, Any]] = [(path, load) for path in run.glob("recipe.yaml")]
    for folder in whole:
        if not folder.name.endswith((".work", ".gone")):
            parse_address(folder.name)
            checks.append((folder, Folder.open))
        if folder.name.endswith(".gone"):
            continue
        states = Checkpoints(folder / "state")
        checks += [(states.at(step), Folder.open) for step in states.steps()]
        checks += [(path, Shard.open) for path in sorted(folder.glob("data/*.shard"))]
        checks += [
            (path, read_json)
            for pattern in ("*.json", "data/*.json", "sittings/*.json")
            for path in sorted(folder.glob(pattern))
        ]
    for path, opens in checks:
        try:
            opens(path)
        except MaturaError as problem:
            yield str(problem)


def struck(run: Path) -> str:
    """Where in the climb a kill struck, by what it left."""
    works = sorted(run.glob("*@*.work"))
    if not works:
        return "between stages"
    work = works[-1]
    if (work / "record.json").exists():
        return "publishing"
    if (work / "made.json").exists():
        return "exams"
    if work.name.startswith("tokenizer"):
        return "tokenizer"
    if (
        any(work.glob("state/*.work"))
        or any(work.glob("state/*.gone"))
        or (work / "model").exists()
    ):
        return "saving"
    if (work / "metrics.jsonl").exists():
        return "training"
    return "data"


def fingerprints(run: Path) -> dict[str, str]:
    """The sha256 of every file that must not depend on kills, by path in the run."""
    from matura.core.store import sha256_of

    same = ("model/*", "metrics.jsonl", "exams.json", "data/*")
    return {
        path.relative_to(run).as_posix(): sha256_of(path)
        for pattern in same
        for path in sorted(run.glob(f"*@*/{pattern}"))
    }


def uninterrupted(recipe: Path, folder: Path) -> tuple[dict[str, str], float, str]:
    """An untouched climb's fingerprints, its seconds, and its run's name.

    Raises:
        SystemExit: it does not even climb undisturbed.
    """
    from matura.ladder.recipe import load

    log = folder / "uninterrupted.log"
    began = time.monotonic()
    code = wait(start(recipe, folder / "whole", log), 3600.0)
    if code != 0:
        raise SystemExit(f"the uninterrupted climb ended with {code}:\n{log.read_text()[-2000:]}")
    name = load(recipe).name
    return fingerprints(folder / "whole" / name), time.monotonic() - began, name


def torture(recipe: Path, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kills climbs until `kills` kills have landed, and lets the last one end."""
    reference, whole_s, name = uninterrupted(recipe, folder)
    draw, tally = Random(seed), Tally()
    began = time.monotonic()
    while tally.kills < kills and not tally.failures:
        runs, log = folder / f"climb-{tally.climbs}", folder / "climb.log"
        log.unlink(missing_ok=True)
        if not one_climb(recipe, runs, log, tally, draw, kills, whole_s, name):
            break
        tally.climbs += 1
        tally.resumed += log.read_text(errors="replace").count("resuming after step")
        ended = fingerprints(runs / name)
        changed = {path for path, sha in reference.items() if ended.get(path) != sha}
        tally.unequal += sorted(changed | ended.keys() - reference.keys())
        shutil.rmtree(runs)
    weights = {path: sha for path, sha in reference.items() if path.endswith("model.safetensors")}
    return {
        "kills": tally.kills,
        "torn": len(tally.torn),
        "completed": tally.climbs > 0 and not tally.failures,
        "weights_equal": bool(weights) and not weights.keys() & set(tally.unequal),
        "all_equal": not tally.unequal,
        "climbs": tally.climbs,
        "resumed": tally.resumed,
        "struck": dict(tally.found.most_common()),
        "seconds": round(time.monotonic() - began, 1),
        "uninterrupted_s": round(whole_s, 2),
        "seed": seed,
        "weights": weights,
        "problems": [*tally.torn[:5], *tally.failures, *dict.fromkeys(tally.unequal)],
    }


def one_climb(
    recipe: Path,
    runs: Path,
    log: Path,
    tally: Tally,
    draw: Random,
    kills: int,
    whole_s: float,
    name: str,
) -> bool:
    """Climbs to the end, killed on the way; False if it does not get there."""
    for _ in range(MOST_TRIES):
        moment = draw.uniform(0.0, SPREAD * whole_s)
        child = start(recipe, runs, log)
        enough = tally.kills >= kills
        code = wait(child, HANGS * whole_s + 60 if enough else moment)
        if code is None:
            code = kill(child)
        if code == -signal.SIGKILL:
            if enough:
                tally.failures.append("a try hangs")
                return False
            tally.kills += 1
            tally.found[struck(runs / name)] += 1
        tally.torn += torn(runs / name)
        print(f"\r{tally.kills}/{kills} kills, {tally.climbs} climbs", end="", file=sys.stderr)
        if code == 0:
            return True
        if code != -signal.SIGKILL:
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            tally.failures.append(f"a resumed climb ended with {code}: {' | '.join(said)}")
            return False
    tally.failures.append(f"a climb did not end in {MOST_TRIES} tries")
    return False


def main() -> int:
    """Parses, tortures, prints; 0 if nothing was torn and all climbs ended in equal weights."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--kills", type=int, default=100)
    about.add_argument("--seed", type=int, default=0, help="of the moments")
    about.add_argument("--recipe", type=Path, default=RECIPE)
    about.add_argument("--folder", type=Path, help="where climbs lie meanwhile; default: /tmp")
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    warm(asked.recipe)
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="kill-") as folder:
        result = torture(asked.recipe, asked.kills, asked.seed, Path(folder))
    print(file=sys.stderr)
    if asked.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            if key != "weights":
                print(f"{key:16} {value}")
    fine = result["completed"] and result["weights_equal"] and not result["torn"]
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
