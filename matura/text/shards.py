"""Examples on disk: ids, weights and where each example starts, raw, behind a header that says what
they are.

The surprising thing: a shard is checked whole when it is opened (about a gigabyte a second), since
a wrong dtype or a torn file otherwise trains happily on garbage.

Layout: magic, version, header length, the header's sha256, the header as JSON, zeros up to 4096
bytes; then starts (uint64, one more than there are examples), weights (float32), ids (uint16 or
uint32), all little-endian.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matura.core.errors import DataError

MAGIC = b"MATURASH"
VERSION = 1
HEADER_BYTES = 4096
_FRONT = struct.Struct("<8sII32s")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a shard holds."""

    examples: int
    tokens: int
    trained_tokens: int
    """Tokens whose weight is not 0."""
    sha256: str
    """Of everything after the header."""


class _Layout(NamedTuple):
    """Where each array begins, in bytes from the file's start."""

    weights: int
    ids: int
    end: int


def _layout(examples: int, tokens: int, id_bytes: int) -> _Layout:
    weights = HEADER_BYTES + 8 * (examples + 1)
    ids = weights + 4 * tokens
    return _Layout(weights, ids, ids + id_bytes * tokens)


def _id_dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Writes one shard; nothing stands at `path` until `close`, and then all of it.

    As a context manager it closes on success and leaves nothing behind on an error.
    """

    def __init__(self, path: Path | str, *, vocab_size: int, tokenizer_sha256: str) -> None:
        self.path = Path(path)
        self.vocab_size = vocab_size
        self.tokenizer_sha256 = tokenizer_sha256
        self._dtype = _id_dtype(vocab_size)
        self._starts = array("Q", [0])
        self._trained = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stem = f".{self.path.name}.{os.getpid()}"
        self._whole = self.path.with_name(f"{stem}.whole")
        self._parts = [self.path.with_name(f"{stem}.{part}") for part in ("weights", "ids")]
        self._files: list[IO[bytes]] = [part.open("w+b") for part in self._parts]

    def add(
        self, ids: Sequence[int] | NDArray[Any], weights: Sequence[float] | NDArray[Any]
    ) -> None:
        """One more example.

        Raises:
            DataError: it is empty, an id is not in the vocabulary, or a weight is missing or not
                finite.
        """
        ids_L = np.asarray(ids, dtype=np.int64)
        weights_L = np.asarray(weights, dtype="<f4")
        where = f"{self.path}: example {len(self._starts)}"
        if ids_L.ndim != 1 or not len(ids_L) or ids_L.shape != weights_L.shape:
            raise DataError(f"{where}: {ids_L.size} ids and {weights_L.size} weights")
        low, high = int(ids_L.min()), int(ids_L.max())
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise DataError(f"{where}: id {wrong} is not in a vocabulary of {self.vocab_size}")
        if not np.isfinite(weights_L).all():
            raise DataError(f"{where}: a weight is not finite")
        self._files[0].write(weights_L.tobytes())
        self._files[1].write(ids_L.astype(self._dtype).tobytes())
        self._starts.append(self._starts[-1] + len(ids_L))
        self._trained += int(np.count_nonzero(weights_L))

    def extend(self, ids: NDArray[Any], weights: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Many examples at once, end to end; what `add` does for each of them.

        Raises:
            DataError: as for `add`.
        """
        where = f"{self.path}: examples from {len(self._starts)} on"
        if int(lengths.sum()) != len(ids) or ids.shape != weights.shape or not lengths.all():
            raise DataError(
                f"{where}: {len(ids)} ids and {len(weights)} weights for {lengths.sum()} in all"
            )
        if not len(ids):
            return
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise DataError(f"{where}: id {wrong} is not in a vocabulary of {self.vocab_size}")
        if not np.isfinite(weights).all():
            raise DataError(f"{where}: a weight is not finite")
        self._files[0].write(weights.astype("<f4").tobytes())
        self._files[1].write(ids.astype(self._dtype).tobytes())
        ends = np.cumsum(lengths, dtype=np.uint64) + np.uint64(self._starts[-1])
        self._starts.frombytes(ends.tobytes())
        self._trained += int(np.count_nonzero(weights))

    def close(self) -> ShardInfo:
        """Puts the shard in its place, durably, and says what is in it."""
        examples, tokens = len(self._starts) - 1, self._starts[-1]
        digest = hashlib.sha256()
        with self._whole.open("wb") as out:
            out.write(bytes(HEADER_BYTES))
            starts = np.asarray(self._starts, dtype="<u8").tobytes()
            digest.update(starts)
            out.write(starts)
            for file in self._files:
                file.seek(0)
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
            expected = _layout(examples, tokens, self._dtype.itemsize).end
            assert out.tell() == expected, f"{self.path}: {out.tell()} bytes, not {expected}"
            info = ShardInfo(examples, tokens, self._trained, digest.hexdigest())
            out.seek(0)
            out.write(self._header(info))
            out.flush()
            os.fsync(out.fileno())
        os.replace(self._whole, self.path)
        self.abandon()
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return info

    def abandon(self) -> None:
        """Removes everything that is not yet in its place."""
        for file in self._files:
            file.close()
        for part in (*self._parts, self._whole):
            part.unlink(missing_ok=True)

    def _header(self, info: ShardInfo) -> bytes:
        said = {
            "dtype": self._dtype.str,
            "vocab_size": self.vocab_size,
            "examples": info.examples,
            "tokens": info.tokens,
            "trained_tokens": info.trained_tokens,
            "sha256": info.sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
        }
        text = json.dumps(said, sort_keys=True).encode()
        front = _FRONT.pack(MAGIC, VERSION, len(text), hashlib.sha256(text).digest())
        return (front + text).ljust(HEADER_BYTES, b"\0")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            if not self._files[0].closed:
                self.close()
        else:
            self.abandon()


class Shard:
    """A shard for reading, memory-mapped: opening costs no memory. Make one with `Shard.open`."""

    def __init__(self, path: Path, said: dict[str, Any], whole: NDArray[np.uint8]) -> None:
        self.path = path
        self.tokens: int = said["tokens"]
        self.trained_tokens: int = said["trained_tokens"]
        self.vocab_size: int = said["vocab_size"]
        self.sha256: str = said["sha256"]
        self.tokenizer_sha256: str = said["tokenizer_sha256"]
        dtype = np.dtype(said["dtype"])
        at = _layout(said["examples"], self.tokens, dtype.itemsize)
        self.starts: NDArray[np.uint64] = whole[HEADER_BYTES : at.weights].view("<u8")
        self.weights: NDArray[np.float32] = whole[at.weights : at.ids].view("<f4")
        """Of all examples, end to end."""
        self.ids: NDArray[Any] = whole[at.ids : at.end].view(dtype)
        """Of all examples, end to end."""

    @classmethod
    def open(
        cls,
        path: Path | str,
        tokenizer_sha256: str | None = None,
        *,
        check: Literal["all", "header"] = "all",
    ) -> Shard:
        """The shard at `path`, checked: header, sizes, checksum and, if given, the tokenizer.

        Raises:
            DataError: it is missing, no shard, torn, changed, or made with another tokenizer.
        """
        path = Path(path)
        said = _read_header(path)
        if tokenizer_sha256 is not None and said["tokenizer_sha256"] != tokenizer_sha256:
            raise DataError(
                f"{path}: made with another tokenizer ({said['tokenizer_sha256'][:12]}…, "
                f"not {tokenizer_sha256[:12]}…): build the data again"
            )
        at = _layout(said["examples"], said["tokens"], np.dtype(said["dtype"]).itemsize)
        size = path.stat().st_size
        if size != at.end:
            raise DataError(f"{path}: torn: {size} bytes, but its header says {at.end}")
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        if check == "all":
            digest = hashlib.sha256()
            for start in range(HEADER_BYTES, size, _CHUNK):
                digest.update(whole[start : start + _CHUNK].data)
            if digest.hexdigest() != said["sha256"]:
                raise DataError(f"{path}: corrupt: its checksum is not the one in its header")
        made = cls(path, said, whole)
        if int(made.starts[0]) != 0 or int(made.starts[-1]) != made.tokens:
            raise DataError(f"{path}: its examples do not add up to {made.tokens} tokens")
        return made

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each example has."""
        return np.diff(self.starts).astype(np.int64)

    def example(self, index: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Ids and weights of one example, as views of the file.

        Raises:
            IndexError: there is no such example.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: no example {index}, there are {len(self)}")
        start, stop = int(self.starts[index]), int(self.starts[index + 1])
        return self.ids[start:stop], self.weights[start:stop]


def _read_header(path: Path) -> dict[str, Any]:
    """The header's JSON, with every byte before the payload checked."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as problem:
        raise DataError(f"{path}: cannot be opened: {problem.strerror}") from None
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise DataError(f"{path}: not a shard")
    _, version, length, sha256 = _FRONT.unpack_from(head)
    if version != VERSION:
        raise DataError(f"{path}: shard version {version}, this program reads {VERSION}")
    text = head[_FRONT.size : _FRONT.size + length]
    rest = head[_FRONT.size + length :]
    if hashlib.sha256(text).digest() != sha256 or any(rest):
        raise DataError(f"{path}: corrupt: its header is damaged")
    said: dict[str, Any] = json.loads(text)
    return said
