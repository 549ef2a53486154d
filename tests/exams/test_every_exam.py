"""Every exam in the folder proves itself by existing: gold scores 1, silence scores 0."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
from _pytest.mark import ParameterSet
from answering import UNIFORM, documents, gold, silence

from matura.core.errors import DataError, RecipeError
from matura.core.types import Score, Task, Trace
from matura.exams.exam import Exam, Hall, kinds, score_from_json, score_to_json
from matura.lessons.words import word_split

EXAMS: list[Exam] = [kind() for kind in kinds().values()]  # type: ignore[call-arg]
ANSWERED = [exam for exam in EXAMS if exam.better == "higher"]
CHAT = [exam for exam in ANSWERED if exam.exam not in ("induction",)]


def apart(exams: list[Exam]) -> list[ParameterSet]:
    """All tests of one exam in one worker, which then makes its items once."""
    marks = [pytest.mark.xdist_group(f"exam {exam.exam}") for exam in exams]
    return [
        pytest.param(exam, id=exam.exam, marks=mark)
        for exam, mark in zip(exams, marks, strict=True)
    ]


FREE = ("tag_leak",)
"""Exams that do not ask for one exact answer."""
BY_HEART = ("identity", "knowledge")
"""Exams on what was learnt by heart: their payloads must be those of training."""
Halls = Callable[..., Hall]
Sat = Callable[..., Score]


def test_the_folder_holds_the_ladder_s_exams() -> None:
    assert {exam.exam for exam in EXAMS} >= {
        "bpb",
        "induction",
        "format_strict",
        "echo",
        "gibberish_copy",
        "operators",
        "calculator",
        "tasks",
        "spelling",
        "identity",
        "hierarchy",
        "tag_leak",
        "knowledge",
    }
    assert all(exam.exam == name for name, exam in zip(kinds(), EXAMS, strict=True))


@pytest.mark.parametrize("exam", apart(EXAMS))
def test_gold_passes(exam: Exam, sat: Sat) -> None:
    score = sat(exam, gold)
    assert score.outcome == "pass"
    assert score.overall.score == (1.0 if exam.better == "higher" else 0.0)
    if exam.better == "higher":
        assert all(item.grade == 1.0 for item in score.items)
        assert all(cell.score == 1.0 for cell in score.buckets.values())


@pytest.mark.parametrize("exam", apart(EXAMS))
def test_silence_fails(exam: Exam, sat: Sat) -> None:
    strict = exam.model_copy(update={"at_most": 1.0}) if exam.better == "lower" else exam
    score = sat(strict, silence, UNIFORM)
    assert score.outcome == "fail"
    if exam.better == "higher":
        assert score.overall.score == 0.0
        assert all(item.grade == 0.0 for item in score.items)


@pytest.mark.parametrize("exam", apart(ANSWERED))
def test_a_broken_conversation_is_never_graded_right(exam: Exam, hall: Halls) -> None:
    here = hall(exam, gold)
    (task,) = exam.tasks(here, 1)
    trace = Trace((), task.gold_ids or (), (), (), task.gold, "error", error="RolloutError: x")
    assert exam.grade(task, trace) == 0.0


@pytest.mark.parametrize("exam", apart([exam for exam in CHAT if exam.exam not in FREE]))
def test_only_the_exact_stopped_untagged_answer_is_right(exam: Exam, hall: Halls) -> None:
    """PITFALLS C-24: no `starts with` leniency; `length` is not `stop`; a leaked tag is wrong."""
    here = hall(exam, gold)
    for task in exam.tasks(here, 6):
        traces = exam_traces(exam, here, task)
        right = traces
        assert exam.grade(task, right) == 1.0
        for change in (
            {"reply": right.reply + " "},
            {"reply": right.reply + " and more"},
            {"reply": right.reply[:-1]},
            {"reply": right.reply.swapcase() + "x"},
            {"finish_reason": "length"},
            {"problems": ("stray <|call|>",)},
        ):
            assert exam.grade(task, dataclasses.replace(right, **change)) == 0.0  # type: ignore[arg-type]


def exam_traces(exam: Exam, hall: Hall, task: Task) -> Trace:
    from matura.exams.exam import ask

    (trace,) = ask(hall, [task])
    return trace


@pytest.mark.parametrize("exam", apart(ANSWERED))
def test_items_are_at_least_200_and_each_gated_cell_has_50(exam: Exam, sat: Sat) -> None:
    """PITFALLS C-24: two-item buckets with thresholds of 100 % decided nothing."""
    score = sat(exam, gold)
    assert score.overall.n >= 200
    gated = [cell for cell in score.buckets.values() if cell.floor is not None]
    assert all(cell.n >= 50 for cell in gated)
    assert len({item.task for item in score.items}) == len(score.items)
    assert len({(item.prompt, item.gold) for item in score.items}) == len(score.items)


@pytest.mark.parametrize("exam", apart(ANSWERED))
def test_items_do_not_depend_on_how_they_are_asked_for(exam: Exam, hall: Halls) -> None:
    here = hall(None, gold)
    whole = list(exam.tasks(here, 30))
    assert whole == [*exam.tasks(here, 10), *exam.tasks(here, 20, 10)]


@pytest.mark.parametrize("exam", apart(CHAT))
def test_a_checkpoint_is_never_chosen_by_a_gate_s_items(exam: Exam, hall: Halls) -> None:
    gate = list(exam.tasks(hall(None, gold), 200))
    select = list(exam.tasks(hall(None, gold, purpose="select"), 200))
    assert not {repr(t.messages) for t in gate} & {repr(t.messages) for t in select}
    if exam.exam in BY_HEART:
        return
    assert not {t.meta["payload"] for t in gate} & {t.meta["payload"] for t in select}
    if exam.exam != "calculator":
        words = {word for task in gate for word in task.meta["payload"].split()}
        assert {word_split(word) for word in words} == {"exam"}


@pytest.mark.parametrize("exam", apart(EXAMS))
def test_a_score_carries_its_proof_and_survives_json(exam: Exam, sat: Sat) -> None:
    """DESIGN rule 11."""
    score = sat(exam, gold)
    spelled = json.dumps(score_to_json(score), allow_nan=False)
    assert score_from_json(json.loads(spelled)) == score
    assert score.weights_sha256 == "5c"
    assert len(score.prompts_sha256) == 64
    assert score.settings["temperature"] == 0.0
    assert score.settings["purpose"] == "gate"
    assert score.settings["better"] == exam.better
    assert all(item.prompt and item.output and item.finish_reason for item in score.items)
    again = sat(exam, silence, UNIFORM) if exam.better == "higher" else score
    assert again.prompts_sha256 == score.prompts_sha256 or len(again.items) != len(score.items)


def test_a_torn_score_is_refused(hall: Halls) -> None:
    exam = kinds()["bpb"]()  # type: ignore[call-arg]
    whole = score_to_json(exam.sit(hall(exam, gold)))
    for bad in (
        {},
        whole | {"extra": 1},
        {name: value for name, value in whole.items() if name != "items"},
        whole | {"items": [{}]},
        whole | {"overall": 3},
    ):
        with pytest.raises(DataError, match="not a score"):
            score_from_json(bad)


def test_bpb_is_nats_per_byte_and_cannot_be_a_reward(hall: Halls) -> None:
    exam = kinds()["bpb"]()  # type: ignore[call-arg]
    here = hall(None, gold, nats=1.0)
    score = exam.sit(here)
    tokens = sum(len(task.prompt_ids or ()) - 1 for task in exam.tasks(here, 400))
    size = sum(int(task.meta["bytes"]) for task in exam.tasks(here, 400))
    assert score.overall.score == pytest.approx(tokens / size / math.log(2))
    assert score.overall.low <= score.overall.score <= score.overall.high
    with pytest.raises(RecipeError, match="reward"):
        exam.grade(next(exam.tasks(here, 1)), Trace((), (), (), (), "", "stop"))


def test_bpb_scores_each_token_once_by_its_raw_bytes(hall: Halls) -> None:
    """PITFALLS C-71: half characters are one byte, not the three of U+FFFD."""
    exam = kinds()["bpb"](row_length=16)  # type: ignore[call-arg]
    both = [
        task
        for purpose in ("gate", "select")
        for task in exam.tasks(hall(None, gold, purpose=purpose), 100_000)
    ]
    size = sum(len(document.text.encode()) for document in documents())
    assert sum(int(task.meta["bytes"]) for task in both) == size
    assert len({task.id for task in both}) == len(both)


def test_bpb_without_held_out_text_is_an_error(hall: Halls) -> None:
    here = dataclasses.replace(hall(None, gold), held_out=list)
    with pytest.raises(RecipeError, match="at least 2"):
        kinds()["bpb"]().sit(here)  # type: ignore[call-arg]
