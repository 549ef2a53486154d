"""Text files under a folder, one document each, byte for byte.

Policies: strict decoding; a byte-order mark is a signature and dropped; a NUL byte means a binary
file and is an error; hidden files and folders are left out; links to folders are not followed;
files with nothing in them are left out. Line ends stay as they are unless `newlines: lf` is asked
for.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt, field_validator

from matura.core.errors import DataError
from matura.core.types import Document, Given
from matura.data.lines import FILE_LIMIT_BYTES, BadLine, decoded, reason, refuse_utf16, whole
from matura.data.source import Source


class Folder(Source):
    """Every file with one of the suffixes, in the order of paths."""

    kind: Literal["folder"] = "folder"
    path: Path
    """The folder, or one text file."""
    suffixes: tuple[str, ...] = (".txt", ".md", ".rst", ".py")
    encoding: str = "utf-8"
    newlines: Literal["keep", "lf"] = "keep"
    """`lf` turns CRLF and CR into LF; `keep` changes no byte."""
    file_limit_bytes: PositiveInt = FILE_LIMIT_BYTES

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return codecs.lookup(name).name
        except LookupError:
            raise ValueError(f"unknown encoding {name!r}; try 'utf-8' or 'latin-1'") from None

    @field_validator("suffixes")
    @classmethod
    def _dotted(cls, suffixes: tuple[str, ...]) -> tuple[str, ...]:
        if not suffixes or not all(suffix.startswith(".") for suffix in suffixes):
            raise ValueError("expected suffixes such as ['.txt', '.md'], each with its dot")
        return suffixes

    def read(self, given: Given) -> Iterator[Document]:
        """Each file as one document; its id is the path below the folder."""
        found = False
        for document in self._documents(self.files()):
            found = True
            yield document
        if not found:
            wanted = ", ".join(self.suffixes)
            raise DataError(f"{self.path}: no text in files ending in {wanted}")

    def documents(self, names: Iterable[str]) -> Iterator[Document]:
        """Those of its files alone, by their paths below the folder."""
        return self._documents((self.path / name, name) for name in names)

    def _documents(self, files: Iterable[tuple[Path, str]]) -> Iterator[Document]:
        for path, name in files:
            text = self._text(path)
            if text.strip():
                yield Document(text=text, id=name)

    def files(self) -> Iterator[tuple[Path, str]]:
        """Each file and its path below the folder, in order."""
        if self.path.is_file():
            yield self.path, self.path.name
            return
        if not self.path.exists():
            raise DataError(f"{self.path}: no such folder")
        if not self.path.is_dir():
            raise DataError(f"{self.path}: expected a folder or a text file")
        names = []
        for folder, folders, files in os.walk(self.path, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            names += [
                (Path(folder) / name).relative_to(self.path).as_posix()
                for name in files
                if name.endswith(self.suffixes) and not name.startswith(".")
            ]
        for name in sorted(names):
            yield self.path / name, name

    def _text(self, path: Path) -> str:
        raw = whole(path, self.file_limit_bytes)
        return text_of(path, raw, self.encoding, self.newlines)


def text_of(path: Path, raw: bytes, encoding: str, newlines: Literal["keep", "lf"]) -> str:
    """A file's bytes as text.

    Raises:
        DataError: with the line where the bytes stop being text in that encoding.
    """
    if encoding == "utf-8":
        refuse_utf16(path, raw)
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    if not encoding.startswith(("utf-16", "utf-32")) and (nul := raw.find(b"\0")) >= 0:
        line = raw.count(b"\n", 0, nul) + 1
        raise DataError(f"{path}:{line}: a NUL byte; expected text, this looks like a binary file")
    try:
        text = decoded(raw, encoding)
    except BadLine:
        for number, line_bytes in enumerate(raw.split(b"\n"), start=1):
            try:
                decoded(line_bytes, encoding)
            except BadLine as problem:
                hint = "" if encoding != "utf-8" else " (is it latin-1? set `encoding`)"
                raise DataError(f"{path}:{number}: {problem}{hint}") from None
        raise DataError(f"{path}: not valid {encoding.upper()}") from None
    if newlines == "lf":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _refuse(problem: OSError) -> None:
    raise DataError(f"{problem.filename}: {reason(problem)}") from None
