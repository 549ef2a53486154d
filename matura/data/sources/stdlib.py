"""The running Python's standard library: 10 MB of code and prose that every machine has.

Nothing is imported: files are read as text, and the language reference that lies in
`pydoc_data/topics.py` as one dictionary is parsed and yielded topic by topic. Docstrings are not
taken out separately, for they stand in the code, and held-out code would then be trained on as
prose.
"""

from __future__ import annotations

import ast
import io
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from matura.core.errors import DataError
from matura.core.rng import fraction
from matura.core.types import Document, Given
from matura.data.lines import whole
from matura.data.source import Source

TOPICS = "pydoc_data/topics.py"
PROSE = (".txt", ".rst")


class Stdlib(Source):
    """Code and prose of the standard library, in the order of paths."""

    kind: Literal["stdlib"] = "stdlib"
    parts: tuple[Literal["code", "prose"], ...] = ("code", "prose")
    """`code` is the .py files; `prose` the .txt and .rst files and the language reference."""
    max_bytes: PositiveInt | None = None
    """Cap on bytes of text; which files make it is decided by their content, not by their names."""
    exclude: tuple[str, ...] = (
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idle_test",
        "encodings",  # a megabyte of character tables
        "config-*",
        "_sysconfigdata*",  # differs from machine to machine
    )
    """Names of folders and files to leave out; a star at the end stands for any ending."""

    def read(self, given: Given) -> Iterator[Document]:
        """Each file or topic as one document, its text unchanged."""
        root = Path(sysconfig.get_path("stdlib"))
        chosen = [
            document
            for path in sorted(self._paths(root))
            for document in self._documents(root, path)
            if document.text.strip()
        ]
        if not chosen:
            raise DataError(f"{root}: no standard library files there to read as {self.parts}")
        yield from chosen if self.max_bytes is None else capped(chosen, self.max_bytes)

    def licence(self) -> str:
        """The library's own."""
        return "PSF-2.0"

    def inputs(self) -> Iterator[Path]:
        """The files that are read: a record keeps their hash."""
        root = Path(sysconfig.get_path("stdlib"))
        return (root / path for path in self._paths(root))

    def _paths(self, root: Path) -> Iterator[str]:
        """Relative paths, with forward slashes, of the files that belong to the parts asked for."""
        suffixes: tuple[str, ...] = (".py",) if "code" in self.parts else ()
        suffixes += PROSE if "prose" in self.parts else ()
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not self._excluded(name)]
            for name in files:
                path = (Path(folder) / name).relative_to(root).as_posix()
                if path == TOPICS:
                    if "prose" in self.parts:
                        yield path
                elif name.endswith(suffixes) and not self._excluded(name):
                    yield path

    def _excluded(self, name: str) -> bool:
        stem = name.removesuffix(".py")
        return any(
            name.startswith(word[:-1]) if word.endswith("*") else word in (name, stem)
            for word in self.exclude
        )

    def _documents(self, root: Path, path: str) -> Iterator[Document]:
        raw = whole(root / path)
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
            text = raw.decode(encoding)
        except (SyntaxError, UnicodeDecodeError):  # SyntaxError: its coding line is wrong
            text = raw.decode("latin-1")
        if path != TOPICS:
            yield Document(text=text, id=f"stdlib/{path}")
            return
        for topic, words in sorted(topics(text).items()):
            yield Document(text=words, id=f"stdlib/{path}#{topic}")


def topics(code: str) -> dict[str, str]:
    """The first dictionary of texts that a Python file assigns, without running it."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            found = ast.literal_eval(node.value)
            return {key: text for key, text in found.items() if isinstance(text, str)}
    return {}


def capped(documents: list[Document], max_bytes: int) -> Iterator[Document]:
    """As many documents as fit, chosen in the order of a hash of their text; their order kept."""
    taken, room = set(), max_bytes
    for document in sorted(documents, key=lambda document: fraction(document.text, "cap")):
        size = len(document.text.encode("utf-8", "surrogatepass"))
        if size <= room:
            taken.add(document.id)
            room -= size
    return (document for document in documents if document.id in taken)
