"""Text of one language from OPUS, such as film subtitles: one packed file, a sentence a line.

OPUS does not say where one film ends and the next begins, so documents are so many lines each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from matura.core.errors import DataError
from matura.core.types import Document, Given
from matura.data.download import download
from matura.data.lines import BadLine, decoded, lines
from matura.data.network import cache_folder
from matura.data.source import CHARS_PER_TOKEN, Source

BASE = "https://object.pouta.csc.fi"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"


class Opus(Source):
    """Lines of `corpus` in one language, in groups of `lines_per_document`, in the file's order.

    The file is downloaded when it is first read, if the network is allowed. What may be done with
    it differs from corpus to corpus: see the corpus's page.
    """

    kind: Literal["opus"] = "opus"
    remote: ClassVar[bool] = True
    corpus: str = Field(pattern=f"^{_NAME}$")
    """As OPUS spells it, such as `OpenSubtitles`."""
    language: str = Field(pattern=f"^{_NAME}$")
    """As OPUS spells it, such as `en` or `pt_br`."""
    version: str = Field(pattern=f"^{_NAME}$")
    """Such as `v2018`: always stated, as versions differ."""
    base: str = BASE
    """Where OPUS's files are: a URL, or a folder that holds `OPUS-OpenSubtitles/v2018/mono/…`."""
    lines_per_document: PositiveInt = 32
    token_budget: PositiveInt | None = None
    """Stop after about so many tokens, four characters each."""

    def licence(self) -> str:
        """OPUS names none: whose terms hold is said on the corpus's page."""
        return f"as OPUS's page of {self.corpus} says"

    def inputs(self) -> Iterator[Path]:
        """The file of a folder, to be recorded by hash; OPUS's own never change."""
        if "://" not in self.base:
            yield self._file()

    def read(self, given: Given) -> Iterator[Document]:
        """Each group of lines, blank ones left out; its id is the line it starts at."""
        path = self._file()
        chars, start = 0, 1
        waiting: list[str] = []
        name = f"{self.corpus}.{self.language}"
        for number, text in self._lines(path):
            start = start if waiting else number
            waiting.append(text)
            if len(waiting) < self.lines_per_document:
                continue
            yield Document(text="\n".join(waiting), id=f"{name}:{start}")
            chars += sum(map(len, waiting)) + len(waiting) - 1
            waiting = []
            if self.token_budget and chars >= self.token_budget * CHARS_PER_TOKEN:
                return
        if waiting:
            yield Document(text="\n".join(waiting), id=f"{name}:{start}")
        elif not chars:
            raise DataError(f"{path}: no text")

    def _file(self) -> Path:
        below = f"OPUS-{self.corpus}/{self.version}/mono/{self.language}.txt.gz"
        if "://" not in self.base:
            return Path(self.base, below)
        url = f"{self.base.rstrip('/')}/{below}"
        host = self.base.partition("://")[2].strip("/").replace("/", "_").replace(":", "_")
        return download(url, cache_folder() / "opus" / host / below).path

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        for number, raw in lines(path):
            try:
                text = decoded(raw)
            except BadLine as problem:
                raise DataError(f"{path}:{number}: {problem}") from None
            if text.strip():
                yield number, text
