"""Which tool, called how, and what came of it: one call, chains, errors to recover from, no tool.

A right answer counts only if it came through the right calls, and a call where none is needed is
wrong: what is examined is the decision as much as the result. The same numbers and names come
under every tool in turn.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from matura.core.types import CallRecord, Conversation, Message, Task, Trace
from matura.exams.exam import SPARE_TOKENS, Exam, Hall
from matura.lessons import tools
from matura.lessons.arithmetic import TOOL as CALCULATOR
from matura.lessons.words import Gibberish

_FRAME_TOKENS = 4
"""The tags around a call, and room for another order of words in it."""
_SPARE_CALL = 40
"""Room for one call more than needed, so that a mistake can be corrected."""


class Tools(Exam):
    """Tool choice, valid calls, right answers, chains by length, recovery, and no tool: each has a
    floor."""

    exam: Literal["tools"] = "tools"
    at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For right answers through the right calls: of each tool alone, of all items, and where no
    tool is needed."""
    choice_at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For the first decision: which tool, or none."""
    valid_at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For answers with a call: every call is well-formed and has the result it can have."""
    chain_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For chains of each length."""
    recovery_at_least: float | None = Field(default=0.80, ge=0, le=1)
    """For right answers after a call that failed, and for errors that are told."""
    n: int = Field(default=720, ge=200)
    """Items asked at first: 60 of each of twelve kinds."""
    cap: int = Field(default=2880, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    select_n: int = Field(default=96, ge=1)
    """Items asked, once, to choose a checkpoint."""
    gibberish: Gibberish = "include"
    longest: int = Field(default=4, ge=2, le=4)
    """Calls in the longest chain."""
    german: float = Field(default=0.1, ge=0, le=1)
    """Share of items in German."""

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """The lesson's items in its own order, each up to where the user spoke last."""
        lesson = tools.Tools(gibberish=self.gibberish, longest=self.longest, german=self.german)
        items = lesson.items(hall.given(self.exam))
        for number, item in enumerate(islice(items, start, start + count), start):
            gold = item.meta["expected"]
            asked = _asked(item)
            seen = hashlib.sha256(f"{item.id}\0{gold}".encode()).hexdigest()
            calls = sum(
                len(hall.tokenizer.encode(json.dumps({"name": name, "arguments": arguments})))
                + _FRAME_TOKENS
                for name, arguments, _, _ in json.loads(item.meta["calls"])
            )
            yield Task(
                id=f"{self.exam}/{hall.purpose}/{number}/{seen[:8]}",
                gold=gold,
                messages=asked,
                bucket=item.meta["bucket"],
                max_tokens=calls + _SPARE_CALL + len(hall.tokenizer.encode(gold)) + SPARE_TOKENS,
                meta=item.meta,
            )

    def grade(self, task: Task, trace: Trace) -> float:
        """1 for the exact answer after the right calls and no others.

        An error that the item has in store need not be made, and an error may be corrected; calls
        of one chain may come in any order their results allow.
        """
        return float(answered(task, trace) and not trace.problems and _called(task, trace))

    def floors(self) -> Mapping[str, float | None]:
        """Every measure, and every bucket."""
        return {
            "": self.at_least,
            "tool choice": self.choice_at_least,
            "valid calls": self.valid_at_least,
            "answer": self.at_least,
            **dict.fromkeys(tools.SINGLES, self.at_least),
            tools.NO_TOOL: self.at_least,
            **{f"chain x {length}": self.chain_at_least for length in range(2, self.longest + 1)},
            tools.RECOVERY: self.recovery_at_least,
            tools.TOLD: self.recovery_at_least,
        }

    def marks(self, task: Task, trace: Trace) -> Mapping[str, float]:
        """By what was wanted; the first decision; whether the answer is right, however it came;
        and, where a call was tried, whether every call was valid."""
        wanted = json.loads(task.meta["calls"])
        # a malformed call shows as a problem, not as a call
        malformed = [problem for problem in trace.problems if not problem.startswith("too many")]
        first = trace.calls[0].call.name if trace.calls else ""
        chosen = first == (wanted[0][0] if wanted else "") and not (malformed and not trace.calls)
        marks = {
            task.bucket: self.grade(task, trace),
            "tool choice": float(chosen),
            "answer": float(answered(task, trace)),
        }
        if trace.calls or malformed:
            failing = [
                _key(name, arguments, said) for name, arguments, said, ok in wanted if not ok
            ]
            good = all(record.ok or _key_of(record) in failing for record in trace.calls)
            marks["valid calls"] = float(good and not malformed)
        return marks


def answered(task: Task, trace: Trace) -> bool:
    """Whether the model said the gold, all of it and nothing else, and stopped."""
    return trace.reply == task.gold and trace.finish_reason == "stop" and trace.error is None


def _asked(item: Conversation) -> tuple[Message, ...]:
    """All that was said up to the user's last words, earlier turns with their calls included."""
    last = max(place for place, turn in enumerate(item.messages) if turn.role == "user")
    return item.messages[: last + 1]


def _called(task: Task, trace: Trace) -> bool:
    """Whether the calls that have a result are those wanted, and where no call can have one, the
    failing one was made."""
    wanted = json.loads(task.meta["calls"])
    right = Counter(_key(name, arguments, said) for name, arguments, said, ok in wanted if ok)
    made = Counter(_key_of(record) for record in trace.calls if record.ok)
    if made != right:
        return False
    failing = {_key(name, arguments, said) for name, arguments, said, _ in wanted}
    return bool(right) or not wanted or any(_key_of(record) in failing for record in trace.calls)


def _key(name: str, arguments: Mapping[str, Any], result: str) -> str:
    """A call, as calls are compared: a sum by its value, since `3+4` and `4+3` are both right."""
    spelled = {} if name == CALCULATOR else dict(arguments)
    return json.dumps([name, spelled, result], sort_keys=True, default=str)


def _key_of(record: CallRecord) -> str:
    return _key(record.call.name, record.call.arguments, record.result)
