"""What a lesson writes as a tool's result is, byte for byte, what the tool will say."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from matura.core.rng import rng
from matura.core.types import Given
from matura.lessons.arithmetic import Arithmetic
from matura.lessons.tools import Tools
from matura.talk.rollout import answer_call
from matura.talk.tool import own_tools, toolbox


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


def test_the_tools_lesson_s_results_are_the_tools_own() -> None:
    """Errors and what is remembered too; each conversation from its first word, and from where an
    exam would ask it."""
    seen: Counter[tuple[str, bool]] = Counter()
    for split in ("train", "validation", "exam"):
        given = Given(rng(0, "test", split), split=split)  # type: ignore[arg-type]
        for conversation in islice(Tools(max_lines=5).items(given), 600):
            turns = conversation.messages
            last = max(place for place, turn in enumerate(turns) if turn.role == "user")
            for start in {last + 1, 1 + (turns[0].role == "system")}:
                own = own_tools(toolbox(), turns[:start])
                for place in range(start, len(turns)):
                    for call in turns[place].calls:
                        record = answer_call(call, own)
                        assert record.result == turns[place + 1].content
                        assert record.ok == (not record.result.startswith("error: "))
                        seen[call.name, record.ok] += 1
    for tool in ("calculator", "convert", "notes", "search"):
        assert seen[tool, True] > 100
        assert seen[tool, False] > 20
