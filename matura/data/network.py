"""Leave to use the network, and how: offline unless asked.

A recipe never asks, so a shared one reaches nothing by itself: a command does, with `using`, or
whoever runs it, with `MATURA_OFFLINE=0`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from matura.core.errors import RecipeError

Progress = Callable[[str, int, int | None], None]
"""Called with a URL, its bytes here, and its bytes in all where the server said so."""


def _unseen(url: str, here: int, total: int | None) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Network:
    """How downloads reach the network, and where they are kept."""

    offline: bool | None = None
    """Whether nothing may be requested; None leaves it to each download."""
    cache: Path | None = None
    """The cache folder; `MATURA_CACHE` or `~/.cache/matura` if absent."""
    progress: Progress = _unseen
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time
    tries: int = 6
    """How often in a row nothing may be gained before a download is given up."""
    timeout_s: float = 30.0
    """How long a connection may be silent."""


_NETWORK: ContextVar[Network] = ContextVar("network", default=Network())  # noqa: B039  # frozen


@contextmanager
def using(network: Network) -> Iterator[None]:
    """Everything in the block downloads this way: a source cannot be handed a network."""
    token = _NETWORK.set(network)
    try:
        yield
    finally:
        _NETWORK.reset(token)


def current() -> Network:
    """The one in use."""
    return _NETWORK.get()


def is_offline(asked: bool = True) -> bool:
    """Whether nothing may be requested: `MATURA_OFFLINE=1` forbids it whatever else is said, then
    the `Network` in use decides, then `MATURA_OFFLINE=0` allows it, then `asked`.

    Raises:
        RecipeError: `MATURA_OFFLINE` is neither 0 nor 1.
    """
    spelled = os.environ.get("MATURA_OFFLINE", "")
    if spelled not in ("", "0", "1"):
        raise RecipeError(f"MATURA_OFFLINE is {spelled!r}; expected 0 or 1")
    if spelled == "1":
        return True
    stated = _NETWORK.get().offline
    if stated is not None:
        return stated
    return asked and spelled != "0"


def cache_folder(folder: Path | None = None) -> Path:
    """Where downloads are kept: `folder`, else the `Network`'s, `MATURA_CACHE`, ~/.cache/matura."""
    told = folder or _NETWORK.get().cache or os.environ.get("MATURA_CACHE")
    return Path(told) if told else Path.home() / ".cache" / "matura"
