"""Training speed: Matura's `fit` beside `transformers` loops, its Trainer and litgpt, turn by turn.

`fit` is the whole loop as stages run it: rows from a real feed, packed and masked, forward,
backward, clipping, Muon and AdamW, red lines, the ledger. The peers (`train_peers.py`) read full
rows without a mask. Same batch, sequence, vocabulary, widths and threads; each a process of its own
that sleeps while others take turns. First all are as shipped, then the peers' allocator is set as
`fit` sets its own. Where a machine has no bf16, all compute in fp32, and `mode` says so.

    .venv/bin/python bench/train.py --shape all --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import timing
import torch
from contender import Contender, environment
from train_ours import SHAPES, Shape

from matura.learn.compute import choose

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
ENVIRONMENT, LITGPT = ROOT / ".venv-litgpt", BENCH / "train_litgpt.txt"
ROUNDS = 5
MEASURED = tuple(name for name in SHAPES if name != "mini")
FIT, EAGER = "fit", "fit_eager"
AS_SHIPPED, KEEP = "", "keep"
"""What a turn's line says: the second makes peers keep freed memory from then on."""


def llama(shape: Shape) -> dict[str, Any]:
    """`transformers`' names for the same shape."""
    c = shape.config
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.inner_width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "max_position_embeddings": c.sequence_length,
        "tie_word_embeddings": c.tie_embeddings,
        "use_cache": False,
    }


def commands(
    name: str, wide: bool, rounds: int, each_s: float, litgpt: Path | None
) -> dict[str, list[str]]:
    """How each contender is started; `wide`: whether this machine has bf16."""
    turns = [f"--rounds={2 * rounds}", f"--seconds={each_s}"]
    ours = [sys.executable, str(BENCH / "train_ours.py"), f"--shape={name}", *turns]
    found = {FIT: ours, EAGER: ours}
    kinds = ["fp32", "bf16", "bf16-compiled"] if wide else ["fp32", "fp32-compiled"]
    asked = [(f"loop_{how.replace('-', '_')}", sys.executable, "loop", how) for how in kinds]
    best = "bf16" if wide else "fp32"
    asked.append((f"trainer_{best}", sys.executable, "trainer", best))
    if litgpt is not None:
        asked.append((f"litgpt_{best}_compiled", str(litgpt), "litgpt", best))
    told = json.dumps(llama(SHAPES[name]))
    for contender, python, peer, how in asked:
        start = [python, str(BENCH / "train_peers.py"), peer, how, told]
        found[contender] = [*start, f"--rows={SHAPES[name].rows}", *turns]
    return found


def surroundings(folder: Path, contender: str) -> dict[str, str]:
    """A contender's variables: an empty compiler's cache of its own, and nothing fetched."""
    own = folder / contender
    own.mkdir(exist_ok=True)
    return os.environ | {
        "BENCH_BEGAN": str(time.time()),
        "HF_HOME": str(own),
        "HF_HUB_OFFLINE": "1",
        "MATURA_COMPILE": "0" if contender == EAGER else os.environ.get("MATURA_COMPILE", "1"),
        "TMPDIR": str(own),
        "TORCHINDUCTOR_CACHE_DIR": str(own / "compiled"),
    }


def race(
    started: Mapping[str, Sequence[str]],
    rounds: int,
    between: Callable[[], None],
    folder: Path,
) -> dict[str, Contender]:
    """All turns of all contenders, first as shipped, then all with the same allocator."""
    with ExitStack() as stack:
        found: dict[str, Contender] = {}
        for name, command in started.items():
            contender = Contender(name, command, surroundings(folder, name))
            found[name] = stack.enter_context(contender)
        for told in (AS_SHIPPED, KEEP):
            for number in range(rounds):
                between()
                for contender in found.values():
                    contender.turn(told if number == 0 else "")
    return found


def first_step_s(command: Sequence[str], folder: Path) -> float:
    """What it takes a fresh process with the cache that `fit` has left, which ends then."""
    with Contender("warm", command, surroundings(folder, FIT)) as again:
        return float(again.ready["first_step_s"])


def report(
    shape: Shape, found: Mapping[str, Contender], rounds: int, peaks: Mapping[str, list[float]]
) -> dict[str, Any]:
    """What the turns come to."""
    shipped = {name: each.rates[:rounds] for name, each in found.items()}
    alike = {name: each.rates[rounds:] for name, each in found.items()}
    peers = [name for name in found if name not in (FIT, EAGER)]
    ready = found[FIT].ready
    mode = "bf16" if ready["bf16"] else "fp32"
    rate = {name: statistics.median(values) for name, values in shipped.items()}
    peak = {name: statistics.median(values) for name, values in peaks.items()}
    per_gflop = shape.flops_per_token(0.5) / 1e9 / peak[mode]
    best, best_alike = (
        max(peers, key=lambda name: statistics.median(rates[name])) for rates in (shipped, alike)
    )
    return {
        "mode": mode,
        "tok_s": round(rate[FIT]),
        "ratio_best": round(timing.ratio(shipped[FIT], shipped[best]), 2),
        "best": best,
        "ratio_best_same_allocator": round(timing.ratio(alike[FIT], alike[best_alike]), 2),
        "best_same_allocator": best_alike,
        "ratio": {n: round(timing.ratio(shipped[FIT], shipped[n]), 2) for n in (EAGER, *peers)},
        "ratio_same_allocator": {n: round(timing.ratio(alike[FIT], alike[n]), 2) for n in peers},
        "mfu": _three_digits(rate[FIT] * per_gflop),
        "first_step_s": ready["first_step_s"],
        "first_step_eager_s": found[EAGER].ready["first_step_s"],
        "first_step_of_peers_s": {name: found[name].ready["first_step_s"] for name in peers},
        "earned_back_s": earned_back_s(
            ready["first_step_s"],
            found[EAGER].ready["first_step_s"],
            timing.ratio(shipped[FIT], shipped[EAGER]),
        ),
        "gemm_peak_gflops": {name: round(value) for name, value in peak.items()},
        "tok_s_of": {name: round(value) for name, value in rate.items()},
        "without": ready["without"],
        "compute": {name: each.ready["compute"] for name, each in found.items()},
        "versions": {name: found[name].ready["versions"] for name in peers},
        "threads": {name: each.ready["threads"] for name, each in found.items()},
        "rounds": {name: [round(value) for value in values] for name, values in shipped.items()},
        "rounds_same_allocator": {n: [round(value) for value in alike[n]] for n in alike},
    }


def earned_back_s(compiled_s: float, eager_s: float, faster: float) -> float | None:
    """Seconds from the start of the process until one that compiles, `faster` times as fast from
    its first step on, has done as much as one that does not; None if it never has.

    Both do nothing before their first step: (t - compiled_s) * faster = t - eager_s.
    """
    if faster <= 1:
        return None
    return round(max(compiled_s, (compiled_s * faster - eager_s) / (faster - 1)), 1)


def measure(
    name: str, seconds: float, rounds: int, folder: Path, litgpt: Path | None
) -> dict[str, Any]:
    """All of one shape in about `seconds`, if its steps are not too long for that."""
    wide = choose(0.0).dtype is torch.bfloat16
    peaks: dict[str, list[float]] = {"bf16": [], "fp32": []} if wide else {"fp32": []}

    def between() -> None:
        if wide:
            peaks["bf16"].append(timing.gemm_gflops(torch.bfloat16))
        found = []
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            found.append(timing.gemm_gflops(torch.float32))
        peaks["fp32"].append(max(found))

    many = len(commands(name, wide, rounds, 0.0, litgpt))
    started = commands(name, wide, rounds, seconds / rounds / 2 / many, litgpt)
    found = race(started, rounds, between, folder)
    warm = first_step_s(started[FIT], folder)
    return {**report(SHAPES[name], found, rounds, peaks), "first_step_warm_s": warm}


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def tell(name: str, found: Mapping[str, Any]) -> None:
    """One shape's figures, for people."""
    print(f"{name}, in {found['mode']}: {found['compute'][FIT]}")
    for contender, rate in found["tok_s_of"].items():
        line = f"  {contender:22}{rate:>9,} tokens/s"
        if contender in found["ratio"]:
            line += f"   fit is {found['ratio'][contender]:.2f} times that"
        if contender in found["ratio_same_allocator"]:
            line += f", {found['ratio_same_allocator'][contender]:.2f} with the same allocator"
        print(line)
    for kind, value in found["gemm_peak_gflops"].items():
        print(f"  {'matrix products, ' + kind:22}{value:>9,} GFLOP/s")
    print(f"  fit uses {found['mfu']:.0%} of that in {found['mode']}")
    print(
        f"  first step after {found['first_step_s']} s from an empty cache, "
        f"{found['first_step_warm_s']} s from a warm one, {found['first_step_eager_s']} s eager; "
        f"compiling is earned back after {found['earned_back_s']} s"
    )


def main() -> int:
    """Parses, measures, prints."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--shape", choices=[*SHAPES, "all"], default="tiny")
    about.add_argument("--seconds", type=float, default=210.0, help="of measuring a shape, about")
    about.add_argument("--rounds", type=int, default=ROUNDS)
    about.add_argument("--without-litgpt", action="store_true", help="installs nothing")
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    litgpt = None if asked.without_litgpt else environment(ENVIRONMENT, LITGPT)
    found = {}
    for name in MEASURED if asked.shape == "all" else [asked.shape]:
        with tempfile.TemporaryDirectory(prefix="train-") as folder:
            found[name] = measure(name, asked.seconds, asked.rounds, Path(folder), litgpt)
        if not asked.json:
            tell(name, found[name])
    if asked.json:
        print(json.dumps({**found, "machine": timing.here()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
