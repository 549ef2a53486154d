"""The only printer, and the only writer of a stage's numbers.

`metrics.jsonl` holds what is a function of the recipe alone, so that a resumed run's file equals an
uninterrupted one's; what the clock says goes to `timings.jsonl`. TensorBoard's events are a copy,
written anew from `metrics.jsonl` when a run resumes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from matura.core.disk import replace_atomically, telling
from matura.core.errors import StoreError

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
CLOCK = "clock.json"
LINE_EVERY_S = 0.2
PLAIN_EVERY_S = 10.0
CLOCK_EVERY_S = 5.0
RATE_OVER_S = 20.0

Value = float | int | str
Mode = Literal["show", "quiet"]


class Ledger:
    """What one stage writes down and shows; `at` opens the next stage's on the same screen.

    Without a folder it only shows. All showing goes to stderr, so stdout stays for results.
    """

    def __init__(
        self,
        folder: Path | None = None,
        stage: str = "",
        *,
        mode: Mode = "show",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.stage = stage
        self.mode = mode
        self._clock = clock
        self._console = Console(file=stream or sys.stderr, quiet=mode == "quiet", highlight=False)
        self._live: Live | None = None
        self._events: EventFileWriter | None = None
        self._whole: set[str] = set()
        self._shown_s = -math.inf
        self._saved_s = -math.inf
        self._recent: deque[tuple[float, float]] = deque()
        self._started_s = clock()
        self._earlier_s = _earlier_s(folder)

    def at(self, folder: Path, stage: str) -> Ledger:
        """A ledger for another stage, showing in the same way and place."""
        ledger = Ledger(folder, stage, mode=self.mode, clock=self._clock)
        ledger._console = self._console
        return ledger

    @property
    def seconds(self) -> float:
        """Time spent on this stage, the sessions before this one included."""
        return self._earlier_s + self._clock() - self._started_s

    # Writing down

    def row(
        self, step: int, values: Mapping[str, Value], *, clock: Mapping[str, float] | None = None
    ) -> None:
        """Notes numbers of a step; `clock` takes those that no two runs share (rates, seconds).

        Whatever belongs to step k is noted before checkpoint k is saved: resuming there keeps it.

        Raises:
            StoreError: a value is NaN or infinite, `step` is among the values, or the disk refuses.
        """
        if "step" in values:
            raise StoreError("'step' is written by the ledger")
        self._append(METRICS, {"step": step, **values})
        if clock:
            self._append(TIMINGS, {"step": step, **clock})
        self._tell_tensorboard(step, {**values, **(clock or {})}, time.time())

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Forgets every row beyond `step` and a torn last line, as a run that resumes there must.

        Returns the rows that stay.

        Raises:
            StoreError: a row before the last is no JSON object with a step.
        """
        if self.folder is None:
            return []
        self._close_events()
        kept: list[dict[str, Any]] = []
        for name in (TIMINGS, METRICS):
            path = self.folder / name
            rows = read_rows(path)
            kept = [row for row in rows if row["step"] <= step]
            if path.exists():
                replace_atomically(path, b"".join(map(_spell_row, kept)))
        with telling(self.folder, "clean up"):
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
        for row in kept:
            values = {name: value for name, value in row.items() if name != "step"}
            self._tell_tensorboard(row["step"], values, time.time())
        return kept

    def _append(self, name: str, row: Mapping[str, Value]) -> None:
        if self.folder is None:
            return
        path = self.folder / name
        if name not in self._whole:
            _mend(path)
            self._whole.add(name)
        with telling(path, "append to"), path.open("ab") as file:
            file.write(_spell_row(row))

    def sync(self) -> None:
        """Makes the rows so far survive a power cut; called before saving a checkpoint."""
        for name in (METRICS, TIMINGS):
            if self.folder is not None and (self.folder / name).exists():
                with telling(self.folder / name, "fsync"), (self.folder / name).open("rb") as file:
                    os.fsync(file.fileno())

    def _tell_tensorboard(self, step: int, values: Mapping[str, Value], wall_time: float) -> None:
        if self.folder is None:
            return
        # Here, not above: 0.3 s that `transcript` and `status` need not pay.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        numbers = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
            if isinstance(value, int | float)
        ]
        if not numbers:
            return
        if self._events is None:
            self._events = EventFileWriter(str(self.folder))
        self._events.add_event(
            Event(wall_time=wall_time, step=step, summary=Summary(value=numbers))
        )

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def close(self) -> None:
        """Ends the live line and TensorBoard's file: nothing may be open in a published folder."""
        self.clear()
        self._close_events()
        self._save_clock()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _save_clock(self) -> None:
        if self.folder is not None and self.folder.is_dir():
            self._saved_s = self._clock()
            replace_atomically(self.folder / CLOCK, {"seconds": round(self.seconds, 3)})

    # Showing

    def progress(
        self,
        done: float,
        total: float,
        *,
        unit: str = "tokens",
        notes: Mapping[str, Value] | None = None,
    ) -> None:
        """Moves the one live line: stage, how far, rate, time left and `notes` such as the loss.

        Off a terminal it is a plain line now and then. Cheap enough to be called every step.
        """
        now = self._clock()
        if now - self._saved_s >= CLOCK_EVERY_S:
            self._save_clock()
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[0][0] > RATE_OVER_S:
            self._recent.popleft()
        if self._console.quiet:
            return
        terminal = self._console.is_terminal
        if done < total and now - self._shown_s < (LINE_EVERY_S if terminal else PLAIN_EVERY_S):
            return
        self._shown_s = now
        line = self._line(done, total, unit, notes or {})
        if not terminal:
            self._console.print(Text(line), soft_wrap=True)
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)

    def _line(self, done: float, total: float, unit: str, notes: Mapping[str, Value]) -> str:
        (first_s, first), (last_s, last) = self._recent[0], self._recent[-1]
        rate = (last - first) / (last_s - first_s) if last_s > first_s else 0.0
        parts = [self.stage, f"{spell_count(done)}/{spell_count(total)} {unit}"]
        if total:
            parts.append(f"{100 * done / total:.0f} %")
        if rate > 0:
            parts.append(f"{spell_count(rate)} {unit}/s")
        parts += [f"{name} {spell_value(value)}" for name, value in notes.items()]
        if rate > 0 and done < total:
            parts.append(f"{spell_seconds((total - done) / rate)} left")
        return "  ".join(part for part in parts if part)

    def clear(self) -> None:
        """Takes the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._recent.clear()
        self._shown_s = -math.inf

    def say(self, text: str) -> None:
        """One line that stays, above the live line."""
        self._console.print(Text(text), soft_wrap=True)

    def table(self, title: str, head: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
        """A table that stays; numbers stand to the right."""
        body = [list(row) for row in rows]
        table = Table(title=title, title_justify="left")
        for i, name in enumerate(head):
            numbers = all(isinstance(row[i], int | float) for row in body)
            table.add_column(name, justify="right" if numbers else "left", overflow="fold")
        for row in body:
            table.add_row(*(Text(spell_value(value)) for value in row))
        self.show(table)

    def show(self, what: RenderableType) -> None:
        """Anything rich can draw."""
        self._console.print(what)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics or timings file; a torn last line, as a kill leaves it, is left out.

    Raises:
        StoreError: a whole line is no JSON object with a step; the message names file and line.
    """
    if not path.exists():
        return []
    with telling(path, "read"):
        lines = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        try:
            row = json.loads(line)
        except ValueError as problem:
            raise StoreError(f"{path}:{number}: not JSON: {problem}") from problem
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise StoreError(f"{path}:{number}: expected an object with a step")
        rows.append(row)
    return rows


def _mend(path: Path) -> None:
    """Cuts off the torn line that a kill left, so that the next row does not continue it."""
    with telling(path, "mend"):
        if path.exists() and not (raw := path.read_bytes()).endswith(b"\n") and raw:
            replace_atomically(path, raw[: raw.rfind(b"\n") + 1])


def _spell_row(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as problem:
        raise StoreError(f"step {row.get('step')}: {problem}: {dict(row)}") from problem


def _earlier_s(folder: Path | None) -> float:
    if folder is None or not (folder / CLOCK).exists():
        return 0.0
    try:
        return float(json.loads((folder / CLOCK).read_bytes())["seconds"])
    except (ValueError, KeyError, TypeError) as problem:
        raise StoreError(f"{folder / CLOCK}: not the time spent: {problem}") from problem


def spell_count(count: float) -> str:
    """A count in at most four characters and a letter: `950`, `12.3k`, `4.00M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size * 0.9995:
            short = count / size
            digits = 2 if abs(short) < 10 else 1 if abs(short) < 100 else 0
            return f"{short:.{digits}f}{letter}"
    return f"{count:.0f}"


def spell_seconds(seconds: float) -> str:
    """A time as one reads a clock: `45 s`, `3:07 min`, `2:05 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def spell_value(value: Value) -> str:
    """A number in four significant digits, whole numbers and words as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
