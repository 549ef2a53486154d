"""What the tools exam takes for right, and in which measure each kind of mistake shows."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence

from answering import gold

from matura.core.types import Message, Task, ToolCall, Trace
from matura.exams.exam import Hall, ask
from matura.exams.tools import Tools
from matura.lessons.tools import NO_TOOL, RECOVERY, TOLD

Halls = Callable[..., Hall]


def some(hall: Halls, bucket: str = "", count: int = 240) -> list[Task]:
    tasks = Tools().tasks(hall(None, gold), count)
    return [task for task in tasks if bucket in ("", task.bucket)]


def heard(hall: Halls, task: Task, answer: Callable[[Task], Sequence[Message]]) -> Trace:
    """What really happens when a model says this: calls are run by the real tools."""
    here = hall(None, gold)
    here.sampler.learn([task], answer)
    (trace,) = ask(here, [task])
    return trace


def steps(task: Task) -> list[tuple[ToolCall, str]]:
    calls = json.loads(task.meta["calls"])
    return [(ToolCall(name, arguments), result) for name, arguments, result, _ in calls]


def said(reply: str, *made: tuple[ToolCall, str]) -> list[Message]:
    turns: list[Message] = []
    for call, result in made:
        turns += [Message("assistant", calls=(call,)), Message("tool", result)]
    return [*turns, Message("assistant", reply)]


def marked(hall: Halls, task: Task, answer: list[Message]) -> dict[str, float]:
    return dict(Tools().marks(task, heard(hall, task, lambda _: answer)))


def test_every_bucket_is_asked_often_enough_and_has_a_floor(hall: Halls) -> None:
    exam = Tools()
    counts = Counter(task.bucket for task in exam.tasks(hall(None, gold), exam.n))
    assert min(counts.values()) >= 55
    assert counts.keys() <= exam.floors().keys()
    assert all(floor is not None and floor >= 0.8 for floor in exam.floors().values())
    relaxed = Tools(chain_at_least=0.5, longest=2)
    assert relaxed.floors()["chain x 2"] == 0.5
    assert "chain x 3" not in relaxed.floors()


def test_gold_is_right_in_every_measure_with_the_real_tools(hall: Halls) -> None:
    for task in some(hall, count=120):
        trace = heard(hall, task, gold)  # type: ignore[arg-type]
        assert Tools().grade(task, trace) == 1.0
        marks = Tools().marks(task, trace)
        assert set(marks.values()) == {1.0}
        assert ("valid calls" in marks) == (task.bucket != NO_TOOL)
        assert [r.result for r in trace.calls] == [result for _, result in steps(task)]


def test_a_guessed_answer_is_an_answer_and_no_more(hall: Halls) -> None:
    for bucket in ("calculator", "convert", "search", "chain x 3", RECOVERY, TOLD):
        task = some(hall, bucket)[0]
        marks = marked(hall, task, said(task.gold))
        assert marks == {bucket: 0.0, "tool choice": 0.0, "answer": 1.0}


def test_a_call_where_none_is_needed_is_wrong(hall: Halls) -> None:
    task = some(hall, NO_TOOL)[0]
    call = (ToolCall("calculator", {"expression": "1+1"}), "2")
    marks = marked(hall, task, said(task.gold, call))
    assert marks == {NO_TOOL: 0.0, "tool choice": 0.0, "answer": 1.0, "valid calls": 1.0}


def test_the_other_tool_is_a_wrong_choice_of_a_valid_call(hall: Halls) -> None:
    task = some(hall, "convert")[0]
    call = (ToolCall("calculator", {"expression": "5+1"}), "6")
    marks = marked(hall, task, said("6", call))
    assert marks == {"convert": 0.0, "tool choice": 0.0, "answer": 0.0, "valid calls": 1.0}


def test_a_chain_cut_short_is_wrong_even_with_the_right_end(hall: Halls) -> None:
    for length in (2, 3, 4):
        task = some(hall, f"chain x {length}")[0]
        *_, last = steps(task)
        assert len(steps(task)) == length
        assert marked(hall, task, said(task.gold, *steps(task)))[task.bucket] == 1.0
        first = steps(task)[0]
        assert marked(hall, task, said(task.gold, first))[task.bucket] == 0.0
        twice = (*steps(task), last)
        if length < 4:
            assert marked(hall, task, said(task.gold, *twice))[task.bucket] == 0.0


def test_sums_may_be_written_in_another_order(hall: Halls) -> None:
    (task, *_) = (t for t in some(hall, "calculator") if "+" in t.meta["calls"])
    ((call, result),) = steps(task)
    a, b = call.arguments["expression"].split("+")
    turned = (ToolCall("calculator", {"expression": f"{b} + {a}"}), result)
    assert set(marked(hall, task, said(task.gold, turned)).values()) == {1.0}


def test_recovery_needs_no_error_but_bears_one(hall: Halls) -> None:
    for task in some(hall, RECOVERY)[:12]:
        failed, good = steps(task)
        assert failed[1].startswith("error: ")
        assert marked(hall, task, said(task.gold, good))[RECOVERY] == 1.0
        gave_up = marked(hall, task, said(failed[1].removeprefix("error: "), failed))
        assert (gave_up[RECOVERY], gave_up["valid calls"], gave_up["answer"]) == (0, 1, 0)


def test_an_error_is_told_only_after_it_happened(hall: Halls) -> None:
    for task in some(hall, TOLD)[:8]:
        ((call, why),) = steps(task)
        assert why.removeprefix("error: ") in task.gold
        other = (ToolCall("notes", {"list": "all"}), "no notes")
        assert marked(hall, task, said(task.gold, other))[TOLD] == 0.0
        assert marked(hall, task, said(task.gold, (call, why)))[TOLD] == 1.0


def test_a_mistaken_call_that_is_corrected_is_right_but_not_valid(hall: Halls) -> None:
    task = some(hall, "search")[0]
    wrong = (
        ToolCall("serch", {"query": "x"}),
        "error: no tool named 'serch' (did you mean 'search'?)",
    )
    marks = marked(hall, task, said(task.gold, wrong, *steps(task)))
    assert marks == {"search": 1.0, "tool choice": 0.0, "answer": 1.0, "valid calls": 0.0}


def test_a_malformed_call_is_never_valid(hall: Halls) -> None:
    task = some(hall, "notes")[0]
    trace = heard(hall, task, gold)  # type: ignore[arg-type]
    bad = dataclasses.replace(trace, problems=("bad call: not JSON",))
    assert Tools().grade(task, bad) == 0.0
    assert Tools().marks(task, bad)["valid calls"] == 0.0
    only = dataclasses.replace(bad, calls=())
    assert Tools().marks(task, only)["tool choice"] == 0.0


def test_a_note_under_another_name_is_wrong(hall: Halls) -> None:
    (task, *_) = (t for t in some(hall, "notes") if t.meta["operator"] == "set")
    ((call, result),) = steps(task)
    other = ToolCall("notes", {"set": "other", "to": call.arguments["to"]})
    assert marked(hall, task, said(task.gold, (other, result)))["notes"] == 0.0


def test_earlier_notes_belong_to_their_own_conversation(hall: Halls) -> None:
    tasks = [task for task in some(hall, "notes") if len(task.messages) > 3]
    assert len(tasks) >= 20
    here = hall(None, gold)
    here.sampler.learn(tasks, gold)  # type: ignore[attr-defined]
    for task, trace in zip(tasks, ask(here, tasks), strict=True):
        assert Tools().grade(task, trace) == 1.0
