"""How processes find each other: rank, number, address and port from the environment, as `torchrun`
and `srun` scripts set them. Nothing waits longer than it says.

Without `torchrun`, rank 0 opens the store itself, at the address it was given and at no other one:
on one machine that is loopback.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from matura.core.errors import RankError

WAIT_S = 25.0
"""How long the others may take to come."""
SILENT_S, STUCK_S = "MATURA_SILENT_S", "MATURA_STUCK_S"
"""Seconds after which a rank is given up that is not heard, or that stays in one part of a step."""
STORE_FD = "MATURA_STORE_FD"
"""A listening socket that rank 0 inherits, so that nobody can take its port in between."""


@dataclass(frozen=True)
class Meeting:
    """Where processes met."""

    rank: int
    size: int
    local_rank: int
    store: Store
    second: Store
    """Another connection to the same: a call on one waits for the other's."""
    third: Store
    """And one for the thread that saves."""
    served: Store | None = None
    """What rank 0 keeps open for all."""


def meet(*, timeout_s: float | None = None) -> Meeting:
    """Finds all others.

    Raises:
        RankError: an environment variable is missing or wrong, the store is not to be reached, its
            port is taken, or somebody does not come.
    """
    timeout_s = WAIT_S if timeout_s is None else timeout_s
    until_s = time.monotonic() + timeout_s
    rank, size, port = _number("RANK"), _number("WORLD_SIZE"), _number("MASTER_PORT")
    host = os.environ.get("MASTER_ADDR", "")
    if not 0 <= rank < size:
        raise RankError(f"RANK={rank} of WORLD_SIZE={size}: expected 0 to {size - 1}")
    if not host:
        raise RankError("MASTER_ADDR is not set: where is rank 0?")
    address = _resolved(host)
    if ipaddress.ip_address(address).is_loopback:
        names = [name for _, name in socket.if_nameindex()]
        own = next((name for name in ("lo", "lo0") if name in names), None)
        if own is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", own)
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    hosts = rank == 0 and not agent
    if not hosts:
        _reach(host, address, port, until_s)
    served = _served(address, port, size) if hosts else None
    try:
        clients = [
            TCPStore(
                address,
                port,
                size,
                is_master=False,
                timeout=timedelta(seconds=silent_s()),
                wait_for_workers=False,
            )
            for _ in range(3)
        ]
    except RuntimeError as problem:
        raise RankError(f"{host}:{port}: no store of the ranks: {_first(problem)}") from problem
    # torchrun keeps one store over all restarts
    prefix = f"matura/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    first, second, third = (PrefixStore(prefix, client) for client in clients)
    _gather(first, rank, size, until_s, timeout_s)
    local = int(os.environ.get("LOCAL_RANK", rank))
    return Meeting(rank, size, local, first, second, third, served)


def silent_s() -> float:
    """After how many seconds of silence a rank is given up, and the store too.

    Raises:
        RankError: the environment says no number.
    """
    return seconds(SILENT_S, 60.0)


def seconds(name: str, usual: float) -> float:
    """A time from the environment.

    Raises:
        RankError: it is no number.
    """
    try:
        return float(os.environ.get(name, usual))
    except ValueError:
        raise RankError(f"{name}={os.environ[name]}: expected seconds") from None


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except KeyError:
        raise RankError(f"{name} is not set; start with torchrun or --processes") from None
    except ValueError:
        raise RankError(f"{name}={os.environ[name]}: expected a number") from None


def _resolved(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as problem:
        raise RankError(f"MASTER_ADDR={host}: no such machine: {problem.strerror}") from problem


def _reach(host: str, address: str, port: int, until_s: float) -> None:
    """Waits until somebody listens there: torch would wait much longer, and say it at length."""
    while True:
        try:
            socket.create_connection((address, port), timeout=2.0).close()
            return
        except OSError as problem:
            if time.monotonic() > until_s:
                raise RankError(
                    f"MASTER_ADDR={host} MASTER_PORT={port}: rank 0 does not answer there: "
                    f"{problem.strerror or problem}"
                ) from problem
        time.sleep(0.2)


def _served(address: str, port: int, size: int) -> Store:
    """The store itself, open at that address only."""
    fd = os.environ.pop(STORE_FD, None)
    if fd is None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, port))
            listening.listen()
        except OSError as problem:
            listening.close()
            raise RankError(
                f"MASTER_PORT={port}: cannot be opened at {address}: {problem.strerror}; "
                "take another port"
            ) from problem
        fd = str(listening.detach())
    return TCPStore(
        address,
        port,
        size,
        is_master=True,
        timeout=timedelta(seconds=silent_s()),
        wait_for_workers=False,
        master_listen_fd=int(fd),
    )


def _gather(store: Store, rank: int, size: int, until_s: float, timeout_s: float) -> None:
    """Waits until each rank has come once, and only those."""
    try:
        if store.add(f"here/{rank}", 1) > 1:
            raise RankError(f"RANK={rank} is there twice: each process needs a rank of its own")
        store.set(f"size/{rank}", str(size))
        missing = list(range(size))
        while missing:
            missing = [other for other in missing if not store.check([f"size/{other}"])]
            if missing and time.monotonic() > until_s:
                raise RankError(
                    f"only {size - len(missing)} of {size} processes came within {timeout_s:.0f} s:"
                    f" no rank {', '.join(map(str, missing))}; is WORLD_SIZE right?"
                )
            time.sleep(0.02 if missing else 0)
        sizes = {other: int(store.get(f"size/{other}")) for other in range(size)}
    except RuntimeError as problem:
        raise RankError(f"the ranks' store went away: {_first(problem)}") from problem
    for other, theirs in sizes.items():
        if theirs != size:
            raise RankError(f"WORLD_SIZE={size} here, but {theirs} at rank {other}")


def _first(problem: RuntimeError) -> str:
    return str(problem).partition("\n")[0][:200]
