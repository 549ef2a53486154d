"""What `matura plan` promised, beside what it took: time and memory of five recipes of different
shapes.

    python bench/plan.py --json

Each recipe is planned and then climbed in a process of its own, so that no memory of one is in the
figures of the other. The bars: time within 20 %, memory within 15 %. Times mean something on an
idle machine alone: `load_before` and `processor_share`, of one core, tell whether it was.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TIME_BAR, MEMORY_BAR = 0.20, 0.15
GATE = 3
"""Exit code of a gate that was not passed: nothing is learned here that could pass one."""
BASE = """
  - name: base
    kind: pretrain
    mixture: [{source: {kind: stdlib, max_bytes: 1_500_000}, share: 1.0}]
    train: {tokens: %(tokens)d, batch_tokens: %(batch)d, evaluations: 2}
    exams: [{exam: bpb, at_most: 9.0, row_length: %(row)d}]
"""
CHAT = """
  - name: echo
    kind: sft
    mixture: [{source: {kind: echo, max_examples: 3_000}, share: 0.8}]
    replay: [{stage: base, share: 0.2}]
    train: {tokens: 20_000, batch_tokens: 1024, evaluations: 2, lora: {rank: 8}}
    exams: [{exam: echo, at_least: 0.0, n: 200, cap: 200}]
"""
SHAPES: dict[str, tuple[str, int, int, int, str]] = {
    # name: model, vocabulary, tokens, batch, more stages
    "narrow": ("hidden_size: 64, layers: 2, heads: 2, sequence_length: 128", 512, 60_000, 1024, ""),
    "wide": (
        "hidden_size: 384, layers: 2, heads: 6, sequence_length: 256, tie_embeddings: false",
        2048, 25_000, 2048, "",
    ),
    "deep": (
        "hidden_size: 128, layers: 12, heads: 4, kv_heads: 2, sequence_length: 128, qk_norm: true",
        1024, 30_000, 2048, "",
    ),
    "long": (
        "hidden_size: 128, layers: 2, heads: 4, sequence_length: 1024, tie_embeddings: false",
        8192, 24_000, 4096, "",
    ),
    "chat": (
        "hidden_size: 128, layers: 3, heads: 4, sequence_length: 256", 1024, 30_000, 2048, CHAT,
    ),
}  # fmt: skip


def recipe(name: str) -> str:
    """The YAML of one shape."""
    model, vocabulary, tokens, batch, more = SHAPES[name]
    row = int(model.partition("sequence_length: ")[2].partition(",")[0])
    return (
        f"name: {name}\ntokenizer: {{kind: bpe, vocab_size: {vocabulary}, corpus_bytes: 1_000_000}}"
        f"\nmodel: {{{model}}}\nstages:"
        + BASE % {"tokens": tokens, "batch": batch, "row": row}
        + more.lstrip("\n")
    )


def matura(*words: str) -> tuple[Any, float]:
    """What a command printed as JSON, and its seconds.

    Raises:
        SystemExit: it failed.
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "matura", *words, "--json"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "MATURA_COMPILE": "0"},
    )  # fmt: skip
    took = time.monotonic() - began
    if done.returncode not in (0, GATE):
        raise SystemExit(f"matura {' '.join(words)}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1]), took


def _processor_s() -> float:
    """Seconds of processor time of all commands so far."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def compared(name: str, folder: Path) -> dict[str, Any]:
    """One recipe, planned and climbed."""
    path = folder / f"{name}.yaml"
    path.write_text(recipe(name), encoding="utf-8")
    load = os.getloadavg()[0]
    planned, _ = matura("plan", str(path), "--runs", str(folder))
    before_s = _processor_s()
    climbed, took = matura("run", str(path), "--runs", str(folder))
    memory = max(stage["peak_rss_bytes"] for stage in climbed["stages"])
    return {
        "recipe": name,
        "parameters": planned["parameters"],
        "planned_s": planned["seconds"],
        "took_s": took,
        "time_off": planned["seconds"] / took - 1,
        "processor_share": (_processor_s() - before_s) / took,
        "load_before": load,
        "planned_bytes": planned["memory_bytes"],
        "peak_bytes": memory,
        "memory_off": planned["memory_bytes"] / memory - 1,
        "stages": [
            {
                "name": stage["name"],
                "planned_s": told["total_s"],
                "took_s": stage["seconds"],
                "peak_bytes": stage["peak_rss_bytes"],
            }
            for stage, told in zip(climbed["stages"], planned["stages"], strict=True)
        ],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| recipe | parameters | planned | took | off | memory planned | taken | off |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['recipe']} | {row['parameters'] / 1e6:.2f}M | {row['planned_s']:.1f} s "
        f"| {row['took_s']:.1f} s | {row['time_off']:+.0%} | {row['planned_bytes'] / 1e6:.0f} MB "
        f"| {row['peak_bytes'] / 1e6:.0f} MB | {row['memory_off']:+.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Every recipe asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recipe", choices=SHAPES, action="append", help="one; all if absent")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="matura-bench-plan-") as folder:
        rows = [compared(name, Path(folder)) for name in asked.recipe or SHAPES]
    found = {
        "recipes": rows,
        "time_bar": TIME_BAR,
        "memory_bar": MEMORY_BAR,
        "time_within": all(abs(row["time_off"]) <= TIME_BAR for row in rows),
        "memory_within": all(abs(row["memory_off"]) <= MEMORY_BAR for row in rows),
    }
    print(json.dumps(found) if asked.json else table(rows))


if __name__ == "__main__":
    main()
