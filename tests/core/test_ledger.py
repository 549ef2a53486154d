"""What a stage writes survives a kill; a resumed run's file equals an uninterrupted one's."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from matura.core.errors import StoreError
from matura.core.ledger import (
    CLOCK,
    METRICS,
    TIMINGS,
    Ledger,
    read_rows,
    spell_count,
    spell_seconds,
)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def quiet(folder: Path) -> Ledger:
    return Ledger(folder, "base", mode="quiet")


def steps(ledger: Ledger, first: int, last: int) -> None:
    for step in range(first, last + 1):
        ledger.row(step, {"loss": 8.0 / step, "tokens": step * 100}, clock={"tokens_per_s": 1e3})


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with quiet(tmp_path / "one") as ledger:
        steps(ledger, 1, 6)
    with quiet(tmp_path / "two") as ledger:
        steps(ledger, 1, 5)
    with (tmp_path / "two" / METRICS).open("ab") as file:
        file.write(b'{"step": 6, "lo')  # killed here
    with quiet(tmp_path / "two") as ledger:
        kept = ledger.rewind(3)
        assert [row["step"] for row in kept] == [1, 2, 3]
        steps(ledger, 4, 6)
    one, two = ((tmp_path / name / METRICS).read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(read_rows(tmp_path / "two" / TIMINGS)) == 6


def test_a_torn_line_never_joins_the_next(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    with quiet(tmp_path) as ledger:
        steps(ledger, 2, 2)
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [1, 2]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"loss": 1}', b"\xff"])
def test_a_bad_line_before_the_last_is_an_error(tmp_path: Path, line: bytes) -> None:
    (tmp_path / METRICS).write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(StoreError, match=r"metrics\.jsonl:2: "):
        quiet(tmp_path).rewind(5)


def test_nan_is_never_written(tmp_path: Path) -> None:
    with quiet(tmp_path) as ledger:
        with pytest.raises(StoreError, match="step 3"):
            ledger.row(3, {"loss": float("nan")})
        with pytest.raises(StoreError, match="'step' is written by the ledger"):
            ledger.row(3, {"step": 4})
    assert read_rows(tmp_path / METRICS) == []


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with quiet(tmp_path) as ledger:
        steps(ledger, 1, 4)
    with quiet(tmp_path) as ledger:
        ledger.rewind(2)
        steps(ledger, 3, 3)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = events.Scalars("loss")
    assert [(event.step, event.value) for event in scalars] == [
        (1, 8.0),
        (2, 4.0),
        (3, pytest.approx(8 / 3)),
    ]
    assert [event.step for event in events.Scalars("tokens_per_s")] == [3]


def test_off_a_terminal_it_is_a_plain_line_now_and_then() -> None:
    clock, stream = Clock(), io.StringIO()
    ledger = Ledger(None, "base", stream=stream, clock=clock)
    for second in range(26):
        clock.now = float(second)
        ledger.progress(second * 1000, 100_000, notes={"loss": 2.5})
    lines = stream.getvalue().splitlines()
    assert lines == [
        "base  0/100k tokens  0 %  loss 2.5",
        "base  10.0k/100k tokens  10 %  1.00k tokens/s  loss 2.5  1:30 min left",
        "base  20.0k/100k tokens  20 %  1.00k tokens/s  loss 2.5  1:20 min left",
    ]
    ledger.table("exams", ["name", "score"], [["[red]bpb", 2.123456]])
    ledger.say("[bold]no markup[/bold]")
    ledger.close()
    assert "\x1b" not in stream.getvalue()
    assert "[red]bpb" in stream.getvalue()
    assert "2.123" in stream.getvalue()
    assert "[bold]no markup[/bold]" in stream.getvalue()


def test_a_terminal_without_colour_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Ledger(None, "base", stream=stream) as ledger:
        ledger.progress(1, 10)
        ledger.say("said")
        ledger.progress(10, 10)
    assert "base  1/10 tokens" in stream.getvalue()
    assert "\x1b[3" not in stream.getvalue()  # no colour; moving the cursor is no colour


def test_quiet_is_quiet() -> None:
    stream = io.StringIO()
    with Ledger(None, "base", mode="quiet", stream=stream) as ledger:
        ledger.progress(1, 2)
        ledger.say("said")
        ledger.table("t", ["a"], [["b"]])
        ledger.at(Path("absent"), "next").say("said")
    assert stream.getvalue() == ""


def test_time_is_counted_over_sessions(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path, "base", mode="quiet", clock=clock)
    clock.now = 7.0
    ledger.progress(1, 10)  # then killed
    again = Ledger(tmp_path, "base", mode="quiet", clock=clock)
    clock.now = 9.0
    assert again.seconds == 9.0
    again.close()
    assert json.loads((tmp_path / CLOCK).read_text()) == {"seconds": 9.0}
    (tmp_path / CLOCK).write_text("x")
    with pytest.raises(StoreError, match="not the time spent"):
        Ledger(tmp_path, "base")


@pytest.mark.parametrize(
    ("count", "spelled"),
    [(0, "0"), (999, "999"), (999.6, "1.00k"), (12345, "12.3k"), (2e6, "2.00M"), (3.3e9, "3.30B")],
)
def test_counts_are_short(count: float, spelled: str) -> None:
    assert spell_count(count) == spelled


def test_times_read_like_a_clock() -> None:
    assert [spell_seconds(s) for s in (0.4, 59.6, 187, 7500)] == [
        "0 s",
        "1:00 min",
        "3:07 min",
        "2:05 h",
    ]


def test_importing_it_is_cheap() -> None:
    program = (
        "import sys, matura.core.ledger, matura.core.store; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tensorboard')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
