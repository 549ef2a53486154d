"""Who does the work: this process, processes of this machine, or a Ray cluster. What is done is the
same, part by part, and so is what comes of it.

Work is a function of one argument that leaves its result on disk, whole or not at all, and does
nothing where it is there already. So it may be done twice, and a worker that is killed costs no
more than what it had in hand.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from matura.core.errors import DataError, RecipeError
from matura.core.leaves import did_you_mean

Asked = TypeVar("Asked")
Result = TypeVar("Result")
ENGINES = ("local", "ray")

DEATHS = 3
"""Workers that may die in a row while nothing gets done: what kills them every time is the work."""
AHEAD = 2
"""Tasks handed out for each worker, so that none waits for the next."""


class Engine(ABC):
    """Runs a function over many arguments; as a context manager it lets its workers go."""

    workers: int

    @abstractmethod
    def run(
        self, work: Callable[[Asked], Result], asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Result]]:
        """The place of each argument and what came of it, in the order they are done.

        Raises:
            DataError: workers die again and again.
        """

    def close(self) -> None:  # noqa: B027  # nothing to end is no exception
        """Ends the workers."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


class Alone(Engine):
    """This process, one thing after the other."""

    workers = 1

    def run(
        self, work: Callable[[Asked], Result], asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Result]]:
        """In order."""
        for place, each in enumerate(asked):
            yield place, work(each)


class Processes(Engine):
    """Processes of this machine, started afresh when one of them dies."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        # not forked: locks and threads of this process would be copied in any state
        self._context = multiprocessing.get_context("spawn")
        self._pool: ProcessPoolExecutor | None = None

    def run(
        self, work: Callable[[Asked], Result], asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Result]]:
        """As they are done; what a dead worker had in hand is done again by another."""
        left = list(range(len(asked)))[::-1]
        deaths = 0
        running: dict[Future[Result], int] = {}
        try:
            while left or running:
                while left and len(running) < self.workers * AHEAD:
                    place = left.pop()
                    running[self._submit(work, asked[place])] = place
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    place = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        left.append(place)
                    else:
                        deaths = 0
                        yield place, result
                if self._broken:
                    deaths += 1
                    left += running.values()
                    left.sort(reverse=True)
                    running.clear()
                    self.close()
                    if deaths > DEATHS:
                        raise DataError(
                            f"workers died {deaths} times in a row, at the earliest over "
                            f"{asked[left[-1]]}: is there enough memory for {self.workers} of them?"
                        )
        finally:
            for future in running:
                future.cancel()

    @property
    def _broken(self) -> bool:
        return self._pool is not None and bool(getattr(self._pool, "_broken", False))

    def _submit(self, work: Callable[[Asked], Result], each: Asked) -> Future[Result]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=self._context, initializer=_follow
            )
        try:
            return self._pool.submit(work, each)
        except BrokenProcessPool as problem:
            broken: Future[Result] = Future()
            broken.set_exception(problem)
            return broken

    def close(self) -> None:
        """Ends the workers once they have done what they have in hand."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _follow() -> None:
    """Lets a worker end with its parent, also one that was killed."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


class Ray(Engine):
    """Tasks of a Ray cluster: the one that `RAY_ADDRESS` names, or one started here. Its machines
    must all see the folders by the same paths."""

    def __init__(self, workers: int) -> None:
        try:
            import ray
        except ImportError:
            raise RecipeError(
                "the engine 'ray' is not installed: pip install 'matura[corpus]'"
            ) from None
        self._ray: Any = ray
        self.workers = workers
        self._started = not ray.is_initialized()
        if self._started:
            own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
            self._ray.init(
                include_dashboard=False, log_to_driver=False, logging_level="error", **own
            )

    def run(
        self, work: Callable[[Asked], Result], asked: Sequence[Asked]
    ) -> Iterator[tuple[int, Result]]:
        """As they are done; Ray does again what a dead worker or machine had in hand."""
        ray = self._ray
        task = ray.remote(max_retries=DEATHS, num_cpus=1)(work)
        waiting = iter(enumerate(asked))
        running: dict[Any, int] = {}
        while True:
            while len(running) < self.workers * AHEAD:
                place, each = next(waiting, (-1, None))
                if place < 0:
                    break
                running[task.remote(each)] = place
            if not running:
                return
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            place = running.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as problem:
                raise problem.cause from None
            except ray.exceptions.WorkerCrashedError:
                raise DataError(
                    f"a worker died {DEATHS + 1} times over {asked[place]}: is there enough memory?"
                ) from None
            yield place, result

    def close(self) -> None:
        """Ends the cluster if it was started here."""
        if self._started:
            self._ray.shutdown()


def engine_named(name: str, workers: int | None = None) -> Engine:
    """The engine with so many workers; as many as there are cores if absent.

    Raises:
        RecipeError: it is not installed, or not known.
    """
    count = workers or len(os.sched_getaffinity(0))
    if name == "ray":
        return Ray(count)
    if name != "local":
        raise RecipeError(f"no engine {name!r}{did_you_mean(name, ENGINES)}")
    return Alone() if count == 1 else Processes(count)
