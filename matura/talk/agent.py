"""A chat that goes on: the model's own words are kept as the ids it sampled and are never encoded
again.

Only the user's and system's text is rendered anew, when the oldest exchanges no longer fit the
context and are left out; ordinary text always renders to the same ids.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from matura.core.errors import RolloutError
from matura.core.rng import stream_seed
from matura.core.types import CallRecord, FinishReason, Message, Task, Trace
from matura.talk.rollout import Generation, Talk, Token, answer
from matura.talk.tool import Tool, own_tools
from matura.text.template import Template


class Streamer(Protocol):
    """A model that says its ids one by one."""

    @property
    def template(self) -> Template: ...

    @property
    def context(self) -> int:
        """The most ids a conversation may come to."""
        ...

    def stream(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[Token]:
        """Ids as they are sampled, none if none fits the context."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the answer: whole characters, no tags, no calls."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A tool call that was run, and its result."""

    record: CallRecord


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a turn."""

    trace: Trace
    left_out: int
    """Exchanges that no longer fit the context and that the model did not see."""


Event = Said | Answered | Finished


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the user said, and the ids that followed in the assistant's turn."""

    user: str
    ids: tuple[int, ...]


class Agent:
    """One chat session with tools."""

    def __init__(
        self,
        sampler: Streamer,
        *,
        tools: Mapping[str, Tool],
        system: str = "",
        max_tokens: int = 256,
        max_calls: int = 4,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.sampler = sampler
        self.tools = tools
        self.system = system
        self.max_tokens = max_tokens
        self.max_calls = max_calls
        self.temperature = temperature
        self.seed = seed
        self.exchanges: list[Exchange] = []
        self._turns = 0
        self.clear()

    def clear(self) -> None:
        """Forget the conversation so far, and all that its tools kept."""
        self.exchanges = []
        first = (Message("system", self.system),) if self.system else ()
        self._own = own_tools(self.tools, first)

    def say(self, text: str) -> Iterator[Event]:
        """The assistant's answer as it comes, `Finished` last.

        A turn that broke, or that the caller stopped reading, leaves the history and what tools
        keep as they were.
        """
        prompt, left_out = self.prompt(text)
        turn, self._turns = self._turns, self._turns + 1
        talk = Talk(Task(id=f"turn {turn}", gold="", max_tokens=self.max_tokens), prompt)
        own = own_tools(self._own, (Message("user", text),))
        for part in range(self.max_calls + 1):
            seed = stream_seed(self.seed, "chat", turn, part)
            generation = yield from self._speak(talk, seed)
            known = len(talk.calls)
            try:
                last = part == self.max_calls
                answer(talk, generation, self.sampler.template, own, last=last)
            except RolloutError as problem:
                talk.broke(problem)
            for record in talk.calls[known:]:
                yield Answered(record)
            if talk.finish is not None:
                break
        trace = talk.trace()
        if trace.error is None:
            self.exchanges = [*self.exchanges[left_out:], Exchange(text, trace.ids)]
            self._own = own
        yield Finished(trace, left_out)

    def prompt(self, text: str) -> tuple[tuple[int, ...], int]:
        """The ids the model reads when the user says this, and how many exchanges had to be left
        out.
        """
        wanted = self.sampler.context - min(self.max_tokens, self.sampler.context // 2)
        for left_out in range(len(self.exchanges) + 1):
            ids = self._history(self.exchanges[left_out:], text)
            if len(ids) <= wanted:
                return ids, left_out
        return ids, len(self.exchanges)

    def _history(self, exchanges: Sequence[Exchange], text: str) -> tuple[int, ...]:
        """The exchanges and then this message, up to where the assistant speaks."""
        template = self.sampler.template
        users = [*(exchange.user for exchange in exchanges), text]
        first = (Message("system", self.system),) if self.system else ()
        ids = [*template.prompt((*first, Message("user", users[0])))]
        for exchange, user in zip(exchanges, users[1:], strict=True):
            if exchange.ids[-1:] != (template.end_of_turn_id,):
                ids += [*exchange.ids, *template.close_ids]
            else:
                ids += exchange.ids
            ids += template.results((Message("user", user),))
        return tuple(ids)

    def _speak(self, talk: Talk, seed: int) -> Generator[Event, None, Generation]:
        """What the model samples next, its text passed on piece by piece."""
        template = self.sampler.template
        opens, closes = template.call_ids, template.call_end_ids
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        ids: list[int] = []
        logprobs: list[float] = []
        finish: FinishReason = "length"
        in_call = False
        for token in self.sampler.stream(
            (*talk.prompt, *talk.ids),
            max_tokens=self.max_tokens - talk.sampled,
            temperature=self.temperature,
            seed=seed,
        ):
            ids.append(token.id)
            logprobs.append(token.logprob)
            finish = token.finish_reason or finish
            in_call = token.id in opens or (in_call and token.id not in closes)
            if not in_call and (piece := utf8.decode(template.tokenizer.token_bytes(token.id))):
                yield Said(piece)
        if rest := utf8.decode(b"", final=True):
            yield Said(rest)
        return Generation(tuple(ids), tuple(logprobs), finish)
