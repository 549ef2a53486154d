"""How much of a text says again what it said: lines, runs of words, bytes that compress away.

All of it is within one document. What documents have of each other is `dedup`'s business.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

RUN_WORDS = 5
LOOK_WORDS = 50_000
"""Of a longer text the first so many are looked at for runs."""
LOOK_BYTES = 2**16
"""Likewise, for compression."""
LINE_WORDS = 3
"""A line of fewer words (a brace, a name) says nothing again."""


@dataclass(slots=True)
class Repeats:
    """Sums over documents; shares are of what was looked at."""

    lines: int = 0
    lines_again: int = 0
    runs: int = 0
    runs_again: int = 0
    raw_bytes: int = 0
    packed_bytes: int = 0

    def add(self, text: str, lines: list[str]) -> float:
        """Counts one document and returns its own share of repeated runs."""
        said = [line.strip() for line in lines if len(line.split(None, LINE_WORDS)) >= LINE_WORDS]
        self.lines += len(said)
        self.lines_again += len(said) - len(set(said))
        words = text.split(None, LOOK_WORDS)[:LOOK_WORDS]
        runs = max(0, len(words) - RUN_WORDS + 1)
        again = runs - len(set(zip(*(words[i:] for i in range(RUN_WORDS)), strict=False)))
        self.runs += runs
        self.runs_again += again
        raw = text[:LOOK_BYTES].encode("utf-8", "surrogatepass")[:LOOK_BYTES]
        self.raw_bytes += len(raw)
        self.packed_bytes += len(zlib.compress(raw, 1))
        return again / max(1, runs)

    def shares(self) -> dict[str, float]:
        """`runs`: of runs of 5 words, those that stand in the document before; `lines` likewise;
        `packed`: what is left of it after zlib."""
        return {
            "runs": self.runs_again / max(1, self.runs),
            "lines": self.lines_again / max(1, self.lines),
            "packed": self.packed_bytes / max(1, self.raw_bytes),
        }


def overlap_chars(before: str, after: str) -> int:
    """How many characters at the end of one text, in whole lines, are the beginning of the next."""
    old, new = before.split("\n"), after.split("\n")
    # windows end in a newline, and both have a last line of nothing then
    old = old[:-1] if old[-1] == "" else old
    for count in range(min(len(old), len(new)), 0, -1):
        if old[-count] == new[0] and old[-count:] == new[:count]:
            return sum(map(len, new[:count])) + count
    return 0
