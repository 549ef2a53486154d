"""Duplicates are found, near ones too; nothing else is left out, however a corpus is cut up."""

from __future__ import annotations

import hashlib
import re
import string
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.data import alike, stored
from matura.data.alike import agreement, near_duplicates, rows_of_band
from matura.data.dedup import (
    Duplicates,
    Fingerprints,
    Found,
    duplicates_of,
    fingerprints,
    likeness,
    similarity,
)
from matura.data.hashed import Ids
from matura.data.minhash import signed
from matura.data.shingles import LONGEST_WORD, Shingles, blocks, shingles
from matura.data.stored import Stored, rows_of

NEAR = Duplicates()
SIZES = (30, 120, 400)
LETTERS = string.ascii_lowercase


WORDS = ["".join(rng(0, "words", str(n)).choices(LETTERS, k=2 + n % 9)) for n in range(900)]


def text_of(stream: Random, words: int) -> str:
    """Lines of made-up words, some of which are far more common than others."""
    lines: list[list[str]] = [[]]
    for _ in range(words):
        lines[-1].append(WORDS[int(900 * stream.random() ** 2)])
        if stream.random() < 0.1:
            lines.append([])
    return "\n".join(" ".join(line) for line in lines if line)


def edited(stream: Random, text: str) -> str:
    """Some words replaced, a line put in, or an end cut off: 2 or 3 places in 100 words."""
    words = text.split(" ")
    match stream.randrange(3):
        case 0:
            for _ in range(max(1, len(words) // 100)):
                words[stream.randrange(len(words))] = "otherwise"
            return " ".join(words)
        case 1:
            lines = text.split("\n")
            lines.insert(stream.randrange(len(lines)), "this line was put in")
            return "\n".join(lines)
    cut = max(1, len(words) // 20)
    return " ".join(words[cut:] if stream.random() < 0.5 else words[:-cut])


def slow_runs(text: str) -> set[tuple[str, ...]]:
    """What `shingles` numbers, in plain Python, for ASCII."""
    words = re.findall(r"[a-z0-9_]+|[^a-z0-9_\s\"'`,.;:!?]+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def found_in(texts: list[str], asked: Duplicates = NEAR) -> Found:
    return duplicates_of(
        fingerprints(texts, asked), asked, lambda numbers: [texts[n] for n in numbers.tolist()]
    )


ascii_text = st.text(alphabet=string.ascii_letters + string.digits + " \n\t+*=()[]{}.,;'\"_-")
any_text = st.text(alphabet=st.characters(exclude_categories=()), max_size=60)


@given(st.lists(st.one_of(ascii_text, st.just("a b c d e f g + h")), min_size=1, max_size=6))
def test_runs_of_words_are_those_that_plain_python_finds(texts: list[str]) -> None:
    found = shingles([text.encode() for text in texts], 5)
    for number, text in enumerate(texts):
        expected = slow_runs(text)
        if max(map(len, re.findall(r"\S+", text)), default=0) <= LONGEST_WORD:
            assert len(found.of(number)) == max(1, len(expected))
    for other in range(1, len(texts)):
        mine, theirs = slow_runs(texts[0]), slow_runs(texts[other])
        if mine and theirs:
            both = np.intersect1d(found.of(0), found.of(other))
            assert len(both) == len(mine & theirs)


@settings(deadline=None)
@given(st.lists(any_text, min_size=1, max_size=12), st.data())
def test_a_fingerprint_is_the_same_in_any_batch(texts: list[str], data: st.DataObject) -> None:
    whole = fingerprints(texts, NEAR)
    cut = data.draw(st.integers(0, len(texts)))
    parts = [fingerprints(part, NEAR) for part in (texts[:cut], texts[cut:])]
    assert np.array_equal(whole.exact, np.concatenate([part.exact for part in parts]))
    assert np.array_equal(whole.signatures, np.concatenate([part.signatures for part in parts]))


@pytest.mark.parametrize("end", [*"\xa0»…。中🙂éก", ".", "+", "\n", "\ud800"])
def test_the_last_character_counts_as_in_any_other_place(end: str) -> None:
    """Found by chance once: a no-break space was none at the very end of a batch."""
    text = "one 2/3 four five six seven/" + end
    alone, first, last = (
        fingerprints(texts, NEAR).signatures for texts in ([text], [text, "x"], ["x", text])
    )
    assert np.array_equal(alone[0], first[0])
    assert np.array_equal(alone[0], last[1])


def test_a_large_batch_is_done_in_blocks() -> None:
    texts = [text_of(rng(n), 300) for n in range(200)] + ["", "x", "é" * 300, "中文" * 200]
    assert len(list(blocks([text.encode() for text in texts]))) > 1
    whole = fingerprints(texts, NEAR)
    for at, text in enumerate(texts):
        assert np.array_equal(fingerprints([text], NEAR).signatures[0], whole.signatures[at])


def test_fingerprints_are_equal_on_every_machine() -> None:
    texts = [
        "",
        "one",
        text_of(rng(1), 50),
        text_of(rng(2), 400),
        "für 中文 ครับ “x” 🙂 " * 9,
        "a" * 99,
    ]
    prints = fingerprints(texts, NEAR)
    total = hashlib.sha256(prints.exact.tobytes() + prints.signatures.astype("<u4").tobytes())
    assert total.hexdigest()[:16] == "c21854f7a77d51e7"
    assert prints.exact.shape == (6, 16)
    assert prints.signatures.shape == (6, 128)


@pytest.mark.parametrize("runs", [1, 3, 10, 50, 200, 2000])
@pytest.mark.parametrize("shared", [0.0, 0.3, 0.8, 1.0])
def test_signatures_agree_as_often_as_runs_are_shared(runs: int, shared: float) -> None:
    """The mean of 200 pairs lies within four standard errors, for texts of any length."""
    draw = np.random.Generator(np.random.PCG64(runs))
    both = round(2 * runs * shared / (1 + shared))
    truth = both / (2 * runs - both)
    pairs = []
    for _ in range(200):
        common = draw.integers(0, 2**64, both, dtype=np.uint64)
        pairs += [
            np.concatenate([common, draw.integers(0, 2**64, runs - both, dtype=np.uint64)])
            for _ in range(2)
        ]
    found = signed(Shingles(np.concatenate(pairs), np.arange(401) * runs), 128)
    told = (found[::2] == found[1::2]).mean(axis=1)
    spread = (truth * (1 - truth) / 128) ** 0.5
    assert abs(told.mean() - truth) <= 4 * spread / 200**0.5 + 1e-9
    assert told.std() <= 1.2 * spread + 1e-9


def test_planted_near_duplicates_are_found_and_nothing_else_is() -> None:
    stream = rng(0, "planted")
    texts = [text_of(rng(0, "text", str(n)), SIZES[n % 3]) for n in range(900)]
    planted = {len(texts) + n: n for n in range(300)}
    texts += [edited(stream, texts[n]) for n in range(300)]
    # half of each of two others: much is shared, but they are no duplicates
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts[400:601]]
    texts += [halves[n][0] + halves[n + 1][1] for n in range(200)]
    found = found_in(texts)
    true = {a for a, b in planted.items() if likeness(texts[a], texts[b], NEAR) >= 0.8}
    assert len(true) > 200
    left_out = set(np.flatnonzero(found.of >= 0).tolist())
    assert len(left_out & true) >= 0.95 * len(true)
    assert all(found.of[a] == planted[a] for a in left_out & true)
    assert len(left_out - true) <= 0.01 * len(left_out)
    assert found.tally().read == found.tally().kept + found.exact + found.near == len(texts)
    by_signatures = duplicates_of(fingerprints(texts, NEAR), NEAR)
    left_out = set(np.flatnonzero(by_signatures.of >= 0).tolist())
    assert len(left_out & true) >= 0.95 * len(true)


def test_what_is_left_out_is_like_what_stays_and_later() -> None:
    """A chain of small changes, at whose end no word is left of its beginning."""
    stream = rng(3, "chain")
    words = text_of(stream, 200).split()
    texts = []
    for step in range(100):
        texts.append(" ".join(words))
        for place in range(2 * step, 2 * step + 2):
            words[place] = f"new{place}"
    found = found_in(texts)
    out = np.flatnonzero(found.of >= 0)
    assert len(out) > 50
    for number in out.tolist():
        kept = int(found.of[number])
        assert kept < number
        assert found.of[kept] == -1
        assert likeness(texts[kept], texts[number], NEAR) >= 0.8
    stay = np.flatnonzero(found.of < 0).tolist()
    assert stay[0] == 0
    assert len(stay) > 3


def test_short_texts_are_duplicates_only_of_their_copies() -> None:
    texts = [*string.printable, "", "é", "中", "🙂", "\0", "a\n", "aa", "a a", "A", "Yes.", "yes"]
    texts += [f"{a} {sign} {b} =" for a in range(6) for b in range(6) for sign in "+-*/%^"]
    texts += ["What is 2 + 3 * 4?", "What is 2 * 3 + 4?", "f(a)[b] = c + d", "f[a](b) = c + d"]
    texts = list(dict.fromkeys(texts))
    found = found_in(texts + texts)
    assert (found.of[: len(texts)] == -1).all()
    assert found.of[len(texts) :].tolist() == list(range(len(texts)))
    assert (found.exact, found.near) == (len(texts), 0)
    assert found.reason(0) is None
    assert found.reason(len(texts)) == "exact duplicate"


def test_a_collision_leaves_nothing_out() -> None:
    """Equal halves of a hash, or a whole band that agrees, prove nothing."""
    stream = np.random.Generator(np.random.PCG64(0))
    exact = np.zeros((4, 16), dtype=np.uint8)
    exact[:, 15] = range(4)
    exact[3] = exact[0]
    signatures = stream.integers(0, 2**32, (4, 128), dtype=np.uint32)
    signatures[:, :64] = signatures[0, :64]
    found = duplicates_of(Fingerprints(exact, signatures), NEAR)
    assert found.of.tolist() == [-1, -1, -1, 0]


def test_a_copy_of_what_is_left_out_goes_with_it() -> None:
    first = text_of(rng(5), 200)
    second = first + " and more"
    found = found_in([first, second, second, "something else", "something else"])
    assert found.of.tolist() == [-1, 0, 0, -1, 3]
    assert [found.reason(n) for n in range(5)] == [
        None,
        "near duplicate",
        "exact duplicate",
        None,
        "exact duplicate",
    ]
    exact = found_in([first, second, second], Duplicates(near=False))
    assert exact.of.tolist() == [-1, -1, 1]
    assert fingerprints([first], Duplicates(near=False)).signatures.shape == (1, 0)


def test_layout_and_quotes_do_not_make_a_text_new() -> None:
    text = text_of(rng(6), 100)
    same = "  " + text.replace("\n", "\r\n\t").upper() + "\n"
    quoted = re.sub(r"(\w+) (\w+)", r"“\1”, \2…", text)
    chinese = "".join(chr(0x4E00 + rng(7, str(n)).randrange(3000)) for n in range(200))
    changed = chinese[:90] + "。" + chinese[90:150] + "新" + chinese[150:]
    found = found_in([text, same, quoted, chinese, changed])
    assert found.of.tolist() == [-1, 0, 0, -1, 3]
    assert (found.exact, found.near) == (0, 3)


def test_the_threshold_is_what_decides() -> None:
    words = text_of(rng(8), 300).split()
    other = text_of(rng(9), 300).split()
    texts = [" ".join(words[:k] + other[k:]) for k in (300, 290, 260, 200)]
    true = [likeness(texts[0], text, NEAR) for text in texts]
    assert 1 == true[0] > 0.95 > true[1] > 0.8 > true[2] > 0.7 > true[3] > 0.4
    for threshold, near in ((0.95, 0), (0.8, 1), (0.7, 2), (0.4, 3)):
        found = found_in(texts, Duplicates(threshold=threshold))
        assert (found.of == 0).sum() == near
    prints = fingerprints(texts, NEAR)
    told = similarity(prints, np.zeros(4, dtype=int), np.arange(4))
    assert np.abs(told - true).max() < 0.12


def test_texts_are_asked_for_only_where_it_is_close() -> None:
    texts = [text_of(rng(n), 100) for n in range(50)]
    texts += [text + " end" for text in texts[:20]]
    asked: list[int] = []

    def texts_of(numbers: Ids) -> list[str]:
        assert (np.diff(numbers) > 0).all()
        asked.extend(numbers.tolist())
        return [texts[n] for n in numbers.tolist()]

    assert duplicates_of(fingerprints(texts, NEAR), NEAR, texts_of).near == 20
    assert not asked


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_bands_propose_nearly_all_pairs_at_the_threshold(threshold: float) -> None:
    rows = rows_of_band(threshold, 128)
    assert (1 - threshold**rows) ** (128 // rows) <= alike.MISSED or rows == 1


def test_nothing_and_one() -> None:
    for texts in ([], ["alone"]):
        found = found_in(texts)
        assert found.of.tolist() == [-1] * len(texts)
        assert found.tally().as_dict() == {"read": len(texts), "kept": len(texts), "dropped": {}}


def boilerplate(stream: np.random.Generator, count: int) -> np.ndarray:
    """Signatures of which all share half their places: every band is one bucket for many."""
    found = stream.integers(0, 2**32, (count, 128), dtype=np.uint32)
    found[:, :64] = found[0, :64]
    return found


def planted_rows(stream: np.random.Generator, count: int) -> np.ndarray:
    """Signatures of which every second is a copy of the one before."""
    return np.repeat(stream.integers(0, 2**32, (count // 2, 128), dtype=np.uint32), 2, axis=0)


@pytest.mark.parametrize("make", [boilerplate, planted_rows])
def test_memory_and_comparisons_grow_with_documents_and_not_with_pairs(
    make: Callable[[np.random.Generator, int], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `n` documents: so many bytes each at most, and so many comparisons."""
    compared = 0

    def counting(signatures: np.ndarray, left: Ids, right: Ids) -> np.ndarray:
        nonlocal compared
        compared += len(left)
        return agreement(signatures, left, right)

    monkeypatch.setattr(alike, "agreement", counting)
    monkeypatch.setattr(alike, "KEYS_BYTES", 2**18)
    for count in (3000, 9000):
        compared = 0
        signatures = make(np.random.Generator(np.random.PCG64(1)), count)
        tracemalloc.start()
        out, stay = near_duplicates(signatures, np.arange(count), threshold=0.8, verdict=None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        bands = 128 // rows_of_band(0.8, 128)
        assert compared <= count * (alike.WINDOW + 1) * bands
        assert peak <= 100 * count + 16 * 2**20
        assert (stay < out).all()
        assert len(out) == (count // 2 if make is planted_rows else 0)


def test_signatures_in_a_file_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = np.random.Generator(np.random.PCG64(3))
    signatures = planted_rows(stream, 500)
    signatures.tofile(tmp_path / "s.bin")
    mapped = np.memmap(tmp_path / "s.bin", np.uint32, "r", shape=signatures.shape)
    assert rows_of(mapped) is mapped
    assert rows_of(signatures) is signatures
    monkeypatch.setattr(stored, "LARGE_BYTES", 1)
    rows = rows_of(mapped)
    assert isinstance(rows, Stored)
    for numbers in ([], [3], [0, 1, 2, 9, 4, 4, 5, 499], list(range(500))):
        where = np.array(numbers, dtype=np.int64)
        assert np.array_equal(rows.take(where, axis=0), signatures[where])
    exact = stream.integers(0, 256, (500, 16), dtype=np.uint8)
    in_memory = duplicates_of(Fingerprints(exact, signatures), NEAR)
    in_a_file = duplicates_of(Fingerprints(exact, mapped), NEAR)
    assert np.array_equal(in_memory.of, in_a_file.of)
    assert in_memory.near == 250
    with pytest.raises(DataError, match=r"s\.bin: ends before row 501"):
        rows.take(np.array([500]), axis=0)


def test_groups_with_many_that_stay_are_looked_at_more_strictly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alike, "STAYING", 2)
    stream = np.random.Generator(np.random.PCG64(2))
    signatures = stream.integers(0, 2**32, (60, 128), dtype=np.uint32)
    signatures[:, :100] = signatures[0, :100]  # 0.78 alike: one group, but no duplicates
    signatures[1::2] = signatures[::2]
    out, stay = near_duplicates(
        signatures,
        np.arange(60),
        threshold=0.8,
        verdict=lambda left, right: np.zeros(len(left), dtype=np.bool_),
    )
    order = np.argsort(out)
    assert out[order].tolist() == list(range(1, 60, 2))
    assert stay[order].tolist() == list(range(0, 60, 2))
