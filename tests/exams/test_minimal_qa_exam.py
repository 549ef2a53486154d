"""Who always answers, never answers, rambles or repeats himself fails the floor about just that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from answering import Answer, gold, silence
from pydantic import ValidationError

from matura.core.types import Item, Message, Task
from matura.exams.exam import Hall
from matura.exams.minimal_qa import MinimalQa, distinct
from matura.lessons.relations import UNKNOWN

Halls = Callable[..., Hall]
EXAM = MinimalQa()
GATED = {"ANSWER x 1", "ANSWER x 2", "ANSWER x 3", "length", "abstains", "answers"}


def saying(choose: Callable[[Task], str]) -> Answer:
    def answer(task: Task) -> Sequence[Message]:
        return [Message("assistant", choose(task))]

    return answer


def never_abstaining(task: Task) -> str:
    if task.meta["operator"] == "ANSWER":
        return task.gold
    return f"The name is {task.meta['payload'].split()[0]}."


def rambling(task: Task) -> str:
    """Right, and thirteen times over: more words than any limit."""
    return " ".join([task.gold] * 13)


def test_the_gold_passes_every_floor_with_enough_items_each(hall: Halls) -> None:
    score = EXAM.sit(hall(EXAM, gold))
    assert score.outcome == "pass"
    gated = {name: cell for name, cell in score.buckets.items() if cell.floor is not None}
    assert set(gated) == GATED | {"distinct outputs"}
    assert all(cell.n >= 100 and cell.floor == 0.80 for cell in gated.values())
    assert score.buckets["abstains"].n == 200
    assert score.buckets["answers"].n == 400
    assert score.buckets["language de"].n > 80
    assert score.buckets["abstains, name told"].n > 50 < score.buckets["abstains, name not told"].n
    lengths = {name for name in score.buckets if name.startswith("length, ")}
    assert lengths == {
        f"length, {name}" for name in ("one word", "one sentence", "two sentences", "at most")
    }
    assert score.notes["distinct_outputs_answerable"] == 1.0


def test_silence_scores_nothing_anywhere(hall: Halls) -> None:
    score = EXAM.sit(hall(EXAM, silence))
    assert score.outcome == "fail"
    silent = {
        name: cell.score for name, cell in score.buckets.items() if name != "distinct outputs"
    }
    assert set(silent.values()) == {0.0}
    assert score.buckets["distinct outputs"].outcome == "fail"


def test_who_always_abstains_fails_all_but_abstaining(hall: Halls) -> None:
    score = EXAM.sit(hall(EXAM, saying(lambda task: UNKNOWN[task.meta["language"]])))  # type: ignore[index]
    assert score.buckets["abstains"].score == 1.0
    assert score.buckets["answers"].score == 0.0
    assert score.buckets["length"].score == 0.0
    assert score.buckets["ANSWER x 1"].score == 0.0
    assert score.buckets["distinct outputs"].outcome == "fail"
    assert score.outcome == "fail"


def test_who_never_abstains_fails_abstaining_alone(hall: Halls) -> None:
    score = EXAM.sit(hall(EXAM, saying(never_abstaining)))
    failed = {name for name, cell in score.buckets.items() if cell.outcome == "fail"}
    assert failed == {"abstains"}
    assert score.outcome == "fail"


def test_right_but_too_long_fails_the_lengths(hall: Halls) -> None:
    score = EXAM.sit(hall(EXAM, saying(rambling)))
    assert score.buckets["length"].score == 0.0
    assert score.buckets["answers"].score == 1.0
    assert score.buckets["ANSWER x 2"].outcome == "fail"


def test_wrong_but_of_the_right_length_keeps_the_lengths(hall: Halls) -> None:
    def wrong(task: Task) -> str:
        return task.gold if task.meta["operator"] == "UNKNOWN" else task.gold.replace(".", "x.")

    score = EXAM.sit(hall(EXAM, saying(wrong)))
    assert score.buckets["length"].score == 1.0
    assert score.buckets["answers"].score == 1.0
    assert {score.buckets[f"ANSWER x {n}"].score for n in (1, 2, 3)} == {0.0}


def test_any_right_form_of_the_length_counts_and_the_other_language_does_not(hall: Halls) -> None:
    last = EXAM.sit(hall(EXAM, saying(lambda task: task.meta["accepted"].split("\n")[-1])))
    assert last.overall.score == 1.0
    other = {"en": UNKNOWN["de"], "de": UNKNOWN["en"]}
    score = EXAM.sit(hall(EXAM, saying(lambda task: other[task.meta["language"]])))
    assert score.overall.score == 0.0
    assert score.buckets["answers"].score == 0.0


def test_one_answer_to_everything_is_a_collapse(hall: Halls) -> None:
    """PITFALLS C-13, S001-31; also where it is only the answers that collapse."""

    def zurich(task: Task) -> str:
        return task.gold if task.meta["operator"] == "UNKNOWN" else "Zurich."

    score = EXAM.sit(hall(EXAM, saying(zurich)))
    assert score.buckets["abstains"].score == 1.0
    assert score.buckets["distinct outputs"].score < 0.01
    assert score.notes["distinct_outputs"] < 0.01


def test_distinct_outputs_are_measured_against_the_right_answers() -> None:
    def item(number: int, right: str, said: str) -> Item:
        return Item(str(number), "", 0.0, "", right, said, "stop")

    same = [item(n, "A.", "A.") for n in range(50)]
    assert distinct(same, None).score == 1.0
    assert distinct([*same, item(50, "B.", "A.")], None).score == 0.5
    assert distinct([item(n, "A.", f"{n}") for n in range(50)], None).score == 1.0
    unknown = [item(n, UNKNOWN["en"], UNKNOWN["en"]) for n in range(50)]
    assert distinct([*unknown, *same], None).n == 1
    broken = dataclasses.replace(same[0], error="x")
    assert distinct([broken], 0.5).outcome == "inconclusive"


def test_floors_and_facts_are_settings(hall: Halls) -> None:
    exam = MinimalQa(
        at_least=0.9, length_at_least=0.7, abstain_at_least=None, answer_at_least=0.6, max_facts=5
    )
    floors = dict(exam.floors())
    assert floors == {
        **{f"ANSWER x {n}": 0.9 for n in range(1, 6)},
        "length": 0.7,
        "abstains": None,
        "answers": 0.6,
    }
    loose = EXAM.model_copy(update={"abstain_at_least": None})
    assert loose.sit(hall(loose, saying(never_abstaining))).outcome == "pass"
    with pytest.raises(ValidationError):
        MinimalQa(max_facts=9)
