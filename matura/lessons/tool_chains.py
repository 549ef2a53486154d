"""Chains of calls: where a number comes from, what is done to it, and where it is kept.

`find lamp in the text, add 40 and note it as kefa` is a search, a sum with what was found, and a
note of what came out: no call can be made before the result of the one before it is read.
"""

from __future__ import annotations

from matura.lessons.arithmetic import Sign, Sum
from matura.lessons.tool_requests import CLAUSES, FIRST, SUM_RULES, TOTALS
from matura.lessons.tool_scenes import Drawn, Request, Scene, payload_of
from matura.lessons.tool_steps import (
    SHRINKING,
    Notebook,
    Step,
    calculate,
    conversion,
    search,
)

_STARTS = {  # by the number of calls
    2: ("convert", "convert", "find", "find", "sum", "set", "both"),
    3: ("convert", "find", "two", "two", "sum", "set two"),
    4: ("convert", "find", "two", "two"),
}
_CALLS = {"convert": 1, "find": 1, "sum": 1, "two": 3}
JOINED = {"en": " and ", "de": " und "}
"""Between two results that are both asked for."""


LARGEST = 299
"""Numbers of a chain, before anything is done to them: what comes of them is written out again in
every call."""


def chain(drawn: Drawn, length: int) -> tuple[Scene, Request]:
    """A request that takes so many calls, 2 to 4, and what it is about."""
    scene = drawn.scene(longest=LARGEST)
    return scene, _Chain(drawn, scene).made(length)


class _Chain:
    """Clauses and their calls, each going on with the number before."""

    def __init__(self, drawn: Drawn, scene: Scene) -> None:
        self.drawn = drawn
        self.scene = scene
        self.pattern = ""
        self.steps: list[Step] = []
        self.values: dict[str, tuple[str, ...]] = {}
        self.number = 0

    def made(self, length: int) -> Request:
        """The whole request."""
        start = self.drawn.rng.choice(_STARTS[length])
        scene = self.scene
        if start in ("set", "set two"):
            return self._noted(start, length)
        first = self._sum if start == "sum" else self._two if start == "two" else None
        if first is not None:
            first()
        elif start == "find":
            self._find(scene.name)
            self.pattern = FIRST["find"][0]
        else:
            self._convert()
        if start == "both":
            return self._both()
        left = length - _CALLS[start]
        # two searches, a sum and a note are more than small contexts hold
        keeps = left > 0 and start != "two" and self.drawn.rng.random() < 0.5
        for _ in range(left - keeps):
            sum_ = self._calculate(self.drawn.sum_of(self.number, longest=LARGEST))
            self._add("m", str(sum_.b))
            self.pattern += "<and>" + CLAUSES[sum_.sign]
        if keeps:
            self._add("k", scene.names[-1])
            self.steps.append(Notebook().set(scene.names[-1], str(self.number)))
            self.pattern += "<and><keeping>"
        # what is kept is also said
        return self._request(length, str(self.number) if keeps else self.steps[-1].result)

    def _add(self, name: str, value: str) -> None:
        """One more value for an open place, in the order of the text."""
        self.values[name] = (*self.values.get(name, ()), value)

    def _request(self, length: int, expected: str) -> Request:
        template = self.drawn.wording(self.scene, [self.pattern])
        reads = any(step.call.name == "search" for step in self.steps)
        payload = payload_of(self.values)
        bucket = f"chain x {length}"
        values: dict[str, str | tuple[str, ...]] = {**self.values}
        return Request("chain", bucket, template, values, self.steps, expected, payload, reads)

    # -- where a number comes from -------------------------------------------------------------

    def _find(self, name: str) -> int:
        step = search(self.scene.lines, name)
        self.steps.append(step)
        self._add("k", name)
        self.number = int(step.result.partition(": ")[2])
        return self.number

    def _convert(self) -> None:
        unit, to = self.drawn.rng.choice(SHRINKING)
        number = str(self.scene.numbers[0])
        for name, value in (("n", number), ("u", unit), ("w", to)):
            self._add(name, value)
        self.steps.append(conversion(f"{number} {unit}", to))
        self.number = int(self.steps[-1].result.partition(" ")[0])
        self.pattern = FIRST["convert"][0]

    def _sum(self) -> None:
        sum_ = self._calculate(self.drawn.sum_of(self.scene.numbers[0]))
        self._add("n", str(sum_.a))
        self._add("m", str(sum_.b))
        self.pattern = FIRST["sum"][0].replace("sum", SUM_RULES[sum_.sign])

    def _two(self) -> None:
        """Two numbers of the text, together."""
        names = self.scene.names[:2]
        first, second = (self._find(name) for name in names)
        self.values = {"k": (names[0],), "j": (names[1],)}
        signs: list[Sign] = ["+", "*"]
        fitting = [sign for sign in signs if Sum(first, sign, second).split == self.drawn.split]
        sum_ = self._calculate(Sum(first, self.drawn.rng.choice(fitting), second))
        self.pattern = FIRST["two"][0] + "<and>" + TOTALS[sum_.sign]

    def _calculate(self, sum_: Sum) -> Sum:
        self.steps.append(calculate(sum_))
        self.number = int(sum_.value)
        return sum_

    # -- chains of another form ----------------------------------------------------------------

    def _both(self) -> Request:
        """A sum that has nothing to do with what came before: both results are asked for."""
        before = self.steps[-1].result
        pattern = self.pattern
        self._sum()
        self.pattern = pattern + "<and>" + self.pattern.removeprefix("<polite>")
        return self._request(2, before + JOINED[self.scene.language] + self.steps[-1].result)

    def _noted(self, start: str, length: int) -> Request:
        """One or two notes, and then the names of all."""
        book = Notebook()
        for number, (name, text) in enumerate((("k", "v"), ("j", "x"))[: length - 1]):
            self._add(name, self.scene.names[number])
            self._add(text, str(self.scene.numbers[number]))
            self.steps.append(book.set(self.values[name][0], self.values[text][0]))
        self.steps.append(book.list())
        self.pattern = FIRST[start][0] + "<and><listing>"
        return self._request(length, self.steps[-1].result)
