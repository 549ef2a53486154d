"""Documents for `corpus.py`: pieces of the standard library and of installed packages, with planted
near-duplicates and with pieces that only look like some.

A planted copy has a few words changed, a line put in or an end cut off, and so keeps at least 80 %
of its runs of five words. A lookalike keeps about half of them, and is to be kept.
"""

from __future__ import annotations

import json
import re
import site
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

PIECE_CHARS = 1600
FILES = 16
PLANTED, LOOKALIKE = 0.10, 0.02
SUFFIXES = (".py", ".txt", ".rst", ".md", ".pyi")
WORD = re.compile(r"[A-Za-z_]{3,}")
RUN = 5
ALIKE, UNLIKE = 0.8, 0.7
"""Planted copies are at least so alike, lookalikes at most: shares of runs of five words."""


@dataclass(frozen=True)
class Planted:
    """Which documents were planted, by id."""

    copies: dict[str, str]
    """Each copy and what it is a copy of."""
    lookalikes: dict[str, str]
    documents: int
    characters: int


def pieces(limit: int) -> Iterator[str]:
    """Different pieces of about `PIECE_CHARS`, cut between lines, in the order of paths; where
    there are no more, the same ones with other words."""
    seen: set[int] = set()
    made, generation = 0, 0
    while made < limit:
        for text in _pieces():
            if generation:
                text = WORD.sub(rf"\g<0>{generation}x", text)
            if (key := hash(text)) in seen:
                continue
            seen.add(key)
            yield text
            made += 1
            if made == limit:
                return
        generation += 1


def _pieces() -> Iterator[str]:
    roots = [sysconfig.get_path("stdlib"), *site.getsitepackages()]
    for root in map(Path, roots):
        for path in sorted(root.rglob("*")):
            inside = root != Path(roots[0]) or "site-packages" not in path.parts
            if path.suffix not in SUFFIXES or not inside or not path.is_file():
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            held: list[str] = []
            size = 0
            for line in text.splitlines(keepends=True):
                held.append(line)
                size += len(line)
                if size >= PIECE_CHARS:
                    if size < 3 * PIECE_CHARS:
                        yield "".join(held)
                    held, size = [], 0


def write(folder: Path, documents: int, seed: int = 0) -> Planted:
    """So many documents in all as JSON lines in `FILES` files, planted ones after what they are
    copies of and anywhere in what follows."""
    draw = Random(seed)
    copies: dict[str, str] = {}
    lookalikes: dict[str, str] = {}
    base = int(documents * (1 - PLANTED - LOOKALIKE))
    made = characters = 0
    waiting: list[tuple[int, str, str, dict[str, str]]] = []
    outs = [(folder / f"part-{n:02}.jsonl").open("w", encoding="utf-8") for n in range(FILES)]

    def put(text: str) -> str:
        nonlocal made, characters
        number = min(FILES - 1, made * FILES // documents)
        name = f"d{made}"
        outs[number].write(json.dumps({"id": name, "text": text}) + "\n")
        made += 1
        characters += len(text)
        return name

    for place, text in enumerate(pieces(base)):
        name = put(text)
        chance = draw.random()
        if chance < PLANTED / (1 - PLANTED - LOOKALIKE):
            if (copy := changed(draw, text)) is not None:
                waiting.append((place + draw.randrange(1, 2000), copy, name, copies))
        elif (
            chance < (PLANTED + LOOKALIKE) / (1 - PLANTED - LOOKALIKE)
            and (other := mixed(draw, text)) is not None
        ):
            waiting.append((place + draw.randrange(1, 2000), other, name, lookalikes))
        if len(waiting) > 500:
            later = []
            for due, copy, of, into in waiting:
                if due <= place:
                    into[put(copy)] = of
                else:
                    later.append((due, copy, of, into))
            waiting = later
    for _, copy, of, into in waiting:
        into[put(copy)] = of
    for out in outs:
        out.close()
    return Planted(copies, lookalikes, made, characters)


def changed(draw: Random, text: str) -> str | None:
    """A near-duplicate, or None if the text is too short for a change that is small."""
    for _ in range(10):
        way = draw.randrange(3)
        lines = text.splitlines(keepends=True)
        if way == 0:
            words = list(WORD.finditer(text))
            copy = text
            for word in sorted(draw.sample(words, min(3, len(words))), key=lambda w: -w.start()):
                copy = f"{copy[: word.start()]}changed{draw.randrange(999)}{copy[word.end() :]}"
        elif way == 1:
            lines.insert(draw.randrange(len(lines)), f"# a line of {draw.random()} put in\n")
            copy = "".join(lines)
        else:
            copy = "".join(lines[: max(1, int(len(lines) * draw.uniform(0.9, 0.97)))])
        if alike(text, copy) >= ALIKE + 0.03 and copy != text:
            return copy
    return None


def mixed(draw: Random, text: str) -> str | None:
    """A text with about half of this one's runs of words and as many others."""
    lines = text.splitlines(keepends=True)
    cut = int(len(lines) * draw.uniform(0.55, 0.75))
    rest = (WORD.sub(lambda word: f"{word[0]}{draw.randrange(99)}q", line) for line in lines[cut:])
    other = "".join([*lines[:cut], *rest])
    return other if 0.3 < alike(text, other) < UNLIKE else None


def alike(left: str, right: str) -> float:
    """The share of runs of five words that both have, of all that either has."""
    a, b = runs(left), runs(right)
    return len(a & b) / max(1, len(a | b))


def runs(text: str) -> set[tuple[str, ...]]:
    """The runs of five words of a text; the whole of a shorter one."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + RUN]) for at in range(max(1, len(words) - RUN + 1))}
