"""What decides the last bits of a run: with other threads, another torch or another processor sums
are made in another order, so a run that goes on there is no longer equal to the bit.

It may all the same: that is said once, and stands among what happened in the run.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from matura.learn.compute import Compute
from matura.learn.team import Team

LINE = "other arithmetic"


def arithmetic(compute: Compute, team: Team) -> dict[str, str]:
    """Of this process, by name."""
    found = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if compute.device == "cuda" else "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "numbers": str(compute.dtype).removeprefix("torch."),
        "steps": "compiled" if compute.compiled else "eager",
        "threads": str(torch.get_num_threads()),
        "sums": "exact" if team.exact else f"of {team.size}",
    }
    if compute.device == "cuda":  # a GPU's sums know nothing of the CPU
        del found["instructions"], found["threads"]
    return found


def differing(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is not as it was, in words; empty if all is."""
    return ", ".join(
        f"{name} {now.get(name, 'unknown')} (before: {then.get(name, 'unknown')})"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    )
