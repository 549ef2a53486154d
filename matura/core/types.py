"""The things that flow from room to room. Plain and frozen: no torch, no numpy, no behaviour that
decides anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from matura.core.rng import Rng

Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "validation", "exam"]
FinishReason = Literal["stop", "length", "tool_calls", "error"]
Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the rest of Matura sees it, however a dialect spells it."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn, or one part of a turn. A `tool` message is the result of one call of the assistant
    message before."""

    role: Role
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    context: str = ""
    """What the user's words come with, such as a passage to answer from: read, never learnt."""
    think: str = ""
    """What the assistant says to itself before its words: learnt, no part of its reply."""
    cite: str = ""
    """What the assistant refers to after its words, likewise."""


@dataclass(frozen=True, slots=True)
class Document:
    """Raw text to learn from; `ids` instead of text where the text is made of tokens (random token
    runs)."""

    text: str
    id: str
    ids: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None
    """One for each of `ids`, where not all of them can be learned (noise in random token runs)."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said. `meta` never reaches the model: a lesson's keys are operator, payload,
    template, language, bucket."""

    messages: tuple[Message, ...]
    id: str
    meta: Mapping[str, str] = field(default_factory=dict)
    place: str = field(default="", compare=False)
    """`file:line` where it was read; its id may be its own."""


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and one loss weight for each: 0 = read only, 1 = learn, more = learn more,
    negative = unlearn."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


class TextCodec(Protocol):
    """What a tokenizer does for rooms that must not know how: ordinary text only, never a control
    id."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def text_vocab_size(self) -> int:
        """Ids below this are ordinary text; control tokens start here."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def token_bytes(self, id: int) -> bytes:
        """The bytes an id stands for; empty for control tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """What a source or lesson may lean on besides its own settings.

    `rng` is its own stream. `tokenizer` is None only while the tokenizer itself is being trained.
    """

    rng: Rng
    tokenizer: TextCodec | None = None
    split: Split = "train"


@dataclass(frozen=True, slots=True)
class Task:
    """One exam item. Chat items have `messages`; items made of tokens have `prompt_ids` and
    `gold_ids`."""

    id: str
    gold: str
    messages: tuple[Message, ...] = ()
    bucket: str = ""
    """The cell it counts in, such as `COPY x 3`; empty if the exam has no cells."""
    prompt_ids: tuple[int, ...] | None = None
    gold_ids: tuple[int, ...] | None = None
    max_tokens: int = 48
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A tool call that really happened, and what came back."""

    call: ToolCall
    result: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """What was really said: `ids` are exactly the ids after the prompt, tool results (weight 0)
    included."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    """1 for each id the model sampled, 0 for each id inserted."""
    logprobs: tuple[float, ...]
    """Of each sampled id under the model that sampled it; 0.0 for inserted ids."""
    reply: str
    """The content of the last assistant message, without calls, results or tags."""
    finish_reason: FinishReason
    calls: tuple[CallRecord, ...] = ()
    problems: tuple[str, ...] = ()
    """Malformed things in the output: `stray <tag>`, `unclosed <tag>`, `bad call: ...`."""
    error: str | None = None
    """The conversation itself broke; such an item is neither right nor wrong."""


@dataclass(frozen=True, slots=True)
class Item:
    """One graded exam item, kept whole in `exams.json`."""

    task: str
    bucket: str
    grade: float
    prompt: str
    gold: str
    output: str
    finish_reason: FinishReason
    problems: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of an exam with its interval: the whole, or one bucket."""

    score: float
    low: float
    high: float
    n: int
    outcome: Outcome
    floor: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """What an exam found, with its proof."""

    exam: str
    version: int
    overall: Cell
    buckets: Mapping[str, Cell]
    outcome: Outcome
    broken: int
    items: tuple[Item, ...]
    prompts_sha256: str
    weights_sha256: str
    settings: Mapping[str, Any]
    notes: Mapping[str, float] = field(default_factory=dict)
    """Numbers that are reported but not gated, such as the strongest head's prefix-matching score.
    Numbers that are reported but not gated, such as the strongest head's prefix-matching score."""


def texts(documents: Iterator[Document]) -> Iterator[str]:
    """The documents' text, those made of token ids left out."""
    return (document.text for document in documents if document.ids is None)
