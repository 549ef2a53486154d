"""Where the command line writes: results to stdout, everything else to stderr."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but newline and tab."""


def console() -> Console:
    """Stdout with colours where it is a terminal and `NO_COLOR` is not set."""
    from rich.console import Console

    # piped text is read by other programs, which nobody wraps lines for
    width = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, width=width, highlight=False)


def draw(*things: RenderableType) -> None:
    """Anything rich can draw."""
    screen = console()
    for thing in things:
        screen.print(thing)


def emit(value: object) -> None:
    """One JSON value on one line."""
    line(json.dumps(value, ensure_ascii=False, allow_nan=False))


def line(text: str) -> None:
    """Text as it is, for programs; made harmless where a person reads it on a terminal."""
    sys.stdout.write((harmless(text) if sys.stdout.isatty() else text) + "\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """One line on stderr."""
    print(harmless(text), file=sys.stderr, flush=True)


def bytes_here(url: str, here: int, total: int | None) -> None:
    """How far a download is, on one line of stderr that the next one overwrites."""
    of = f" of {total / 1e6:,.1f}" if total else ""
    end = "\n" if here == total else "\r"
    if sys.stderr.isatty() or here == total:
        print(harmless(f"{url}: {here / 1e6:,.1f}{of} MB"), end=end, file=sys.stderr, flush=True)


def documents_here(name: str, count: int) -> None:
    """How many documents of a source were looked at, likewise; nothing off a terminal."""
    if sys.stderr.isatty():
        print(harmless(f"{name}: {count:,} documents"), end="\r", file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """Control characters made visible: what a model or a file says may not steer a terminal."""
    return _CONTROL.sub(lambda hit: f"\\x{ord(hit[0]):02x}", text)


def forgiving() -> None:
    """What stdout or stderr cannot spell (half a character, an ASCII terminal) is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
