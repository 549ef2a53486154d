"""A tokenizer as GGUF spells it, and how llama.cpp would cut text with it.

The surprising thing: GGUF has no place for the pattern that cuts text before merging. It names one
of the patterns built into llama.cpp, and none of them is quite ours. So the nearest is looked for,
by what it does to the vocabulary itself, and the proof says how often it gives other ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, pre_tokenizers

from matura.core.disk import parse_json, telling
from matura.core.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types, by llama.cpp's numbers."""
_SHORT = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS: Mapping[str, str] = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}",
    "llama-bpe": rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}",
    "qwen35": (
        rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
        r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "superbpe": r"\p{N}+",
}
"""What llama.cpp does by these names, the name that most versions know first. The last cuts at
numbers only."""
PROBED = 20_000
"""Tokens that a cut is tried with."""


@dataclass(frozen=True)
class Tokens:
    """What a `tokenizer.json` holds, in the order of the ids."""

    texts: tuple[str, ...]
    """Each token as the file spells it: bytes as printable characters, tags as they are."""
    types: tuple[int, ...]
    merges: tuple[str, ...]
    whole: Mapping[str, Any]
    """The file."""


def read_whole(folder: Path) -> dict[str, Any]:
    """The `tokenizer.json` of a Hugging Face folder.

    Raises:
        StoreError: it cannot be read.
        DataError: it is no JSON.
    """
    path = folder / "tokenizer.json"
    with telling(path, "read"):
        raw = path.read_bytes()
    found: dict[str, Any] = parse_json(raw, path)
    return found


def is_byte_level(whole: Mapping[str, Any]) -> bool:
    """Whether it is a BPE whose letters are bytes, as GPT-2's was first."""
    before = json.dumps(whole.get("pre_tokenizer"))
    return whole["model"].get("type") == "BPE" and "ByteLevel" in before


def read_rows(whole: Mapping[str, Any], size: int, folder: Path) -> list[tuple[str, int]]:
    """Each token's text and type in the order of the ids, with unused ones up to `size`.

    Raises:
        DataError: there are more ids than `size`.
    """
    vocab = whole["model"]["vocab"]
    found = {number: (text, NORMAL) for text, number in vocab.items()}
    for token in whole.get("added_tokens", ()):
        kind = CONTROL if token["special"] else USER_DEFINED
        found[token["id"]] = (token["content"], kind)
    if found and max(found) >= size:
        raise DataError(
            f"{folder / 'tokenizer.json'}: has ids up to {max(found)}, the model only {size} rows"
        )
    return [found.get(number, (f"[PAD{number}]", UNUSED)) for number in range(size)]


def read_tokens(folder: Path, size: int) -> Tokens:
    """The tokenizer of a Hugging Face folder, with unused tokens up to `size`, the model's rows.

    Raises:
        DataError: it is no byte-level BPE, or has more ids than the model has rows.
    """
    whole = read_whole(folder)
    if not is_byte_level(whole):
        raise DataError(f"{folder / 'tokenizer.json'}: is no byte-level BPE")
    rows = read_rows(whole, size, folder)
    merges = whole["model"]["merges"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    return Tokens(
        tuple(text for text, _ in rows), tuple(kind for _, kind in rows), tuple(pairs), whole
    )


def engine(
    texts: Sequence[str], types: Sequence[int], merges: Iterable[str], cut: Sequence[Regex]
) -> tokenizers.Tokenizer:
    """The tokenizer that a GGUF file describes, cutting text by these patterns."""
    vocab = {text: n for n, text in enumerate(texts) if types[n] == NORMAL}
    model = {"type": "BPE", "vocab": vocab, "merges": [pair.split(" ") for pair in merges]}
    added = [
        {"id": n, "content": text, "special": types[n] == CONTROL, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for n, text in enumerate(texts)
        if types[n] in (CONTROL, USER_DEFINED)
    ]
    made = tokenizers.Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": added, "model": model})
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(pattern, "isolated") for pattern in cut),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


def own_cut(whole: Mapping[str, Any]) -> list[Regex]:
    """The patterns by which the tokenizer itself cuts text.

    Raises:
        DataError: it cuts in another way than by patterns.
    """
    told = whole["pre_tokenizer"]
    steps = told["pretokenizers"] if told["type"] == "Sequence" else [told]
    found: list[Regex] = []
    for step in steps:
        if step["type"] == "Split" and "Regex" in step["pattern"]:
            found.append(Regex(step["pattern"]["Regex"]))
        elif step["type"] == "Digits" and step["individual_digits"]:
            found.append(Regex(r"\p{N}"))
        elif step["type"] == "ByteLevel" and step.get("use_regex", True):
            found.append(Regex(CUTS["gpt-2"]))
        elif step["type"] != "ByteLevel":
            raise DataError(f"the tokenizer cuts text by {step['type']!r}; expected patterns")
    return found


@dataclass(frozen=True)
class Nearest:
    """The built-in cut that is most like a tokenizer's own."""

    name: str
    tried: int
    """Texts it was tried with."""
    other: tuple[str, ...]
    """Those for which it gives other ids."""


def nearest(tokens: Tokens, texts: Iterable[str]) -> Nearest:
    """The first of `CUTS` that gives other ids for the fewest texts, the vocabulary's own
    included."""
    tried = list(dict.fromkeys((*_probes(tokens), *texts)))
    own = engine(tokens.texts, tokens.types, tokens.merges, own_cut(tokens.whole))
    want = _ids(own, tried)
    best: Nearest | None = None
    for name, pattern in CUTS.items():
        theirs = engine(tokens.texts, tokens.types, tokens.merges, [Regex(pattern)])
        got = _ids(theirs, tried)
        other = tuple(t for t, a, b in zip(tried, want, got, strict=True) if a != b)
        if best is None or len(other) < len(best.other):
            best = Nearest(name, len(tried), other)
    assert best is not None
    return best


def _ids(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [one.ids for one in encoded]


def _probes(tokens: Tokens) -> Iterator[str]:
    """Each token before a letter, a digit and a line's end: where cuts differ."""
    plain = [n for n, kind in enumerate(tokens.types) if kind == NORMAL]
    backend = tokenizers.decoders.ByteLevel()
    for n in plain[:PROBED]:
        text = backend.decode([tokens.texts[n]])
        if "\ufffd" not in text:
            yield from (f"{text}x", f"{text}1", f"{text}\n")
