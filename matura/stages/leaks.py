"""The exams' items that no found text may hold: a model that has read the questions proves nothing.

What is made up for training is left alone: lessons split their content from their exam's. So are
exams without words of their own: runs of random tokens, and text held out of the source itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Given
from matura.data.build import Readable
from matura.data.build import found_text as found_text
from matura.data.decontaminate import Index, refuse_survivors
from matura.data.sources.corpus import Corpus
from matura.exams.exam import Exam, Hall
from matura.text.template import Template

SHOWN = 3


class _Desk:
    """A sampler's template without a model: enough to make an exam's items."""

    weights_sha256 = ""

    def __init__(self, template: Template) -> None:
        self.template = template


def exam_index(exams: Sequence[Exam], template: Template, seed: int) -> Index | None:
    """What the exams' users say, to be looked for; None if they say nothing.

    The items that a gate asks first; those that it asks besides while its verdict is open are made
    of the same words and wordings. An item of fewer than five words is found only where it is all
    that a document says, or "Say hello." would empty a corpus.
    """
    index = Index(item for exam in exams for item in _items(exam, template, seed))
    return index if len(index) else None


def _items(exam: Exam, template: Template, seed: int) -> Iterator[tuple[str, str]]:
    if exam.better == "lower":
        return
    desk: Any = _Desk(template)
    hall = Hall(desk, seed, held_out=lambda: ())
    for task in islice(exam.tasks(hall, exam.n), exam.n):
        if task.prompt_ids is None:
            yield from ((task.id, turn.content) for turn in task.messages if turn.role == "user")


def refuse_leaks(source: Readable, items: Index | None) -> None:
    """Looks into a corpus that was made before, from which nothing can be left out any more.

    Raises:
        DataError: it holds an exam's item; says which, where and in what words.
    """
    if isinstance(source, Corpus) and items is not None:
        try:
            refuse_survivors(source.read(Given(rng=rng(0, "leaks"))), items)
        except DataError as problem:
            hint = "prepare the corpus again with these words in a file that --against names"
            raise DataError(f"{source.path}: {problem}; {hint}") from None


def leaks(examined: Mapping[str, Any]) -> Iterator[str]:
    """A line on the documents that were left out, and one on each of the first hits."""
    if not examined.get("dropped"):
        return
    dropped = ", ".join(f"{count:,} {why}" for why, count in examined["dropped"].items())
    yield f"of {examined['read']:,} documents left out: {dropped}"
    for hit in examined["hits"][:SHOWN]:
        yield f"{hit['document']} holds {hit['item']} ({hit['rule']}): {hit['text'][:80]!r}"
