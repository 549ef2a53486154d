"""Several write one checkpoint in the background: whole or absent, and one cause for all.

The ranks are threads here, and the store lies in memory; `tests/ladder/test_killed_saving.py` kills
real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import pytest
from torch.distributed import HashStore

from matura.core.errors import MaturaError, RankError, RedLine, StoreError
from matura.core.store import Checkpoints, Folder
from matura.learn.joint import WRITING, Joint
from matura.learn.pulse import Lost, Pulse
from matura.learn.rendezvous import Meeting

Write = Callable[[int, Path], None]


class Still:
    """A pulse that notes what is done besides the training."""

    def __init__(self) -> None:
        self.did: list[tuple[str, int]] = []

    @contextmanager
    def beside(self, name: str, step: int) -> Iterator[None]:
        self.did.append((name, step))
        yield


def part(rank: int, folder: Path) -> None:
    (folder / f"part-{rank}").write_text(str(rank))


class Ranks:
    """So many ranks that save into one folder."""

    def __init__(self, folder: Path, size: int = 2) -> None:
        store, self.pulse = HashStore(), Still()
        self.checkpoints, self.size = Checkpoints(folder), size
        self._joints = [Joint(store, rank, size, self.pulse) for rank in range(size)]  # type: ignore[arg-type]
        self._threads = ThreadPoolExecutor(size)

    def begin(
        self,
        step: int,
        write: Write = part,
        bits: Callable[[int], Mapping[str, str]] = lambda rank: {"w": "1"},
        checkpoints: Checkpoints | None = None,
    ) -> list[Future[None]]:
        def save(rank: int) -> None:
            where = checkpoints or self.checkpoints
            self._joints[rank].save(where, step, lambda at: write(rank, at), (), bits(rank))

        return [self._threads.submit(save, rank) for rank in range(self.size)]

    def save(self, step: int, *given: Any, **more: Any) -> list[BaseException | None]:
        """What each ended with."""
        return [one.exception(timeout=20) for one in self.begin(step, *given, **more)]

    @property
    def there(self) -> tuple[int, list[str]]:
        """The newest checkpoint, and its files."""
        newest = self.checkpoints.newest()
        assert newest.refused == ()
        return newest.step, [] if newest.folder is None else sorted(newest.folder.record["files"])


def fails(of: int, problem: Exception) -> Write:
    def write(rank: int, folder: Path) -> None:
        if rank == of:
            raise problem
        part(rank, folder)

    return write


def spelled(found: list[BaseException | None]) -> list[str]:
    return [f"{type(one).__name__}: {one}" for one in found]


FULL = StoreError("step-9.work: cannot write: No space left on device")


def test_all_are_back_when_it_is_whole(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, size=4)
    for step in (1, 2, 3):
        assert ranks.save(step) == [None] * 4
        assert ranks.there == (step, ["part-0", "part-1", "part-2", "part-3"])
    assert ranks.checkpoints.steps() == [2, 3]
    assert sorted(ranks.pulse.did)[:4] == [(WRITING, 1)] * 4


def test_the_record_waits_for_every_part(tmp_path: Path) -> None:
    ranks, go, asked = Ranks(tmp_path, size=3), Event(), Event()

    def write(rank: int, folder: Path) -> None:
        if rank == 1:
            asked.set()
            go.wait(20)
        part(rank, folder)

    ranks.save(1)
    flying = ranks.begin(2, write)
    assert asked.wait(20)
    assert ranks.there[0] == 1
    assert not any(one.done() for one in flying)  # those who wrote wait for the record
    go.set()
    assert [one.exception(timeout=20) for one in flying] == [None] * 3
    assert ranks.there[0] == 2


@pytest.mark.parametrize("problem", [FULL, OSError("gone"), MemoryError(), RuntimeError("odd")])
@pytest.mark.parametrize("of", [0, 1, 2])
def test_what_one_fails_with_all_are_told(of: int, problem: Exception, tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, size=3)
    ranks.save(1)
    found = ranks.save(9, fails(of, problem))
    said = found.pop(of)
    assert said is problem or isinstance(said, StoreError)  # what the system refuses is one line
    why = str(said) if isinstance(said, MaturaError) else f"{type(said).__name__}: {said}"
    assert spelled(found) == [f"Lost: rank {of}: {why}"] * 2
    assert ranks.there == (1, ["part-0", "part-1", "part-2"])
    assert ranks.save(10) == [None] * 3  # and it is no obstacle to the next one
    assert ranks.there[0] == 10
    assert not list(tmp_path.glob("*.work"))


def test_two_that_fail_have_one_cause(tmp_path: Path) -> None:
    def write(rank: int, folder: Path) -> None:
        raise StoreError(f"disk of {rank}")

    found = spelled(Ranks(tmp_path, size=3).save(9, write))
    first = next(line for line in found if line.startswith("StoreError: disk of "))
    cause = first.removeprefix("StoreError: disk of ")
    assert sorted(found) == sorted([first] + 2 * [f"Lost: rank {cause}: disk of {cause}"])


def test_a_disk_that_refuses_the_record(tmp_path: Path) -> None:
    class Full(Checkpoints):
        def save(
            self, step: int, write: Callable[[Path], None], *given: Any, **more: Any
        ) -> Folder:
            def once(folder: Path) -> None:
                write(folder)
                raise FULL

            return super().save(step, once, *given, **more)

    ranks = Ranks(tmp_path)
    ranks.save(1)
    leader, other = ranks.save(9, checkpoints=Full(tmp_path))
    assert leader is FULL
    assert isinstance(other, Lost)
    assert str(other) == f"rank 0: {FULL}"
    assert ranks.there[0] == 1


def test_a_red_line_is_one_for_all(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path)
    found = ranks.save(9, fails(1, RedLine("non-finite values: step 9")))
    assert spelled(found) == ["RedLine: non-finite values: step 9"] * 2
    assert ranks.there == (0, [])


def test_who_never_writes_leaves_the_one_before(tmp_path: Path) -> None:
    """As after SIGKILL, from the others' side: they wait, until the pulse ends them."""
    ranks, dead = Ranks(tmp_path), Event()

    def write(rank: int, folder: Path) -> None:
        part(rank, folder)
        if rank == 1:
            dead.wait(20)

    ranks.save(1)
    flying = ranks.begin(2, write)
    with pytest.raises(TimeoutError):
        flying[0].result(timeout=0.3)
    assert ranks.there[0] == 1
    dead.set()
    assert [one.exception(timeout=20) for one in flying] == [None] * 2


def test_those_that_drifted_apart_save_nothing(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, size=3)
    ranks.save(1)
    found = ranks.save(2, bits=lambda rank: {"a": "7", "b": "9" if rank == 1 else "8"})
    said = "RankError: the processes differ in b after step 2 (rank 0, 2: 8; rank 1: 9)"
    assert spelled(found) == [said] * 3
    assert all(isinstance(one, RankError) and not isinstance(one, Lost) for one in found)
    assert ranks.there[0] == 1
    assert ranks.save(2) == [None] * 3


def test_what_lies_there_is_not_written_again(tmp_path: Path) -> None:
    ranks = Ranks(tmp_path)
    ranks.save(1)
    assert ranks.save(1, fails(0, FULL)) == [None] * 2


def test_nobody_answers(tmp_path: Path) -> None:
    class Gone:
        def set(self, key: str, value: str) -> None:
            raise RuntimeError("Broken pipe\nand pages of stack")

    joint = Joint(Gone(), 1, 2, Still())  # type: ignore[arg-type]
    with pytest.raises(Lost, match=r"the ranks' store went away while all saved: Broken pipe$"):
        joint.save(Checkpoints(tmp_path), 1, print, (), {})


def test_who_hangs_in_its_part_is_named() -> None:
    """Though its training goes on; and no longer once the part is written."""

    class Judge(Pulse):
        def _stop(self, rank: int | None, why: str) -> NoReturn:
            raise Lost(why)

    store = HashStore()
    other, judge = (
        kind(Meeting(rank, 2, rank, store, store, store)) for rank, kind in ((1, Pulse), (0, Judge))
    )

    def hears(now_s: float) -> None:
        other.at("gradients", int(now_s), bounded=True)
        other._say()
        judge._hear(1, json.loads(store.get("pulse/1")), now_s)
        judge._judge(now_s)

    judge._stuck_s = 3.0
    with other.beside(WRITING, 8):
        hears(10.0)
        hears(12.0)
        with pytest.raises(Lost, match=r"^rank 1 hangs: 4 s in step 8: writing a checkpoint$"):
            hears(14.0)
    hears(15.0)
    judge._judge(17.0)
    with pytest.raises(Lost, match=r"^rank 1 hangs: 4 s in step 15: gradients$"):
        judge._judge(19.0)
