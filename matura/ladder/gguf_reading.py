"""What llama.cpp makes of text by a GGUF file of tokenizer kind `llama`, from the file's header
alone.

Written after what it does, to check what was written for it: tags are cut out first, the longest
first; a space goes in front of each stretch between them, if the header says so; then neighbours
that spell a token are joined, the highest score first and of equal ones the leftmost; what is no
token after that becomes single bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Literal

from matura.ladder.gguf_tokens import CONTROL, UNKNOWN, USER_DEFINED
from matura.text.imported import SPACE

Tags = Literal["read", "text"]
"""Whether what spells a control tag is the tag, or text."""
TOKENIZER = "tokenizer.ggml."
"""What the names of a header's fields about text begin with."""


class Reading:
    """A tokenizer of scored tokens."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        """`said`: the fields of a file's header."""
        texts, types = said[TOKENIZER + "tokens"], said[TOKENIZER + "token_type"]
        self._ids: Mapping[str, int] = {text: n for n, text in enumerate(texts)}
        self._scores = [float(score) for score in said[TOKENIZER + "scores"]]
        self._prefix = SPACE if said[TOKENIZER + "add_space_prefix"] else ""
        cut = (CONTROL, UNKNOWN, USER_DEFINED)
        whole = [n for n, kind in enumerate(types) if kind in cut and texts[n]]
        whole.sort(key=lambda n: -len(texts[n].encode()))
        self._whole = [(texts[n], n) for n in whole]
        self._words = [(texts[n], n) for n in whole if types[n] == USER_DEFINED]

    def encode(self, text: str, *, tags: Tags = "read") -> list[int]:
        """The ids of a text whose tags are tags, or whose control tags are text."""
        found: list[int] = []
        for part in self._parts(text, self._whole if tags == "read" else self._words):
            found += [part] if isinstance(part, int) else self.stretch(self._prefix + part)
        return found

    def _parts(self, text: str, whole: Iterable[tuple[str, int]]) -> list[str | int]:
        parts: list[str | int] = [text] if text else []
        for tag, id in whole:
            cut: list[str | int] = []
            for part in parts:
                if isinstance(part, int):
                    cut.append(part)
                    continue
                for n, rest in enumerate(part.split(tag)):
                    cut += ([id] if n else []) + ([rest] if rest else [])
            parts = cut
        return parts

    def stretch(self, text: str) -> list[int]:
        """The ids of text between tags, as it stands."""
        symbols = list(text.replace(" ", SPACE))
        after = list(range(1, len(symbols) + 1))
        before = list(range(-1, len(symbols) - 1))

        def join(left: int) -> tuple[float, int, int, int] | None:
            right = after[left]
            if left < 0 or right == len(symbols):
                return None
            id = self._ids.get(symbols[left] + symbols[right])
            size = len(symbols[left]) + len(symbols[right])
            return None if id is None else (-self._scores[id], left, right, size)

        queue = [pair for pair in map(join, range(len(symbols))) if pair]
        heapify(queue)
        while queue:
            _, left, right, size = heappop(queue)
            if not symbols[left] or not symbols[right]:
                continue
            if len(symbols[left]) + len(symbols[right]) != size:
                continue  # one of them has grown since
            symbols[left] += symbols[right]
            symbols[right] = ""
            after[left] = after[right]
            if after[right] < len(symbols):
                before[after[right]] = left
            for pair in (join(before[left]), join(left)):
                if pair:
                    heappush(queue, pair)
        return [id for symbol in symbols if symbol for id in self._ids_of(symbol)]

    def _ids_of(self, symbol: str) -> list[int]:
        if symbol in self._ids:
            return [self._ids[symbol]]
        named = [(f"<0x{byte:02X}>", chr(byte)) for byte in symbol.encode()]
        return [self._ids.get(name, self._ids.get(char, -1)) for name, char in named]
