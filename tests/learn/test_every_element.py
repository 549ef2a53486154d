"""Every element that a checkpoint keeps of the detectors counts: taken out it is missed by name,
and set back to what a fresh run has, something is decided otherwise.

`test_resume` does this for weights, optimizer and steps, in a run in which nothing goes wrong: what
waits for something to go wrong is idle there. Here each of it is driven by numbers, to the point
where it matters, without a model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tiny import VOCAB, fresh, numbered

from matura.core.errors import RedLine
from matura.learn.gold import Gold
from matura.learn.guard import CALM, IN_A_ROW, Guard, Setback
from matura.learn.redlines import RedLines
from matura.learn.repeats import ENOUGH, Repeats
from matura.learn.spikes import AGAIN, Spikes
from matura.learn.watch import SILENT_STEPS, STILL_STEPS, Watch

USUAL = [1.0 + 0.01 * (step % 5) for step in range(30)]


@dataclass(frozen=True)
class Detector:
    """One that is kept: a fresh one, what it lives through, and what it is then asked."""

    make: Callable[[], Any]
    live: Callable[[Any], object]
    ask: dict[str, Callable[[Any], object]]
    """By element of its state, a question that is answered otherwise without it."""


def said(question: Callable[[Any], object], detector: Any) -> str:
    """What a detector answers, or what it stops the run with."""
    try:
        return repr(question(detector))
    except (RedLine, Setback) as problem:
        return f"{type(problem).__name__}: {problem} {getattr(problem, 'steps', '')}"


# What each lives through


def guard() -> Guard:
    return Guard(Spikes(VOCAB, 1.0), 1000)


def guarded(one: Guard) -> None:
    """A mistake of the machine, a setback, a batch that says one thing, and two turned away."""
    for loss in USUAL:
        one.accept(loss, loss)
        one.spikes.update(1e-3 * loss, 1.0)
    one.mistaken(31, "b", "loss spike", "9")
    one.back(Setback("loss spike", 40, "9", range(30, 40)), 20)
    one.leave_out(50, "repeated text", "a a a")
    for number in range(AGAIN):
        one.spikes.turn_away(51 + number)
    for step in (60, 61)[: IN_A_ROW - 1]:
        one.pass_over(step, "b", "loss spike", "9")


def again(one: Guard) -> object:
    for _ in range(2):
        one.back(Setback("loss spike", 70, "9"), 20)
    return None


def lined(one: RedLines) -> None:
    one.begin(fresh(), {"old": 1.0})
    for step, loss in enumerate(USUAL):
        one.step(step, "b", loss, 1.0)
    for step in range(4):
        one.step(30 + step, "b", 9.0, 1.0)


def broken_rows(one: RedLines) -> object:
    """A model that begins with a row of zeros may keep it."""
    model = fresh()
    model.model.embed_tokens.weight.data[3] = 0.0
    one.rows = None if one.rows is None else (one.rows[0] + 1, one.rows[1])
    return one.evaluation(40, model, {}, {}, {})


def worse(times: int) -> Callable[[RedLines], object]:
    def ask(one: RedLines) -> object:
        for step in range(times):
            one.step(34 + step, "b", 9.0, 1.0)
        return one.over

    return ask


def watched(one: Watch) -> None:
    one.begun = True
    for step in range(STILL_STEPS - 1):
        one.update(step, "b", 0.0)
    for step in range(SILENT_STEPS - 1):
        one.gradients(step, "b", {"w": 0.0})


def monotonous(step: int) -> Any:
    batch = numbered(step, length=40)
    return replace(batch, ids_BL=batch.ids_BL * 0 + step % VOCAB)


def repeated(one: Repeats) -> None:
    """Batches of all kinds, and then the same ones seven times."""
    for step in range(ENOUGH):
        one.look(step, numbered(step, length=40))
    for step in range(7):
        one.look(step, numbered(4, length=40))


def golden(one: Gold) -> None:
    one.begin({"old": 1.0})
    one.takes(5, {"old": 1.0}, 0.5, (10, -1.0), None)


DETECTORS = {
    "guard": Detector(
        guard,
        guarded,
        {
            "spikes.losses": lambda one: one.spikes.odd(900, 3.0, 1.0),
            "spikes.norms": lambda one: one.spikes.odd(62, 1.0, 50.0),
            "spikes.updates": lambda one: one.spikes.update(0.5, 1.0),
            "spikes.away": lambda one: one.spikes.odd(62, 5.0, 1.0),
            "passing": lambda one: one.passing.get(35),
            "row": lambda one: one.pass_over(62, "b", "loss spike", "9"),
            "last_odd": lambda one: one.calm(61 + CALM),
            "mistakes": lambda one: one.mistaken(62, "b", "loss spike", "9"),
            "failures": again,
            "events": lambda one: one.note(31, "hardware", "x", "y") and len(one.events),
        },
    ),
    "redlines": Detector(
        lambda: RedLines(VOCAB),
        lined,
        {
            "recent": worse(1),
            "over": worse(1),
            "lowest": lambda one: one.evaluation(40, fresh(), {"old": 3.5}, {}, {}),
            "rows": broken_rows,
        },
    ),
    "watch": Detector(
        lambda: Watch(VOCAB, True),
        watched,
        {
            "still": lambda one: one.update(9, "b", 0.0),
            "begun": lambda one: one.loss(9, "b", 0.1, 1.0),
            "silent": lambda one: one.gradients(9, "b", {"w": 0.0}),
        },
    ),
    "repeats": Detector(
        Repeats,
        repeated,
        {
            "recent": lambda one: one.look(20, numbered(4, length=40)),
            "again": lambda one: one.look(20, numbered(4, length=40)),
            "shares": lambda one: one.look(20, monotonous(20)),
        },
    ),
    "gold": Detector(
        lambda: Gold(0.25, 0.2),
        golden,
        {
            "start": lambda one: one.takes(10, {"old": 1.4}, None, (11, -1.4), (10, -1.0)),
            "lowest": lambda one: one.takes(10, {"new": 1.9}, 0.9, (18, -1.9), (10, -1.0)),
            "kept": lambda one: one.takes(10, {"old": 1.4}, 0.9, (18, -1.4), (10, -1.0)),
            "seen": lambda one: len(one.report()["steps"]),
        },
    ),
}
CASES = [(name, key) for name, found in DETECTORS.items() for key in found.ask]


def leaves(state: dict[str, Any], above: str = "") -> Iterator[str]:
    """The elements by name; the detectors inside a detector are looked into."""
    for key, value in state.items():
        if key == "spikes":
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def inside(state: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *above, last = key.split(".")
    for name in above:
        state = state[name]
    return state, last


def kept(detector: Detector) -> dict[str, Any]:
    """The state after all that, as a checkpoint's JSON gives it back."""
    one = detector.make()
    detector.live(one)
    found: dict[str, Any] = json.loads(json.dumps(one.state()))
    return found


def restored(detector: Detector, state: dict[str, Any]) -> Any:
    one = detector.make()
    one.restore(copy.deepcopy(state))
    return one


@pytest.mark.parametrize("name", DETECTORS)
def test_every_element_has_a_question(name: str) -> None:
    assert sorted(leaves(kept(DETECTORS[name]))) == sorted(DETECTORS[name].ask)


@pytest.mark.parametrize("name", DETECTORS)
def test_restored_it_is_what_it_was(name: str) -> None:
    detector = DETECTORS[name]
    lived = detector.make()
    detector.live(lived)
    for question in detector.ask.values():
        one = restored(detector, kept(detector))
        assert json.loads(json.dumps(one.state())) == kept(detector)
        assert said(question, one) == said(question, copy.deepcopy(lived))


@pytest.mark.parametrize(("name", "key"), CASES)
def test_an_element_that_is_missing_is_named(name: str, key: str) -> None:
    state = kept(DETECTORS[name])
    above, last = inside(state, key)
    del above[last]
    with pytest.raises(KeyError, match=last):
        restored(DETECTORS[name], state)


@pytest.mark.parametrize(("name", "key"), CASES)
def test_an_element_that_is_set_back_changes_a_decision(name: str, key: str) -> None:
    detector = DETECTORS[name]
    state, first = kept(detector), json.loads(json.dumps(detector.make().state()))
    whole = said(detector.ask[key], restored(detector, state))
    above, last = inside(state, key)
    assert above[last] != inside(first, key)[0][last], "it never left its first value"
    above[last] = inside(first, key)[0][last]
    assert said(detector.ask[key], restored(detector, state)) != whole
