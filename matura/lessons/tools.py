"""Which tool to call, with what, and to go on with its result: calculator, convert, notes, search.

The same number and word go through all four tools and through none, so that only the request tells
them apart. Chains hand one call's result to the next, up to four calls. Some calls fail through no
fault of the caller (a misspelt name, a word that is not in the text): the error's own hint is then
called with, or the error is told. In English 150 to 3,500 wordings of each request for one call and
more than 10**4 of each chain, times hundreds of numbers and some 10**6 names for each open place:
more than 10**9 requests for one call, 10**15 chains.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from typing import Literal

from pydantic import Field

from matura.core.types import Conversation, Given, Message, TextCodec
from matura.lessons.arithmetic import TOOL as CALCULATOR
from matura.lessons.arithmetic import Sum
from matura.lessons.lesson import Lesson, unrepeated
from matura.lessons.tool_chains import chain
from matura.lessons.tool_requests import SUMS
from matura.lessons.tool_scenes import Drawn, Request, Scene, payload_of
from matura.lessons.tool_steps import (
    CLASHING,
    MISSPELT,
    OTHERS,
    SHRINKING,
    Notebook,
    calculate,
    conversion,
    filled,
    misspelt,
    misspelt_unit,
    search,
)
from matura.lessons.words import Gibberish, Language
from matura.text.dialects import JOINT

NO_TOOL, RECOVERY, TOLD = "no tool", "recovery", "error told"
SINGLES = ("calculator", "convert", "notes", "search")
"""Buckets of one call, each named like its tool."""

_SYSTEM: dict[Language, tuple[str, ...]] = {
    "en": ("You have tools.", "Use your tools.", "Be brief.", "You are a helper with tools."),
    "de": ("Du hast Werkzeuge.", "Antworte kurz.", "Nutze deine Werkzeuge."),
}
_TRIES = 12
_TURN_TOKENS = 2
"""The most tags around what is said."""
_SORRY: dict[Language, str] = {"en": "That does not work: ", "de": "Das geht nicht: "}


class Tools(Lesson):
    """One call, several, a corrected one, or none."""

    kind: Literal["tools"] = "tools"
    gibberish: Gibberish = "include"
    longest: int = Field(default=4, ge=2, le=4)
    """Calls in the longest chain."""
    sums: int = Field(default=1, ge=1, le=3)
    """Sums about each scene: the same two numbers under so many signs, else their sizes tell
    more about the sign than the word does."""
    chains: int = Field(default=3, ge=1, le=12)
    """How many chains come for nine other items."""
    largest: int = Field(default=999, ge=299)
    """Numbers go up to this, factors up to 99."""
    max_lines: int = Field(default=3, ge=3, le=12)
    """Lines of a text to search in: 2 to this many."""
    with_text: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of requests for one other call, or none, that come with a text as well."""
    most_tokens: int = Field(default=200, ge=100)
    """A conversation longer than this is drawn again, a few times; without a tokenizer none is."""

    def items(self, given: Given) -> Iterator[Conversation]:
        """Nine items in turn, the first five about one scene, and then the chains."""
        return unrepeated(self._groups(given))

    def _groups(self, given: Given) -> Iterator[tuple[Conversation, ...]]:
        maker = _Maker(given, self)
        length = 2
        while True:
            scene = maker.drawn.scene()
            first = maker.drawn.sum_of(scene.numbers[0])
            yield tuple(
                maker.finish(scene, make(scene))
                for make in (
                    partial(maker.sum, sum_=first),
                    maker.conversion,
                    maker.noting,
                    maker.finding,
                    maker.copying,
                )
            )
            for other in maker.drawn.under_other_signs(first)[: self.sums - 1]:
                yield (maker.finish(scene, maker.sum(scene, other)),)
            for make in (maker.reading, maker.copying, maker.retry, maker.tell):
                yield maker.one(make)
            for _ in range(self.chains):
                yield maker.chain(length)
                length = length + 1 if length < self.longest else 2


class _Maker:
    """Makes items of one split."""

    def __init__(self, given: Given, lesson: Tools) -> None:
        self.lesson = lesson
        self.rng = given.rng
        self.drawn = Drawn(
            given,
            gibberish=lesson.gibberish,
            german=lesson.german,
            largest=lesson.largest,
            max_lines=lesson.max_lines,
        )

    # -- items of one call or none -------------------------------------------------------------

    def sum(self, scene: Scene, sum_: Sum) -> Request:
        """A sum of the scene's number."""
        values = {"n": str(sum_.a), "m": str(sum_.b)}
        step = calculate(sum_)
        wording = self.drawn.wording(scene, SUMS[sum_.sign])
        return Request(
            "calculate", "calculator", wording, values, [step], step.result, payload_of(values)
        )

    def conversion(self, scene: Scene) -> Request:
        """The scene's number of some unit."""
        unit, to = self.rng.choice(self.rng.choice((SHRINKING, OTHERS)))
        values = {"n": str(scene.numbers[0]), "u": unit, "w": to}
        step = conversion(f"{values['n']} {unit}", to)
        wording = self.drawn.single(scene, "convert")
        return Request(
            "convert", "convert", wording, values, [step], step.result, payload_of(values, "n")
        )

    def noting(self, scene: Scene) -> Request:
        """The scene's number, or a word, under its name."""
        text = str(scene.numbers[0]) if self.rng.random() < 0.7 else scene.names[-1]
        values = {"k": scene.name, "v": text}
        step = Notebook().set(scene.name, text)
        wording = self.drawn.single(scene, "set")
        return Request("set", "notes", wording, values, [step], step.result, payload_of(values))

    def reading(self, scene: Scene) -> Request:
        """A note of an earlier turn, or the names of all."""
        book, said = self._noted(scene, text=scene.names[-1])
        values = {"k": scene.name}
        operator = "get" if self.rng.random() < 0.7 else "list"
        step = book.get(scene.name) if operator == "get" else book.list()
        wording = self.drawn.single(scene, operator)
        payload = [scene.name, scene.names[-1]]
        return Request(
            operator, "notes", wording, values, [step], step.result, payload, before=said
        )

    def finding(self, scene: Scene) -> Request:
        """What the text has for the scene's name."""
        step = search(scene.lines, scene.name)
        value = step.result.partition(": ")[2]
        wording = self.drawn.single(scene, "find")
        payload = [scene.name, value]
        return Request("find", "search", wording, {"k": scene.name}, [step], value, payload, True)

    def copying(self, scene: Scene) -> Request:
        """The same words as in the other requests, only to be said again."""
        sum_ = self.drawn.sum_of(scene.numbers[0])
        unit, _ = self.rng.choice(SHRINKING)
        text, payload = self.rng.choice(
            (
                (f"{sum_.a} {sum_.sign} {sum_.b}", [str(sum_.a), str(sum_.b)]),
                (f"{sum_.a} {unit}", [str(sum_.a)]),
                (f"{scene.name}: {sum_.a}", [scene.name, str(sum_.a)]),
                (f"{scene.name} {scene.names[-1]}", [scene.name, scene.names[-1]]),
            )
        )
        wording = self.drawn.single(scene, "copy")
        return Request("copy", NO_TOOL, wording, {"p": text}, [], text, payload)

    # -- calls that fail -----------------------------------------------------------------------

    def retry(self, scene: Scene) -> Request:
        """A call fails, and what it needs to succeed stands in the error or in the request."""
        return self.rng.choice((self._other_unit, self._other_note, self._other_word))(scene)

    def _other_unit(self, scene: Scene) -> Request:
        name, to = self.rng.choice(MISSPELT)
        wrong = misspelt_unit(self.rng, name)
        values = {"n": str(scene.numbers[0]), "u": wrong, "w": to}
        steps = [conversion(f"{values['n']} {unit}", to) for unit in (wrong, name)]
        wording = self.drawn.single(scene, "convert")
        return Request(
            "retry", RECOVERY, wording, values, steps, steps[1].result, payload_of(values, "n")
        )

    def _other_note(self, scene: Scene) -> Request:
        book, said = self._noted(scene, text=scene.names[-1])
        hint = f"(did you mean {scene.name!r}?)"
        wrong = scene.name
        while hint not in (failed := book.get(wrong)).result:
            wrong = misspelt(self.rng, scene.name)
        steps = [failed, book.get(scene.name)]
        wording = self.drawn.single(scene, "get")
        payload = [scene.name, scene.names[-1]]
        return Request(
            "retry", RECOVERY, wording, {"k": wrong}, steps, steps[1].result, payload, before=said
        )

    def _other_word(self, scene: Scene) -> Request:
        missing, name = scene.names[-1], scene.name
        steps = [search(scene.lines, word) for word in (missing, name)]
        wording = self.drawn.single(scene, "either")
        value = steps[1].result.partition(": ")[2]
        values = {"k": missing, "j": name}
        return Request("retry", RECOVERY, wording, values, steps, value, payload_of(values), True)

    def tell(self, scene: Scene) -> Request:
        """A call fails and nothing can be done about it."""
        values = {"n": str(scene.numbers[0]), "m": "0", "k": scene.names[-1]}
        reads = False
        kind = self.rng.choice(("convert", "sum", "find", "get"))
        match kind:
            case "convert":
                values["u"], values["w"] = self.rng.choice(CLASHING)
                step = conversion(f"{values['n']} {values['u']}", values["w"])
            case "sum":
                step = calculate(Sum(scene.numbers[0], "/", 0))
            case "find":
                step, reads = search(scene.lines, values["k"]), True
            case _:
                step = Notebook().get(values["k"])
        by_sum = kind == "sum"
        template = (
            self.drawn.wording(scene, SUMS["/"]) if by_sum else self.drawn.single(scene, kind)
        )
        told = _SORRY[scene.language] + step.result.removeprefix("error: ")
        payload = payload_of(values, "n" if by_sum or kind == "convert" else "k")
        return Request("tell", TOLD, template, values, [step], told, payload, reads)

    def _noted(self, scene: Scene, text: str) -> tuple[Notebook, list[Message]]:
        """A turn in which a note was taken, and the notes after it."""
        book = Notebook()
        step = book.set(scene.name, text)
        asked = filled(self.drawn.single(scene, "set"), {"k": scene.name, "v": text})
        return book, [Message("user", asked), *step.said, Message("assistant", step.result)]

    # -- putting together ----------------------------------------------------------------------

    def chain(self, length: int) -> tuple[Conversation]:
        """So many calls in turn, about a scene of their own."""
        return self._fitting(lambda: self.finish(*chain(self.drawn, length)))

    def one(self, make: Callable[[Scene], Request]) -> tuple[Conversation]:
        """An item about a scene of its own."""

        def draw() -> Conversation:
            scene = self.drawn.scene()
            return self.finish(scene, make(scene))

        return self._fitting(draw)

    def _fitting(self, draw: Callable[[], Conversation]) -> tuple[Conversation]:
        """The first that is short enough, or else the shortest of some."""
        drawn: list[tuple[int, Conversation]] = []
        while len(drawn) < _TRIES:
            item = draw()
            length = _length(item, self.drawn.tokenizer)
            if length <= self.lesson.most_tokens:
                return (item,)
            drawn.append((length, item))
        return (min(drawn, key=lambda pair: pair[0])[1],)

    def finish(self, scene: Scene, item: Request) -> Conversation:
        """The conversation, and all that a split or an exam must know about it."""
        said = [message for step in item.steps for message in step.said]
        question = filled(item.template, item.values)
        place, share = self.rng.random(), self.lesson.with_text
        shown = item.reads or (len(item.steps) < 2 and not item.before)
        text = "\n".join(scene.lines) if shown and (item.reads or place < share) else ""
        system = text if self.rng.random() < 0.5 else ""
        context = "" if system else text
        if len(item.steps) < 3 and not text and place > 0.85:
            system = self.rng.choice(_SYSTEM[scene.language])
        messages = [Message("system", system)] if system else []
        messages += [*item.before, Message("user", question, context=context)]
        first = takewhile(lambda message: message.role != "assistant", messages)
        asked = "\n".join(f"{message.context}\n{message.content}" for message in first)
        calls = [[s.call.name, dict(s.call.arguments), s.result, s.ok] for s in item.steps]
        meta = {
            "operator": item.operator,
            "payload": " ".join(item.payload),
            "template": item.template,
            "language": scene.language,
            "bucket": item.bucket,
            "expected": item.expected,
            "calls": json.dumps(calls, ensure_ascii=False),
        }
        messages += [*said, Message("assistant", item.expected)]
        return Conversation(tuple(messages), id=f"{item.operator}:{asked}", meta=meta)


def _length(item: Conversation, tokenizer: TextCodec | None) -> int:
    """Tokens of the whole conversation, its tags at their most; 0 without a tokenizer."""
    if tokenizer is None:
        return 0
    total = _TURN_TOKENS  # begin and end
    for turn in item.messages:
        texts = [turn.context and turn.context + JOINT, turn.content]
        for call in turn.calls:
            spelled = {"name": call.name, "arguments": dict(call.arguments)}
            bare = call.name == CALCULATOR
            texts += call.arguments.values() if bare else [json.dumps(spelled, ensure_ascii=False)]
        total += _TURN_TOKENS + sum(len(tokenizer.encode(text)) for text in texts if text)
    return total
