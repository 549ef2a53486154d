"""A tokenizer that came with somebody's model, as one of ours: byte-level BPE (Llama 3, Qwen,
SmolLM2) or SentencePiece's BPE with single bytes (Llama 2, Mistral).

The surprising thing: such a tokenizer does know its control tags, and would find them in any text.
So a tag that text spells is broken by two noncharacters before it is encoded, and a normaliser that
is put in front of the tokenizer's own takes them out again: the tag's characters become ordinary
tokens, and all other text gets exactly the ids it always had.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers

from matura.core.errors import DataError
from matura.text.fast import FastEngine
from matura.text.jinja import BREAK, ESCAPE, ESCAPED
from matura.text.tokenizer import Tokenizer, alphabet, read_json, write_json

FILE, CONFIG, JINJA = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
GENERATION, MODEL_CONFIG = "generation_config.json", "config.json"
NAMES = "special_tokens_map.json"
HF = "hf"
"""The dialect that a model's own chat template is."""
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>")
"""What stands between documents, also where `eos_token` ends a turn."""
SPACE = "\u2581"
"""SentencePiece's space."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_TAG = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")
NOT_IDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "transformers_version",
    "_from_model_config",
)
"""What a generation config says besides how to sample."""


class ImportedTokenizer(Tokenizer):
    """The tokenizer in a stock Hugging Face folder. Make one with `ImportedTokenizer.read`."""

    def __init__(
        self,
        found: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        where: Path,
        chat_template: str | None,
        stop_ids: Sequence[int],
        generation: Mapping[str, Any],
        names: Mapping[str, Any] | None = None,
        dialect: str = HF,
    ) -> None:
        self.found, self.config, self.where = found, config, where
        self.chat_template, self.generation = chat_template, dict(generation)
        self.dialect, self.spare, self.cut = dialect, 0, "words"
        self._model = found["model"]
        self._vocab = self._model["vocab"]
        self.is_sentencepiece = _is_sentencepiece(found, where)
        added = {int(token["id"]): token for token in found.get("added_tokens", ())}
        self.added: Mapping[int, Mapping[str, Any]] = MappingProxyType(added)
        self.control: Mapping[str, int] = MappingProxyType(
            {str(token["content"]): id for id, token in sorted(added.items()) if _is_tag(token)}
        )
        self.text_vocab_size = 1 + max(self._vocab.values())
        self.vocab_size = 1 + max([*added, self.text_vocab_size - 1])
        self.names = dict(_names({**(names or {}), **config}, self.control, where))
        ends = [self.control[tag] for name, tag in self.names.items() if name == "eos_token"]
        self.stop_ids = frozenset([*stop_ids, *ends])
        if wrong := sorted(id for id in self.stop_ids if not 0 <= id < self.vocab_size):
            raise DataError(f"{where / GENERATION}: eos_token_id {wrong[0]} is no id of {FILE}")
        self._tag_ids = frozenset(self.control.values())
        self._bytes = self._table()
        self._byte_ids = self._single_bytes()
        self._broken = _breaker(self.control)

    # -- reading and keeping it ----------------------------------------------------------------

    @classmethod
    def read(cls, folder: Path) -> ImportedTokenizer:
        """The tokenizer of the model in a folder.

        Raises:
            DataError: a file is missing or wrong, or the tokenizer is of a kind not known here.
        """
        if not (folder / FILE).is_file():
            raise DataError(
                f"{folder / FILE}: not there; where there is only a tokenizer.model, load it with "
                "`transformers` and call save_pretrained(FOLDER), which writes it"
            )
        found = read_json(folder / FILE)
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if config.get("auto_map"):
            raise DataError(
                f"{folder / CONFIG}: auto_map names code to run, which Matura never does; give a "
                "tokenizer of a stock kind"
            )
        kept = config.get("matura")
        if isinstance(kept, dict):
            stops, generation = kept.get("stop_ids", ()), kept.get("generation", {})
        else:
            stops, generation = _stops(folder)
        names = read_json(folder / NAMES) if (folder / NAMES).is_file() else {}
        try:
            made = cls(
                found,
                {name: value for name, value in config.items() if name != "matura"},
                where=folder,
                chat_template=chat_template_in(folder, config),
                stop_ids=stops,
                generation=generation,
                names=names,
                dialect=kept.get("dialect", HF) if isinstance(kept, dict) else HF,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise DataError(f"{folder / FILE}: not a tokenizer ({problem!r})") from None
        if isinstance(kept, dict) and kept.get("sha256") != made.sha256:
            raise DataError(
                f"{folder / FILE}: changed since it was saved: the hash in {CONFIG} differs"
            )
        return made

    @cached_property
    def sha256(self) -> str:
        """What this tokenizer is: of its file, its chat template and what ends a turn."""
        said = [self.found, self.chat_template, sorted(self.stop_ids), sorted(self.names.items())]
        said += [] if self.dialect == HF else [self.dialect]
        spelled = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(spelled.encode()).hexdigest()

    def save(self, folder: Path | str) -> None:
        """The same stock tokenizer again, with an entry of ours that `read` holds it to."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        kept = {
            "imported": True,
            "dialect": self.dialect,
            "stop_ids": sorted(self.stop_ids),
            "generation": self.generation,
            "sha256": self.sha256,
        }
        config = {**self.config, **self.names, "matura": kept}
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
            (folder / JINJA).write_text(self.chat_template, encoding="utf-8")
        write_json(folder / FILE, self.found)
        write_json(folder / CONFIG, config)

    @property
    def fresh_ids(self) -> frozenset[int]:
        """None: tags that the model did not know got their rows when it was taken over."""
        return frozenset()

    # -- text and ids --------------------------------------------------------------------------

    @cached_property
    def _fast(self) -> FastEngine | None:
        return None

    @cached_property
    def _engine(self) -> tokenizers.Tokenizer:
        """The tokenizer with the normaliser that mends broken tags in front of its own."""
        mending = [
            {"type": "Replace", "pattern": {"String": old}, "content": new}
            for old, new in ((ESCAPE + BREAK, ""), (ESCAPE + ESCAPED, ESCAPE))
        ]
        own = self.found.get("normalizer")
        whole = {
            **self.found,
            "model": {**self._model, "merges": list(self._merges())},
            "normalizer": {"type": "Sequence", "normalizers": mending + ([own] if own else [])},
            "added_tokens": [
                {**token, "normalized": False} if _is_tag(token) else dict(token)
                for token in self.added.values()
            ],
            "truncation": None,
            "padding": None,
            "post_processor": None,
        }
        return _engine(whole, self.where)

    def _merges(self) -> Iterator[Any]:
        """The merges but those that end in a control tag: of a tag's spelling, a SentencePiece
        vocabulary, which lists its tags among the pieces, would make the tag itself."""
        for pair in self._model["merges"]:
            spelled = pair.replace(" ", "") if isinstance(pair, str) else "".join(pair)
            if spelled not in self.control:
                yield pair

    @cached_property
    def begins(self) -> bool:
        """Whether the tokenizer itself puts its begin tag in front of a text."""
        begin = self.names.get("bos_token")
        ids = _engine({**self.found}, self.where).encode("a").ids
        return begin is not None and ids[:1] == [self.control[begin]]

    def broken(self, text: str) -> str:
        """The text with every tag that it spells broken, so that it stays text."""
        return self._broken(text)

    def written(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Ids and offsets of rendered texts, in which tags that are not broken are tags."""
        found: list[tokenizers.Encoding] = self._engine.encode_batch(
            list(texts), add_special_tokens=False
        )
        return found

    def encode(self, text: str) -> list[int]:
        """The ids of ordinary text, whatever it spells; half surrogate pairs become `?`."""
        try:
            return self._text_ids(self._engine.encode(self.broken(text), add_special_tokens=False))
        except TypeError:  # how the engine says that the text holds half a surrogate pair
            return self.encode(text.encode("utf-8", "replace").decode())

    def _text_ids(self, encoding: tokenizers.Encoding) -> list[int]:
        ids: list[int] = encoding.ids
        if not self._tag_ids.isdisjoint(ids):
            raise DataError(
                f"{self.where / FILE}: of ordinary text it made a control token; such a tokenizer "
                "cannot keep what is said apart from what is meant"
            )
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, all at once."""
        broken = [self.broken(text) for text in texts]
        try:
            found = self._engine.encode_batch_fast(broken, add_special_tokens=False)
        except TypeError:
            return [self.encode(text) for text in texts]
        return [self._text_ids(encoding) for encoding in found]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, control tokens left out; without the space that SentencePiece puts
        in front of every text."""
        text = super().decode(ids)
        return text[1:] if self.is_sentencepiece and text.startswith(" ") else text

    def _table(self) -> list[bytes]:
        """The bytes of each id; none of tags, and of ids that nothing has."""
        table = [b""] * self.vocab_size
        values = {char: byte for byte, char in enumerate(alphabet())}
        for token, id in self._vocab.items():
            if self.is_sentencepiece:
                single = _BYTE.fullmatch(token)
                text = token.replace(SPACE, " ").encode("utf-8", "replace")
                table[id] = bytes([int(single[1], 16)]) if single else text
            elif all(char in values for char in token):
                table[id] = bytes(values[char] for char in token)
        for id, more in self.added.items():
            table[id] = b"" if _is_tag(more) else str(more["content"]).encode()
        return table

    def _single_bytes(self) -> list[int]:
        """The id of each byte; of those that have none, as in some vocabularies, the byte `?`'s."""
        spelled = (
            [f"<0x{byte:02X}>" for byte in range(256)] if self.is_sentencepiece else alphabet()
        )
        asked = self._vocab.get(spelled[ord("?")], 0)
        return [self._vocab.get(token, asked) for token in spelled]


def is_imported(folder: Path) -> bool:
    """Whether the tokenizer in a folder is one that somebody else made.

    Raises:
        DataError: its config is no JSON.
    """
    if not (folder / CONFIG).is_file():
        return (folder / FILE).is_file()
    ours = read_json(folder / CONFIG).get("matura")
    return not isinstance(ours, dict) or bool(ours.get("imported"))


def _engine(whole: Mapping[str, Any], where: Path) -> tokenizers.Tokenizer:
    with _Refusing(where):
        return tokenizers.Tokenizer.from_str(json.dumps(whole, ensure_ascii=False))


class _Refusing:
    """Makes what the library raises, which is a bare `Exception`, an error about the file."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if type(problem) is Exception:
            raise DataError(f"{self._where / FILE}: not a tokenizer: {problem}") from None


def _is_tag(token: Mapping[str, Any]) -> bool:
    """Whether an added token is a control tag, and not a word that was added to the text's."""
    return bool(token.get("special")) or bool(_TAG.fullmatch(token["content"]))


def _is_sentencepiece(found: Mapping[str, Any], where: Path) -> bool:
    """Which of the two kinds it is.

    Raises:
        DataError: it is neither.
    """
    kind = found["model"].get("type")
    if kind != "BPE":
        raise DataError(f"{where / FILE}: a {kind} tokenizer is not supported (BPE)")
    pieces = json.dumps([found.get("pre_tokenizer"), found.get("decoder")])
    if '"ByteLevel"' in pieces:
        return False
    if not found["model"].get("byte_fallback"):
        raise DataError(
            f"{where / FILE}: a BPE that spells not every byte (neither byte-level nor with "
            "byte_fallback) is not supported: it would lose text"
        )
    return True


def _names(
    config: Mapping[str, Any], control: Mapping[str, int], where: Path
) -> Iterable[tuple[str, str]]:
    """The tags with a role, by the names Hugging Face gives them."""
    for name in NAMED:
        told = config.get(name)
        tag = told.get("content") if isinstance(told, dict) else told
        if tag is None:
            continue
        if tag not in control:
            raise DataError(f"{where / CONFIG}: {name} is {tag!r}, which is no control token")
        yield name, tag


def _breaker(control: Mapping[str, int]) -> Callable[[str], str]:
    """A function that breaks every tag in a text after its first character."""
    for tag in control:
        if len(tag) < 2:
            raise DataError(f"the control token {tag!r} is a single character: any text has it")
    tags = "|".join(re.escape(tag) for tag in sorted(control, key=len, reverse=True))
    # a look-ahead at every place, since tags may overlap
    starts = re.compile(f"(?=(?:{tags}))(.)", re.DOTALL) if control else None
    breaking = "\\1" + ESCAPE + BREAK

    def broken(text: str) -> str:
        text = text.replace(ESCAPE, ESCAPE + ESCAPED)
        return text if starts is None else starts.sub(breaking, text)

    return broken


def _stops(folder: Path) -> tuple[list[int], dict[str, Any]]:
    """What ends a turn, and how answers are sampled, by the model's own files."""
    stops: list[int] = []
    generation: dict[str, Any] = {}
    for name in (GENERATION, MODEL_CONFIG):
        if not (folder / name).is_file():
            continue
        said = read_json(folder / name)
        ids = said.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if not all(isinstance(id, int) for id in ids):
            raise DataError(f"{folder / name}: eos_token_id {ids!r} is no id")
        stops = stops or ids
        if name == GENERATION:
            generation = {key: value for key, value in said.items() if key not in NOT_IDS}
    return stops, generation


def chat_template_in(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The model's chat template; of several, the default one.

    Raises:
        DataError: it is no text.
    """
    if (folder / JINJA).is_file():
        return (folder / JINJA).read_text(encoding="utf-8")
    told = config.get("chat_template")
    if isinstance(told, list):
        named = {part.get("name"): part.get("template") for part in told if isinstance(part, dict)}
        told = named.get("default")
    if told is not None and not isinstance(told, str):
        raise DataError(f"{folder / CONFIG}: chat_template is no text")
    return told
