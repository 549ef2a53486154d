"""What the exam in structured answers lets pass, and in which measure a wrong answer shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import islice

import pytest
from answering import gold, silence

from matura.core.types import Message, Score, Task, Trace
from matura.exams.exam import Hall
from matura.exams.structured import NOT_JSON, Structured, read_json, same, shape
from matura.lessons.structured import FORMS, JSON_OPERATORS

Halls = Callable[..., Hall]
GATED = {"json", "schema", "left out", "values", "nested", "call", "decision", "direct"}


def said(task: Task, reply: str, **more: object) -> Trace:
    whole = Trace((), (1,), (1.0,), (0.0,), reply, "stop")
    return dataclasses.replace(whole, **more)  # type: ignore[arg-type]


def some(hall: Halls, *operators: str, count: int = 400) -> list[Task]:
    tasks = Structured().tasks(hall(None, gold), count)
    return [task for task in tasks if task.meta["operator"] in operators]


def marks(task: Task, reply: str, **more: object) -> dict[str, float]:
    return dict(Structured().marks(task, said(task, reply, **more)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a":1',
        '{"a":1}}',
        '{"a":1} {"a":1}',
        'Sure: {"a":1}',
        '{"a":1}\n',
        ' {"a":1}',
        '```{"a":1}```',
        '{"a":1,"a":2}',
        '{"b":{"a":1,"a":1}}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":1e999}',
        '{"a":007}',
        '{"a":1,}',
        "{'a':1}",
        "{a:1}",
        '{"a":True}',
        '{"a":"\n"}',
        '{"a":' + "9" * 5000 + "}",
        "[" * 100_000,
        "[" * 2000 + "]" * 2000,
    ],
)
def test_what_is_nearly_json_is_none(text: str) -> None:
    assert read_json(text) is NOT_JSON


def test_json_is_read_by_its_meaning() -> None:
    assert read_json("null") is None
    assert read_json('{ "a" : [1, 2.5, true, "ä"] }') == {"a": [1, 2.5, True, "ä"]}
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    for one, other in ((1, True), (1, 1.0), (1, "1"), ([1, True], [True, 1]), (0, False)):
        assert not same({"a": one}, {"a": other})
    assert shape({"a": 1, "b": {"c": ["x"]}}) == shape({"b": {"c": ["y", "z"]}, "a": 2.5})
    kinds: list[object] = [1, True, None, "1", ["1"], [1], [], {}, {"a": 1}]
    assert len({repr(shape(kind)) for kind in kinds}) == len(kinds)


def test_every_measure_is_gated_with_at_least_50_items(hall: Halls) -> None:
    """PITFALLS C-24; and 381 answers are needed to be sure of 0.99."""
    exam = Structured()
    score = exam.sit(hall(exam, gold))
    assert score.outcome == "pass"
    cells = {name: cell for name, cell in score.buckets.items() if cell.floor is not None}
    assert set(cells) == GATED
    assert all(cell.n >= 50 and cell.score == 1.0 for cell in cells.values())
    assert cells["json"].n >= 381
    assert cells["json"].floor == 0.99
    assert cells["json"].low >= 0.99
    assert {cell.floor for name, cell in cells.items() if name != "json"} == {0.80}


def test_floors_can_be_set(hall: Halls) -> None:
    exam = Structured(valid_at_least=None, at_least=0.5, schema_at_least=0.9)
    assert exam.floors()["json"] is None
    assert exam.floors()["values"] == 0.5
    assert exam.floors()["schema"] == exam.floors()["left out"] == 0.9


def test_silence_is_neither_json_nor_an_answer(hall: Halls) -> None:
    exam = Structured()
    score = exam.sit(hall(exam, silence))
    assert score.outcome == "fail"
    assert all(cell.score == 0.0 for cell in score.buckets.values())


def test_names_in_another_order_and_spaces_inside_are_as_good(hall: Halls) -> None:
    for task in some(hall, *JSON_OPERATORS, count=60):
        value = json.loads(task.gold)
        other = json.dumps(dict(reversed(value.items())), indent=1, ensure_ascii=False)
        assert Structured().grade(task, said(task, other)) == 1.0
        assert set(marks(task, other).values()) == {1.0}


def test_a_wrong_value_keeps_the_schema_and_a_wrong_type_loses_it(hall: Halls) -> None:
    tried = 0
    for task in some(hall, *FORMS):
        value = json.loads(task.gold)
        for name, inner in value.items():
            if isinstance(inner, str):
                wrong = marks(task, json.dumps(value | {name: inner + "x"}))
                assert (wrong["json"], wrong["schema"], wrong["values"]) == (1.0, 1.0, 0.0)
                wrong = marks(task, json.dumps(value | {name: [inner]}))
                assert (wrong["json"], wrong["schema"], wrong["values"]) == (1.0, 0.0, 0.0)
            elif isinstance(inner, int | float):
                wrong = marks(task, json.dumps(value | {name: str(inner)}))
                assert (wrong["json"], wrong["schema"], wrong["values"]) == (1.0, 0.0, 0.0)
                tried += 1
    assert tried > 20


def test_a_name_too_many_or_too_few_is_another_schema(hall: Halls) -> None:
    for task in some(hall, *FORMS):
        value = json.loads(task.gold)
        more = marks(task, json.dumps(value | {"extra": "x"}))
        assert more["json"] == 1.0
        assert more["schema"] == more["values"] == 0.0
        if value:
            less = marks(task, json.dumps(dict(list(value.items())[1:])))
            assert less["schema"] == 0.0
        assert ("left out" in more) == (task.meta["absent"] != "0")
        if "left out" in more:
            missing = {p.rstrip("?").split(":")[0] for p in task.meta["schema_key"].split()[1:]}
            absent = {name.lstrip(".") for name in missing} - set(value)
            assert absent
            null = marks(task, json.dumps(value | dict.fromkeys(absent)))
            assert null["left out"] == null["schema"] == 0.0


def test_a_flat_answer_is_no_nested_one(hall: Halls) -> None:
    for task in some(hall, "NESTED"):
        value = json.loads(task.gold)
        (outer,) = [name for name, inner in value.items() if isinstance(inner, dict)]
        flat = {k: v for k, v in value.items() if k != outer} | value[outer]
        wrong = marks(task, json.dumps(flat))
        assert wrong["nested"] == wrong["schema"] == 0.0
        assert marks(task, task.gold)["nested"] == 1.0


def test_the_decision_is_marked_apart_from_the_call(hall: Halls) -> None:
    for task in some(hall, "CALL"):
        value = json.loads(task.gold)
        wrong = marks(task, json.dumps(value | {"name": "nothing"}))
        assert (wrong["decision"], wrong["call"], wrong["json"]) == (1.0, 0.0, 1.0)
        wrong = marks(task, "No tool fits.")
        assert (wrong["decision"], wrong["call"], wrong["json"]) == (0.0, 0.0, 0.0)
        assert marks(task, json.dumps(value["arguments"]))["decision"] == 0.0
    for task in some(hall, "DIRECT", "NONE"):
        wrong = marks(task, '{"name":"weather","arguments":{"place":"x"}}')
        assert (wrong["decision"], wrong["direct"]) == (0.0, 0.0)
        assert marks(task, '{"name":"weather"')["decision"] == 0.0
        wrong = marks(task, task.gold + "x")
        assert (wrong["decision"], wrong["direct"]) == (1.0, 0.0)
        assert "json" not in wrong


@pytest.mark.parametrize(
    "change",
    [
        {"finish_reason": "length"},
        {"problems": ("stray <|call|>",)},
        {"error": "RolloutError: x"},
    ],
)
def test_right_text_that_did_not_end_well_counts_nowhere(
    change: dict[str, object], hall: Halls
) -> None:
    for task in some(hall, *JSON_OPERATORS, "DIRECT", "NONE", count=40):
        assert Structured().grade(task, said(task, task.gold, **change)) == 0.0
        assert set(marks(task, task.gold, **change).values()) == {0.0}


def test_a_wrong_answer_has_room_to_end(hall: Halls) -> None:
    """PITFALLS C-40: an answer cut by its budget looks like broken JSON."""
    here = hall(None, gold)
    for task in islice(Structured().tasks(here, 60), 60):
        assert task.max_tokens >= 2 * len(here.tokenizer.encode(task.gold)) + 16


def test_one_torn_answer_in_fifty_is_below_the_floor(hall: Halls) -> None:
    exam = Structured(cap=800)

    def torn(task: Task) -> list[Message]:
        number = int(task.id.split("/")[2])
        return [Message("assistant", task.gold[:-1] if number % 20 == 0 else task.gold)]

    score: Score = exam.sit(hall(exam, torn))
    assert score.outcome != "pass"
    assert 0.9 < score.buckets["json"].score < 0.99
    assert score.buckets["values"].outcome == "pass"
