"""Whether all processes that train together are alive, and why not.

A thread of each says every second, in the store, that it lives and what its rank is doing. Who is
not heard, or stays in one section too long while it waits for nobody, is named as the cause; the
first cause that is written down is everybody's, and all stop with it. Waiting ranks are never
named: they are late only because somebody else is.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from matura.core.disk import replace_atomically
from matura.core.errors import RankError, StoreError
from matura.learn.rendezvous import STUCK_S, Meeting, seconds, silent_s

BEAT_S = 1.0
CAUSE = "cause"
TELLS_S = 5.0
"""How long somebody who lost the others waits for one of them to say why."""
CAUSES = "MATURA_CAUSES"
"""A folder in which each rank says why it stopped, for whoever started it."""
FAILED = 1

State = Literal["bounded", "free", "waits"]


class Lost(RankError):
    """Another rank is gone; why is said elsewhere."""


class Section(NamedTuple):
    """What a rank does."""

    name: str
    step: int | None = None
    state: State = "free"

    def __str__(self) -> str:
        return self.name if self.step is None else f"step {self.step}: {self.name}"


class _Doing(NamedTuple):
    """A section as it was heard of, and since when it is that one, by this process's own clock."""

    number: int
    section: Section
    since_s: float


@dataclass
class _Heard:
    """What was heard of one rank last: what it does, and what a thread of it does besides."""

    beat: int
    beat_s: float
    does: list[_Doing]


class Pulse:
    """One rank's, and what it hears of the others'."""

    def __init__(self, meeting: Meeting, tell: Callable[[str], None] | None = None) -> None:
        self._store, self._rank, self._size = meeting.second, meeting.rank, meeting.size
        self._tell = tell
        self._silent_s, self._stuck_s = silent_s(), seconds(STUCK_S, 600.0)
        self._now = Section("starting")
        self._beside = Section("")
        self._count = self._beside_count = self._beat = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._heard: dict[int, _Heard] = {}
        self._parent = os.getppid()

    def start(self) -> None:
        """Begins to beat."""
        self._thread.start()

    def end(self) -> None:
        """Beats no more; nobody is missed afterwards."""
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2 * BEAT_S)

    # What this rank does

    @property
    def section(self) -> Section:
        """What this rank does now."""
        return self._now

    @section.setter
    def section(self, section: Section) -> None:
        self._now = section
        self._count += 1

    @property
    def in_step(self) -> bool:
        """Whether a step is being made, at whose end all can stop together."""
        return self._now.step is not None and self._now.state != "free"

    def at(self, name: str, step: int | None, *, bounded: bool) -> None:
        """A section begins; said at once, so that who stops in it is known to have got there."""
        self.section = Section(name, step, "bounded" if bounded else "free")
        with contextlib.suppress(RuntimeError):  # the next beat finds out
            self._say()

    def waits(self, name: str, step: int | None) -> None:
        """This rank waits for the others, as part of the step it is in."""
        self.section = Section(name, self._now.step if step is None else step, "waits")

    @contextlib.contextmanager
    def beside(self, name: str, step: int) -> Iterator[None]:
        """A bounded section of another thread, while this rank goes on with its own."""
        self._beside, before = Section(name, step, "bounded"), self._beside
        self._beside_count += 1
        try:
            yield
        finally:
            self._beside = before
            self._beside_count += 1

    # When something is wrong

    def fail(self, why: str, problem: BaseException) -> None:
        """Says that this rank has failed; it is on its way out."""
        self._over.set()
        if isinstance(problem, KeyboardInterrupt):
            why = "interrupted"
        again = self._now.step is not None and not isinstance(problem, KeyboardInterrupt)
        self._note(self._post(self._rank, f"rank {self._rank}: {why}", again=again))

    def lost(self, what: str, why: str) -> None:
        """The others do not answer: whoever knows why says so now, or else this rank does."""
        until_s = time.monotonic() + TELLS_S
        while time.monotonic() < until_s and not self._over.is_set():
            time.sleep(0.1)  # the pulse sees a cause, and ends the process
        missing = [
            str(rank)
            for rank, heard in self._heard.items()
            if rank != self._rank and time.monotonic() - heard.beat_s > TELLS_S / 2
        ]
        who = f"rank {', '.join(missing)} is gone" if missing else "a rank is gone"
        first = why.partition("\n")[0][:120]
        self._stop(int(missing[0]) if missing else None, f"{who}: {self._now}: {first}")

    def _run(self) -> None:
        while not self._over.wait(BEAT_S if self._beat else 0):
            try:
                self._one_beat()
            except RuntimeError as problem:  # all that a store raises
                if not self._over.is_set():
                    first = str(problem).partition("\n")[0][:120]
                    self._stop(0, f"rank 0 is gone: its store does not answer: {first}")

    def _one_beat(self) -> None:
        self._beat += 1
        if CAUSES in os.environ and os.getppid() != self._parent:
            self._stop(None, "whoever started the processes is gone")
        self._say()
        if self._store.check([CAUSE]):
            self._die(json.loads(self._store.get(CAUSE)))
        now_s = time.monotonic()
        for rank in range(self._size):
            if self._store.check([f"pulse/{rank}"]):
                self._hear(rank, json.loads(self._store.get(f"pulse/{rank}")), now_s)
        self._judge(now_s)

    def _say(self) -> None:
        does = [[self._count, *self._now], [self._beside_count, *self._beside]]
        self._store.set(f"pulse/{self._rank}", json.dumps([self._beat, does]))

    def _hear(self, rank: int, said: list[Any], now_s: float) -> None:
        beat, does = said
        last = self._heard.get(rank)
        beat_s = now_s if last is None or last.beat != beat else last.beat_s
        heard = [_Doing(number, Section(*section), now_s) for number, *section in does]
        if last is not None:
            pairs = zip(heard, last.does, strict=True)
            heard = [was if was.number == now.number else now for now, was in pairs]
        self._heard[rank] = _Heard(beat, beat_s, heard)

    def _judge(self, now_s: float) -> None:
        for rank, heard in self._heard.items():
            if now_s - heard.beat_s > self._silent_s:
                self._stop(
                    rank,
                    f"rank {rank} was not heard for {now_s - heard.beat_s:.0f} s, "
                    f"last in {heard.does[0].section}",
                )
            for _, section, since_s in heard.does:
                if section.state == "bounded" and now_s - since_s > self._stuck_s:
                    self._stop(rank, f"rank {rank} hangs: {now_s - since_s:.0f} s in {section}")

    def _post(self, rank: int | None, why: str, *, again: bool) -> dict[str, Any]:
        """Writes a cause down, if it is the first; the first one. `again`: starting once more may
        help."""
        own = {"rank": rank, "cause": why, "step": self._now.step, "again": again}
        try:
            return dict(json.loads(self._store.compare_set(CAUSE, "", json.dumps(own))))
        except (RuntimeError, ValueError):  # rank 0 is gone, and its store with it
            return own

    def _stop(self, rank: int | None, why: str) -> NoReturn:
        self._die(self._post(rank, why, again=True))

    def _die(self, cause: dict[str, Any]) -> NoReturn:
        """Ends the process at once, from whichever thread: the main one may never come back."""
        speaks = self._rank == (1 if cause["rank"] == 0 else 0)
        if speaks and self._tell is not None and CAUSES not in os.environ:
            self._tell(f"matura: {cause['cause']}")
        self._note(cause)
        os._exit(FAILED)

    def _note(self, cause: dict[str, Any]) -> None:
        if folder := os.environ.get(CAUSES):
            with contextlib.suppress(OSError, StoreError):
                replace_atomically(Path(folder) / f"rank-{self._rank}.json", cause)
