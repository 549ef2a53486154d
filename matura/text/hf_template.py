"""Dialect `hf`: conversations as a model's own chat template writes them, in both directions.

What the assistant has to say itself is learnt: everything from where the template stops when it is
asked for an answer, up to the control token that ends the turn. So what was read in training before
each answer is, to the letter, what is read when the model is asked; where a template does not keep
to that, the conversation is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Example, Message
from matura.text.imported import HF, SEPARATORS, ImportedTokenizer
from matura.text.parsing import Parsed
from matura.text.rendering import ChatTemplate, Rendered
from matura.text.template import PLAIN, Template, Weights
from matura.text.turns import check

THINK = ("<think>", "</think>")
"""The tags that reasoning models put around what they think."""
_PROBE = (Message("user", "What is it?"), Message("assistant", "It is."))


@dataclass(frozen=True, slots=True)
class _Turns:
    """A rendered conversation, and from where to where the assistant's own part of it goes: its
    start, the end of its words, and the end of the tag after them."""

    rendered: Rendered
    learnt: tuple[tuple[int, int, int], ...]


class HfTemplate(Template):
    """Renders and reads a model's own chat format; it has no dialect as data, only its name."""

    tokenizer: ImportedTokenizer

    def __init__(self, tokenizer: ImportedTokenizer, *, weights: Weights = PLAIN) -> None:
        self.tokenizer = tokenizer
        self.weights = weights
        control = tokenizer.control
        self._tags = {id: tag for tag, id in control.items()}
        self._tag = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))))
        names = tokenizer.names
        between = next((tag for tag in SEPARATORS if tag in control), names.get("eos_token"))
        if between is None:
            raise DataError(
                f"{tokenizer.where}: the tokenizer has no eos_token: nothing could end a text"
            )
        self.eos_id = control[between]
        self.bos_id = control[names["bos_token"]] if tokenizer.begins else self.eos_id
        self.pad_id = control[names.get("pad_token", between)]
        self.call_ids = self.call_end_ids = frozenset()
        self.end_of_turn_id = self._end_of_turn if tokenizer.chat_template else self.eos_id
        self.close_ids = (self.end_of_turn_id,)
        self.stop_ids = tokenizer.stop_ids | {self.eos_id, self.end_of_turn_id}
        said = {id for id, token in tokenizer.added.items() if not token.get("special")}
        named = {*tokenizer.added, *tokenizer.found["model"]["vocab"].values()}
        nothing = frozenset(range(tokenizer.vocab_size)) - named
        self.forbidden_ids = (frozenset(self._tags) - said - self.stop_ids) | nothing

    @property
    def name(self) -> str:
        """No dialect's, since there is none as data."""
        return HF

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self.tokenizer.chat_template is not None

    @property
    def generation(self) -> Mapping[str, Any]:
        """What the model's own generation config says."""
        return self.tokenizer.generation

    def weighing(self, weights: Weights) -> HfTemplate:
        """The same template with other weights; ids are never different."""
        return HfTemplate(self.tokenizer, weights=weights)

    @cached_property
    def _chat(self) -> ChatTemplate:
        source = self.tokenizer.chat_template
        if source is None:
            raise DataError(
                f"{self.tokenizer.where}: the model has no chat template, so it cannot be spoken "
                "to; a recipe can give it a dialect: tokenizer: {kind: hf, dialect: chatml}"
            )
        return ChatTemplate(source, self.tokenizer.names, self.tokenizer.broken)

    @cached_property
    def _probed(self) -> _Turns:
        return self._turns(_PROBE)

    @property
    def _end_of_turn(self) -> int:
        _, words_end, end = self._probed.learnt[0]
        tag = self._tag.search(self._probed.rendered.text, words_end, end)
        assert tag is not None
        return self.tokenizer.control[tag[0]]

    # -- conversation -> ids -------------------------------------------------------------------

    def render_many(self, conversations: Iterable[Conversation]) -> list[Example]:
        """`render` of each, with all their text encoded in one go."""
        found: list[_Turns] = []
        for conversation in conversations:
            try:
                found.append(self._turns(conversation.messages))
            except DataError as problem:
                raise DataError(f"conversation {conversation.id}: {problem}") from None
        encoded = self.tokenizer.written([turns.rendered.text for turns in found])
        return [
            self._weighed(turns, one.ids, one.offsets)
            for turns, one in zip(found, encoded, strict=True)
        ]

    def document(self, document: Document) -> Example:
        """Raw text between the tags that this model knows them by; see `Template.document`.

        Raises:
            DataError: as there; or its own ids hold a control token.
        """
        if document.ids is not None and (wrong := self._tags.keys() & {*document.ids}):
            raise DataError(
                f"document {document.id}: the id {min(wrong)} is {self._tags[min(wrong)]!r}, no "
                "ordinary text"
            )
        return super().document(document)

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """What stands before the assistant's next words.

        Raises:
            DataError: the assistant spoke last, or the template refuses the messages.
        """
        if messages and messages[-1].role == "assistant":
            raise DataError("a prompt cannot end with what the assistant says")
        rendered = self._rendered(messages, asked=True)
        (encoded,) = self.tokenizer.written([rendered.text])
        self._refuse_tags_in_words(rendered, encoded.ids, encoded.offsets)
        return tuple(encoded.ids)

    def results(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """What to append to ids that end with a sampled turn, so that the assistant goes on: what
        the template writes for these messages after an earlier exchange.

        Raises:
            DataError: it is the result of a tool, or the template refuses it.
        """
        rendered = self._rendered((*_PROBE, *messages), asked=True)
        end = self._ends(rendered, 1)
        (encoded,) = self.tokenizer.written([rendered.text])
        return tuple(
            id for id, (start, _) in zip(encoded.ids, encoded.offsets, strict=True) if start >= end
        )

    def from_prompt(self, prompt: str) -> tuple[tuple[Message, ...], str]:
        """Nothing: there are no hand-written prompts in this dialect.

        Raises:
            DataError: always.
        """
        raise DataError("prompts with hand-written tags are not read in 'hf': give messages")

    # -- ids -> message ------------------------------------------------------------------------

    def parse(self, ids: Sequence[int]) -> Parsed:
        """What one stretch of sampled ids says; anything malformed becomes a problem, never an
        error."""
        said: list[bytes] = []
        thought: list[bytes] = []
        problems: list[str] = []
        into, ended = said, False
        for is_tag, run in self._runs(ids):
            if not is_tag:
                if ended:
                    problems.append(f"text after {self._tags[self.end_of_turn_id]}")
                else:
                    into.append(self.tokenizer.decode_bytes(run))
                continue
            for id in run:
                tag = self._tags[id]
                if ended or not (id in self.stop_ids or tag in THINK):
                    problems.append(f"stray {tag}")
                elif id in self.stop_ids:
                    ended = True
                else:
                    into = thought if tag == THINK[0] else said
        if into is thought:
            problems.append(f"unclosed {THINK[0]}")
        before, after = self._skeleton
        content = b"".join(said).decode("utf-8", "replace").removeprefix(before)
        content = content.removesuffix(after) if ended and after else content
        think = b"".join(thought).decode("utf-8", "replace")
        return Parsed(Message("assistant", content, think=think), tuple(problems), ended)

    def tag_words(self) -> dict[int, list[str]]:
        """None: the model knows its tags already."""
        return {}

    def jinja(self) -> str:
        """The model's own chat template."""
        return self.tokenizer.chat_template or ""

    # -- inside --------------------------------------------------------------------------------

    @cached_property
    def _skeleton(self) -> tuple[str, str]:
        """The text that the template puts between a tag and the assistant's words, on each side."""
        if self.tokenizer.chat_template is None:
            return "", ""
        text = self._probed.rendered.text
        start, words_end, end = self._probed.learnt[0]
        before = self._tag.split(text[start : self._probed.rendered.words[1][0]])[-1]
        return before, self._tag.split(text[words_end:end])[0]

    def _rendered(self, messages: Sequence[Message], *, asked: bool) -> Rendered:
        for place, message in enumerate(messages):
            check(message, place)
            if message.calls or message.think or message.cite or message.context:
                raise DataError(
                    f"message {place + 1}: tool calls, thoughts, citations and contexts are not "
                    "rendered in dialect 'hf'"
                )
        return self._chat.render(messages, asked=asked)

    def _ends(self, rendered: Rendered, place: int) -> int:
        """Where in the text the tag ends that ends the turn of the message at `place`."""
        _, words_end = rendered.words[place]
        tag = self._tag.search(rendered.text, words_end)
        after = [start for start, _ in rendered.words.values() if start >= words_end]
        if tag is None or any(start < tag.end() for start in after if start > words_end):
            raise DataError(
                f"message {place + 1}: the model's chat template ends the assistant's turn with no "
                "control token, so that a model could not learn to stop"
            )
        return tag.end()

    def _turns(self, messages: Sequence[Message]) -> _Turns:
        """The text of a whole conversation, held to what the template asks each answer with."""
        whole = self._rendered(messages, asked=False)
        learnt: list[tuple[int, int, int]] = []
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            asked = self._rendered(messages[:place], asked=True).text
            words_start, words_end = whole.words[place]
            if not whole.text.startswith(asked) or len(asked) > words_start:
                raise DataError(
                    f"message {place + 1}: the model's chat template writes what stands before it "
                    "in another way when it is asked for an answer, so that the model would learn "
                    "from what it is never asked"
                )
            learnt.append((len(asked), words_end, self._ends(whole, place)))
        return _Turns(whole, tuple(learnt))

    def _weighed(
        self, turns: _Turns, ids: Sequence[int], offsets: Sequence[tuple[int, int]]
    ) -> Example:
        self._refuse_tags_in_words(turns.rendered, ids, offsets)
        weights = [0.0] * len(ids)
        at = 0
        for start, words_end, end in turns.learnt:
            while at < len(ids) and max(offsets[at][1], offsets[at][0] + 1) <= start:
                at += 1
            while at < len(ids) and offsets[at][0] < end:
                is_end = ids[at] in self._tags and offsets[at][0] >= words_end
                weights[at] = self.weights.end_turn if is_end else self.weights.content
                at += 1
        return Example(tuple(ids), tuple(weights))

    def _refuse_tags_in_words(
        self, rendered: Rendered, ids: Sequence[int], offsets: Sequence[tuple[int, int]]
    ) -> None:
        """Raises DataError if a control id came out of what a message says."""
        spans = sorted(rendered.words.values())
        tags = [(span, id) for id, span in zip(ids, offsets, strict=True) if id in self._tags]
        at = 0
        for (start, end), id in tags:
            while at < len(spans) and spans[at][1] <= start:
                at += 1
            if at < len(spans) and rendered.text[max(start, spans[at][0]) : end].strip():
                raise DataError(f"what a message says became the control token {self._tags[id]!r}")
