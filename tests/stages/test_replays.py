"""`replay: usual` is the documented table, and never text."""

from __future__ import annotations

import pytest

from matura.core.errors import RecipeError
from matura.ladder.recipe import Recipe, loads, schema

HEAD = """
name: four
tokenizer: {kind: bpe, vocab_size: 400}
model: {hidden_size: 32, layers: 1, heads: 2, sequence_length: 64}
stages:
  - {name: base, kind: pretrain, mixture: [{source: {kind: stdlib}, share: 1.0}]}
"""
CHAT = "  - {name: %s, kind: sft, mixture: [%s], replay: usual}\n"
ONE = "{source: {kind: echo}, share: 1.0}"
TWO = "{source: {kind: echo}, share: 0.75}, {source: {kind: format_lock}, share: 0.25}"


def shares(recipe: Recipe, name: str) -> dict[str, float]:
    stage = next(stage for stage in recipe.stages if stage.name == name)
    found = {part.title: part.share for part in stage.mixture}
    return found | {old.stage: old.share for old in stage.replay}


def test_s003_12_the_table_of_shares() -> None:
    made = loads(HEAD + "".join(CHAT % (name, ONE) for name in "abcd"))
    assert shares(made, "a") == {"echo": 1.0}
    assert shares(made, "b") == {"echo": 0.8, "a": 0.2}
    assert shares(made, "c") == pytest.approx({"echo": 0.7, "b": 0.2, "a": 0.1})
    assert shares(made, "d") == pytest.approx({"echo": 0.7, "c": 0.2, "b": 0.05, "a": 0.05})


def test_own_shares_make_room_or_are_right_already() -> None:
    first = HEAD + CHAT % ("a", ONE)
    scaled = loads(first + CHAT % ("b", TWO))
    assert shares(scaled, "b") == pytest.approx({"echo": 0.6, "format_lock": 0.2, "a": 0.2})
    stated = loads(first + CHAT % ("b", "{source: {kind: echo}, share: 0.8}"))
    assert shares(stated, "b") == {"echo": 0.8, "a": 0.2}
    with pytest.raises(RecipeError, match=r"mixture: the shares sum to 0.7 with the replay"):
        loads(first + CHAT % ("b", "{source: {kind: echo}, share: 0.5}"))


def test_s003_13_text_is_never_replayed_by_itself() -> None:
    made = loads(HEAD + "".join(CHAT % (name, ONE) for name in "abcd"))
    assert not any(old.stage == "base" for stage in made.stages for old in stage.replay)
    text = (HEAD + CHAT % ("a", ONE)).replace("kind: sft", "kind: pretrain")
    with pytest.raises(RecipeError, match="'usual' is for chat stages"):
        loads(text)


def test_it_can_be_set_and_editors_know_it() -> None:
    text = HEAD + (CHAT % ("a", ONE) + CHAT % ("b", ONE)).replace(", replay: usual", "")
    assert shares(loads(text), "b") == {"echo": 1.0}
    assert shares(loads(text, ["stages.b.replay=usual"]), "b") == {"echo": 0.8, "a": 0.2}
    stages = [part for name, part in schema()["$defs"].items() if name == "Sft"]
    assert "usual" in str(stages[0]["properties"]["replay"])
