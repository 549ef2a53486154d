"""A SentencePiece-style BPE (Llama 2, Mistral) as GGUF spells it: scores of tokens, no merges.

The surprising thing: `tokenizer.json` joins the pairs that its merges list, the first of them
first; llama.cpp joins any two neighbours that spell a token together, the highest score first.
Both come to the same ids for every text if

- a token's score is minus the place of the merge that makes it of its own spelling, and
- no token's spelling ends, by the merges, as just two symbols: llama.cpp would join these.

What is joined within a stretch of text before it is one token does not depend on what stands
around it. So a token is made in any text by the same last merge as of its own spelling, and two
symbols that spell a token and are not that merge's pair never stand side by side, but for the
second case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from matura.core.errors import DataError
from matura.core.types import Message
from matura.ladder.gguf_tokens import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    read_rows,
    read_whole,
)
from matura.text.imported import SPACE
from matura.text.template import Template

Mark = Literal["every", "unmarked", "first", "never"]
"""Where the tokenizer puts a space in front: of every stretch between tags, of those that have
none, of the whole text if it has none, or nowhere."""
EXACT: tuple[Mark, ...] = ("every", "never")
"""What llama.cpp does as well."""
ONE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
IN_UTF8 = (*range(0xC0), *range(0xC2, 0xF5))
"""Bytes that text can have."""
Ranks = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class ScoredTokens:
    """What a `tokenizer.json` holds, in the order of the ids."""

    texts: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    """The higher, the earlier llama.cpp makes the token of what spells it."""
    unknown: int | None
    mark: Mark
    spelled: tuple[str, ...]
    """Control tags that llama.cpp makes of text that spells them, even where tags are not read."""


@dataclass(frozen=True)
class Spacing:
    """How llama.cpp is told to put spaces in front of text."""

    prefix: bool
    """Whether it does, before each stretch between tags."""
    lead: Literal["", " "]
    """What the file's chat template begins with, before the model's own."""


def read_scored(folder: Path, size: int) -> ScoredTokens:
    """The tokenizer of a Hugging Face folder, with unused tokens up to `size`, the model's rows.

    Raises:
        DataError: llama.cpp cannot give its ids; the message says why.
    """
    whole = read_whole(folder)
    where = str(folder / "tokenizer.json")
    model = whole["model"]
    mark, within_words = _marks(whole, where)
    _refuse_model(model, where)
    ranks = _ranks(whole, within_words, where)
    rows = [
        _typed(text, kind, model.get("unk_token"), model["vocab"])
        for text, kind in read_rows(whole, size, folder)
    ]
    _refuse_rows(whole, rows, where)
    lowest = -float(len(model["merges"]))
    scores: list[float] = []
    spelled: list[str] = []
    for text, kind in rows:
        left, rank = joined(text, ranks)
        if len(left) == 2 and kind in (CONTROL, UNKNOWN):
            spelled.append(text)
        elif len(left) == 2 and not (kind == USER_DEFINED and SPACE not in text):
            raise DataError(
                f"{where}: cannot be written as GGUF: llama.cpp would join {left[0]!r} and "
                f"{left[1]!r}, which spell {text!r}, though no merge does; export it as "
                "--format hf"
            )
        scores.append(lowest if rank is None or len(left) > 1 else -float(rank))
    texts, types = zip(*rows, strict=True)
    unknown = next((n for n, kind in enumerate(types) if kind == UNKNOWN), None)
    return ScoredTokens(texts, types, tuple(scores), unknown, mark, tuple(spelled))


def joined(text: str, ranks: Ranks) -> tuple[list[str], int | None]:
    """What the merges leave of a text, the lowest rank first and of equal ones the leftmost, and
    the rank of the last that was done."""
    symbols, last = list(text), None
    while len(symbols) > 1:
        ranked = [(ranks[pair], n) for n, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not ranked:
            break
        last, at = min(ranked)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return symbols, last


def spacing(tokens: ScoredTokens, template: Template) -> Spacing:
    """What comes nearest to the tokenizer: exact for chats, unless they put spaces where only the
    tokenizer's own way of marking them does not add one."""
    if tokens.mark == "never":
        return Spacing(False, "")
    if tokens.mark != "first" or not template.chats:
        return Spacing(True, "")
    # llama.cpp marks all stretches or none: none, and the first of a chat by the template
    begins = template.prompt([Message("user", "hello")])[0]
    return Spacing(False, "" if begins in template.tokenizer.control.values() else " ")


def _typed(text: str, kind: int, unknown: str | None, vocab: Mapping[str, int]) -> tuple[str, int]:
    if text == unknown:
        return text, UNKNOWN
    if kind == NORMAL and ONE_BYTE.fullmatch(text):
        return text, BYTE
    while kind not in (NORMAL, CONTROL, USER_DEFINED) and text in vocab:
        text += "_"  # a name of ours that some token has
    return text, kind


def _refuse_model(model: Mapping[str, Any], where: str) -> None:
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise DataError(
            f"{where}: only BPE can be written as GGUF, byte-level or with byte_fallback, not "
            f"{model.get('type')}; export it as --format hf"
        )
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(name):
            raise DataError(f"{where}: llama.cpp knows no {name}; export it as --format hf")


def _refuse_rows(whole: Mapping[str, Any], rows: Sequence[tuple[str, int]], where: str) -> None:
    texts = {text for text, _ in rows}
    for byte in IN_UTF8:
        if f"<0x{byte:02X}>" not in texts and not (byte < 0x80 and chr(byte) in texts):
            raise DataError(f"{where}: no token for the byte 0x{byte:02X}, which llama.cpp needs")
    for token in whole.get("added_tokens", ()):
        tag = token["content"]
        for name in ("lstrip", "rstrip", "single_word"):
            if token.get(name):
                raise DataError(f"{where}: llama.cpp knows no {name}, which {tag!r} has")
        if not token["special"] and token.get("normalized") and whole.get("normalizer"):
            raise DataError(f"{where}: llama.cpp does not normalise the added token {tag!r}")


def _ranks(whole: Mapping[str, Any], within_words: bool, where: str) -> Ranks:
    """The merges that can happen, by their place; those that end in a control tag are none."""
    tags = {token["content"] for token in whole.get("added_tokens", ()) if token["special"]}
    found: dict[tuple[str, str], int] = {}
    for rank, told in enumerate(whole["model"]["merges"]):
        left, right = told.split(" ") if isinstance(told, str) else told
        if ONE_BYTE.fullmatch(left) or ONE_BYTE.fullmatch(right):
            raise DataError(f"{where}: llama.cpp joins no single bytes, as {told!r} does")
        crosses = within_words and SPACE in (left + right)[1:]
        if left + right not in tags and not crosses:
            found[left, right] = rank
    return found


def _marks(whole: Mapping[str, Any], where: str) -> tuple[Mark, bool]:
    """Where a space is put in front, and whether text is cut into words before merging."""
    before, spaced = False, False
    for step in _steps(whole.get("normalizer"), "normalizers"):
        if step.get("type") == "Prepend" and step.get("prepend") == SPACE:
            before = True
        elif step.get("pattern") == {"String": " "} and step.get("content") == SPACE:
            spaced = True
        else:
            raise DataError(f"{where}: llama.cpp does not normalise text by {step.get('type')!r}")
    cuts = list(_steps(whole.get("pre_tokenizer"), "pretokenizers"))
    if spaced and not cuts:
        return ("every" if before else "never"), False
    only = cuts[0] if len(cuts) == 1 and not (before or spaced) else {}
    if only.get("type") != "Metaspace" or only.get("replacement") != SPACE:
        raise DataError(
            f"{where}: spaces become {SPACE!r} in no way that llama.cpp knows: by "
            f"{[step.get('type') for step in cuts] or 'nothing'}"
        )
    marks: dict[str, Mark] = {"always": "unmarked", "first": "first", "never": "never"}
    return marks[only.get("prepend_scheme", "always")], bool(only.get("split", True))


def _steps(told: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    if told and told.get("type") == "Sequence":
        for step in told[name]:
            yield from _steps(step, name)
    elif told:
        yield told
