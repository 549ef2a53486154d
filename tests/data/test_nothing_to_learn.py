"""A batch with nothing to train on cannot happen: whatever has no trained token is dropped, counted
and named, before rows are made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matura.core.errors import DataError
from matura.core.types import Conversation, Document, Given, Message
from matura.data.build import Built, build
from matura.data.mixture import Feed, Part
from matura.text.pack import Policy, pieces
from matura.text.shards import Shard
from matura.text.template import Template, Weights
from matura.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.bytes_only("matura")
TEMPLATE = Template(TOKENIZER)
Item = Document | Conversation
Policies = st.sampled_from(["drop", "split", "truncate_left"])


class Things:
    """A source of these things, and of two that can be learnt for each split."""

    kind = "given"

    def __init__(self, things: Sequence[Item]) -> None:
        self.things = things

    def read(self, given: Given) -> Iterator[Item]:
        for number in range(2):
            said = (Message("user", f"{given.split} {number}"), Message("assistant", "yes"))
            yield Conversation(said, id=f"good {number}")
        if given.split == "train":
            yield from self.things


def built_of(things: Sequence[Item], folder: Path, template: Template = TEMPLATE) -> Built:
    return build(Things(things), name="it", template=template, folder=folder, seed=0, stage="chat")


def feed_of(part: Part, row_length: int) -> Feed:
    return Feed(
        [part],
        tokens=300,
        row_length=row_length,
        pad_id=TEMPLATE.pad_id,
        seed=0,
        stage="chat",
    )


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Ids with weights, of which often none, or only the first token's, is not 0."""
    ids = draw(st.lists(st.integers(0, 255), max_size=40))
    weight = st.sampled_from(draw(st.sampled_from([[0.0], [0.0, 1.0], [0.0, 2.0, -1.0]])))
    weights = draw(st.lists(weight, min_size=len(ids), max_size=len(ids)))
    return Document(text="", id="d", ids=tuple(ids), weights=tuple(weights))


@st.composite
def talks(draw: st.DrawFn) -> Conversation:
    """Turns in any order that can be rendered, the assistant's among them or not."""
    roles: list[Literal["user", "assistant"]] = draw(
        st.lists(st.sampled_from(["user", "assistant"]), max_size=4)
    )
    return Conversation(tuple(Message(role, draw(st.text(max_size=30))) for role in roles), "c")


@settings(max_examples=60, deadline=None)
@given(st.lists(documents() | talks(), max_size=12), Policies, st.integers(2, 24))
def test_every_row_of_every_batch_has_something_to_learn(
    things: list[Item], policy: Policy, row_length: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = built_of(things, folder)
        learnable = 0
        shard = Shard.open(built.train)
        for number in range(len(shard)):
            assert shard.example(number)[1][1:].any()
            learnable += 1
        assert built.kept["train"] == learnable
        assert built.read == sum(built.kept.values()) + sum(built.dropped.values())
        assert set(built.dropped) <= {"nothing to learn", "duplicate", "empty"}
        part = Part("it", shard, 1.0, policy, max_repeats=1e9)
        if not pieces(shard.lengths, row_length, policy, weights=shard.weights)[1].pieces:
            with pytest.raises(DataError, match="has nothing to train on"):
                feed_of(part, row_length)
            return
        feed = feed_of(part, row_length)
        rows = feed.at(np.arange(len(feed)))
        assert rows.weights_NL.any(axis=1).all()
        told = feed.report()["parts"]["it"]
        assert told["trained_tokens"] == rows.trained
        lost = shard.tokens - told["tokens_available"]
        assert lost == sum(told["tokens_lost"].values())
        assert set(told["tokens_lost"]) <= {"nothing to learn", "too long", "truncated"}


def test_what_is_dropped_is_counted_by_reason(tmp_path: Path) -> None:
    talk = Conversation((Message("user", "only a question"),), "c")
    first = Document(text="", id="d", ids=(5, 6), weights=(0.0, 0.0))
    unlearnt = Document(text="", id="e", ids=(5, 7), weights=(0.0, -1.0))
    again = Document(text="", id="e", ids=(5, 7), weights=(0.0, -1.0))
    blank = Document(text=" \n", id="b")
    built = built_of([talk, first, unlearnt, again, blank], tmp_path)
    assert built.dropped == {"nothing to learn": 2, "duplicate": 1, "empty": 1}
    assert built.kept == {"train": 3, "validation": 2}


def test_a_source_of_nothing_to_learn_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    silent = Template(TOKENIZER, weights=Weights(content=0.0, end_turn=0.0, call=0.0))
    with pytest.raises(DataError, match=r"it: nothing for train and validation .*nothing to learn"):
        built_of([], tmp_path, silent)
    assert not list(tmp_path.iterdir())
