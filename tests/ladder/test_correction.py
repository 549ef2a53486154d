"""What a correction may change, what follows from it, and when one attempt is better."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from fakes import learner, recipe, three

from matura.core.errors import RecipeError
from matura.core.record import plain
from matura.core.store import RECORD, Folder
from matura.ladder.compare import Compared, Side, decision
from matura.ladder.correction import corrected, suggestion, taken_over
from matura.ladder.recipe import loads
from matura.ladder.transcript import Row, Sitting
from matura.stages.parts import Train


@pytest.mark.parametrize(
    ("old_passed", "new_passed", "verdicts", "adopted"),
    [
        (False, True, ("worse", "same"), True),
        (True, False, ("better", "better"), False),
        (True, True, ("better", "same"), True),
        (True, True, ("better", "worse"), False),
        (True, True, ("same", "same"), False),
        (False, False, ("better", "same"), True),
        (False, False, ("worse", "same"), False),
    ],
)
def test_the_rule(
    old_passed: bool, new_passed: bool, verdicts: tuple[Any, ...], adopted: bool
) -> None:
    side = Side(0.5, 0.4, 0.6, 200, "pass")
    exams = [Compared(v, side, side, 0.1, 0.0, 0.2, 200, v) for v in verdicts]
    assert decision(exams, "chat@1", old_passed, new_passed)[0] is adopted


@pytest.mark.parametrize(
    ("asked", "shares"),
    [
        (("base=+0.1",), {"folder": 0.622222, "base": 0.2, "chat": 0.177778}),
        (("base=0.3", "chat=0.3"), {"folder": 0.4, "base": 0.3, "chat": 0.3}),
        (("chat=-0.05",), {"folder": 0.74375, "base": 0.10625, "chat": 0.15}),
        (("chat=0",), {"folder": 0.875, "base": 0.125}),
        (("base=-0.1",), {"folder": 0.777778, "chat": 0.222222}),
    ],
)
def test_shares_follow_in_proportion(
    asked: tuple[str, ...], shares: dict[str, float], tmp_path: Path
) -> None:
    after, _ = corrected(three(tmp_path / "text"), "tools", replay=asked)
    stage = after.stages[2]
    found = {part.title: part.share for part in stage.mixture}
    found |= {old.stage: old.share for old in stage.replay}
    assert found == pytest.approx(shares, abs=1e-6)
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)


def test_a_stage_that_was_not_replayed_can_be(tmp_path: Path) -> None:
    made = recipe(tmp_path / "text", learner("a", {}), learner("b", {}))
    after, changes = corrected(made, "b", replay=["a=+0.2"])
    assert [(old.stage, old.share) for old in after.stages[1].replay] == [("a", 0.2)]
    assert changes == ("replay a: 0 -> 0.2", "folder: 1 -> 0.8")


def test_tokens_take_the_place_of_epochs(tmp_path: Path) -> None:
    by_epochs = Train(epochs=2, batch_tokens=100, checkpoint_every_s=7)
    made = recipe(tmp_path / "text", learner("a", {}, train=by_epochs))
    after, changes = corrected(made, "a", tokens=3000)
    train: Train = after.stages[0].train  # type: ignore[attr-defined]
    assert (train.tokens, train.epochs, train.checkpoint_every_s) == (3000, None, 7)
    assert changes == ("train.epochs: 2.0 -> null", "train.tokens: null -> 3000")


@pytest.mark.parametrize(
    ("name", "asked", "tokens", "word"),
    [
        ("chatt", ("base=+0.1",), None, "retry chatt: no such stage .did you mean 'chat'"),
        ("tokenizer", ("base=+0.1",), None, "no such stage"),
        ("chat", ("bass=+0.1",), None, "'bass' is no stage below chat .did you mean 'base'"),
        ("chat", ("tools=+0.1",), None, "'tools' is no stage below chat"),
        ("base", ("chat=+0.1",), None, "'chat' is no stage below base .base is the first"),
        ("chat", ("base=+0.95",), None, "the share of base would be 1.05 .it is 0.1"),
        ("chat", ("base=-0.2",), None, "the share of base would be -0.1"),
        ("tools", ("base=0.5", "chat=0.5"), None, "replay would be 1 of all tokens"),
        ("chat", ("base",), None, "--replay base: expected STAGE="),
        ("chat", ("base=lots",), None, "--replay base=lots: expected STAGE="),
        ("chat", ("base=1.2.3",), None, "expected STAGE="),
        ("chat", ("base=+0.1", "base=0.3"), None, "base is given twice"),
        ("chat", (), None, "nothing is changed"),
        ("chat", ("base=0.1",), 1000, "nothing is changed"),
        ("chat", (), 0.5, "--tokens 0.5: expected a whole number"),
        ("chat", (), float("nan"), "--tokens nan"),
        ("chat", (), 50, "train.batch_tokens: one batch of 100 tokens is more than the 50"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    name: str, asked: tuple[str, ...], tokens: float | None, word: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=word) as problem:
        corrected(three(tmp_path / "text"), name, replay=asked, tokens=tokens)
    assert "\n" not in str(problem.value)


# What a closed gate suggests

TWO = """
name: two
tokenizer: {kind: bpe, vocab_size: 300}
model: {hidden_size: 32, layers: 1, heads: 2, sequence_length: 64}
stages:
  - name: base
    kind: pretrain
    mixture: [{source: {kind: stdlib}, share: 1.0}]
  - name: a
    kind: sft
    mixture: [{source: {kind: format_lock, size: alpha}, share: 1.0}]
    train: {epochs: 3}
  - name: b
    kind: sft
    mixture:
      - {source: {kind: echo, max_examples: 900}, share: 0.5}
      - {source: {kind: jsonl, path: chats.jsonl}, share: 0.3}
    replay: [{stage: a, share: 0.2}]
    train: {tokens: 1000, batch_tokens: 100}
"""


def suggested(name: str, exposures: dict[str, float]) -> tuple[list[str], tuple[str, ...]]:
    """The suggested options after the stage did not pass, and what they change."""
    made = loads(TWO)
    stage = next(stage for stage in made.stages if stage.name == name)
    parts = {title: {"exposures": seen} for title, seen in exposures.items()}
    folder = Folder(Path(f"two/{name}@1"), {"numbers": {"mixture": {"parts": parts}}})
    failed = Sitting("echo", name, 0.1, 0.0, 0.2, 200, "fail", None, "all 0.1")
    row = Row(name, 1, 1.0, 1, 1000, (failed,), folder)
    words = shlex.split(suggestion(row, stage, Path("two")))
    assert words[:3] == ["matura", "retry", name]
    assert words[-2:] == ["--run", "two"]
    pairs = list(zip(words[3:-2:2], words[4:-2:2], strict=True))
    sets = [value for option, value in pairs if option == "--set"]
    tokens = [float(value) for option, value in pairs if option == "--tokens"]
    _, changes = corrected(made, name, sets=sets, tokens=tokens[0] if tokens else None)
    return words[3:-2], changes


def test_twice_the_epochs_are_suggested_where_nothing_is_seen_too_often() -> None:
    assert suggested("a", {"format_lock": 2.4})[1] == ("train.epochs: 3.0 -> 6.0",)


def test_more_items_are_suggested_where_more_epochs_would_be_refused() -> None:
    """PITFALLS C-09: and not the same thousand items six times."""
    words, changes = suggested("a", {"format_lock": 3.0})
    assert not any("epochs" in word for word in words)
    assert changes == (
        "mixture[0].source.max_examples: 1000 -> 2000",
        'mixture[0].source.size: "alpha" -> null',
    )


def test_more_tokens_come_with_more_items_of_each_source_that_is_short() -> None:
    seen = {"echo": 2.6, "jsonl": 2.4, "replay:a.format_lock": 0.1}
    assert suggested("b", seen)[1] == (
        "mixture[0].source.max_examples: 900 -> 1800",
        "train.tokens: 1000 -> 2000",
    )
    seen = {"echo": 1.0, "jsonl": 4.0, "replay:a.format_lock": 2.7}
    assert suggested("b", seen)[1] == (
        "mixture[1].max_repeats: 5.0 -> 8.0",
        "replay.a: 5.0 -> 6.0",
        "train.tokens: 1000 -> 2000",
    )


def test_what_a_correction_took_out_stays_out(tmp_path: Path) -> None:
    """A field is not spelled at its usual value; the recipe as it was must not bring it back."""
    before = recipe(
        tmp_path / "text",
        learner("a", {}),
        learner("b", {}, train=Train(optimizer_state="parent", checkpoint_every_s=7)),
    )
    stage: Any = before.stages[1]
    after = stage.model_copy(update={"train": Train(checkpoint_every_s=9)})
    adopted = {"adopted": True, "correction": {"was": plain(stage)}}
    for number, record in enumerate([{}, adopted], start=1):
        (tmp_path / f"b@{number}").mkdir()
        asked = {"asked": {"stage": plain(after if record else stage)}}
        (tmp_path / f"b@{number}" / RECORD).write_text(json.dumps(record | asked))
    found: Any = taken_over(before, tmp_path).stages[1]
    assert plain(found) == plain(after) != plain(stage)
    assert found.train.checkpoint_every_s == 7  # no part of what a stage is
