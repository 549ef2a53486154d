"""What is done about a step that went wrong: compute it once more, pass its batch over, go back to
the last good state, or stop.

A batch that crosses a red line before its update is computed once more from the same state. If it
is well then, the machine made a mistake, and that is reported; a second such mistake stops. If not,
nothing of it is applied and the run goes on without it. Three in a row are no longer the batches'
fault: the state is, so the run goes back to the last good one, and this time passes over what led
there too. The same failure for the third time, with no good state in between, stops with what was
seen each time.

A step whose batch is passed over still counts, so step k reads batch k however often a run goes
back, and a resumed run makes the same decisions as one that nobody interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matura.core.errors import RedLine
from matura.learn.spikes import Spikes

IN_A_ROW = 3
"""Steps passed over in a row, by numbers of their own, from which it is the state that is bad."""
TIMES = 3
"""Times that one failure happens before the run stops."""
KINDS_TIMES = 5
"""And failures of all kinds together, with no good state in between."""
MISTAKES = 2
"""Of the machine, before the run stops."""
BEFORE = 10
"""Steps before a failure that are passed over when the run goes back: without them it would come to
the very same state. Twice as many each further time."""
MOST_SHARE, MOST_LEAST = 0.1, 60
"""Share of a run's steps that may be passed over, and a number that may be in any run."""
CALM = 10
"""Steps without anything odd before a state counts as good."""

ADVICE = {
    "non-finite values": "try a lower learning rate, and look at what these batches hold",
    "loss spike": "try a lower learning rate or a longer warm-up",
    "gradient spike": "try a lower learning rate or a longer warm-up",
    "update spike": "try a lower learning rate or a longer warm-up",
    "embeddings broken": "something besides training wrote into the weights; test the memory",
    "weights changed": "something besides training wrote into the weights; test the memory",
    "hardware": "the same batch and state gave two results; test the memory and the processor, or "
    "go on elsewhere: what is saved is good",
    "too much passed over": "look at the data these steps hold, and try a lower learning rate",
}


class Setback(Exception):
    """The state is bad: go back to the last good one, and pass over `steps` this time.

    The loop does so; nobody else sees it.
    """

    def __init__(self, line: str, step: int, why: str, steps: range = range(0)) -> None:
        super().__init__(why)
        self.line, self.step, self.why, self.steps = line, step, why, steps


@dataclass
class Guard:
    """What went wrong in a run so far and what follows from it; `state` survives a restart."""

    spikes: Spikes
    steps: int
    """Of the whole run."""
    passing: dict[int, str] = field(default_factory=dict)
    """Steps whose batches are passed over, and why: their batch by name where it is known."""
    row: list[int] = field(default_factory=list)
    """The last steps in a row that were turned away by their numbers."""
    last_odd: int = -CALM
    mistakes: list[str] = field(default_factory=list)
    """Each time the machine computed something it did not the second time."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Why the run went back, since its last good state."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Everything that happened, in order."""

    def note(self, step: int, line: str, why: str, done: str) -> dict[str, Any]:
        """An event, written down and returned."""
        self.last_odd = step
        event = {"step": step, "line": line, "why": why, "done": done}
        if event not in self.events:
            self.events.append(event)
        return event

    def calm(self, step: int) -> bool:
        """Whether the state before `step` may count as good."""
        return step - self.last_odd > CALM

    def good(self) -> None:
        """The state of now is one to go back to: what failed before is overcome."""
        self.failures = []

    def mistaken(self, step: int, name: str, line: str, why: str) -> dict[str, Any]:
        """A step that crossed a line, and did not when it was computed once more.

        Raises:
            RedLine: it is not the first time.
        """
        told = f"step {step}, {name}: {line}: {why}; computed once more it is well"
        self.mistakes.append(told)
        if len(self.mistakes) >= MISTAKES:
            raise RedLine(f"hardware: {'; '.join(self.mistakes)}; {ADVICE['hardware']}")
        return self.note(step, "hardware", told, "the second result was taken")

    def pass_over(self, step: int, name: str, line: str, why: str) -> dict[str, Any]:
        """A step that crosses a line each time it is computed; nothing of it was applied.

        Raises:
            Setback: too many in a row did.
            RedLine: too large a part of the run was passed over.
        """
        self.spikes.turn_away(step)
        self.row = [*self.row, step]
        told = f"step {step}, {name}: {why}"
        if len(self.row) >= IN_A_ROW:
            raise Setback(line, step, told, self._leading_here(step + 1))
        self._leave_out(range(step, step + 1), f"{line}: {told}")
        return self.note(step, line, told, "passed over")

    def measured(self, step: int, why: str) -> None:
        """What an evaluation before `step` found beyond repair: a state that steps were turned away
        from just now, or that the run went back from not long ago, may have come of them.

        Raises:
            Setback: so it may have.
        """
        if self.row:
            raise Setback(str(self.events[-1]["line"]), step, why, self._leading_here(step))
        if self.failures and not self.calm(step):
            raise Setback(self.failures[-1]["line"], step, why, self._leading_here(step))

    def _leading_here(self, step: int) -> range:
        """The steps to leave out next time: those turned away, and some before them."""
        first = self.row[0] if self.row else step
        return range(max(0, first - BEFORE * 2 ** len(self.failures)), step)

    def leave_out(self, step: int, line: str, why: str) -> dict[str, Any]:
        """A batch that is not fit to be learnt from, whatever the state.

        Raises:
            RedLine: too large a part of the run was passed over.
        """
        self._leave_out(range(step, step + 1), f"{line}: {why}")
        return self.note(step, line, why, "passed over")

    def _leave_out(self, steps: range, why: str) -> None:
        self.passing |= {step: why for step in steps if step not in self.passing}
        most = max(MOST_LEAST, round(MOST_SHARE * self.steps))
        if len(self.passing) > most:
            raise RedLine(
                f"too much passed over: {len(self.passing)} of {self.steps} steps, more than "
                f"{most}, last {why}; {ADVICE['too much passed over']}"
            )

    def accept(self, loss: float, norm: float) -> None:
        """A step that crossed nothing."""
        self.row = []
        self.spikes.accept(loss, norm)

    def back(self, setback: Setback, to: int) -> dict[str, Any]:
        """Writes down that the run goes back to step `to`.

        Raises:
            RedLine: it did so often enough.
        """
        line = setback.line
        self.failures.append({"line": line, "step": setback.step, "why": setback.why})
        same = [failure["why"] for failure in self.failures if failure["line"] == line]
        if len(same) >= TIMES or len(self.failures) >= KINDS_TIMES:
            others = "; and again after going back: ".join(same)
            raise RedLine(f"{line}: {others}; nothing of it was saved; {ADVICE[line]}")
        self._leave_out(setback.steps, f"before {line}: {setback.why}")
        return self.note(setback.step, line, setback.why, f"back to step {to}")

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {
            "spikes": self.spikes.state(),
            "passing": {str(step): why for step, why in sorted(self.passing.items())},
            "row": list(self.row),
            "last_odd": self.last_odd,
            "mistakes": list(self.mistakes),
            "failures": list(self.failures),
            "events": list(self.events),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state."""
        self.spikes.restore(state["spikes"])
        self.passing = {int(step): str(why) for step, why in state["passing"].items()}
        self.row = [int(step) for step in state["row"]]
        self.last_odd = int(state["last_odd"])
        self.mistakes = [str(told) for told in state["mistakes"]]
        self.failures = [dict(failure) for failure in state["failures"]]
        self.events = [dict(event) for event in state["events"]]

    def rewind(self, state: Mapping[str, Any] | None) -> None:
        """Back to a saved state, or the first one, in what was usual; what happened stays."""
        self.spikes.restore(
            Spikes(self.spikes.vocab_size, self.spikes.clip).state()
            if state is None
            else state["spikes"]
        )
        self.row = []
