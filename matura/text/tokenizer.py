"""Text to ids and back, without losing a byte: byte-level BPE whose control ids lie above every
text id.

The surprising thing: the tokenizer that encodes text does not know the control tags at all. They
exist only in the saved files and in `control`, so no spelling of ordinary text can ever become a
control id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers, trainers

from matura.core.errors import DataError, RecipeError
from matura.core.leaves import did_you_mean
from matura.core.record import digest
from matura.text.dialects import dialect_named
from matura.text.fast import FastEngine, fast_engine
from matura.text.jinja import BREAK, ESCAPE, ESCAPED, chat_template

Cut = Literal["words", "atoms"]

PATTERNS: Mapping[Cut, str] = {
    "words": r"\n|\p{N}| ?[\p{L}\p{M}]+| ?[^\s\p{L}\p{M}\p{N}]+|[^\S\n]+(?!\S)|[^\S\n]+",
    "atoms": r"\n|\p{N}|[\p{L}\p{M}]+|[^\s\p{L}\p{M}\p{N}]|[^\S\n]+",
}
"""Where text is cut before merging. Every newline stands alone, so a header such as `user` and a
newline never merges with content, and so does every digit. `words` joins a leading space to its
word; `atoms` keeps spaces and each punctuation mark apart, so a word has the same ids wherever it
stands, at 2.35 instead of 2.93 bytes a token on the standard library with 2,048 ids."""

_STRETCHES = re.compile("([\udc80-\udcff]+)")
"""What `surrogateescape` makes of bytes that are no UTF-8."""

LONGEST_TOKEN = 16
"""Bytes. Longer tokens are mostly rules of dashes, which would cost a small vocabulary many
rows."""


def alphabet() -> list[str]:
    """The character that stands for each byte in the file format: itself if it prints, else one
    from 256 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    seen = set(prints)
    return [chr(byte) if byte in seen else chr(next(others)) for byte in range(256)]


def _backend(model: Mapping[str, Any], cut: Cut) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "model": model}, ensure_ascii=False)
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[cut]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    return made


def _model(vocab: Mapping[str, int], merges: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {"type": "BPE", "vocab": dict(vocab), "merges": [list(pair) for pair in merges]}


def _clean(text: str) -> str:
    """For training only: half surrogate pairs, which are no text, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Tokenizer:
    """A `TextCodec`: text ids first, then the dialect's control tags in its order, then spare ones.

    Make one with `train`, `bytes_only` or `load`.
    """

    def __init__(self, model: Mapping[str, Any], *, dialect: str, spare: int, cut: Cut) -> None:
        self._model = model
        self._vocab: Mapping[str, int] = model["vocab"]
        self.text_vocab_size = len(self._vocab)
        self.dialect = dialect
        self.spare = spare
        self.cut = cut
        tags = dialect_named(dialect).tag_list(spare)
        self.control: Mapping[str, int] = MappingProxyType(
            {tag: self.text_vocab_size + place for place, tag in enumerate(tags)}
        )
        self.vocab_size = self.text_vocab_size + len(tags)
        chars = alphabet()
        self._byte_ids = [self._vocab[char] for char in chars]
        values = {char: byte for byte, char in enumerate(chars)}
        table = [b""] * self.vocab_size
        for token, number in self._vocab.items():
            table[number] = bytes(values[char] for char in token)
        self._bytes = table
        self._values = values

    @cached_property
    def _fast(self) -> FastEngine | None:
        return fast_engine(self._vocab, self._model["merges"], self._values, PATTERNS[self.cut])

    @cached_property
    def _engine(self) -> tokenizers.Tokenizer:
        """Made at first use, so that a file is checked before the library sees it."""
        return _backend(self._model, self.cut)

    # -- making one ----------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int,
        dialect: str,
        spare: int = 16,
        split: Cut = "words",
    ) -> Tokenizer:
        """A tokenizer for text like this. Smaller than asked if the texts are too few for that many
        merges.

        Raises:
            RecipeError: `vocab_size` has no room for the bytes and the control tags, or the dialect
                is unknown.
        """
        if split not in PATTERNS:
            raise RecipeError(f"tokenizer: no split {split!r}{did_you_mean(split, PATTERNS)}")
        tags = len(dialect_named(dialect).tag_list(spare))
        if vocab_size < 256 + tags:
            raise RecipeError(
                f"tokenizer: vocab_size {vocab_size} is too small: "
                f"256 bytes and {tags} control tags need {256 + tags}"
            )
        engine = _backend(_model({}, []), split)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - tags,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=LONGEST_TOKEN,
            show_progress=False,
        )
        engine.train_from_iterator((_clean(text) for text in texts), trainer)
        model = json.loads(engine.to_str())["model"]
        return cls(_model(model["vocab"], model["merges"]), dialect=dialect, spare=spare, cut=split)

    @classmethod
    def bytes_only(cls, dialect: str, *, spare: int = 16) -> Tokenizer:
        """No merges: the id of each byte is its value."""
        vocab = {char: byte for byte, char in enumerate(alphabet())}
        return cls(_model(vocab, []), dialect=dialect, spare=spare, cut="words")

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """The tokenizer that `save` wrote there.

        Raises:
            DataError: a file is missing, is not one of ours, or does not match the hash stored
                beside it.
        """
        file, config_file = Path(folder) / "tokenizer.json", Path(folder) / "tokenizer_config.json"
        config, found = read_json(config_file), read_json(file)
        ours = config.get("matura")
        if not isinstance(ours, dict) or not {"dialect", "spare", "cut", "sha256"} <= ours.keys():
            raise DataError(f"{config_file}: no `matura` entry: not a tokenizer that Matura saved")
        try:
            model = found["model"]
            made = cls(
                _model(model["vocab"], model["merges"]),
                dialect=ours["dialect"],
                spare=ours["spare"],
                cut=ours["cut"],
            )
            added = {token["content"]: token["id"] for token in found["added_tokens"]}
        except (KeyError, TypeError, IndexError, ValueError, RecipeError) as problem:
            raise DataError(f"{file}: not a tokenizer that Matura saved ({problem!r})") from None
        if added != dict(made.control):
            raise DataError(f"{file}: its control tags are not those of {made.dialect!r}")
        if made.sha256 != ours["sha256"]:
            raise DataError(
                f"{file}: changed since it was saved: the hash in {config_file.name} differs"
            )
        return made

    # -- keeping it ----------------------------------------------------------------------------

    @cached_property
    def sha256(self) -> str:
        """What this tokenizer is, however its files are laid out: equal exactly when every text
        gets equal ids."""
        return digest(
            {
                "vocab": self._vocab,
                "merges": self._model["merges"],
                "pattern": PATTERNS[self.cut],
                "control": dict(self.control),
                "dialect": self.dialect,
            }
        )

    def save(self, folder: Path | str) -> None:
        """A stock Hugging Face tokenizer: `tokenizer.json`, `tokenizer_config.json`,
        `chat_template.jinja`.

        The chat template hides tags that content spells behind two noncharacters, which the
        normalizer written here takes out again: so `apply_chat_template` gives `Template.prompt`'s
        ids even for such content.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        dialect = dialect_named(self.dialect)
        whole = json.loads(self._engine.to_str())
        whole["added_tokens"] = [
            {"id": number, "content": tag, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for tag, number in self.control.items()
        ]
        replaced = ((ESCAPE + BREAK, ""), (ESCAPE + ESCAPED, ESCAPE))
        whole["normalizer"] = {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": old}, "content": new}
                for old, new in replaced
            ],
        }
        template = chat_template(dialect, spare=self.spare)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": dialect.begin,
            "eos_token": dialect.end,
            "pad_token": dialect.pad,
            "clean_up_tokenization_spaces": False,
            "chat_template": template,
            "matura": {
                "dialect": self.dialect,
                "spare": self.spare,
                "cut": self.cut,
                "sha256": self.sha256,
            },
        }
        write_json(folder / "tokenizer.json", whole)
        write_json(folder / "tokenizer_config.json", config)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")

    @property
    def fresh_ids(self) -> frozenset[int]:
        """The control tags that no model knows yet when it first learns to chat: all of them."""
        return frozenset(self.control.values())

    # -- using it ------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """The ids of ordinary text, whatever it spells. Lossless on any str: half surrogate pairs
        become the three bytes that stand for them, and `decode` turns these back."""
        try:
            ids: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        except TypeError:  # how the engine says that the text holds half a surrogate pair
            return self.encode_bytes(text.encode("utf-8", "surrogatepass"))
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, all at once and several times faster."""
        fast = self._fast
        if fast is not None and all(map(fast.takes, texts)):
            return fast.ids(texts)
        try:
            found = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            return [self.encode(text) for text in texts]
        return [encoding.ids for encoding in found]

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """`encode` as an array, on one core: for workers that write shards."""
        if self._fast is not None and self._fast.takes(text):
            return self._fast.array(text)
        return np.array(self.encode(text), dtype=np.uint32)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids for any bytes; those that are no UTF-8 get the id of each single byte."""
        ids: list[int] = []
        for part in _STRETCHES.split(data.decode("utf-8", "surrogateescape")):
            if part and _STRETCHES.match(part):
                ids += [self._byte_ids[ord(char) - 0xDC00] for char in part]
            elif part:
                ids += self.encode(part)
        return ids

    def token_bytes(self, id: int) -> bytes:
        """The bytes an id stands for; empty for control tokens.

        Raises:
            DataError: there is no such id.
        """
        if not 0 <= id < self.vocab_size:
            raise DataError(f"token id {id} is not in a vocabulary of {self.vocab_size}")
        return self._bytes[id]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of all ids in order, control tokens left out."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, control tokens left out; bytes that are no UTF-8 show as U+FFFD,
        never an error."""
        data = self.decode_bytes(ids)
        for policy in ("strict", "surrogatepass"):
            try:
                return data.decode("utf-8", policy)
            except UnicodeDecodeError:
                continue
        return data.decode("utf-8", "replace")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(f"{path}: cannot be read as JSON: {problem}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: must be a JSON object")
    return found


def write_json(path: Path, value: object) -> None:
    """The value as a JSON file."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
