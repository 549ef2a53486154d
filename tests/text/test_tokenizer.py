"""Text survives byte for byte; control ids lie above; what is loaded is what was saved."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from matura.core.errors import DataError, RecipeError
from matura.text.dialects import DIALECTS
from matura.text.tokenizer import PATTERNS, Tokenizer

CODE = 'def f(x):\n\tif x:\r\n        return "a  b"   \n\n\n# Größe: 12345 — ½ ٣\n    \n'


def test_text_ids_come_first_then_control_then_spare(trained: dict[str, Tokenizer]) -> None:
    for name, tokenizer in trained.items():
        assert tokenizer.vocab_size == 400
        ids = list(tokenizer.control.values())
        assert ids == list(range(tokenizer.text_vocab_size, 400))
        assert list(tokenizer.control)[-16:] == [f"<|spare_{n}|>" for n in range(16)]
        assert list(tokenizer.control)[:-16] == list(DIALECTS[name].tags)
        assert tokenizer.dialect == name


def test_a_corpus_too_small_reports_the_real_size() -> None:
    tokenizer = Tokenizer.train(["abc abc"], vocab_size=5000, dialect="matura")
    assert tokenizer.vocab_size < 5000
    assert tokenizer.vocab_size == tokenizer.text_vocab_size + len(tokenizer.control)


def test_training_twice_gives_the_same_tokenizer(trained: dict[str, Tokenizer], fuzz: Any) -> None:
    corpus = fuzz.corpus
    again = Tokenizer.train(iter(corpus()), vocab_size=400, dialect="matura")
    assert again.sha256 == trained["matura"].sha256
    other = Tokenizer.train(corpus(1), vocab_size=400, dialect="matura")
    assert other.sha256 != again.sha256


@pytest.mark.parametrize("cut", PATTERNS)
def test_every_byte_survives(cut: str) -> None:
    tokenizer = Tokenizer.train([CODE * 20], vocab_size=320, dialect="matura", split=cut)  # type: ignore[arg-type]
    rng = Random(0)
    assert tokenizer.decode(tokenizer.encode(CODE)) == CODE
    for _ in range(300):
        data = rng.randbytes(rng.randrange(60))
        ids = tokenizer.encode_bytes(data)
        assert tokenizer.decode_bytes(ids) == data
        assert all(0 <= n < tokenizer.text_vocab_size for n in ids)
        tokenizer.decode(ids)  # never an error


def test_every_plane_of_unicode_survives(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["mypt"]
    for start in range(0, 0x110000, 0x4000):
        text = "".join(map(chr, range(start, start + 0x4000, 7)))
        assert tokenizer.decode(tokenizer.encode(text)) == text  # half surrogate pairs included


def test_half_surrogate_pairs_anywhere(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["matura"]
    for text in ("\ud800", "a\udfffb", "\ud83d\ude00", "ü\udc80 é"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode_many([text, "x"]) == [tokenizer.encode(text), tokenizer.encode("x")]


def test_bytes_that_are_no_text_never_raise() -> None:
    tokenizer = Tokenizer.bytes_only("matura")
    assert tokenizer.encode("aü") == [0x61, 0xC3, 0xBC]
    assert tokenizer.decode([0x61, 0xC3]) == "a\ufffd"


def test_token_bytes_add_up(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["matura"]
    ids = tokenizer.encode(CODE)
    assert sum(len(tokenizer.token_bytes(n)) for n in ids) == len(CODE.encode())
    assert all(tokenizer.token_bytes(n) == b"" for n in tokenizer.control.values())
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match="not in a vocabulary"):
            tokenizer.decode([wrong])


@pytest.mark.parametrize("cut", PATTERNS)
def test_newlines_and_digits_stand_alone(cut: str) -> None:
    tokenizer = Tokenizer.train(
        ["user\nuser\n\n\n1234 1234\n" * 200], vocab_size=330, dialect="matura", split=cut  # type: ignore[arg-type]
    )  # fmt: skip
    for number in range(tokenizer.text_vocab_size):
        token = tokenizer.token_bytes(number)
        assert token == b"\n" or b"\n" not in token
        assert len(token) == 1 or not any(chr(byte).isdigit() for byte in token)


def test_atoms_spell_a_word_alike_wherever_it_stands(trained: dict[str, Tokenizer]) -> None:
    texts = [" the fox [bellt] und (Hund) laut\n" * 50]
    tokenizer = Tokenizer.train(texts, vocab_size=320, dialect="matura", split="atoms")
    for word in ("fox", "bellt", "Hund", "unseen", "Größe"):
        alone = tokenizer.encode(word)
        for left, right in ((" ", " "), ("[", "]"), ("  ", "\n"), ('"', '".'), ("", ", ")):
            around = tokenizer.encode(left + word + right)
            assert around == tokenizer.encode(left) + alone + tokenizer.encode(right)


def test_wrong_sizes_and_names_are_recipe_errors() -> None:
    with pytest.raises(RecipeError, match="need 285"):
        Tokenizer.train(["x"], vocab_size=284, dialect="matura")
    with pytest.raises(RecipeError, match="did you mean 'chatml'"):
        Tokenizer.train(["x"], vocab_size=999, dialect="chatmll")
    with pytest.raises(RecipeError, match="did you mean 'words'"):
        Tokenizer.train(["x"], vocab_size=999, dialect="matura", split="word")  # type: ignore[arg-type]


# -- saved and loaded --------------------------------------------------------------------------


def test_saved_is_loaded(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    for name, tokenizer in trained.items():
        tokenizer.save(tmp_path / name)
        loaded = Tokenizer.load(tmp_path / name)
        assert loaded.sha256 == tokenizer.sha256
        assert loaded.encode(CODE) == tokenizer.encode(CODE)
        assert loaded.control == tokenizer.control


def test_saving_twice_writes_the_same_bytes(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        trained["llama3"].save(tmp_path / folder)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def _swap(whole: dict, config: dict) -> None:  # type: ignore[type-arg]
    a, b = whole["added_tokens"][3:5]
    a["id"], b["id"] = b["id"], a["id"]


def _remap(whole: dict, config: dict) -> None:  # type: ignore[type-arg]
    vocab = whole["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]


def _merge(whole: dict, config: dict) -> None:  # type: ignore[type-arg]
    whole["model"]["merges"].pop()


def _foreign(whole: dict, config: dict) -> None:  # type: ignore[type-arg]
    del config["matura"]


def _hollow(whole: dict, config: dict) -> None:  # type: ignore[type-arg]
    del whole["model"]["vocab"]["a"]


def _ghost(whole: dict, config: dict) -> None:  # type: ignore[type-arg]
    whole["model"]["merges"].append(["no", "such"])


def _unknown(whole: dict, config: dict) -> None:  # type: ignore[type-arg]
    config["matura"]["dialect"] = "klingon"


@pytest.mark.parametrize("tamper", [_swap, _remap, _merge, _foreign, _hollow, _ghost, _unknown])
def test_a_tampered_tokenizer_is_refused(
    tamper, trained: dict[str, Tokenizer], tmp_path: Path
) -> None:
    trained["matura"].save(tmp_path)
    files = [tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"]
    whole, config = (json.loads(file.read_text()) for file in files)
    tamper(whole, config)
    for file, value in zip(files, (whole, config), strict=True):
        file.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"tokenizer(_config)?\.json: "):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_an_unreadable_tokenizer_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)
