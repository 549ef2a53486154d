"""One checkpoint that several processes write in the background.

A thread of each writes its part. They agree in the store, over a connection of their own, while the
training goes on. Rank 0's writes the record once all parts are there, so whoever dies before leaves
the checkpoint before. What one of them fails with, all are told: there is one outcome.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import Store

from matura.core.disk import telling
from matura.core.errors import MaturaError, RankError, RedLine
from matura.core.store import Checkpoints, work_place
from matura.learn.pulse import Lost, Pulse

POLL_S = 0.05
WRITING = "writing a checkpoint"


class Joint:
    """One rank's part in what all save. Every rank saves the same steps, in the same order."""

    def __init__(self, store: Store, rank: int, size: int, pulse: Pulse) -> None:
        self._store, self._rank, self._size, self._pulse = store, rank, size, pulse
        self._saves = self.step = 0

    def save(
        self,
        checkpoints: Checkpoints,
        step: int,
        write: Callable[[Path], None],
        spare: Collection[int],
        bits: Mapping[str, str],
    ) -> None:
        """Writes this rank's part, and is back when the checkpoint is whole.

        Raises:
            RankError: the ranks do not have the same `bits`; all of them say so.
            Lost: another rank failed, or all connection to it did.
            MaturaError: this one failed.
        """
        self._saves, self.step = self._saves + 1, step
        self._alike({f"{name} after step {step}": value for name, value in bits.items()})
        with self._told():
            if self._rank == 0:
                self._lead(checkpoints, step, write, spare)
            else:
                self._follow(work_place(checkpoints.at(step)), step, write)

    def _lead(
        self,
        checkpoints: Checkpoints,
        step: int,
        write: Callable[[Path], None],
        spare: Collection[int],
    ) -> None:
        def together(folder: Path) -> None:
            self._say("begun", "")
            self._part(folder, step, write)
            self._parts()

        checkpoints.save(step, together, spare=spare)
        self._end({"rank": self._rank})

    def _follow(self, work: Path, step: int, write: Callable[[Path], None]) -> None:
        if self._hears("begun"):  # or else it lies there already
            self._part(work, step, write)
        self._hears("over")
        self._outcome()

    def _part(self, folder: Path, step: int, write: Callable[[Path], None]) -> None:
        # told before the leader clears the folder away, in which others still write
        with self._told(), self._pulse.beside(WRITING, step), telling(folder, "write"):
            write(folder)
        self._say(f"written/{self._rank}", "")

    def _parts(self) -> None:
        """Waits until all have written theirs."""
        if not all(self._hears(f"written/{rank}") for rank in range(self._size)):
            self._outcome()

    def _alike(self, bits: Mapping[str, str]) -> None:
        """Raises RankError if the ranks have not the same."""
        spelled = json.dumps(dict(bits), sort_keys=True)
        if len({*self._all("digest", hashlib.sha256(spelled.encode()).hexdigest())}) > 1:
            found = [json.loads(theirs) for theirs in self._all("bits", spelled)]
            raise RankError(unlike(found))

    # In the store

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A stretch of which all are told if this rank fails in it."""
        try:
            yield
        except (MaturaError, MemoryError, RuntimeError) as problem:
            self._failed(problem)
            raise

    def _failed(self, problem: BaseException) -> None:
        """Writes down that this rank failed; raises what another one did, if that was first."""
        red = isinstance(problem, RedLine)
        kind = "" if isinstance(problem, MaturaError) else f"{type(problem).__name__}: "
        why = f"{kind}{problem}"
        if self._end({"rank": self._rank, "why": why, "red": red})["rank"] != self._rank:
            self._outcome()

    def _end(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """The first outcome that is written down."""
        with _connected():
            first = self._store.compare_set(self._key("over"), "", json.dumps(outcome))
        return dict(json.loads(first))

    def _outcome(self) -> None:
        """Raises what a rank failed with, if one did."""
        with _connected():
            over = json.loads(self._store.get(self._key("over")))
        if "why" in over:
            raise (
                RedLine(over["why"]) if over["red"] else Lost(f"rank {over['rank']}: {over['why']}")
            )

    def _key(self, name: str) -> str:
        return f"saving/{self._saves}/{name}"

    def _say(self, name: str, value: str) -> None:
        with _connected():
            self._store.set(self._key(name), value)

    def _hears(self, name: str) -> bool:
        """Waits until it is said, or the save is over; whether it was said."""
        with _connected():
            while not self._store.check([self._key(name)]):
                if self._store.check([self._key("over")]):
                    return self._store.check([self._key(name)])
                time.sleep(POLL_S)
        return True

    def _all(self, name: str, own: str) -> list[str]:
        """What each rank says."""
        self._say(f"{name}/{self._rank}", own)
        keys = [self._key(f"{name}/{rank}") for rank in range(self._size)]
        with _connected():
            while not self._store.check(keys):
                time.sleep(POLL_S)
            return [self._store.get(key).decode() for key in keys]


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """A stretch in which the store is asked.

    Raises:
        Lost: it does not answer.
    """
    try:
        yield
    except RuntimeError as problem:  # all that a store raises
        first = str(problem).partition("\n")[0][:120]
        raise Lost(f"the ranks' store went away while all saved: {first}") from problem


def unlike(found: Sequence[Mapping[str, str]]) -> str:
    """In what ranks differ, with who has what; empty if in nothing."""
    lines = []
    for name in sorted({name for facts in found for name in facts}):
        by_value: dict[str, list[str]] = {}
        for rank, theirs in enumerate(found):
            by_value.setdefault(theirs.get(name, "nothing"), []).append(str(rank))
        if len(by_value) > 1:
            who = "; ".join(
                f"rank {', '.join(ranks)}: {value}" for value, ranks in by_value.items()
            )
            lines.append(f"{name} ({who})")
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    return f"the processes differ in {'; in '.join(lines[:5])}{more}" if lines else ""
