"""Lines of a file that somebody else wrote, plain, gzip or zstd: every limit and policy in one
place.

Policies: UTF-8 only, strictly; a byte-order mark at the very start is a signature and no text;
only `\\n` ends a line (U+2028 and friends are text); a carriage return before it is dropped; blank
lines are skipped and counted.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from matura.core.errors import DataError

LINE_LIMIT_BYTES = 16 * 2**20
FILE_LIMIT_BYTES = 64 * 2**20
BUFFER_BYTES = 2**18
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BadLine(ValueError):
    """What is wrong with one line, without where; becomes a DataError with file and line."""


def status(path: Path) -> os.stat_result:
    """What the file system says about a regular file.

    Raises:
        DataError: missing, a folder, a device, or not to be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as problem:
        raise DataError(f"{path}: {reason(problem)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise DataError(
            f"{path}: is a folder; expected a file (a folder of text is read by kind: folder, one "
            "of JSON rows by kind: jsonl)"
        )
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is not a regular file")
    return found


def reason(problem: Exception) -> str:
    """What the operating system says, without the number and the path."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return str(problem)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if it begins as gzip or zstd does or is named `.gz` or `.zst`.

    Raises:
        DataError: it cannot be opened, read or unpacked, also while it is being read.
    """
    status(path)
    try:
        with path.open("rb") as raw:
            start = raw.peek(4)[:4]
            if path.suffix == ".zst" or start == ZSTD_MAGIC:
                with _zstd(path, raw) as unpacked_zstd:
                    yield unpacked_zstd
            elif path.suffix == ".gz" or start[:2] == GZIP_MAGIC:
                with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                    yield unpacked  # type: ignore[misc]  # binary in all but type
            else:
                yield raw
    except EOFError:
        raise DataError(f"{path}: the gzip data ends early (a cut-off download?)") from None
    except (gzip.BadGzipFile, zlib.error) as problem:
        raise DataError(f"{path}: damaged gzip data: {problem}") from None
    except OSError as problem:
        raise DataError(f"{path}: {reason(problem)}") from None


@contextmanager
def _zstd(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """The bytes of a zstd file, unpacked by pyarrow, which says so when they end early."""
    try:
        import pyarrow
    except ImportError:
        raise DataError(f"{path}: zstd needs pyarrow: pip install 'matura[data]'") from None
    try:
        with pyarrow.CompressedInputStream(raw, "zstd") as stream:
            yield io.BufferedReader(stream, BUFFER_BYTES)
    except (OSError, pyarrow.ArrowException) as problem:
        said = "ends early (a cut-off download?)" if "runcated" in str(problem) else str(problem)
        raise DataError(f"{path}: damaged zstd data: {said}") from None


def lines(path: Path, limit_bytes: int = LINE_LIMIT_BYTES) -> Iterator[tuple[int, bytes]]:
    """Each line's number from 1, as an editor shows it, and its bytes without the line end.

    Raises:
        DataError: the file cannot be read, or a line is longer than the limit.
    """
    with opened(path) as stream:
        number = 0
        while line := stream.readline(limit_bytes + 2):
            number += 1
            if len(line.rstrip(b"\r\n")) > limit_bytes:
                raise DataError(f"{path}:{number}: line longer than {limit_bytes:,} bytes")
            if number == 1:
                refuse_utf16(path, line)
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def refuse_utf16(path: Path, start: bytes) -> None:
    """Raises DataError when a file begins with a UTF-16 or UTF-32 byte-order mark."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or start[:4] == b"\0\0\xfe\xff":
        raise DataError(f"{path}: looks like UTF-16 or UTF-32; expected UTF-8 (save it as UTF-8)")


def decoded(raw: bytes, encoding: str = "utf-8") -> str:
    """The text of these bytes.

    Raises:
        BadLine: they are not text in that encoding; says at which byte.
    """
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as problem:
        byte = raw[problem.start]
        raise BadLine(
            f"byte {problem.start + 1} (0x{byte:02x}) is not valid {encoding.upper()}"
        ) from None


def whole(path: Path, limit_bytes: int = FILE_LIMIT_BYTES) -> bytes:
    """A file's bytes, unpacked.

    Raises:
        DataError: it cannot be read, or is larger than the limit.
    """
    with opened(path) as stream:
        content = stream.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise DataError(f"{path}: larger than {limit_bytes:,} bytes")
        return content
