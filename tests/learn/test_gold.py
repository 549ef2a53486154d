"""The gold checkpoint: best by exams, but not at any price, and the same after a restart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny import fresh, settings, stops_at, trained

from matura.core.store import Checkpoints
from matura.learn.gold import Gold
from matura.learn.loop import Evaluation

STEPS = 20


def chosen(gold: Gold, *evaluations: Evaluation) -> int:
    """The number, from 1, of the evaluation that is kept in the end."""
    best: Evaluation | None = None
    number = 0
    for step, found in enumerate(evaluations, start=1):
        rank = None if best is None else best.rank
        if gold.takes(step, found.losses, found.exam, found.rank, rank):
            best, number = found, step
    return number


def verdicts(gold: Gold) -> list[str]:
    return [step["verdict"] for step in gold.seen]


def test_without_guards_the_best_exam_is_kept() -> None:
    gold = Gold()
    gold.begin({})
    assert chosen(gold, Evaluation({"a": 1.0}, 0.5), Evaluation({"a": 9.0}, 0.9)) == 2
    assert verdicts(gold) == ["taken", "taken"]
    assert gold.report()["guards"] == {}


def test_a_better_exam_does_not_count_where_validation_rose() -> None:
    gold = Gold(mean_rise_at_most=0.1)
    found = chosen(
        gold,
        Evaluation({"a": 2.0, "b": 1.0}, 0.5),
        Evaluation({"a": 2.6, "b": 1.2}, 0.9),  # 1.9 instead of 1.5
        Evaluation({"a": 2.1, "b": 1.0}, 0.7),
    )
    assert found == 3
    assert verdicts(gold) == ["taken", "refused", "taken"]
    assert gold.seen[1]["why"].startswith("mean validation loss 1.900 is 27% above its lowest")


def test_the_lowest_loss_is_not_forgotten_step_by_step() -> None:
    """Many small rises are one large one: each is held to the lowest, not to the one before."""
    gold = Gold(mean_rise_at_most=0.1)
    losses = [2.0, 2.2, 2.42, 2.66]
    found = [Evaluation({"a": loss}, 0.5 + 0.1 * i) for i, loss in enumerate(losses)]
    assert chosen(gold, *found) == 2


def test_a_replayed_source_may_not_get_much_worse_than_at_the_start() -> None:
    gold = Gold(source_rise_at_most=0.2)
    gold.begin({"replay:base.text": 2.0})
    found = chosen(
        gold,
        Evaluation({"own": 1.0, "replay:base.text": 2.3}, 0.5),
        Evaluation({"own": 0.1, "replay:base.text": 2.6}, 0.9),
        Evaluation({"own": 0.9, "replay:base.text": 2.4}, 0.6),
    )
    assert found == 3
    assert "replay:base.text 2.600 is 30% above the start, 2.000" in gold.seen[1]["why"]


def test_a_small_loss_may_double() -> None:
    """A copying drill goes from 0.03 to 0.06 nats: nothing is forgotten."""
    gold = Gold(0.25, 0.2)
    gold.begin({"replay:runs": 0.03})
    assert chosen(gold, Evaluation({"replay:runs": 0.06}, 0.5)) == 1
    assert gold.kept


def test_where_no_step_keeps_the_guards_the_best_is_kept_and_the_record_says_so() -> None:
    gold = Gold(source_rise_at_most=0.2)
    gold.begin({"replay:a": 1.0})
    worse = [Evaluation({"replay:a": loss}, exam) for loss, exam in ((3.0, 0.5), (2.0, 0.9))]
    assert chosen(gold, *worse) == 2
    assert not gold.report()["guarded"]
    assert gold.seen[1]["why"].startswith("no step keeps the guards so far: replay:a 2.000")
    # and the first that does is better than all of them
    rank = worse[1].rank
    assert gold.takes(3, {"replay:a": 1.1}, 0.1, Evaluation({"replay:a": 1.1}, 0.1).rank, rank)
    assert gold.seen[2]["why"] == "the first that keeps the guards"


def test_the_final_evaluation_is_guarded_too() -> None:
    """C-23: MyPT's last evaluation skipped the guards."""
    gold = Gold(0.1, 0.1)
    gold.begin({"replay:a": 1.0})
    assert chosen(gold, Evaluation({"replay:a": 1.0}, 0.5), Evaluation({"replay:a": 2.0}, 1.0)) == 1


def test_an_evaluation_as_good_says_why_not() -> None:
    gold = Gold(0.5, 0.5)
    gold.begin({})
    evaluations = [Evaluation({"a": 1.0}, 0.9), Evaluation({"a": 1.1}, 0.9), Evaluation({}, 0.1)]
    chosen(gold, *evaluations)
    assert [step["why"] for step in gold.seen[1:]] == [
        "validation loss 1.100, not below 1.000",
        "a worse exam",
    ]


def test_no_loss_at_the_start_is_no_division() -> None:
    gold = Gold(0.1, 0.1)
    gold.begin({"replay:a": 0.0})
    chosen(gold, Evaluation({"replay:a": 5.0}))
    assert "inf" in gold.seen[0]["why"]
    assert math.isfinite(gold.lowest or math.nan)


# In a run

LOSSES = {5: 1.0, 10: 2.0, 15: 1.05, 20: 1.1}
EXAMS = {5: 0.5, 10: 0.9, 15: 0.7, 20: 0.7}


def scripted(step: int) -> Evaluation:
    return Evaluation({"replay:a": LOSSES[step]}, EXAMS[step])


def run(folder: Path, **more: Any) -> Any:
    guards = Gold(mean_rise_at_most=0.2, source_rise_at_most=0.2)
    usual: dict[str, Any] = {"evaluate": scripted, "begin": lambda: {"replay:a": 1.0}}
    return trained(folder, settings(STEPS), gold=guards, model=fresh(), **(usual | more))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run that nobody interrupts."""
    return run(tmp_path_factory.mktemp("straight"))


def test_a_run_keeps_the_guarded_best(straight: Any) -> None:
    assert straight.fitted.best_step == 15
    assert straight.fitted.gold["start"] == {"replay:a": 1.0}
    told = [(step["step"], step["verdict"]) for step in straight.fitted.gold["steps"]]
    assert told == [(5, "taken"), (10, "refused"), (15, "taken"), (20, "not better")]


@pytest.mark.parametrize("step", [0, 3, 7, 12, 19])
def test_a_run_that_was_killed_chooses_alike(step: int, straight: Any, ram: Path) -> None:
    """C-23: the guards' state is part of a checkpoint, and what was measured first is not measured
    again on a model that has moved."""
    with pytest.raises(KeyboardInterrupt):
        run(ram, batches=stops_at(step))

    def again() -> dict[str, float]:
        raise AssertionError("the start was measured a second time")

    found = run(ram, **({} if step == 0 else {"begin": again}))
    assert found.fitted == straight.fitted
    assert found.weights == straight.weights
    assert 15 in Checkpoints(ram).steps()


def test_guards_that_do_not_fire_change_nothing(tmp_path: Path) -> None:
    """The quickstart's choice: whatever it was without guards, unless one really fires."""
    plain = trained(tmp_path / "plain", settings(STEPS), exams=EXAMS)
    guarded = trained(
        tmp_path / "guarded", settings(STEPS), exams=EXAMS, gold=Gold(0.25, 0.2), begin=dict
    )
    assert (plain.losses, plain.weights) == (guarded.losses, guarded.weights)
    assert plain.fitted.best_step == guarded.fitted.best_step
