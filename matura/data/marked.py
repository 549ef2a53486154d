"""Text shards: many documents in one text file, told apart by marker lines.

    ==== DOC START ====
    SOURCE: books | PATH: shelf/moby-dick.txt
    ====
    the text, byte for byte
    ==== DOC END ====

The newline in front of the end marker belongs to the marker, so a text may end without one. A line
of a text that looks like a marker is written with one backslash in front (`\\==== DOC END ====`),
one that has backslashes before it with one more; reading takes one away. In SOURCE and PATH `%`,
`|` and whatever ends a line are spelled `%25`, `%7C`, `%0A`, `%0D`. Markers and metadata are never
text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from matura.core.disk import sync_folder
from matura.core.errors import DataError
from matura.data.cleaner import encodes
from matura.data.lines import FILE_LIMIT_BYTES, BadLine, decoded, opened, reason, refuse_utf16

SHARD_BYTES = 25_000_000
SUFFIXES = (".txt", ".txt.gz")
START, META, END = b"==== DOC START ====", b"====", b"==== DOC END ===="
LOOKS_LIKE = re.compile(r"^(?=\\*==== DOC (?:START|END) ====[ \t\r]*$)", re.MULTILINE)
ESCAPED = re.compile(rb"\\+==== DOC (?:START|END) ====[ \t\r]*\n?")
METADATA = re.compile(r"SOURCE: (?P<source>.*?) \| PATH: (?P<path>.*)", re.DOTALL)
EXPECTED = "'SOURCE: … | PATH: …'"


@dataclass(frozen=True, slots=True)
class Marked:
    """One document of a shard."""

    source: str
    path: str
    text: str

    @property
    def id(self) -> str:
        """Where it came from."""
        return f"{self.source}/{self.path}" if self.source else self.path


def write_marked(
    folder: Path, documents: Iterable[Marked], *, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Writes `shard-00000.txt` and so on, and returns them; on an error none of them is there.

    A document is never divided: a shard is larger than `shard_bytes` only where its one document
    is.

    Raises:
        DataError: the folder holds shards already, a text cannot be spelled in UTF-8, or there is
            no document.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if old := next(folder.glob("shard-*.txt"), None):
        raise DataError(f"{old}: there are shards already; name an empty folder")
    pending: list[Path] = []
    try:
        _write(folder, documents, shard_bytes, pending)
        if not pending:
            raise DataError(f"{folder}: no document to write")
        paths = [folder / f"shard-{number:05d}.txt" for number in range(len(pending))]
        for path in paths:
            pending[0].rename(path)
            del pending[0]
        sync_folder(folder)
        return paths
    except OSError as problem:
        raise DataError(f"{folder}: {reason(problem)}") from None
    finally:
        for path in pending:
            path.unlink(missing_ok=True)


def _write(
    folder: Path, documents: Iterable[Marked], shard_bytes: int, pending: list[Path]
) -> None:
    out: IO[bytes] | None = None
    size = 0
    try:
        for document in documents:
            raw = spelled(document)
            if out is None or (size and size + len(raw) > shard_bytes):
                if out is not None:
                    _close(out)
                pending.append(folder / f".shard-{len(pending):05d}.{os.getpid()}")
                out, size = pending[-1].open("wb"), 0
            out.write(raw)
            size += len(raw)
    finally:
        if out is not None:
            _close(out)


def _close(out: IO[bytes]) -> None:
    with out:
        out.flush()
        os.fsync(out.fileno())


def spelled(document: Marked) -> bytes:
    """One document with its markers.

    Raises:
        DataError: UTF-8 cannot spell it.
    """
    text = LOOKS_LIKE.sub(r"\\", document.text)
    metadata = f"SOURCE: {_quoted(document.source)} | PATH: {_quoted(document.path)}"
    if not encodes(metadata + text):
        raise DataError(f"{document.id!r}: holds a lone surrogate, which UTF-8 cannot spell")
    return b"\n".join([START, metadata.encode(), META, text.encode(), END, b""])


def _quoted(value: str) -> str:
    return re.sub(r"[%|\r\n]", lambda found: quote(found[0]), value)


def _unquoted(value: str) -> str:
    # Only what is quoted here: other programs' paths may hold `%20` and mean it.
    return re.sub("%(?:25|7C|0A|0D)", lambda found: unquote(found[0]), value)


def read_marked(path: Path, *, limit_bytes: int = FILE_LIMIT_BYTES) -> Iterator[Marked]:
    """The documents of one shard, plain or gzip, in order. Blank lines between them are allowed.

    Raises:
        DataError: `file:line: reason`: a marker is missing, the metadata has another form,
            something that is no text, or a document beyond the limit.
    """
    with opened(path) as stream:
        numbered = _lines(path, stream, limit_bytes)
        for number, line in numbered:
            if not line.strip():
                continue
            if line.rstrip() != START:
                raise DataError(f"{path}:{number}: expected {START.decode()!r}, {_shown(line)}")
            yield _document(path, number, numbered, limit_bytes)


def is_marked(path: Path) -> bool:
    """Whether a file begins as a text shard does.

    Raises:
        DataError: it cannot be read.
    """
    with opened(path) as stream:
        return stream.read(len(START) + 3).removeprefix(b"\xef\xbb\xbf").startswith(START)


def _lines(path: Path, stream: IO[bytes], limit_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Each line's number and its bytes, line end included."""
    number = 0
    while line := stream.readline(limit_bytes + 1):
        number += 1
        if len(line) > limit_bytes:
            raise DataError(f"{path}:{number}: line longer than {limit_bytes:,} bytes")
        if number == 1:
            refuse_utf16(path, line)
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line


def _document(
    path: Path, start: int, numbered: Iterator[tuple[int, bytes]], limit_bytes: int
) -> Marked:
    """What stands between the marker in line `start` and its end."""
    number, line = next(numbered, (start, b""))
    try:
        fields = METADATA.fullmatch(decoded(line.rstrip(b"\r\n")))
    except BadLine as problem:
        raise DataError(f"{path}:{number}: {problem}") from None
    if fields is None:
        raise DataError(f"{path}:{number}: expected {EXPECTED}, {_shown(line)}")
    number, line = next(numbered, (number, b""))
    if line.rstrip() != META:
        raise DataError(f"{path}:{number}: expected {META.decode()!r}, {_shown(line)}")
    body: list[bytes] = []
    size, first = 0, number + 1
    for number, line in numbered:
        bare = line.rstrip(b" \t\r\n")
        if bare == END:
            text = _text(path, first, body, b"\r\n" if line.endswith(b"\r\n") else b"\n")
            return Marked(_unquoted(fields["source"]), _unquoted(fields["path"]), text)
        if bare == START:
            break
        size += len(line)
        if size > limit_bytes:
            raise DataError(f"{path}:{number}: a document of more than {limit_bytes:,} bytes")
        body.append(line[1:] if ESCAPED.fullmatch(line) else line)
    raise DataError(
        f"{path}:{start}: no {END.decode()!r} for the document that starts here, up to line "
        f"{number}"
    )


def _text(path: Path, first: int, body: list[bytes], newline: bytes) -> str:
    raw = b"".join(body).removesuffix(newline)
    try:
        return decoded(raw)
    except BadLine:
        for number, line in enumerate(body, start=first):
            try:
                decoded(line)
            except BadLine as problem:
                raise DataError(f"{path}:{number}: {problem}") from None
        raise


def _shown(line: bytes) -> str:
    return f"found {line[:60].decode(errors='replace').rstrip()!r}" if line else "found the end"
