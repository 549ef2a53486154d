"""Documented command lines of other systems, run in this process."""

from __future__ import annotations

import importlib
import io
import shlex
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[[str], Ran]


def ran(line: str) -> Ran:
    """A documented line, without the `python` before it."""
    script, *arguments = shlex.split(line)
    module = script.removesuffix(".py").replace("/", ".")
    main = importlib.import_module(f"compat.mypt.{module}").main
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return Ran(code, out.getvalue(), err.getvalue())
