"""A health card's figures on sources whose every figure is known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import pytest

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Conversation, Document, Given, Message
from matura.data.clean.code import Code
from matura.data.clean.dialogue import Dialogue
from matura.data.clean.prose import Prose
from matura.data.cleaner import Cleaner
from matura.data.health import BATCH, BINS, SAMPLES, Card, inspect
from matura.data.source import Source
from matura.text.tokenizer import Tokenizer

WORDS = re.findall(
    r"\w+",
    "river stone lantern market winter captain orchard silver bridge letter window garden thunder "
    "velvet harbour meadow copper violin shadow ribbon",
)


class Listed(Source):
    """Items from a list."""

    kind: Literal["listed"] = "listed"
    items: tuple[Document | Conversation, ...]

    def read(self, given: Given) -> Iterator[Document | Conversation]:
        yield from self.items


def sentences(seed: int, count: int = 12) -> str:
    """Prose that no other seed gives."""
    draw = rng(seed, "health")
    lines = (" ".join(draw.choice(WORDS) for _ in range(9)) for _ in range(count))
    return "\n".join(f"The {line}." for line in lines)


def card_of(
    texts: Sequence[str | Conversation], *cleaners: Cleaner, most: int = 1000, **more: Tokenizer
) -> Card:
    items = tuple(
        Document(text=one, id=f"t{n}") if isinstance(one, str) else one
        for n, one in enumerate(texts)
    )
    source = Listed(items=items)
    return inspect(
        source, Given(rng=rng(0)), name="it", cleaners=cleaners, most=most, codec=more.get("codec")
    )


def test_duplicates_are_counted_and_named() -> None:
    base = [sentences(n) for n in range(20)]
    nearly = base[3] + "\nThe end."
    card = card_of([*base, base[0], base[0], nearly])
    assert card.documents == 23
    assert (card.exact.documents, card.near.documents) == (2, 1)
    assert card.exact.characters == 2 * len(base[0])
    assert card.pairs == [
        {"id": "t20", "of": "t0", "why": "exact duplicate"},
        {"id": "t21", "of": "t0", "why": "exact duplicate"},
        {"id": "t22", "of": "t3", "why": "near duplicate"},
    ]
    kept = 1 - (2 * len(base[0]) + len(nearly)) / card.characters
    assert card.unique_tokens == pytest.approx(card.tokens * kept, abs=1)


def test_windows_that_overlap_are_not_new_tokens() -> None:
    film = "\n".join(f"I said line {n} to you." for n in range(220))
    apart = card_of([film], Dialogue(format="opensub"))
    twice = card_of([film], Dialogue(format="opensub", overlap_lines=10))
    assert apart.overlap_characters == 0
    assert apart.unique_tokens == apart.tokens
    assert twice.tokens > 1.8 * apart.tokens
    assert twice.unique_tokens == pytest.approx(apart.tokens, rel=0.01)
    assert twice.cleaning["made"] == twice.documents


def test_what_is_read_is_kept_or_dropped_and_the_rest_is_about_what_was_kept() -> None:
    code = [f"import os\n\n\ndef f{n}(x):\n    y = {n}\n    return x + y\n" * 4 for n in range(9)]
    card = card_of([*code, "x = 1\n", "y" * 200_000], Code())
    told = card.cleaning
    assert told["read"] == 11
    assert told["kept"] == card.documents == 9
    assert sum(told["dropped"].values()) == 2
    assert card.composition["code"].documents == 9
    assert card.characters == sum(map(len, code))
    assert {sample.what for sample in card.samples} >= {
        "dropped: code: too small",
        "dropped: code: too large",
    }


def test_figures_of_lines_lengths_and_characters() -> None:
    texts = ["short\n", "a b c d\r\n" + "x" * 1500 + "\nend\n", "é\u200b" * 10]
    card = card_of(texts)
    assert card.lines == 1 + 3 + 1
    assert (card.long_lines.documents, card.long_lines.characters) == (1, 1500)
    assert card.longest_lines[0] == {
        "characters": 1500,
        "id": "t1",
        "line": 2,
        "beginning": "x" * 80,
    }
    assert card.characters == sum(map(len, texts))
    assert card.bytes == sum(len(text.encode()) for text in texts)
    assert (card.lengths["least"], card.lengths["most"]) == (6, len(texts[1]))
    assert [part.documents for part in card.bins[:2]] == [2, 0]
    assert sum(part.documents for part in card.bins) == 3
    assert len(card.bins) == len(BINS) + 1
    assert card.odd["zero width"].characters == 10
    assert card.odd["CRLF line end"].documents == 1


def test_tokens_are_counted_by_a_tokenizer_and_estimated_without() -> None:
    texts = [sentences(n) for n in range(3)]
    estimated = card_of(texts)
    assert not estimated.tokens_counted
    assert estimated.tokens == pytest.approx(sum(map(len, texts)) / 4, abs=1)
    counted = card_of(texts, codec=Tokenizer.bytes_only("matura"))
    assert counted.tokens_counted
    assert counted.tokens == sum(map(len, texts))


def test_the_cap_is_stated_and_batches_change_nothing() -> None:
    texts = [sentences(n, 3) for n in range(BATCH + 40)]
    capped = card_of(texts, most=30)
    assert not capped.whole
    assert (capped.documents, capped.most) == (30, 30)
    assert capped.as_dict() | {"whole": True, "most": 1000} == card_of(texts[:30]).as_dict()
    whole = card_of(texts)
    assert whole.whole
    assert whole.documents == BATCH + 40
    assert card_of(texts).as_dict() == whole.as_dict()
    assert json.loads(json.dumps(whole.as_dict()))["documents"] == BATCH + 40


def test_ten_samples_before_and_after_those_changed_first() -> None:
    texts = [sentences(n) for n in range(30)]
    texts[7] += "\ncafÃ© au lait"
    card = card_of(texts, Prose(encoding="repair"))
    assert len(card.samples) == SAMPLES
    first = card.samples[0]
    assert (first.id, first.what, first.line) == ("t7", "changed", 13)
    assert (first.before, first.after) == ("cafÃ© au lait", "café au lait")
    assert [sample.what for sample in card.samples[1:]] == ["unchanged"] * 9
    again = card_of(texts[::-1], Prose(encoding="repair"))  # ids are other ones now
    assert again.samples[0].after == "café au lait"


def test_chats_are_looked_at_as_what_was_said() -> None:
    talks = [
        Conversation((Message("user", f"is it {n}?"), Message("assistant", "yes it is")), id=f"{n}")
        for n in range(4)
    ]
    card = card_of(talks)
    assert card.samples[0].before.startswith("user: is it ")
    assert card.composition["dialogue"].documents == 4


def test_nothing_and_ids_are_errors() -> None:
    with pytest.raises(DataError, match="it: the source yielded nothing"):
        card_of([])
    with pytest.raises(DataError, match="made of token ids"):
        inspect(
            Listed(items=(Document(text="", id="r", ids=(1, 2)),)), Given(rng=rng(0)), name="it"
        )
    nothing = card_of(["x = 1\n"], Code())  # all dropped is a finding, and no error
    assert nothing.documents == 0
    assert nothing.cleaning["dropped"] == {"code: too small": 1}
