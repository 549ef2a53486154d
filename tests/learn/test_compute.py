"""A machine that lacks something trains all the same, and says what it does without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._functorch.config as functorch

from matura.core.errors import RecipeError
from matura.learn import compute
from matura.learn.compute import (
    COMPILE_FROM_FLOPS,
    COMPILE_FROM_FLOPS_CUDA,
    choose,
    keep_compiled,
    keep_freed_memory,
)


@pytest.fixture(autouse=True)
def laptop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No GPU, a compiler, bf16, and nothing asked for."""
    monkeypatch.delenv("MATURA_COMPILE", raising=False)
    monkeypatch.delenv("MATURA_DTYPE", raising=False)
    monkeypatch.setenv("CXX", "sh")  # any program that is there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(compute, "_cpu_has_bf16", lambda: True)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(precision)


def test_compiling_must_be_earned_back() -> None:
    short, long = choose(COMPILE_FROM_FLOPS / 2), choose(COMPILE_FROM_FLOPS)
    assert (short.compiled, long.compiled) == (False, True)
    assert short.without == long.without == ()
    assert str(long) == f"cpu, bfloat16, compiled, {torch.get_num_threads()} threads"


def test_a_gpu_computes_in_bf16_and_compiles_what_is_long_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CXX", "/nowhere/g++")  # it has a compiler of its own
    short, long = choose(COMPILE_FROM_FLOPS_CUDA / 2), choose(COMPILE_FROM_FLOPS_CUDA)
    assert (short.device, short.dtype, short.without) == ("cuda", torch.bfloat16, ())
    assert (short.compiled, long.compiled) == (False, True)
    assert torch.get_float32_matmul_precision() == "highest"  # fp32 is no TF32


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    chosen = choose(1e15)
    assert not chosen.compiled
    assert str(chosen).endswith("; no C++ compiler here: eager, about two thirds of the speed")
    assert choose(1.0).without == ()  # it would not have been used


def test_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_cpu_has_bf16", lambda: False)
    chosen = choose(1.0)
    assert chosen.dtype == torch.float32
    assert "no bf16 arithmetic here: fp32" in str(chosen)


def test_the_environment_overrules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_DTYPE", "float32")
    monkeypatch.setenv("MATURA_COMPILE", "0")
    chosen = choose(1e15)
    assert (chosen.dtype, chosen.compiled) == (torch.float32, False)
    monkeypatch.setenv("MATURA_COMPILE", "1")
    assert choose(1.0).compiled


def test_an_unknown_number_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_DTYPE", "bf16")
    with pytest.raises(RecipeError, match="MATURA_DTYPE=bf16: expected one of float32, bfloat16"):
        choose(1.0)


def test_an_unknown_wish_to_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_COMPILE", "yes")
    with pytest.raises(RecipeError, match="MATURA_COMPILE=yes: expected 0 or 1"):
        choose(1.0)


def test_reusing_freed_memory_is_asked_for_where_it_can_be() -> None:
    assert keep_freed_memory() in (True, False)


def test_what_is_kept_of_the_compiler_is_kept_for_this_code_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The key has to change with every file that a handwritten gradient may depend on."""
    monkeypatch.setattr(functorch, "autograd_cache_allow_custom_autograd_functions", False)
    keys = [keep_compiled()]
    assert functorch.autograd_cache_allow_custom_autograd_functions
    for text in ("scale = 2", "scale = 5", "scale = 5\n", "scale = 2"):
        (tmp_path / "gradient.py").write_text(text, encoding="utf-8")
        keys.append(keep_compiled([tmp_path]))
    assert keys[1] == keys[4]
    assert len({str(key) for key in keys}) == 4
