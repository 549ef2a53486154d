"""Conversations as token ids: what was sampled and what was inserted, never decoded and encoded
again.

A trace's ids are exactly the ids the model saw and said; text is only read out of them. This file
holds the one error boundary: a conversation that breaks becomes a `Trace` with an `error`, and
the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from matura.core.errors import MaturaError, RolloutError
from matura.core.leaves import did_you_mean
from matura.core.rng import stream_seed
from matura.core.types import CallRecord, FinishReason, Message, Task, ToolCall, Trace
from matura.talk.tool import Tool, ToolError, own_tools
from matura.text.template import Template

MAX_RESULT_CHARACTERS = 4000
"""A longer result would fill any small model's context; the model reads an error instead."""

# What a tool may raise besides ToolError: its own fault, so the item is broken, neither right nor
# wrong.
FAULTS = (
    MaturaError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Generation:
    """What one prompt was continued with. The id that stopped it is the last one and is kept."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of each id under the model itself: temperature 1, nothing forbidden."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Token:
    """One id as it is sampled; `finish_reason` is set on a row's last one."""

    row: int
    id: int
    logprob: float
    finish_reason: FinishReason | None


class Sampler(Protocol):
    """A model that continues prompts: the seam between weights and everything that judges them."""

    @property
    def template(self) -> Template: ...

    @property
    def weights_sha256(self) -> str: ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int | Sequence[int],
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        stop: bool = True,
    ) -> list[Generation]:
        """One generation for each prompt; with `stop=False` exactly `max_tokens` ids, if the
        context holds them.

        A row's randomness depends on its seed and on nothing else in the batch: one seed makes
        one for each row by its index, a sequence gives each row its own.
        """
        ...

    def nats(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The nats of each id of a row after its first."""
        ...

    def prefix_matching(
        self, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """`[layer][head]`: mean attention that position t of a row pays to `targets[row][t]`; -1
        is left out.
        """
        ...


@dataclass(slots=True)
class Talk:
    """One assistant turn while it is going on."""

    task: Task
    prompt: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    """This conversation's own."""
    sampled: int = 0
    reply: str = ""
    finish: FinishReason | None = None
    error: str | None = None

    def hear(self, generation: Generation) -> None:
        """Add what the model said."""
        self.ids += generation.ids
        self.weights += [1.0] * len(generation.ids)
        self.logprobs += generation.logprobs
        self.sampled += len(generation.ids)

    def insert(self, ids: Sequence[int]) -> None:
        """Add what the model did not say: never trained, never scored."""
        self.ids += ids
        self.weights += [0.0] * len(ids)
        self.logprobs += [0.0] * len(ids)

    def broke(self, problem: Exception) -> None:
        """End it as neither right nor wrong."""
        self.finish = "error"
        self.error = f"{type(problem).__name__}: {problem}"

    def trace(self) -> Trace:
        """What it came to."""
        return Trace(
            prompt_ids=self.prompt,
            ids=tuple(self.ids),
            weights=tuple(self.weights),
            logprobs=tuple(self.logprobs),
            reply=self.reply,
            finish_reason=self.finish or "error",
            calls=tuple(self.calls),
            problems=tuple(self.problems),
            error=self.error,
        )


def converse(
    sampler: Sampler,
    tasks: Sequence[Task],
    *,
    tools: Mapping[str, Tool],
    temperature: float = 0.0,
    seed: int = 0,
    max_calls: int = 4,
) -> list[Trace]:
    """One assistant turn for each task, all in one batch, each call run and answered on the way.

    Each conversation has tools of its own: what one of them keeps, no other can read.

    A task's `max_tokens` bounds what is sampled in the whole turn, results not counted. Without
    tools, a call ends the turn as `tool_calls`; so does the call after `max_calls` rounds of
    them.
    """
    talks = [_open(task, sampler.template, tools) for task in tasks]
    for turn in range(max_calls + 1):
        going = [(index, talk) for index, talk in enumerate(talks) if talk.finish is None]
        if not going:
            break
        generations = sampler.generate(
            [(*talk.prompt, *talk.ids) for _, talk in going],
            max_tokens=[talk.task.max_tokens - talk.sampled for _, talk in going],
            temperature=temperature,
            # by the task's place, not by its place among those still going
            seed=[stream_seed(seed, "converse", index, turn) for index, _ in going],
        )
        for (_, talk), generation in zip(going, generations, strict=True):
            try:
                answer(talk, generation, sampler.template, talk.tools, last=turn == max_calls)
            except RolloutError as problem:
                talk.broke(problem)
    return [talk.trace() for talk in talks]


def _open(task: Task, template: Template, tools: Mapping[str, Tool]) -> Talk:
    """The conversation before the model speaks; broken at once if its prompt cannot be rendered."""
    talk = Talk(task)
    try:
        talk.tools = own_tools(tools, task.messages)
        prompt = task.prompt_ids if task.prompt_ids is not None else template.prompt(task.messages)
    except FAULTS as problem:
        talk.broke(problem)
        return talk
    talk.prompt = tuple(prompt)
    if not prompt:
        talk.broke(RolloutError("the prompt is empty"))
        return talk
    if task.max_tokens < 1:
        talk.finish = "length"
    return talk


def answer(
    talk: Talk,
    generation: Generation,
    template: Template,
    tools: Mapping[str, Tool],
    *,
    last: bool,
) -> None:
    """Read what was just said, and insert the results of its calls.

    Raises:
        RolloutError: the model or a tool broke.
    """
    talk.hear(generation)
    if generation.finish_reason == "error":
        raise RolloutError("the model's logits are not finite")
    parsed = template.parse(generation.ids)
    talk.problems += parsed.problems
    talk.reply = parsed.message.content
    malformed = [problem for problem in parsed.problems if problem.startswith("bad call")]
    if generation.finish_reason != "stop" or not (parsed.message.calls or malformed):
        talk.finish = generation.finish_reason
        return
    if not tools or last:
        talk.finish = "tool_calls" if parsed.message.calls else "stop"
        if tools:
            talk.problems.append("too many calls")
        return
    records = [answer_call(call, tools) for call in parsed.message.calls]
    talk.calls += records
    results = [record.result for record in records] + [f"error: {bad}" for bad in malformed]
    talk.insert(template.results([Message("tool", result) for result in results]))
    if talk.sampled >= talk.task.max_tokens:
        talk.finish = "length"


def answer_call(call: ToolCall, tools: Mapping[str, Tool]) -> CallRecord:
    """What a call gives: the tool's result, or an error text for the model to read.

    Raises:
        RolloutError: the tool itself is broken.
    """
    tool = tools.get(call.name)
    if tool is None:
        known = did_you_mean(call.name[:50], tools)
        return CallRecord(call, f"error: no tool named {call.name[:50]!r}{known}", ok=False)
    try:
        result = tool.run(call.arguments)
    except ToolError as problem:
        return CallRecord(call, f"error: {problem}"[:MAX_RESULT_CHARACTERS], ok=False)
    except FAULTS as problem:
        raise RolloutError(f"{call.name}: {type(problem).__name__}: {problem}") from problem
    if not isinstance(result, str):
        raise RolloutError(f"{call.name} returned {type(result).__name__}, not text")
    if len(result) > MAX_RESULT_CHARACTERS:
        text = f"error: the result is too long ({len(result)} characters)"
        return CallRecord(call, text, ok=False)
    return CallRecord(call, result, ok=True)
