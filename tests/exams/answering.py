"""Models that say what they are told to: the fake at the seam where weights would be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from matura.core.types import Conversation, Document, Message, Task, ToolCall
from matura.lessons.arithmetic import TOOL
from matura.talk.rollout import Generation
from matura.text.template import Template

Answer = Callable[[Task], Sequence[Message] | Sequence[int] | None]
"""What is said to a task: messages, token ids, or nothing at all."""


def gold(task: Task) -> Sequence[Message] | Sequence[int]:
    """The right answer, the tool call before it included."""
    if task.gold_ids is not None:
        return task.gold_ids
    answer = Message("assistant", task.gold)
    if "calls" in task.meta:
        steps = json.loads(task.meta["calls"])
        made = [(ToolCall(name, arguments), result) for name, arguments, result, _ in steps]
        said = [(Message("assistant", calls=(c,)), Message("tool", result)) for c, result in made]
        return [*(message for step in said for message in step), answer]
    if "expression" not in task.meta:
        return [answer]
    call = ToolCall(TOOL, {"expression": task.meta["expression"]})
    return [Message("assistant", calls=(call,)), Message("tool", task.gold), answer]


def silence(task: Task) -> None:
    """Nothing, and the end of the turn."""


class Scripted:
    """Answers each task as `answer` says, by the prompt it is asked with."""

    weights_sha256 = "5c"
    context = 4096

    def __init__(self, template: Template, nats: float = 0.0) -> None:
        self.template = template
        self.nats_each = nats
        self.known: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.asked = 0

    def learn(self, tasks: Sequence[Task], answer: Answer) -> None:
        """Know the answer to these tasks, call by call."""
        for task in tasks:
            said = answer(task)
            if task.prompt_ids is not None:
                self.known[task.prompt_ids] = tuple(said or ())  # type: ignore[arg-type]
                continue
            turns = [*task.messages, *(said or [Message("assistant", "")])]
            whole = self.template.render(Conversation(tuple(turns), task.id)).ids  # type: ignore[arg-type]
            for place in range(len(task.messages), len(turns)):
                if turns[place].role == "assistant":  # type: ignore[union-attr]
                    start = len(self.template.prompt(turns[:place]))  # type: ignore[arg-type]
                    self.known[whole[:start]] = whole[start:]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int | Sequence[int],
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        stop: bool = True,
    ) -> list[Generation]:
        budgets = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
        self.asked += len(prompts)
        return [self._say(tuple(p), b, stop) for p, b in zip(prompts, budgets, strict=True)]

    def _say(self, prompt: tuple[int, ...], budget: int, stop: bool) -> Generation:
        said: list[int] = []
        for id in self.known[prompt][:budget]:
            said.append(id)
            if stop and id in self.template.stop_ids:
                return Generation(tuple(said), (-0.1,) * len(said), "stop")
        return Generation(tuple(said), (-0.1,) * len(said), "length")

    def nats(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[self.nats_each] * (len(row) - 1) for row in rows]

    def prefix_matching(
        self, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        for row, wanted in zip(rows, targets, strict=True):
            for place, target in enumerate(wanted):
                # what stands before the target is the token that looks
                assert target == -1 or row[target - 1] == row[place]
                assert target < place
        return [[0.25, 0.5], [0.75, 0.125]]


def documents() -> list[Document]:
    """Twelve held-out texts."""
    return [Document(f"text number {n}: " + "a quiet river ä " * 60, f"d{n}") for n in range(12)]


UNIFORM = math.log(700)
