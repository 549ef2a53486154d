"""The tasks exam: form and content are graded apart, and each wrong answer loses what it got
wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import pytest
from answering import gold, silence
from pydantic import ValidationError

from matura.core.types import Message, Task, Trace
from matura.exams.exam import Hall
from matura.exams.tasks import Tasks
from matura.lessons.passages import read_report, read_sentence

Halls = Callable[..., Hall]
REPORT = "KEY_FACTS:\n- car: tulip\n- robot: Zord\nSUMMARY: Led has a car and a robot."
SUMMARY = "Led has the car tulip and the robot Zord."


def task(operator: str, right: str) -> Task:
    return Task(id="t", gold=right, bucket=f"{operator} x 2", meta={"operator": operator})


def trace(said: str) -> Trace:
    return Trace((), (), (), (), said, "stop")


def marked(operator: str, right: str, said: str) -> dict[str, float]:
    return dict(Tasks().marks(task(operator, right), trace(said)))


def test_gold_passes_every_floor_and_silence_fails_every_one(hall: Halls) -> None:
    exam = Tasks()
    score = exam.sit(hall(exam, gold))
    assert score.outcome == "pass"
    assert score.overall.n == 600
    assert all(cell.score == 1.0 for cell in score.buckets.values())
    gated = {name: cell for name, cell in score.buckets.items() if cell.floor is not None}
    assert {name: cell.n for name, cell in gated.items()} == {
        "steps": 200,
        "structure": 200,
        "focus": 200,
        "faithfulness": 400,
    }
    assert all(cell.floor == 0.80 for cell in gated.values())
    assert all(cell.n >= 50 for cell in score.buckets.values())
    silent = exam.sit(hall(exam, silence))
    assert silent.outcome == "fail"
    assert all(cell.score == 0.0 for cell in silent.buckets.values())


def test_each_cell_can_have_a_floor(hall: Halls) -> None:
    exam = Tasks(cell_at_least=0.7)
    gated = {name for name, floor in exam.floors().items() if floor == 0.7}
    assert gated == {
        *("STEPS x 2", "STEPS x 3"),
        *(f"{kind} x {n}" for kind in ("STRUCTURE", "FOCUS") for n in (1, 2, 3)),
    }
    assert exam.sit(hall(exam, gold)).outcome == "pass"
    with pytest.raises(ValidationError, match="cells of less than 50"):
        Tasks(cell_at_least=0.7, max_facts=6)
    assert Tasks(cell_at_least=0.7, max_facts=6, n=900, cap=1800).n == 900


def test_more_facts_make_more_cells(hall: Halls) -> None:
    exam = Tasks(max_facts=4, max_steps=4)
    counts = Counter(t.bucket for t in exam.tasks(hall(None, gold), 600))
    assert {"STRUCTURE x 4", "FOCUS x 4", "STEPS x 4"} <= set(counts)
    assert min(counts.values()) >= 50
    assert set(counts) < set(exam.floors())


@pytest.mark.parametrize(
    ("said", "structure", "faithful"),
    [
        (REPORT, 1, 1),
        # the order of facts is free, in both parts
        ("KEY_FACTS:\n- robot: Zord\n- car: tulip\nSUMMARY: Led has a robot and a car.", 1, 1),
        # left out, invented, swapped, told twice, of another owner
        ("KEY_FACTS:\n- car: tulip\nSUMMARY: Led has a car and a robot.", 1, 0),
        (REPORT.replace("SUMMARY", "- van: blip\nSUMMARY"), 1, 0),
        ("KEY_FACTS:\n- car: Zord\n- robot: tulip\nSUMMARY: Led has a car and a robot.", 1, 0),
        (REPORT.replace("SUMMARY", "- car: tulip\nSUMMARY"), 1, 0),
        (REPORT.replace("Led", "Gug"), 1, 0),
        # a summary that leaves out or invents
        (REPORT.replace("a car and ", ""), 1, 0),
        (REPORT.replace("a car and", "a car, a van and"), 1, 0),
        (REPORT.replace("Led has a car and a robot.", "That is all."), 1, 0),
        # no report
        (REPORT.replace("SUMMARY", "Summary"), 0, 0),
        (REPORT.replace("- ", "* "), 0, 0),
        (REPORT.removesuffix("."), 0, 0),
        (REPORT + " Led is nice.", 0, 0),
        ("KEY_FACTS:\n- car: tulip\n- robot: Zord", 0, 0),
        (SUMMARY, 0, 0),
    ],
)
def test_reports_are_marked_for_form_and_for_truth(
    said: str, structure: float, faithful: float
) -> None:
    """S003-21: KEY_FACTS and SUMMARY; what they tell is another question."""
    assert marked("STRUCTURE", REPORT, said) == {
        "structure": structure,
        "faithfulness": faithful,
        "STRUCTURE x 2": min(structure, faithful),
    }


@pytest.mark.parametrize(
    ("said", "focus", "faithful"),
    [
        (SUMMARY, 1, 1),
        ("Led has the robot Zord and the car tulip.", 1, 1),
        # a fact left out is a want of faith, not of focus
        ("Led has the car tulip.", 1, 0),
        # the other owner's fact, an invented one, the other owner
        ("Led has the car tulip, the robot Zord and the van blip.", 0, 0),
        ("Led has the car blip and the robot Zord.", 0, 0),
        ("Gug has the car tulip and the robot Zord.", 0, 0),
        ("Led has the car tulip and the robot Zord. Gug has the van blip.", 0, 0),
        ("Led has.", 0, 0),
        ("The car is tulip.", 0, 0),
        (REPORT, 0, 0),
    ],
)
def test_summaries_are_marked_for_focus_and_for_faith(
    said: str, focus: float, faithful: float
) -> None:
    assert marked("FOCUS", SUMMARY, said) == {
        "focus": focus,
        "faithfulness": faithful,
        "FOCUS x 2": min(focus, faithful),
    }


@pytest.mark.parametrize("said", ["[kleb]", "[kleb] lim ", "[kleb lim]", "kleb lim", "lim"])
def test_steps_are_carried_out_exactly_or_not_at_all(said: str) -> None:
    assert marked("STEPS", "[kleb] lim", said) == {"steps": 0, "STEPS x 2": 0}
    assert marked("STEPS", "[kleb] lim", "[kleb] lim") == {"steps": 1, "STEPS x 2": 1}


@pytest.mark.parametrize(("operator", "right"), [("STRUCTURE", REPORT), ("FOCUS", SUMMARY)])
def test_an_answer_that_does_not_stop_or_leaks_a_tag_is_right_in_nothing(
    operator: str, right: str
) -> None:
    whole = trace(right)
    for change in (
        {"finish_reason": "length"},
        {"problems": ("stray <|call|>",)},
        {"error": "RolloutError: x"},
    ):
        broken = dataclasses.replace(whole, **change)  # type: ignore[arg-type]
        assert set(Tasks().marks(task(operator, right), broken).values()) == {0.0}


def told_whole(task: Task) -> list[Message]:
    """Everything the passage tells, whoever is asked about: right but for the focus."""
    if task.meta["operator"] != "FOCUS":
        return [Message("assistant", task.gold)]
    names = task.meta["payload"].split()
    others = [name for name in names[1:] if name not in task.gold and not name.istitle()]
    more = "".join(f", the car {name}" for name in others or ["blip"])
    return [Message("assistant", task.gold[:-1] + more + ".")]


def test_whoever_tells_all_has_no_focus(hall: Halls) -> None:
    exam = Tasks()
    score = exam.sit(hall(exam, told_whole))
    assert score.outcome == "fail"
    assert score.buckets["focus"].score == 0.0
    assert score.buckets["steps"].score == score.buckets["structure"].score == 1.0
    assert score.buckets["faithfulness"].score == pytest.approx(0.5)


def test_every_gold_can_be_read_and_every_focus_has_another_owner(hall: Halls) -> None:
    for item in Tasks().tasks(hall(None, gold), 300):
        match item.meta["operator"]:
            case "STRUCTURE":
                assert read_report(item.gold) is not None
            case "FOCUS":
                told = read_sentence(item.gold)
                assert told is not None
                owners = [w for w in item.meta["payload"].split() if w.istitle()]
                assert len(set(owners)) >= 2
