"""FAULTS B4: a run that goes on with other threads, another torch or another processor says so, and
that it is no longer equal to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny import FP32, Noted, settings, stops_at, trained

from matura.core.errors import StoreError
from matura.core.store import Checkpoints
from matura.learn import run
from matura.learn.arithmetic import LINE, arithmetic, differing
from matura.learn.compute import Compute
from matura.learn.team import Team

STEPS, KILLED, AGAIN = 12, 4, 8


class Heard(Noted):
    """A ledger that keeps what is said, too."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keeps it."""
        self.said.append(text)

    @property
    def told(self) -> list[str]:
        """Why this run is no longer equal to the bit, as the rows have it."""
        return [str(row["why"]) for _, row in self.rows if row.get("line") == LINE]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """As many as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def gone_on(folder: Path, until: int | None = None) -> Heard:
    ledger = Heard()
    if until is None:
        trained(folder, settings(STEPS), ledger=ledger)
        return ledger
    with pytest.raises(KeyboardInterrupt):
        trained(folder, settings(STEPS), batches=stops_at(until), ledger=ledger)
    return ledger


def test_other_threads_are_said_once(ram: Path) -> None:
    torch.set_num_threads(1)
    straight = gone_on(ram / "straight")
    gone_on(ram / "run", KILLED)
    torch.set_num_threads(2)
    other = gone_on(ram / "run", AGAIN)
    (told,) = other.told
    assert told.startswith("threads 2 (before: 1); from here on equal within rounding")
    assert sum(told in line for line in other.said) == 1
    row = next(row for _, row in other.rows if row.get("line") == LINE)
    assert (row["event"], row["at"]) == ("resumed", KILLED)
    last = gone_on(ram / "run")
    assert last.told == []  # it has been like that since
    losses = other.losses | last.losses
    assert losses == pytest.approx({s: straight.losses[s] for s in losses}, rel=1e-4)


def test_the_same_is_not_worth_a_word(ram: Path) -> None:
    gone_on(ram, KILLED)
    assert gone_on(ram, AGAIN).told == gone_on(ram).told == []


def changed(name: str, value: str) -> Callable[[Compute, Team], dict[str, str]]:
    return lambda compute, team: arithmetic(compute, team) | {name: value}


@pytest.mark.parametrize(
    ("name", "value"), [("torch", "2.99.0"), ("instructions", "AVX1024"), ("sums", "of 64")]
)
def test_another_torch_processor_or_number_of_processes(
    name: str, value: str, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("matura.learn.loop.arithmetic", changed(name, value))
        gone_on(ram, KILLED)
    (told,) = gone_on(ram).told
    here = arithmetic(FP32, Team(exact=False))[name]
    assert told.startswith(f"{name} {here} (before: {value});")


def test_a_state_that_does_not_say_is_refused(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run.Run.rest
    with monkeypatch.context() as older:
        older.setattr(run.Run, "rest", lambda self: whole(self) | {"arithmetic": None})
        gone_on(ram, KILLED)
    assert Checkpoints(ram).newest().step == KILLED
    with pytest.raises(StoreError, match="lacks 'arithmetic'"):
        gone_on(ram)


def test_what_decides_the_last_bits() -> None:
    one = arithmetic(FP32, Team(exact=False))
    assert one["torch"] == torch.__version__
    assert arithmetic(Compute("cpu", torch.bfloat16, True, 1), Team(exact=False)) == one | {
        "numbers": "bfloat16",
        "steps": "compiled",
    }
    assert arithmetic(FP32, Team(exact=True))["sums"] == "exact"
    assert differing(one, one) == ""
    assert differing({}, {"threads": "2"}) == "threads 2 (before: unknown)"
