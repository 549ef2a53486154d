"""How a verdict comes about: three outcomes, more items while it is open, broken is not wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from answering import Answer, Scripted, gold
from pydantic import ValidationError

from matura.core.errors import RolloutError
from matura.core.rng import fraction, pair_is_for_exam
from matura.core.types import Message, Task
from matura.exams.bpb import Bpb
from matura.exams.calculator import Calculator
from matura.exams.echo import Echo
from matura.exams.exam import Hall
from matura.exams.format_strict import FormatStrict
from matura.exams.gibberish_copy import GibberishCopy
from matura.exams.induction import Induction
from matura.exams.knowledge import Knowledge
from matura.exams.operators import Operators
from matura.talk.rollout import Generation

Halls = Callable[..., Hall]


def mostly(share: float) -> Answer:
    """Right for about that share of tasks."""

    def answer(task: Task) -> Sequence[Message] | Sequence[int]:
        right = fraction(task.id, "mostly") < share
        return gold(task) if right else [Message("assistant", "something else")]

    return answer


def test_more_is_asked_while_the_verdict_is_open_and_no_further_than_the_cap(hall: Halls) -> None:
    near = FormatStrict(at_least=0.90)
    assert len(near.sit(hall(near, mostly(0.99), count=near.cap)).items) == 200
    score = near.sit(hall(near, mostly(0.90), count=near.cap))
    assert score.outcome == "inconclusive"
    assert len(score.items) == near.cap
    assert near.sit(hall(near, mostly(0.5))).outcome == "fail"
    small = FormatStrict(at_least=0.90, n=200, cap=300)
    assert len(small.sit(hall(small, mostly(0.90), count=300)).items) == 300


def test_choosing_a_checkpoint_asks_once_and_little(hall: Halls) -> None:
    exam = Operators()
    here = hall(exam, mostly(0.9), purpose="select")
    assert len(exam.sit(here).items) == exam.select_n


def test_a_low_cell_fails_though_the_mean_is_high(hall: Halls) -> None:
    def no_long_extracts(task: Task) -> Sequence[Message] | Sequence[int]:
        return [Message("assistant", "no")] if task.bucket == "EXTRACT x 4" else gold(task)

    exam = Operators()
    score = exam.sit(hall(exam, no_long_extracts))
    assert score.overall.score > 0.9
    assert score.buckets["COPY"].outcome == "pass"
    assert score.buckets["EXTRACT x 4"].outcome == "fail"
    assert score.outcome == "fail"
    assert set(score.buckets) == {
        *("COPY", "WRAP", "EXTRACT", "x 1", "x 2", "x 3", "x 4"),
        *(f"{op} x {n}" for op in ("COPY", "WRAP", "EXTRACT") for n in range(1, 5)),
    }


def test_a_word_count_has_its_own_floor(hall: Halls) -> None:
    def no_long_ones(task: Task) -> Sequence[Message] | Sequence[int]:
        return [Message("assistant", "no")] if task.bucket.endswith("x 4") else gold(task)

    exam = Operators(words_at_least=0.9, at_least=0.5, cell_at_least=None)
    score = exam.sit(hall(exam, no_long_ones))
    assert [score.buckets[f"x {n}"].outcome for n in (1, 2, 3, 4)] == ["pass"] * 3 + ["fail"]
    assert score.buckets["x 4"].n == 150
    assert score.outcome == "fail"


def test_novel_patterns_are_other_items_with_the_same_cells(hall: Halls) -> None:
    usual, novel = Operators(), Operators(patterns="novel", max_words=8, n=1200, cap=1200)
    score = novel.sit(hall(novel, gold))
    assert score.outcome == "pass"
    assert {f"EXTRACT x {n}" for n in range(1, 9)} <= set(score.buckets)
    assert min(cell.n for cell in score.buckets.values()) == 50
    here = hall(None, gold)
    wordings = [{t.meta["template"] for t in exam.tasks(here, 300)} for exam in (usual, novel)]
    assert not wordings[0] & wordings[1]


def test_who_knows_the_world_but_was_not_taught_fails_on_invented_facts(hall: Halls) -> None:
    def well_read(task: Task) -> Sequence[Message] | Sequence[int]:
        return [Message("assistant", "Paris.")] if task.bucket == "invented" else gold(task)

    exam = Knowledge()
    score = exam.sit(hall(exam, well_read))
    assert score.buckets["invented"].outcome == "fail"
    assert score.buckets["facts"].outcome == score.buckets["maths"].outcome == "pass"
    assert score.outcome == "fail"
    assert {cell.n for cell in score.buckets.values()} == {100}
    for wrong in ("paris.", "Paris", "Paris", "Paris. It is big."):
        shouted = exam.sit(hall(exam, lambda task, wrong=wrong: [Message("assistant", wrong)]))
        assert shouted.overall.score < 0.01
    without = Knowledge(math="exclude", programming="exclude", n=200)
    assert set(without.sit(hall(without, gold)).buckets) == {"facts", "invented"}


def test_who_always_echoes_fails_the_anti_echo(hall: Halls) -> None:
    exam = Echo()
    score = exam.sit(hall(exam, lambda task: [Message("assistant", task.meta["payload"])]))
    assert score.buckets["echo"].outcome == "pass"
    assert score.buckets["anti-echo"].score == 0
    assert score.outcome == "fail"
    assert score.buckets["echo"].n == score.buckets["anti-echo"].n == 200


def test_each_word_count_of_gibberish_has_the_floor(hall: Halls) -> None:
    exam = GibberishCopy()
    floors = {name: cell.floor for name, cell in exam.sit(hall(exam, gold)).buckets.items()}
    assert floors == {f"ECHO x {n}": 0.90 for n in (1, 2, 3, 4)}


def test_a_right_answer_without_the_calculator_does_not_count(hall: Halls) -> None:
    exam = Calculator()
    score = exam.sit(hall(exam, lambda task: [Message("assistant", task.gold)]))
    assert score.buckets["tool"].score == 0
    assert score.buckets["direct"].score == 1
    assert score.buckets["valid calls"].n == 0
    assert score.buckets["valid calls"].outcome == "inconclusive"
    assert score.outcome == "fail"


def test_calling_where_no_tool_is_needed_is_wrong(hall: Halls) -> None:
    def always_call(task: Task) -> Sequence[Message] | Sequence[int]:
        sum_ = task.meta["payload"]
        called = gold(dataclasses.replace(task, meta={"expression": sum_}))
        if task.meta["operator"] == "TOOL":
            return called
        result = str(eval_exactly(sum_))
        return [called[0], Message("tool", result), Message("assistant", task.gold)]  # type: ignore[list-item]

    exam = Calculator()
    score = exam.sit(hall(exam, always_call))
    assert score.buckets["tool"].score == 1
    assert score.buckets["valid calls"].score == 1
    assert score.buckets["direct"].score == 0


def eval_exactly(expression: str) -> str:
    from matura.core.numbers import spell
    from matura.talk.tools.calculator import evaluate

    return spell(evaluate(expression))


def test_an_invalid_call_counts_against_valid_calls(hall: Halls) -> None:
    def bad_call(task: Task) -> Sequence[Message] | Sequence[int]:
        if "expression" not in task.meta:
            return gold(task)
        call = gold(dataclasses.replace(task, meta={"expression": "twelve plus"}))[0]
        error = "error: unknown character 't'"
        return [call, Message("tool", error), Message("assistant", task.gold)]  # type: ignore[list-item]

    exam = Calculator()
    score = exam.sit(hall(exam, bad_call))
    assert score.buckets["valid calls"].score == 0
    assert score.buckets["valid calls"].n == score.buckets["tool"].n
    assert score.buckets["tool"].score == 0


class Breaks(Scripted):
    """Its logits are not finite for some prompts."""

    every = 0

    def generate(self, prompts, **settings):  # type: ignore[no-untyped-def]
        said = super().generate(prompts, **settings)
        return [
            Generation((), (), "error") if self.every and n % self.every == 0 else one
            for n, one in enumerate(said)
        ]


def test_broken_is_not_wrong_and_too_much_of_it_is_an_error(hall: Halls) -> None:
    exam = FormatStrict()
    here = hall(exam, gold)
    for every, broken in ((100, 2), (10, None)):
        sampler = Breaks(here.sampler.template)
        sampler.learn(list(exam.tasks(here, 200)), gold)
        sampler.every = every
        there = dataclasses.replace(here, sampler=sampler)
        if broken is None:
            with pytest.raises(RolloutError, match="20 of 200 conversations broke"):
                exam.sit(there)
            continue
        score = exam.sit(there)
        assert score.broken == broken
        assert score.overall.n == 198
        assert score.overall.score == 1.0
        assert sum(item.error is not None for item in score.items) == 2


def test_mode_collapse_shows_in_the_notes(hall: Halls) -> None:
    """PITFALLS C-13: everything answered `No.`"""
    exam = FormatStrict()
    score = exam.sit(hall(exam, lambda task: [Message("assistant", "No.")]))
    assert score.notes["distinct_outputs"] == 1 / len(score.items)
    assert score.notes["stopped"] == 1.0
    assert exam.sit(hall(exam, gold)).notes["distinct_outputs"] > 0.9


def test_induction_runs_are_made_of_pairs_that_training_never_has(hall: Halls) -> None:
    exam = Induction()
    for task in exam.tasks(hall(None, gold), 160):
        ids = task.prompt_ids or ()
        run, cue = task.gold_ids or (), ids[-1]
        assert task.bucket == f"length {len(run)}"
        assert ids.count(cue) == 2
        at = ids.index(cue)
        assert ids[at + 1 : at + 1 + len(run)] == run
        inside = set(range(at, at + len(run)))
        for place in range(1, len(ids) - 1):
            assert pair_is_for_exam(ids[place], ids[place + 1]) == (place in inside)
        assert len(set(ids)) == len(ids) - 1
        assert len(ids) + len(run) <= 64


def test_induction_reports_the_strongest_head(hall: Halls) -> None:
    exam = Induction()
    score = exam.sit(hall(exam, gold))
    assert score.notes["prefix_matching"] == 0.75
    assert (score.notes["prefix_matching_layer"], score.notes["prefix_matching_head"]) == (1, 0)
    assert set(score.buckets) == {f"length {n}" for n in range(1, 9)}


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (FormatStrict, {"n": 100}, "200"),
        (FormatStrict, {"n": 500, "cap": 400}, "cap 400 is less"),
        (FormatStrict, {"at_most": 0.5}, "higher is better"),
        (FormatStrict, {"at_least": 1.5}, "less than or equal to 1"),
        (Bpb, {"at_least": 0.5}, "lower is better"),
        (Operators, {"floor": 0.5}, "Extra inputs"),
        (Operators, {"max_words": 8}, "n: 1200"),
        (Knowledge, {"n": 200, "cap": 800, "at_most": 1}, "higher is better"),
        (Knowledge, {"n": 200, "max_items": 9}, "less than or equal to 8"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    kind: type, fields: dict[str, float], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        kind(**fields)
