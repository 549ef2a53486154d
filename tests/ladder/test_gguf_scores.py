"""llama.cpp, which knows scores and no merges, gives the ids of `tokenizer.json`, or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from foreign import FORMS, Kind, foreign, sentence, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from matura.core.errors import DataError
from matura.ladder.export_gguf import begins
from matura.ladder.export_gguf_text import made_up
from matura.ladder.gguf_reading import TOKENIZER, Reading
from matura.ladder.gguf_scores import ScoredTokens, Spacing, read_scored, spacing
from matura.ladder.gguf_tokens import BYTE, CONTROL, UNKNOWN, UNUSED
from matura.text.folder import template_in

TAGS = ["<unk>", "<s>", "</s>"]
Whole = dict[str, Any]


def whole_of(kind: Kind) -> Whole:
    found: Whole = json.loads(tokenizer(kind, TAGS).to_str())
    return found


def written(folder: Path, whole: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    return folder


def scored(folder: Path, whole: Mapping[str, Any], more: int = 0) -> ScoredTokens:
    size = 1 + max(whole["model"]["vocab"].values())
    return read_scored(written(folder, whole), size + more)


def reading(tokens: ScoredTokens, *, prefix: bool) -> Reading:
    said = {"tokens": tokens.texts, "token_type": tokens.types, "scores": tokens.scores}
    fields = {**said, "add_space_prefix": prefix}
    return Reading({TOKENIZER + name: value for name, value in fields.items()})


def every_split(whole: Whole) -> Whole:
    """The same vocabulary with merges as converters of SentencePiece's models list them: of each
    token every two tokens that spell it."""
    model = whole["model"]
    vocab: dict[str, int] = model["vocab"]
    made = dict.fromkeys("".join(pair) for pair in model["merges"])
    pairs = [
        (text[:n], text[n:])
        for text in made
        for n in range(len(text) - 1, 0, -1)
        if text[:n] in vocab and text[n:] in vocab
    ]
    return whole | {"model": model | {"merges": pairs}}


def never_marked(whole: Whole) -> Whole:
    cut = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": False}
    return whole | {"normalizer": None, "pre_tokenizer": cut}


CASES: dict[str, tuple[Callable[[], Whole], bool]] = {
    "merges as trained": (lambda: whole_of("old pieces"), True),
    "merges as converted": (lambda: every_split(whole_of("old pieces")), True),
    "no space in front": (lambda: never_marked(whole_of("pieces")), False),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_give_the_ids_of_tokenizer_json(case: str, tmp_path: Path) -> None:
    make, prefix = CASES[case]
    whole = make()
    tokens = scored(tmp_path, whole)
    ours = reading(tokens, prefix=prefix)
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    draw = Random(5)
    texts = [
        *made_up(tokens, TAGS),
        *(sentence(draw) for _ in range(200)),
        "",
        " ",
        "\x00\U0010ffff",
    ]
    want = [theirs.encode(text, add_special_tokens=False).ids for text in texts]
    assert [ours.encode(text) for text in texts] == want
    used = {id for ids in want for id in ids}
    assert {tokens.types[id] for id in used} >= {BYTE, CONTROL, UNKNOWN}
    assert len(used) > 250


def test_a_single_score_decides(tmp_path: Path) -> None:
    """The parity above can fail: two tokens' scores exchanged are noticed."""
    tokens = scored(tmp_path, whole_of("old pieces"))
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    order = sorted(range(len(tokens.scores)), key=lambda n: -tokens.scores[n])
    first, last = order[0], order[150]
    scores = list(tokens.scores)
    scores[first], scores[last] = scores[last], scores[first]
    texts = made_up(tokens, TAGS)
    want = [theirs.encode(text, add_special_tokens=False).ids for text in texts]
    other = ScoredTokens(tokens.texts, tokens.types, tuple(scores), 0, "every", ())
    assert [reading(other, prefix=True).encode(text) for text in texts] != want


def random_bpe(draw: Random) -> Whole:
    """Merges in any order, several for one token, tokens that none makes."""
    letters = ["a", "b", "c"][: draw.choice([1, 2, 2, 3])]
    known, merges = list(letters), set()
    for _ in range(draw.randrange(1, 9)):
        left, right = draw.choice(known), draw.choice(known)
        if len(left + right) <= 6:
            merges.add((left, right))
            known += [left + right] if left + right not in known else []
    if draw.random() < 0.3:
        known += [t for t in ["".join(draw.choices(letters, k=4))] if t not in known]
    listed = sorted(merges, key=lambda pair: (len(pair[0] + pair[1]), pair))
    if draw.random() < 0.7:
        draw.shuffle(listed)
    vocab = {text: n for n, text in enumerate([*(f"<0x{n:02X}>" for n in range(256)), *known])}
    model = {"type": "BPE", "vocab": vocab, "merges": listed, "byte_fallback": True}
    return never_marked({"version": "1.0", "added_tokens": [], "model": model})


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_bpe_has_its_ids_or_is_refused_for_a_text(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All texts of up to seven letters; and a refusal names a text that would get other ids."""
    whole = random_bpe(Random(seed))
    theirs = Tokenizer.from_str(json.dumps(whole))
    texts = ["".join(letters) for n in range(1, 8) for letters in product("abc"[:2], repeat=n)]
    texts += ["".join(Random(seed).choices("abc", k=24)) for _ in range(20)]
    want = [encoding.ids for encoding in theirs.encode_batch(texts)]
    try:
        tokens = scored(tmp_path_factory.mktemp("bpe"), whole)
    except DataError as problem:
        vocab = whole["model"]["vocab"]
        spelled = next(t for t in vocab if f"which spell {t!r}, though" in str(problem))
        assert len(theirs.encode(spelled).ids) == 2
        return
    got = reading(tokens, prefix=False)
    assert [got.encode(text) for text in texts] == want


def orphan(whole: Whole) -> None:
    whole["model"]["vocab"]["ca"] = len(whole["model"]["vocab"])


def no_byte(whole: Whole) -> None:
    vocab = whole["model"]["vocab"]
    vocab["byte"] = vocab.pop("<0xE2>")


def joins_bytes(whole: Whole) -> None:
    vocab = whole["model"]["vocab"]
    vocab["<0xE2><0x82>"] = len(vocab)
    whole["model"]["merges"].append(["<0xE2>", "<0x82>"])


def strips(whole: Whole) -> None:
    whole["added_tokens"][1]["lstrip"] = True


def normalises(whole: Whole) -> None:
    whole["normalizer"] = {"type": "NFKC"}


def normalises_a_word(whole: Whole) -> None:
    whole["added_tokens"][1] |= {"special": False, "normalized": True}


def cuts(whole: Whole) -> None:
    whole["pre_tokenizer"] = {"type": "Digits", "individual_digits": True}


def leaves_spaces(whole: Whole) -> None:
    whole["normalizer"] = None


def into_words(whole: Whole) -> None:
    vocab = whole["model"]["vocab"]
    vocab.setdefault("\u2581\u2581", len(vocab))
    whole["model"]["merges"].append(["\u2581", "\u2581"])
    whole["normalizer"] = None
    whole["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "never",
        "split": True,
    }


def unigram(whole: Whole) -> None:
    whole["model"]["type"] = "Unigram"


def whole_words(whole: Whole) -> None:
    whole["model"]["ignore_merges"] = True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (orphan, "would join 'c' and 'a', which spell 'ca', though no merge does"),
        (no_byte, "no token for the byte 0xE2"),
        (joins_bytes, "joins no single bytes"),
        (strips, "no lstrip, which '<s>' has"),
        (normalises, "does not normalise text by 'NFKC'"),
        (normalises_a_word, "does not normalise the added token '<s>'"),
        (cuts, "in no way that llama.cpp knows: by .*Digits"),
        (leaves_spaces, "in no way that llama.cpp knows: by nothing"),
        (into_words, "would join '\u2581' and '\u2581'"),
        (unigram, "only BPE can be written as GGUF.* not Unigram"),
        (whole_words, "no ignore_merges"),
    ],
)
def test_what_scores_cannot_say_is_refused(
    change: Callable[[Whole], None], reason: str, tmp_path: Path
) -> None:
    whole = whole_of("old pieces")
    change(whole)
    with pytest.raises(DataError, match=reason):
        scored(tmp_path, whole)


def test_a_row_that_no_token_has_is_unused_under_a_name_of_its_own(tmp_path: Path) -> None:
    whole = whole_of("old pieces")
    size = len(whole["model"]["vocab"])
    whole["model"]["vocab"][f"[PAD{size + 1}]"] = size  # as a file made of a GGUF file has it
    tokens = scored(tmp_path, whole, more=2)
    assert tokens.texts[-2:] == (f"[PAD{size + 1}]_", f"[PAD{size + 2}]")
    assert tokens.types[-2:] == (UNUSED, UNUSED)
    assert tokens.types[size] != UNUSED
    assert len(set(tokens.texts)) == len(tokens.texts)


@pytest.mark.parametrize(
    ("form", "changes", "want"),
    [
        ("instructions", {}, Spacing(True, "")),
        ("pipes", {}, Spacing(False, " ")),
        ("pipes", {"chat_template": "{{ bos_token }}" + FORMS["pipes"][0]}, Spacing(False, "")),
        ("pipes", {"chat_template": None}, Spacing(True, "")),
    ],
)
def test_spaces_go_where_the_chat_has_them(
    form: str, changes: dict[str, Any], want: Spacing, tmp_path: Path
) -> None:
    folder = foreign(tmp_path, form, **changes)
    template = template_in(folder)
    size = template.tokenizer.vocab_size
    assert spacing(read_scored(folder, size), template) == want
    assert begins(template, text_only=True)
