"""The chat format in both directions: conversation to ids and weights, sampled ids to message.

The only place that emits control ids. The surprising thing: in dialects whose results stand inside
the assistant's turn, an assistant message, its tool results and the assistant message after them
are one turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from matura.core.errors import DataError
from matura.core.record import Frozen
from matura.core.types import Conversation, Document, Example, Message, ToolCall
from matura.text.dialects import (
    ARGUMENT_KEYS,
    CALCULATOR,
    EXPRESSION,
    JOINT,
    Dialect,
    Parts,
    Span,
    dialect_named,
)
from matura.text.jinja import chat_template
from matura.text.parsing import Parsed, Reader
from matura.text.prompts import read_prompt
from matura.text.tokenizer import Tokenizer
from matura.text.turns import answers_of, check


class Weights(Frozen):
    """How much each part of what the assistant says counts; everything else is read only."""

    content: float = 1.0
    end_turn: float = 1.0
    call: float = 1.0
    think: float = 1.0
    """Of what is thought and cited."""


PLAIN = Weights()
"""0 or 1: what the assistant says counts."""
WEIGHTED = Weights(content=1.0, end_turn=2.0, call=2.0, think=1.5)
"""Tags heavier than words, as WeFT has it; not the default, since end tags are learnt quickly
anyway."""
PRESETS = {"plain": PLAIN, "weighted": WEIGHTED}
"""By the name that recipes use."""


class _Piece(NamedTuple):
    """Ordinary text, or one control tag."""

    text: str
    weight: float
    is_tag: bool


class Template:
    """Renders and reads one dialect with one tokenizer; the tokenizer's own dialect if none is
    named.

    Raises:
        DataError: the tokenizer has not all of the dialect's tags.
        RecipeError: the dialect is unknown.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dialect: str | Dialect | None = None,
        *,
        weights: Weights = PLAIN,
    ) -> None:
        if not isinstance(dialect, Dialect):
            dialect = dialect_named(dialect or tokenizer.dialect)
        missing = [tag for tag in dialect.tags if tag not in tokenizer.control]
        if missing:
            raise DataError(
                f"the tokenizer speaks {tokenizer.dialect!r}: it has no {missing[0]!r}, which "
                f"{dialect.name!r} needs"
            )
        self.tokenizer = tokenizer
        self.dialect = dialect
        self.weights = weights
        self._tags = {tokenizer.control[tag]: tag for tag in tokenizer.control}
        self._inside = dialect.results == "inside"
        opens = frozenset(span.open[0] for span in dialect.call_spans)
        said = frozenset(dialect.only_tags(dialect.assistant.close + dialect.call_close))
        closes = dialect.call_ends if self._inside else frozenset()
        self.stop_ids: frozenset[int] = self._ids(dialect.turn_ends | closes)
        """Sampling stops after any of these."""
        self.call_ids: frozenset[int] = self._ids(opens)
        """Each begins a tool call: forbid these too where no tool may be used."""
        self.call_end_ids: frozenset[int] = self._ids(dialect.call_ends)
        """Each ends one."""
        asides = {tag for s in dialect.asides for tag in dialect.only_tags(s.open + s.close)}
        may = opens | said | dialect.call_ends | dialect.turn_ends | asides
        self.forbidden_ids: frozenset[int] = frozenset(self._tags) - self._ids(may)
        """Control ids the assistant may never sample: results, roles, pad, spare ones."""
        self.pad_id = tokenizer.control[dialect.pad]
        self.bos_id = tokenizer.control[dialect.begin]
        self.eos_id = tokenizer.control[dialect.end]
        self.end_of_turn_id = tokenizer.control[dialect.end_turn]
        self.close_ids: tuple[int, ...] = tuple(
            tokenizer.control[tag] for tag in dialect.only_tags(dialect.assistant.close)
        )
        """Closes an assistant turn that was cut: what a chat appends before it goes on."""

    @property
    def name(self) -> str:
        """How records call this way to spell conversations."""
        return self.dialect.name

    @property
    def chats(self) -> bool:
        """Whether it can spell conversations."""
        return True

    @property
    def generation(self) -> Mapping[str, Any]:
        """How a model's answers are sampled where nobody says; greedily if empty."""
        return {}

    def weighing(self, weights: Weights) -> Template:
        """The same template with other weights; ids are never different."""
        return Template(self.tokenizer, self.dialect, weights=weights)

    # -- conversation -> ids -------------------------------------------------------------------

    def render(self, conversation: Conversation) -> Example:
        """The whole conversation: what the assistant said, its calls and its ends of turn have
        weight, the rest 0.

        Raises:
            DataError: a tool result without its call, a call without its result, or an argument
                JSON cannot spell.
        """
        return self.render_many((conversation,))[0]

    def render_many(self, conversations: Iterable[Conversation]) -> list[Example]:
        """`render` of each, with all their text encoded in one go."""
        written: list[list[_Piece]] = []
        for conversation in conversations:
            try:
                written.append([*self._opening(), *self._write(conversation.messages)])
            except DataError as problem:
                raise DataError(f"conversation {conversation.id}: {problem}") from None
        texts = dict.fromkeys(p.text for pieces in written for p in pieces if not p.is_tag)
        known = dict(zip(texts, self.tokenizer.encode_many(list(texts)), strict=True))
        return [self._example(pieces, known) for pieces in written]

    def document(self, document: Document) -> Example:
        """Raw text between its begin and end tags; all of it counts but the begin tag, which
        nothing predicts.

        Raises:
            DataError: the document's own ids are not all ids of ordinary text, or it has not one
                weight for each.
        """
        ids = document.ids
        if ids is None:
            ids = tuple(self.tokenizer.encode(document.text))
        elif ids and not 0 <= min(ids) <= max(ids) < self.tokenizer.text_vocab_size:
            raise DataError(f"document {document.id}: ids must be ids of ordinary text")
        weights = (1.0,) * (len(ids) + 1) if document.weights is None else (*document.weights, 0.0)
        if len(weights) != len(ids) + 1:
            raise DataError(f"document {document.id}: {len(weights) - 1} weights, {len(ids)} ids")
        return Example((self.bos_id, *ids, self.eos_id), (0.0, *weights))

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """What stands before the assistant's next words: `render` of the longer conversation starts
        with it.

        Raises:
            DataError: the assistant spoke last, or the messages do not fit together.
        """
        if messages and messages[-1].role == "assistant":
            raise DataError("a prompt cannot end with what the assistant says")
        if self.dialect.system is None and messages and messages[-1].role == "system":
            raise DataError(f"{self.dialect.name}: a system message needs a user message after it")
        pieces = [*self._opening(), *self._write(messages)]
        pieces += self._reopen(messages, bool(messages))
        return self._example(pieces, {}).ids

    def results(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """What to append to ids that end with a sampled turn or call, so that the assistant goes
        on.

        The messages are the results of the sampled calls, or what the user says next. Prompt,
        sampled ids and these together equal the `prompt` of the longer conversation.
        """
        pieces: list[_Piece] = []
        place = 0
        while place < len(messages) and messages[place].role == "tool":
            pieces += self._result(messages[place])
            place += 1
        pieces += self._write(messages[place:], begun=True, speaking=place > 0 and self._inside)
        pieces += self._reopen(messages, True)
        return self._example(pieces, {}).ids

    def from_prompt(self, prompt: str) -> tuple[tuple[Message, ...], str]:
        """A prompt somebody wrote by hand with tags, as messages, and a notice if its form is an
        old one.

        Raises:
            DataError: this dialect takes no such prompts, or it cannot be read.
        """
        return read_prompt(prompt, self.dialect)

    # -- ids -> message ------------------------------------------------------------------------

    def parse(self, ids: Sequence[int]) -> Parsed:
        """What one stretch of sampled ids says; anything malformed becomes a problem, never an
        error."""
        reader = Reader(self.dialect)
        for is_tag, run in self._runs(ids):
            if is_tag:
                for number in run:
                    reader.tag(self._tags[number])
            else:
                reader.text(self.tokenizer.decode(run))
        return reader.parsed()

    def spell(self, ids: Iterable[int]) -> str:
        """The ids as a reader wants to see them, control tags included. Never feed this to a
        tokenizer."""
        return "".join(
            "".join(self._tags[n] for n in run) if is_tag else self.tokenizer.decode(run)
            for is_tag, run in self._runs(ids)
        )

    def tag_words(self) -> dict[int, list[str]]:
        """A few plain words for what each tag means, from which its embedding row can start; spare
        tags have none."""
        meant: dict[int, list[str]] = {}
        for tag in self.dialect.tags:
            name = (
                tag.strip("<|>/")
                .removeprefix("myPT_")
                .replace("im_", "turn_")
                .replace("bos", "begin")
            )
            words = [part for part in name.replace("eot", "end_turn").split("_") if part != "id"]
            closing = tag.startswith("</") or tag.startswith("<|/") or tag in self.dialect.turn_ends
            meant[self.tokenizer.control[tag]] = [*words, *((".", "\n") if closing else (":",))]
        return meant

    def jinja(self) -> str:
        """The chat template that gives Hugging Face's `apply_chat_template` the same ids."""
        return chat_template(self.dialect, spare=self.tokenizer.spare)

    # -- inside --------------------------------------------------------------------------------

    def _ids(self, tags: Iterable[str]) -> frozenset[int]:
        return frozenset(self.tokenizer.control[tag] for tag in tags)

    def _runs(self, ids: Iterable[int]) -> Iterator[tuple[bool, list[int]]]:
        """Stretches of control ids and of text ids, in turn."""
        run: list[int] = []
        was = False
        for number in ids:
            now = number in self._tags
            if run and now != was:
                yield was, run
                run = []
            was = now
            run.append(number)
        if run:
            yield was, run

    def _example(self, pieces: Iterable[_Piece], known: Mapping[str, list[int]]) -> Example:
        ids: list[int] = []
        weights: list[float] = []
        for text, weight, is_tag in pieces:
            if is_tag:
                ids.append(self.tokenizer.control[text])
                weights.append(weight)
                continue
            found = known[text] if text in known else self.tokenizer.encode(text)
            ids += found
            weights += [weight] * len(found)
        return Example(tuple(ids), tuple(weights))

    def _parts(self, parts: Parts, weight: float = 0.0) -> list[_Piece]:
        return [_Piece(part, weight, part in self.dialect.tags) for part in parts if part]

    def _around(self, span: Span, text: str, weight: float = 0.0) -> list[_Piece]:
        return [
            *self._parts(span.open, weight),
            *_text(text, weight),
            *self._parts(span.close, weight),
        ]

    def _opening(self) -> list[_Piece]:
        return self._parts(self.dialect.opening)

    def _reopen(self, messages: Sequence[Message], begun: bool) -> list[_Piece]:
        """Opens the assistant's turn, unless it is still open because results stand inside it."""
        if self._inside and messages and messages[-1].role == "tool":
            return []
        joint = _text(self.dialect.separator if begun else "", 0.0)
        return [*joint, *self._parts(self.dialect.assistant.open)]

    def _result(self, message: Message) -> list[_Piece]:
        joint = [] if self._inside else _text(self.dialect.separator, 0.0)
        return [*joint, *self._around(self.dialect.tool, message.content)]

    def _write(
        self, messages: Sequence[Message], *, begun: bool = False, speaking: bool = False
    ) -> Iterator[_Piece]:
        """The pieces of whole messages. `begun`: something stands before; `speaking`: the
        assistant's turn is open."""
        dialect = self.dialect
        held = ""
        place = 0
        while place < len(messages):
            message = messages[place]
            check(message, place)
            if message.role == "assistant":
                answers = answers_of(messages, place)
                if not speaking:
                    yield from _text(dialect.separator if begun else "", 0.0)
                    yield from self._parts(dialect.assistant.open)
                yield from self._speak(message, answers)
                speaking = self._inside and bool(message.calls)
                place += len(answers)
            elif message.role == "system" and dialect.system is None:
                held += message.content + JOINT
            else:
                if speaking:
                    yield from self._parts(dialect.assistant.close)
                    speaking = False
                yield from _text(dialect.separator if begun else "", 0.0)
                span = dialect.user if message.role == "user" else dialect.system
                assert span is not None
                yield from self._parts(span.open)
                if message.context and dialect.context is not None:
                    yield from self._around(dialect.context, message.context)
                elif message.context:
                    held += message.context + JOINT
                yield from _text(held + message.content, 0.0)
                yield from self._parts(span.close)
                held = ""
            begun = True
            place += 1
        if held:
            raise DataError(f"{dialect.name}: a system message needs a user message after it")

    def _speak(self, message: Message, answers: Sequence[Message]) -> Iterator[_Piece]:
        """What the assistant says in one message, and the results of its calls."""
        dialect, weights = self.dialect, self.weights
        yield from self._aside(dialect.think, message.think)
        yield from _text(message.content, weights.content)
        yield from self._aside(dialect.cite, message.cite)
        for number, call in enumerate(message.calls):
            span, spelled = self._spell_call(call)
            yield from self._around(span, spelled, weights.call)
            if self._inside and answers:
                yield from self._result(answers[number])
        if not message.calls:
            yield from self._parts(dialect.assistant.close, weights.end_turn)
        elif not self._inside:
            yield from self._parts(dialect.call_close or dialect.assistant.close, weights.end_turn)
            for answer in answers:
                yield from self._result(answer)

    def _aside(self, span: Span | None, text: str) -> list[_Piece]:
        if text and span is None:
            name = self.dialect.name
            raise DataError(f"{name} has no place for what is thought or cited; drop that (asides)")
        return self._around(span, text, self.weights.think) if text and span else []

    def _spell_call(self, call: ToolCall) -> tuple[Span, str]:
        """How this dialect writes the call: the calculator's bare expression, or JSON."""
        arguments = dict(call.arguments)
        expression = arguments.get(EXPRESSION)
        if (
            self.dialect.bare is not None
            and (call.name, list(arguments)) == (CALCULATOR, [EXPRESSION])
            and isinstance(expression, str)
        ):
            return self.dialect.bare, expression
        clash = "name" in arguments or list(arguments) in [[key] for key in ARGUMENT_KEYS]
        if self.dialect.call_form == "flat" and not clash:
            spelled: dict[str, Any] = {"name": call.name, **arguments}
        else:
            spelled = {"name": call.name, "arguments": arguments}
        try:
            return self.dialect.call, json.dumps(spelled, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as problem:
            raise DataError(
                f"the call of {call.name!r} cannot be spelled as JSON: {problem}"
            ) from None


def _text(text: str, weight: float) -> list[_Piece]:
    return [_Piece(text, weight, False)] if text else []
