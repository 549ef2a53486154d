"""What control tags a chat is spelled with, as data; `Template` turns it into ids and `jinja` into
a chat template.

The surprising thing: a dialect never says what becomes of text that spells a tag. Such text stays
text, everywhere, because only the parts named here are ever emitted as control ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from matura.core.errors import RecipeError
from matura.core.leaves import did_you_mean
from matura.core.record import Frozen

SPARE = "<|spare_{}|>"
"""Control tags with no meaning yet, so that a later tag never has to resize the model."""

CALCULATOR, EXPRESSION = "calculator", "expression"
"""The tool that some dialects spell as a bare expression, and its one argument."""

ARGUMENT_KEYS = ("arguments", "args", "parameters")
"""Where a call's JSON may hold its arguments as an object; the first is how we write it."""

JOINT = "\n\n"
"""Between a system message and the user message it is put in front of."""

Parts = tuple[str, ...]
"""What is written in order: each string is a control tag if the dialect lists it in `tags`,
ordinary text if not."""


class Span(Frozen):
    """What stands before and after some text."""

    open: Parts
    close: Parts = ()


class Dialect(Frozen):
    """One way to spell a conversation. Checked when made: text beside content must be cut off from
    it by newlines."""

    name: str
    tags: Parts
    """Every control tag, in the order of the ids."""
    begin: str
    """Starts a document."""
    end: str
    """Ends a document."""
    pad: str
    opening: Parts = ()
    """Starts a conversation."""
    separator: str = ""
    """Ordinary text between two turns."""
    system: Span | None
    """None: the system message is put in front of the next user message, with a blank line
    between."""
    user: Span
    assistant: Span
    tool: Span
    results: Literal["inside", "own turn"]
    """Whether a tool result stands inside the assistant's turn, or is a turn that the assistant
    answers."""
    call: Span
    """Around a tool call as JSON; without `close`, the call ends at the next control tag."""
    call_form: Literal["nested", "flat"] = "nested"
    """`{"name": …, "arguments": {…}}`, or the arguments beside the name."""
    bare: Span | None = None
    """Around the calculator's bare expression; None if this dialect spells it as any other call."""
    call_close: Parts = ()
    """Ends an assistant turn that waits for a tool result, where that differs from the turn's own
    `close`."""
    context: Span | None = None
    """Around what the user's words come with, inside the user's turn; None: it is put in front of
    them, with a blank line between."""
    think: Span | None = None
    """Around what the assistant thinks before it speaks; None: this dialect has no place for it."""
    cite: Span | None = None
    """Around what it refers to after it spoke, likewise."""
    legacy_prompts: bool = False
    """Whether hand-written prompts of an older form are understood; they are rendered in this
    form."""

    @model_validator(mode="after")
    def _coherent(self) -> Dialect:
        for tag in self.tags:
            inner = tag[1:-1]
            if not (tag[:1] == "<" and tag[-1:] == ">" and inner and not set("<>\n") & set(inner)):
                raise ValueError(f"{self.name}: the tag {tag!r} must be <…> with no <, > inside")
        if len(set(self.tags)) != len(self.tags):
            raise ValueError(f"{self.name}: a tag is listed twice")
        missing = {self.begin, self.end, self.pad} - set(self.tags)
        if missing or len({self.begin, self.end, self.pad}) != 3:
            raise ValueError(f"{self.name}: begin, end and pad must be three different tags")
        for span in self.spans():
            if not span.open or not (span.open[-1] in self.tags or span.open[-1].endswith("\n")):
                raise ValueError(f"{self.name}: text before content must end with a newline")
            if span.close and not (span.close[0] in self.tags or span.close[0].startswith("\n")):
                raise ValueError(f"{self.name}: text after content must start with a newline")
        if self.end_turn not in self.tags:
            raise ValueError(f"{self.name}: the assistant's turn must end with a control tag")
        return self

    def spans(self) -> Iterator[Span]:
        """Every span this dialect has."""
        every = (
            self.system,
            self.user,
            self.assistant,
            self.tool,
            self.call,
            self.bare,
            self.context,
            *self.asides,
        )
        return (span for span in every if span is not None)

    @property
    def end_turn(self) -> str:
        """The tag whose sampling ends the assistant's turn."""
        return self.assistant.close[-1] if self.assistant.close else ""

    @property
    def call_spans(self) -> tuple[Span, ...]:
        """The ways a call can be spelled."""
        return (self.call,) if self.bare is None else (self.call, self.bare)

    @property
    def asides(self) -> tuple[Span, ...]:
        """What the assistant may say besides its words and calls."""
        return tuple(span for span in (self.think, self.cite) if span is not None)

    @property
    def call_ends(self) -> frozenset[str]:
        """The tags that close a call."""
        return frozenset(tag for span in self.call_spans for tag in self.only_tags(span.close))

    @property
    def turn_ends(self) -> frozenset[str]:
        """The tags after which the assistant is done."""
        return frozenset((self.end_turn, self.end, *self.call_close[-1:]))

    def only_tags(self, parts: Parts) -> tuple[str, ...]:
        """The control tags among the parts."""
        return tuple(part for part in parts if part in self.tags)

    def tag_list(self, spare: int) -> list[str]:
        """All control tags in the order of their ids, the spare ones last."""
        return [*self.tags, *(SPARE.format(number) for number in range(spare))]


def _pair(name: str, pattern: str = "<|{}_start|>", closing: str = "<|{}_end|>") -> Span:
    return Span(open=(pattern.format(name),), close=(closing.format(name),))


def _mypt(name: str, *, legacy_prompts: bool) -> Dialect:
    """The open/close form; the nineteen tags stand first, so that on GPT-2's text ids they get
    50257 to 50275."""
    names = (
        "system",
        "user",
        "assistant",
        "user_context",
        "assistant_context",
        "toolcall",
        "toolresult",
        "think",
        "cite",
    )
    pairs = {n: _pair(n, "<myPT_{}>", "</myPT_{}>") for n in names}
    tags = [tag for pair in pairs.values() for tag in (*pair.open, *pair.close)]
    own = ("<myPT_begin>", "<myPT_end>", "<myPT_pad>")
    return Dialect(
        name=name,
        tags=(*tags, "<myPT_eot>", *own),
        begin=own[0],
        end=own[1],
        pad=own[2],
        system=pairs["system"],
        user=pairs["user"],
        assistant=Span(open=("<myPT_assistant>",), close=("</myPT_assistant>", "<myPT_eot>")),
        tool=pairs["toolresult"],
        results="own turn",
        call=pairs["toolcall"],
        call_form="flat",
        context=pairs["user_context"],
        think=pairs["think"],
        cite=pairs["cite"],
        legacy_prompts=legacy_prompts,
    )


def _matura() -> Dialect:
    """One control tag where a tag is needed and no textual headers: the cheapest form for a small
    model to learn."""
    return Dialect(
        name="matura",
        tags=(
            "<|begin|>",
            "<|end|>",
            "<|pad|>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
            "<|end_turn|>",
            "<|call|>",
            "<|/call|>",
            "<|calc|>",
            "<|/calc|>",
            "<|result|>",
            "<|/result|>",
        ),
        begin="<|begin|>",
        end="<|end|>",
        pad="<|pad|>",
        opening=("<|begin|>",),
        system=Span(open=("<|system|>",)),
        user=Span(open=("<|user|>",)),
        assistant=Span(open=("<|assistant|>",), close=("<|end_turn|>",)),
        tool=Span(open=("<|result|>",), close=("<|/result|>",)),
        results="inside",
        call=Span(open=("<|call|>",), close=("<|/call|>",)),
        bare=Span(open=("<|calc|>",), close=("<|/calc|>",)),
    )


def _nanochat() -> Dialect:
    """Nine official tags in their order, then three of ours: that system has no end or pad of its
    own."""
    names = ("user", "assistant", "python", "output")
    pairs = {name: _pair(name) for name in names}
    tags = [tag for pair in pairs.values() for tag in (*pair.open, *pair.close)]
    return Dialect(
        name="nanochat",
        tags=("<|bos|>", *tags, "<|eos|>", "<|pad|>", "<|call_start|>", "<|call_end|>"),
        begin="<|bos|>",
        end="<|eos|>",
        pad="<|pad|>",
        opening=("<|bos|>",),
        system=None,
        user=pairs["user"],
        assistant=pairs["assistant"],
        tool=pairs["output"],
        results="inside",
        call=_pair("call"),
        bare=pairs["python"],
    )


def _chatml() -> Dialect:
    """Headers are text (`user` and a newline) between two control tags, tool calls as Hermes models
    spell them."""

    def turn(role: str) -> Span:
        return Span(open=("<|im_start|>", f"{role}\n"), close=("<|im_end|>",))

    return Dialect(
        name="chatml",
        tags=(
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<tool_call>",
            "</tool_call>",
            "<|startoftext|>",
            "<|pad|>",
        ),
        begin="<|startoftext|>",
        end="<|endoftext|>",
        pad="<|pad|>",
        separator="\n",
        system=turn("system"),
        user=turn("user"),
        assistant=turn("assistant"),
        tool=turn("tool"),
        results="own turn",
        call=Span(open=("<tool_call>", "\n"), close=("\n", "</tool_call>")),
    )


def _llama3() -> Dialect:
    """Role names as text between header tags; a turn that calls a tool ends with <|eom_id|>, any
    other with <|eot_id|>.

    Unlike the published template, content is not stripped: text stays byte for byte what it was.
    """

    def turn(role: str) -> Span:
        opening = ("<|start_header_id|>", role, "<|end_header_id|>", "\n\n")
        return Span(open=opening, close=("<|eot_id|>",))

    return Dialect(
        name="llama3",
        tags=(
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|finetune_right_pad_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
            "<|python_tag|>",
        ),
        begin="<|begin_of_text|>",
        end="<|end_of_text|>",
        pad="<|finetune_right_pad_id|>",
        opening=("<|begin_of_text|>",),
        system=turn("system"),
        user=turn("user"),
        assistant=turn("assistant"),
        tool=turn("ipython"),
        results="own turn",
        call=Span(open=("<|python_tag|>",)),
        call_close=("<|eom_id|>",),
    )


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        _matura(),
        _mypt("mypt", legacy_prompts=False),
        _mypt("mypt-legacy", legacy_prompts=True),
        _nanochat(),
        _chatml(),
        _llama3(),
    )
}
"""The dialects there are, by name."""


def dialect_named(name: str) -> Dialect:
    """The dialect of that name.

    Raises:
        RecipeError: there is none.
    """
    if name not in DIALECTS:
        raise RecipeError(f"there is no dialect {name!r}{did_you_mean(name, DIALECTS)}")
    return DIALECTS[name]
