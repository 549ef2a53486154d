"""What a lesson writes as a tool's result is, byte for byte, what the tool will say."""

from __future__ import annotations

from matura.core.rng import rng
from matura.core.types import Given
from matura.lessons.arithmetic import Arithmetic
from matura.talk.rollout import answer_call
from matura.talk.tool import toolbox


def test_the_arithmetic_lesson_s_results_are_the_calculator_s() -> None:
    tools, checked = toolbox(), 0
    for split in ("train", "validation", "exam"):
        given = Given(rng(0, "test", split), split=split)  # type: ignore[arg-type]
        for number, conversation in enumerate(Arithmetic().read(given)):
            if number == 300:
                break
            calls = [call for message in conversation.messages for call in message.calls]
            results = [m.content for m in conversation.messages if m.role == "tool"]
            for call, result in zip(calls, results, strict=True):
                record = answer_call(call, tools)
                assert record.ok
                assert record.result == result
                checked += 1
    assert checked > 100
