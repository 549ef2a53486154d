"""What is read is what was written, and any damage is an error that names the file."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from matura.core.errors import DataError
from matura.text.shards import HEADER_BYTES, Shard, ShardInfo, ShardWriter

SHA = "ab" * 32


def write(path: Path, *, vocab_size: int = 700, examples: int = 5) -> ShardInfo:
    with ShardWriter(path, vocab_size=vocab_size, tokenizer_sha256=SHA) as writer:
        for n in range(examples):
            writer.add([vocab_size - 1, *range(n)], [0.0, *[0.5] * n])
        return writer.close()


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(700, "<u2"), (65536, "<u2"), (65537, "<u4"), (200_000, "<u4")]
)
def test_read_is_what_was_written(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    path = tmp_path / "deep" / "x.shard"
    info = write(path, vocab_size=vocab_size)
    shard = Shard.open(path, SHA)
    assert (len(shard), shard.tokens, shard.trained_tokens) == (5, 15, 10)
    assert (info.examples, info.tokens, info.trained_tokens) == (5, 15, 10)
    assert info.sha256 == shard.sha256
    assert shard.lengths.tolist() == [1, 2, 3, 4, 5]
    assert shard.ids.dtype == np.dtype(dtype)
    for n in range(5):
        ids, weights = shard.example(n)
        assert ids.tolist() == [vocab_size - 1, *range(n)]
        assert weights.tolist() == [0.0, *[0.5] * n]
    assert sum(map(len, (shard.ids, shard.weights))) == 30
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            shard.example(wrong)
    assert [file.name for file in path.parent.iterdir()] == ["x.shard"]


def test_an_empty_shard_and_equal_bytes(tmp_path: Path) -> None:
    write(tmp_path / "empty", examples=0)
    assert len(Shard.open(tmp_path / "empty")) == 0
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("ids", "weights", "reason"),
    [
        ([], [], "0 ids and 0 weights"),
        ([1, 2], [1.0], "2 ids and 1 weights"),
        ([700], [1.0], "id 700 is not in a vocabulary of 700"),
        ([-1], [1.0], "id -1 is not"),
        ([1], [float("nan")], "not finite"),
        ([1], [float("inf")], "not finite"),
    ],
)
def test_a_bad_example_leaves_nothing_behind(
    tmp_path: Path, ids: list[int], weights: list[float], reason: str
) -> None:
    def attempt() -> None:
        with ShardWriter(tmp_path / "x", vocab_size=700, tokenizer_sha256=SHA) as writer:
            writer.add([1], [1.0])
            writer.add(ids, weights)

    with pytest.raises(DataError, match=f"x: example 2: .*{reason}"):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_an_old_shard_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write(path)
    before = path.read_bytes()
    writer = ShardWriter(path, vocab_size=700, tokenizer_sha256=SHA)
    writer.add([1], [1.0])
    assert path.read_bytes() == before
    writer.abandon()
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def refused(path: Path, reason: str = "") -> None:
    with pytest.raises(DataError, match=f"^{path}: .*{reason}"):
        Shard.open(path, SHA)


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.shard"
    write(path)
    whole = path.read_bytes()
    rng = Random(0)
    places = [*range(0, 60), *range(HEADER_BYTES, len(whole), 9)]
    places += rng.sample(range(60, HEADER_BYTES), 60)
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        refused(path)


def test_any_other_length_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.shard"
    write(path)
    whole = path.read_bytes()
    for length in (0, 7, 100, HEADER_BYTES - 1, HEADER_BYTES, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)
    path.write_bytes(whole + b"\0")
    refused(path, "torn")


def test_foreign_files(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "cannot be opened")
    refused(tmp_path, "cannot be opened")
    path = tmp_path / "x"
    path.write_bytes(b"PK\x03\x04" + bytes(5000))
    refused(path, "not a shard")
    write(path)
    with pytest.raises(DataError, match=f"^{path}: made with another tokenizer"):
        Shard.open(path, "cd" * 32)
    assert len(Shard.open(path)) == 5
    newer = bytearray(path.read_bytes())
    newer[8] = 9
    path.write_bytes(newer)
    refused(path, "version 9")


def test_the_header_alone_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write(path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    assert Shard.open(path, SHA, check="header").tokens == 15
    refused(path, "checksum")


def test_many_at_once_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    write(tmp_path / "a")
    ids = np.concatenate([[699, *range(n)] for n in range(5)])
    weights = np.concatenate([[0.0, *[0.5] * n] for n in range(5)])
    lengths = np.arange(1, 6)
    with ShardWriter(tmp_path / "b", vocab_size=700, tokenizer_sha256=SHA) as writer:
        writer.extend(ids[:3], weights[:3], lengths[:2])
        writer.extend(ids[:0], weights[:0], lengths[:0])
        writer.extend(ids[3:], weights[3:], lengths[2:])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for wrong, bad, each, reason in (
        (ids, weights, lengths[1:], "15 ids and 15 weights for 14"),
        (ids, weights[1:], lengths, "15 ids and 14 weights"),
        (ids[:1], weights[:1], np.array([0, 1]), "1 ids and 1 weights"),
        (ids + 1, weights, lengths, "id 700 is not in"),
        (ids, np.full(15, np.inf), lengths, "not finite"),
    ):
        with (
            pytest.raises(DataError, match=reason),
            ShardWriter(tmp_path / "c", vocab_size=700, tokenizer_sha256=SHA) as writer,
        ):
            writer.extend(wrong, bad, each)
        assert not (tmp_path / "c").exists()
