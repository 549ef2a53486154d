"""JSON by a given schema, and calls of tools that only exist in the prompt, written as text.

Every value of an answer is copied from the prompt; what has to be understood is which of the facts
the schema asks for, under which names, as which types, and what is left out. Where tools are
listed, one of them may fit the request (a call), none may (said so), or nothing but a copy may be
wanted (a direct answer): three decisions about nearly the same words.

Distinct items, payloads left open: 3 x 10^4 wordings times 5 x 10^5 schemas of up to four fields
times some 10^3 ways to tell the facts; for calls 7 x 10^5 requests times 10^3 lists of tools. Of
40,000 items drawn, 25,000 wordings, 17,000 schemas and 34,000 answers are different.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import ClassVar, Literal

from pydantic import Field

from matura.core.types import Conversation, Given
from matura.lessons.lesson import Lesson, conversation, unrepeated
from matura.lessons.phrasing import Grammar
from matura.lessons.records import Form, Style, Told, invented_names, retyped, spell_json, tell
from matura.lessons.signatures import (
    FRAMES,
    NO_TOOL,
    REQUESTS,
    SLOTS,
    TOOLS,
    Tool,
    left_alone,
    listed,
    unfit,
    written,
)
from matura.lessons.words import Gibberish, Language, Words

FORMS: tuple[Form, ...] = ("RECORD", "OPTIONAL", "NESTED")
"""Flat with every value given; some fields optional, perhaps without a value; an object inside."""
JSON_OPERATORS = (*FORMS, "CALL")
"""Those whose answer is JSON; the others are DIRECT (a copy) and NONE (no tool fits)."""

GRAMMARS: dict[Language, Grammar] = {
    "en": Grammar(
        "en",
        [
            "<json> with {S}<source>{X}",
            "<polite><make> <json> with {S}<source>{X}",
            "<polite><make> <json><gap><fields>: {S}<text>{X}",
            "<fields>: {S}<text>{X}<gap><polite><make> <json>",
            "{X}<gap><polite><make> <json> with {S}",
            "<from> {X}<gap><polite><make> <json> with {S}",
        ],
        {
            "polite": ("", "", "please ", "now ", "just ", "you must "),
            "make": ("make", "write", "give me", "build", "return", "output", "create", "fill"),
            "json": ("JSON", "JSON", "a JSON object", "only JSON", "one JSON object"),
            "source": (" from: ", " from: ", " from this: ", " out of: ", " from:\n", ":\n"),
            "fields": ("fields", "keys", "schema", "JSON keys", "the fields"),
            "text": ("\ntext: ", "\nfrom: ", "\nfacts: ", "\n\n", "\ninput: "),
            "gap": ("\n", "\n", " - ", "\n\n"),
            "from": ("text:", "from this:", "facts:", "read this:", "input:"),
        },
    ),
    "de": Grammar(
        "de",
        [
            "JSON mit {S}<source>{X}",
            "<polite><make> <json> mit {S}<source>{X}",
            "<fields>: {S}<text>{X}<gap><polite><make> <json>",
            "{X}<gap><polite><make> <json> mit {S}",
        ],
        {
            "polite": ("", "", "bitte ", "nun ", "jetzt ", "also "),
            "make": ("schreib", "schreibe", "mache", "erstelle", "baue", "gib mir"),
            "json": ("JSON", "ein JSON-Objekt", "nur JSON"),
            "source": (" aus: ", " aus: ", " hieraus: ", " aus:\n", ":\n"),
            "fields": ("Felder", "Schema", "Namen"),
            "text": ("\nText: ", "\naus: ", "\n\n"),
            "gap": ("\n", "\n", " - ", "\n\n"),
        },
    ),
}
"""`{S}` is the schema, `{X}` the text."""


class Structured(Lesson):
    """JSON records by schema, JSON tool calls, and answers that need neither."""

    presets: ClassVar[Mapping[str, int]] = {"run4": 800}

    kind: Literal["structured"] = "structured"
    gibberish: Gibberish = "include"
    max_fields: int = Field(default=4, ge=1, le=7)
    """Schemas have 1 to this many fields (with optional ones at least 2), each equally often."""
    max_tools: int = Field(default=3, ge=1, le=5)
    """Prompts list 1 to this many tools, each equally often."""
    tools: float = Field(default=0.4, ge=0.0, le=1.0)
    """Share of items with tools: half of them calls, half answered directly."""
    declined: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of calls beside which the same request is declined, as no tool fits; beside the others
    something is to be copied. Fewer, and a small model seldom declines a request that a tool fits,
    which is no JSON then."""
    optional: int = Field(default=1, ge=1, le=4)
    """How many records with optional fields come for each flat and each nested one: what is left
    out, and when, is learnt last."""
    contrast: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of flat records asked for again from the same text, with other types."""
    prose: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of facts told by a phrase of their own (`costs 12`, `is not paid`), where there is
    one."""
    invented: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of records and of calls whose names are made up: of those that are known, a small model
    soon remembers what mostly follows them. Exams have none."""
    lines: bool = False
    """Whether every text is lines of `name: value` in the schema's order; else it is told in one of
    hundreds of ways, in any order."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """Records and calls without end: forms, field counts and tool counts each in turn."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        words = Words.of(given.split, self.gibberish, given.tokenizer)
        forms = [form for form in FORMS for _ in range(self.optional if form == "OPTIONAL" else 1)]
        records = cycle([(f, n) for n in range(1, self.max_fields + 1) for f in forms])
        tools = cycle(range(1, self.max_tools + 1))
        made, with_tools = 0, 0
        while True:
            language: Language = "de" if given.rng.random() < self.german else "en"
            # counted in items, so that every stretch is at the share asked for
            if with_tools + 2 <= self.tools * (made + 2):
                with_tools += 2
                group = self._with_tools(given, words, next(tools), language)
            else:
                form, count = next(records)
                group = self._record(given, words, form, count, language)
            made += len(group)
            yield group

    def _record(
        self, given: Given, words: Words, form: Form, count: int, language: Language
    ) -> tuple[Conversation, ...]:
        count = max(2, count) if form == "OPTIONAL" else count
        style = Style(self.prose, self.lines, self.invented)
        told = tell(words, given.rng, form, count, language, style)
        both = [told]
        if form == "RECORD" and given.rng.random() < self.contrast:
            other = retyped(told, given.rng, given.split)
            both += [other] if other is not None else []
        return tuple(_filled(given, one, form, count) for one in both)

    def _with_tools(
        self, given: Given, words: Words, count: int, language: Language
    ) -> tuple[Conversation, ...]:
        """A call; and under the same tools a copy, or the same request where no tool fits it."""
        rng = given.rng
        tool = rng.choice(TOOLS[language])
        names = tool.named(rng)
        if rng.random() < self.invented:
            names = tuple(invented_names(rng, len(names)))
        values = tool.values(words, rng, language)
        tools = listed(rng, language, tool, count)
        request = REQUESTS[language][tool.name].draw(rng, given.split).text
        call = spell_json(tool.call(names, values, language))
        asked = _asked(given, "CALL", tool, values, request, written(tools, tool, names, rng), call)
        if rng.random() < 1 - self.declined:
            wording, copied = left_alone(rng, given.split, language, tool)
            listing = written(tools, tool, names, rng)
            other = _asked(given, "DIRECT", tool, values, wording, listing, _fill(copied, values))
        else:
            tools = unfit(rng, language, tool, count)
            request = REQUESTS[language][tool.name].draw(rng, given.split).text
            listing = written(tools, tool, names, rng)
            other = _asked(given, "NONE", tool, values, request, listing, NO_TOOL[language])
        return (asked, other) if rng.random() < 0.5 else (other, asked)


def _filled(given: Given, told: Told, form: Form, count: int) -> Conversation:
    phrasing = GRAMMARS[told.language].draw(given.rng, given.split)
    schema = told.schema(given.rng)
    absent = sum(field.fact is None for field in told.fields)
    return conversation(
        phrasing.about(told.text).replace("{S}", schema),
        operator=form,
        payload=" ".join(told.payload),
        template=phrasing.text,
        language=told.language,
        bucket=f"{form} x {count}",
        expected=spell_json(told.answer),
        extra={"schema": schema, "schema_key": told.split_key, "absent": str(absent)},
    )


def _asked(
    given: Given,
    operator: Literal["CALL", "DIRECT", "NONE"],
    tool: Tool,
    values: tuple[str, ...],
    request: str,
    listing: str,
    expected: str,
) -> Conversation:
    """A request, itself worded for the split, in a frame with the list of tools."""
    frame = FRAMES[tool.language].draw(given.rng, given.split)
    template = frame.text.replace("{Q}", request)
    return conversation(
        _fill(template, values).replace("{T}", listing),
        operator=operator,
        payload=" ".join(tool.payload(values, request)),
        template=template,
        language=tool.language,
        bucket=f"{operator} x {listing.count('(')}",
        expected=expected,
        extra={"tools": listing, "tool": tool.name},
    )


def _fill(pattern: str, values: tuple[str, ...]) -> str:
    for slot, value in zip(SLOTS, values, strict=False):
        pattern = pattern.replace(slot, value)
    return pattern
