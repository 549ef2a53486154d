"""Continue a run of random tokens that was seen once: what every kind of copying is made of.

Each two neighbours inside a run are a pair that `core.rng.pair_is_for_exam` keeps out of random
training runs, so nothing about a run can be known but from its one earlier telling. Guessing one
token scores 1 in the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from matura.core.rng import Rng, pair_is_for_exam, rng
from matura.core.types import Task, Trace
from matura.exams.exam import Exam, Hall, spelled

_PROBES, _PROBE_TOKENS = 32, 24
_TRIES = 10_000


class Induction(Exam):
    """Exactly the run, by its length; and how well the best head finds where to look."""

    exam: Literal["induction"] = "induction"
    at_least: float | None = Field(default=0.90, ge=0, le=1)
    """For the whole exam."""
    n: int = Field(default=400, ge=200)
    """Items asked at first, as many of each length."""
    cap: int = Field(default=1600, ge=200)
    """Items asked at most: while the verdict is open, as many again are asked as were asked."""
    longest: int = Field(default=8, ge=1, le=32)
    """Runs have 1 to this many tokens after their cue."""
    noise: int = Field(default=20, ge=5, le=200)
    """Most random tokens before the run, and most after it."""

    def tasks(self, hall: Hall, count: int, start: int = 0) -> Iterator[Task]:
        """Noise, cue, run, noise, cue: the run is wanted. All tokens differ but the cue."""
        vocabulary = hall.tokenizer.text_vocab_size
        bos = hall.sampler.template.bos_id
        for number in range(start, start + count):
            stream = rng(hall.seed, "exam", self.exam, hall.purpose, number)
            length = 1 + number % self.longest
            before = stream.randint(self.noise // 4, self.noise)
            after = stream.randint(self.noise // 4, self.noise)
            ids = _telling(stream, vocabulary, before, length, after)
            cue, run = ids[before], tuple(ids[before + 1 : before + 1 + length])
            yield Task(
                id=f"{self.exam}/{hall.purpose}/{number}/{cue}",
                gold=spelled(run),
                bucket=f"length {length}",
                prompt_ids=(bos, *ids, cue),
                gold_ids=run,
                max_tokens=length,
            )

    def grade(self, task: Task, trace: Trace) -> float:
        """1 if every token of the run came, in order."""
        return float(trace.ids == task.gold_ids and trace.error is None)

    def notes(self, hall: Hall) -> Mapping[str, float]:
        """The strongest head's attention to the token that stood after the current one before."""
        stream = rng(hall.seed, "exam", self.exam, "prefix matching")
        bos = hall.sampler.template.bos_id
        size = _PROBE_TOKENS
        rows: list[list[int]] = []
        for _ in range(_PROBES):
            told = stream.sample(range(hall.tokenizer.text_vocab_size), size)
            rows.append([bos, *told, *told])
        # position t of the second telling holds the token of t - size; what followed it is wanted
        targets = [-1] * (1 + size) + [t - size + 1 for t in range(1 + size, 1 + 2 * size)]
        heads = hall.sampler.prefix_matching(rows, [targets] * _PROBES)
        best, layer, head = max(
            (score, layer, head)
            for layer, scores in enumerate(heads)
            for head, score in enumerate(scores)
        )
        return {
            "prefix_matching": best,
            "prefix_matching_layer": float(layer),
            "prefix_matching_head": float(head),
        }


def _telling(rng: Rng, vocabulary: int, before: int, length: int, after: int) -> list[int]:
    """Different tokens, of which each two neighbours are for exams inside the run and not outside.

    The last token before the second cue is chosen so that it makes no such pair with the cue.
    """
    while True:
        ids: list[int] = []
        for place in range(before + 1 + length + after):
            inside = before < place <= before + length
            token = _next(rng, vocabulary, ids, wanted=inside)
            if token is None:
                break
            ids.append(token)
        else:
            if not pair_is_for_exam(ids[-1], ids[before]):
                return ids


def _next(rng: Rng, vocabulary: int, ids: list[int], *, wanted: bool) -> int | None:
    """A new token that makes the wanted kind of pair with the one before it, or none was found."""
    for _ in range(_TRIES):
        token = rng.randrange(vocabulary)
        if token not in ids and (not ids or pair_is_for_exam(ids[-1], token) == wanted):
            return token
    return None
