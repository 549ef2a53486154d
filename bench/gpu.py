"""What a GPU gives: training, memory, saving and decoding at three sizes, beside `transformers`.

Each size is a process of its own, which says what it found as soon as it has it: what runs out of
memory or time costs its own row. All in one call of under eight minutes, tests marked gpu included.

    .venv/bin/python bench/gpu.py --json
    .venv/bin/python bench/gpu.py --device cpu --shapes tiny      # the same code, anywhere
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PART = Path(__file__).with_name("gpu_part.py")
NAMES = ("tiny", "124M", "561M", "1.5B")
SECONDS = 460.0
TESTS_S, PEAK_S, OURS_S, THEIRS_S = 100.0, 60.0, 150.0, 60.0
"""The longest that each may take, if so much is left."""
PEAK_FLOPS_S = {  # dense bf16 with fp32 sums, NVIDIA's data sheets; the first name that fits
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
    "3090": 71e12,
}


def said(command: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """The lines of JSON that a process says, and how it ended if not well."""
    if seconds <= 1:
        return [{"part": "failed", "why": "no time was left"}]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    errors: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout, process.stderr
    readers = [
        threading.Thread(target=lambda: lines.extend(out)),
        threading.Thread(target=lambda: errors.extend(err)),
    ]
    for reader in readers:
        reader.start()
    why = ""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        why = f"stopped after {seconds:.0f} s"
    for reader in readers:
        reader.join()
    if not why and process.wait():
        why = f"exit code {process.returncode}: {errors[-1].strip() if errors else ''}"
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return found + ([{"part": "failed", "why": why}] if why else [])


def tests(seconds: float) -> dict[str, Any]:
    """How the tests marked gpu went: they repeat on the device what the others hold on a CPU."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(seconds, 1), check=False
        )
    except subprocess.TimeoutExpired:
        return {"outcome": f"stopped after {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    return {
        "outcome": lines[-1] if lines else done.stderr[-200:],
        "failed": failed,
        "seconds": time.monotonic() - began,
    }


def judged(row: dict[str, Any], peak: dict[str, Any]) -> None:
    """Adds to a shape's numbers what share of the device they are, and of the peer's."""
    train = row.get("train")
    card = next((f for name, f in PEAK_FLOPS_S.items() if name in peak.get("name", "")), None)
    if train and "gemm_flops_s" in peak:
        train["share_of_gemm"] = train["flops_s"] / peak["gemm_flops_s"]
        train["mfu"] = None if card is None else train["flops_s"] / card
    for part in ("train", "batch1", "batch32"):
        mine, other = row.get(part), row.get(f"theirs_{part}")
        if mine and other:
            mine["ratio"] = mine["tok_s"] / other["tok_s"]
        if mine and "bytes_s" in mine and "read_bytes_s" in peak:
            mine["share_of_bandwidth"] = mine["bytes_s"] / peak["read_bytes_s"]


def measured(
    device: str, shapes: Sequence[str], seconds: float, peers: bool, with_tests: bool
) -> dict[str, Any]:
    """Everything, ours first, as far as the time goes."""
    until = time.monotonic() + seconds
    found: dict[str, Any] = {"device": device}

    def part(what: str, most_s: float, *more: str) -> dict[str, Any]:
        command = [sys.executable, str(PART), what, "--device", device, *more]
        left = until - time.monotonic()
        lines = said(command, min(most_s, left))
        failed = [line["why"] for line in lines if line["part"] == "failed"]
        row = {line.pop("part"): line for line in lines if line["part"] != "failed"}
        return row | ({"failed": failed} if failed else {})

    found["peak"] = part("peak", PEAK_S)
    peak = found["peak"].get("peak", {})
    found["shapes"] = {}
    for shape in shapes:
        found["shapes"][shape] = part("ours", OURS_S, "--shape", shape)
        tell(shape, found["shapes"][shape])
    for shape in shapes if peers else ():
        row, other = found["shapes"][shape], part("theirs", THEIRS_S, "--shape", shape)
        if "failed" in other:
            row["theirs_failed"] = other.pop("failed")
        row |= other
    for row in found["shapes"].values():
        judged(row, peak)
    if with_tests:
        found["tests"] = tests(min(TESTS_S, until - time.monotonic()))
    found["seconds"] = seconds - (until - time.monotonic())
    return found


def tell(shape: str, row: dict[str, Any]) -> None:
    """What is known so far, in case nobody sees the end."""
    print(f"{shape}: {json.dumps(row)}", file=sys.stderr, flush=True)


def table(found: dict[str, Any]) -> str:
    """For people."""
    peak = found["peak"].get("peak", {})
    lines = [
        f"{peak.get('name', found['device'])}: product {peak.get('gemm_flops_s', 0) / 1e12:.2f} "
        f"TFLOP/s, reads {peak.get('read_bytes_s', 0) / 1e9:.1f} GB/s"
    ]
    for shape, row in found["shapes"].items():
        if train := row.get("train"):
            mfu = train.get("mfu")
            lines.append(
                f"{shape:>6} train   {train['tok_s']:>12,.0f} tok/s"
                f"  {'' if mfu is None else f'MFU {mfu:.1%}, '}"
                f"{train.get('share_of_gemm', 0):.1%} of the product, "
                f"{train['peak_bytes'] / 1e9:.1f} GB, first step {train['first_step_s']:.0f} s"
                + _beside(train)
            )
        if save := row.get("save"):
            lines.append(
                f"{shape:>6} save    waits {save['wait_s']:.3f} s: {save['share_at_30_s']:.2%}"
            )
        for rows in (1, 32):
            if spoke := row.get(f"batch{rows}"):
                lines.append(
                    f"{shape:>6} say {rows:>3} {spoke['tok_s']:>12,.0f} tok/s"
                    f"  {spoke['bytes_s'] / 1e9:.1f} GB/s"
                    f" ({spoke.get('share_of_bandwidth', 0):.0%} of what is read)" + _beside(spoke)
                )
        for key in ("failed", "theirs_failed"):
            lines += [f"{shape:>6} {key.replace('_', ' ')}: {why}" for why in row.get(key, [])]
    if "tests" in found:
        lines.append(f"tests marked gpu: {found['tests']['outcome']}")
    return "\n".join([*lines, f"{found['seconds']:.0f} s"])


def _beside(mine: dict[str, Any]) -> str:
    return f", {mine['ratio']:.2f} times transformers" if "ratio" in mine else ""


def main() -> int:
    """Exit code 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shapes", nargs="+", choices=NAMES, default=list(NAMES[1:]))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all of it together")
    parser.add_argument("--no-peers", action="store_true", help="leave transformers out")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    cuda = asked.device == "cuda"
    found = measured(asked.device, asked.shapes, asked.seconds, not asked.no_peers, cuda)
    print(json.dumps(found, indent=1) if asked.json else table(found))
    rows = found["shapes"].values()
    return int(any("failed" in row for row in rows) or bool(found.get("tests", {}).get("failed")))


if __name__ == "__main__":
    sys.exit(main())
