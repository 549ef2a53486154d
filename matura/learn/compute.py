"""How the arithmetic is done on this machine: threads, number type, compiled or not. Never part of
identity."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._functorch.config as functorch

from matura import models
from matura.core.errors import RecipeError

_CODE = [Path(folder) for folder in models.__path__]
# A compiled step costs 5 to 8 s (cached) or 30 to 45 s (cold) before the first one; measured on 2
# cores it is 1.6 times faster: 1e13 operations (40 s, eager) earn the first back, not the second.
COMPILE_FROM_FLOPS = 1e13
# Reckoned, not yet measured: a minute of compiling, a third saved of 4e14 operations a second.
COMPILE_FROM_FLOPS_CUDA = 5e16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Compute:
    """The choice for one process; `without` says in plain words what this machine lacks."""

    device: str
    dtype: torch.dtype
    compiled: bool
    threads: int
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        words = [
            self.device,
            kind,
            "compiled" if self.compiled else "eager",
            f"{self.threads} threads",
        ]
        return ", ".join(words) + "".join(f"; {reason}" for reason in self.without)


def choose(flops: float) -> Compute:
    """The fastest arithmetic this machine can do that `flops` of training earn back.

    `MATURA_COMPILE=0|1` and `MATURA_DTYPE=float32|bfloat16` overrule it.

    Raises:
        RecipeError: either is something else.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    without: list[str] = []
    wide = device == "cuda" or _cpu_has_bf16()
    if not wide:
        without.append("no bf16 arithmetic here: fp32, about half the speed")
        torch.set_float32_matmul_precision("medium")
    dtype = torch.bfloat16 if wide else torch.float32
    if asked := os.environ.get("MATURA_DTYPE"):
        if asked not in DTYPES:
            raise RecipeError(f"MATURA_DTYPE={asked}: expected one of {', '.join(DTYPES)}")
        dtype = DTYPES[asked]
    compiler = device == "cuda" or shutil.which(os.environ.get("CXX", "g++")) is not None
    # On a GPU fp32 stays fp32, as torch has it: products are bf16 anyway, and the few that are not
    # (MATURA_DTYPE=float32, the sampler's) are asked for because TF32's 10 bits are too few.
    wanted = flops >= (COMPILE_FROM_FLOPS_CUDA if device == "cuda" else COMPILE_FROM_FLOPS)
    if told := os.environ.get("MATURA_COMPILE"):
        if told not in ("0", "1"):
            raise RecipeError(f"MATURA_COMPILE={told}: expected 0 or 1")
        wanted = told == "1"
    if wanted and not compiler:
        without.append("no C++ compiler here: eager, about two thirds of the speed")
    return Compute(device, dtype, wanted and compiler, torch.get_num_threads(), tuple(without))


def keep_compiled(code: list[Path] = _CODE) -> dict[str, Any]:
    """Let the compiler keep its work on our handwritten gradients for the next process; the options
    to compile with.

    It does not by itself, since a function's code is not all that it may depend on. Ours depends on
    nothing else than what lies in `code`, whose hash becomes a part of the key.
    """
    functorch.autograd_cache_allow_custom_autograd_functions = True
    files = sorted(file for folder in code for file in folder.rglob("*.py"))
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    return {"unsafe_marked_cacheable_functions": {"matura.models": digest}}


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks instead of returning them; page faults cost 10 to 20 % of a
    step."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        return bool(
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        )
    except (OSError, AttributeError):  # musl has no mallopt
        return False


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
