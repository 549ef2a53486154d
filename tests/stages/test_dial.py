"""One dial: what a depth gives, that what is stated wins, and that docs/dial.md tells the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from matura.core.errors import RecipeError
from matura.core.record import plain
from matura.ladder.plan import plan
from matura.ladder.recipe import load, loads, schema, spell
from matura.stages.dial import ROWS_FILLED, budget, counted, filled, rates, shape, told

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- table -->", "<!-- /table -->"
VOCABULARY = 65_536
TEXT = """
name: small
tokenizer: {kind: bpe, vocab_size: 512}
model: {depth: 4}
stages:
  - {name: base, kind: pretrain, mixture: [{source: {kind: stdlib}, share: 1.0}]}
  - name: chat
    kind: sft
    mixture: [{source: {kind: echo}, share: 1.0}]
    train: {tokens: 5000}
"""


def table() -> str:
    """What the page shows: run this file to write it anew."""
    rows = ["| depth | width | heads | row | parameters | batch | tokens | steps | matrices | "
            "embeddings | head |", "|" + "--:|" * 11]  # fmt: skip
    for depth in (4, 8, 12, 20, 26):
        found = shape(depth)
        size = counted(depth, found["hidden_size"], VOCABULARY)
        asked = budget(size, found["sequence_length"])
        fast = rates(found["hidden_size"], asked.batch_tokens)
        width = found["hidden_size"] // found["heads"]
        cells = (
            depth, found["hidden_size"], f"{found['heads']} of {width}", found["sequence_length"],
            f"{size / 1e6:.1f}M", f"{asked.batch_tokens:,}", f"{asked.tokens / 1e9:.2f}B",
            f"{asked.steps:,}", *fast.values(),
        )  # fmt: skip
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def test_the_page_shows_what_is_computed() -> None:
    page = (ROOT / "docs" / "dial.md").read_text(encoding="utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == table(), "python tests/stages/test_dial.py writes the table anew"


def test_the_speedrun_is_nanochats() -> None:
    """S004-04: 561M parameters, 21,400 steps."""
    recipe = load(ROOT / "recipes" / "speedrun-d20.yaml")
    model, train = recipe.model, recipe.stages[0].train  # type: ignore[attr-defined]
    assert (model.hidden_size, model.layers, model.heads) == (1280, 20, 10)
    assert (model.sequence_length, model.tie_embeddings) == (2048, False)
    assert counted(20, 1280, 65_536) == 560_988_160
    assert train.batch_tokens == 524_288
    assert (train.matrix_learning_rate, train.decay, train.warmup_tokens) == (0.02, 0.2, 0)
    # theirs scale those two by the inverse root of the width
    assert train.learning_rate == pytest.approx(0.004 * (1280 / 768) ** -0.5, rel=1e-3)
    assert train.embedding_learning_rate == pytest.approx(0.2 * (1280 / 768) ** -0.5, rel=2e-3)
    rows = train.tokens / (2049 * ROWS_FILLED)
    assert round(round(rows) / 256) == 21_400


def test_its_plan_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """21,400 steps, in about the four hours on eight H100 that it took (S004-21)."""
    monkeypatch.setenv("MATURA_OFFLINE", "1")
    monkeypatch.setenv("MATURA_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    recipe = load(ROOT / "recipes" / "speedrun-d20.yaml")
    found = plan(recipe, hardware="8xh100", disk=tmp_path)
    base = found.stages[-1]
    assert base.steps == 21_400
    assert found.vocab_size == 65_536  # though what stands in for the text has fewer words
    assert found.parameters == pytest.approx(561e6, rel=0.01)
    assert 3 < base.seconds["training"] / 3600 < 5
    assert found.price_per_hour == 24.0
    assert found.memory_bytes < 80e9
    assert {one.place for one in found.dial} >= {"model.hidden_size", "stages.base.train.tokens"}
    assert all(one.value == one.derived for one in found.dial)


def test_tokens_per_parameter_are_what_is_learned_from() -> None:
    for depth, per in ((4, 20.0), (12, 7.5), (26, 40.0)):
        found = shape(depth)
        size = counted(depth, found["hidden_size"], VOCABULARY)
        asked = budget(size, found["sequence_length"], per_parameter=per)
        learned = asked.steps * asked.batch_tokens
        assert learned == pytest.approx(per * size, rel=0.001)
        assert asked.batch_tokens % found["sequence_length"] == 0


def test_the_resolved_recipe_says_it_all_and_means_the_same() -> None:
    recipe = loads(TEXT)
    assert (recipe.model.hidden_size, recipe.model.heads, recipe.model.depth) == (256, 4, 4)
    base, chat = (stage.train for stage in recipe.stages)  # type: ignore[attr-defined]
    asked = budget(counted(4, 256, 512), recipe.model.sequence_length)
    assert (base.tokens, base.batch_tokens) == (asked.tokens, asked.batch_tokens)
    assert (chat.tokens, chat.batch_tokens) == (5000, 4096)
    assert chat.matrix_learning_rate < base.matrix_learning_rate  # of its smaller batch
    assert loads(spell(recipe)) == recipe
    spelled = "\n".join(f"  {name}: {value}" for name, value in shape(4).items())
    by_hand = TEXT.replace("model: {depth: 4}", f"model:\n{spelled}")
    assert plain(loads(by_hand).model) == plain(recipe.model)  # the dial is no part of identity


def test_what_is_stated_wins_and_the_rest_follows_it() -> None:
    recipe = loads(
        TEXT,
        ["model.hidden_size=512", "stages.base.train.batch_tokens=8192",
         "stages.base.train.matrix_learning_rate=0.5", "model.tokens_per_parameter=10"],
    )  # fmt: skip
    train = recipe.stages[0].train  # type: ignore[attr-defined]
    size = counted(4, 512, 512)
    asked = budget(size, 512, per_parameter=10, batch_tokens=8192)
    assert (train.batch_tokens, train.matrix_learning_rate) == (8192, 0.5)
    assert train.tokens == asked.tokens
    assert train.learning_rate == rates(512, 8192)["learning_rate"]
    assert recipe.model.heads == 8
    other = {place: (is_, gives) for place, is_, gives in told(recipe) if is_ != gives}
    assert other.pop("model.hidden_size") == (512, 256)
    assert other.pop("stages.base.train.matrix_learning_rate")[0] == 0.5
    assert other.pop("stages.base.train.batch_tokens")[0] == 8192
    assert not other
    epochs = loads(TEXT, ["stages.base.train={epochs: 2}"])
    assert epochs.stages[0].train.tokens is None  # type: ignore[attr-defined]


def test_without_a_depth_nothing_is_touched() -> None:
    value = {"model": {"hidden_size": 8}, "stages": [{"train": {}}]}
    assert filled(value) is value
    assert list(told(loads(TEXT.replace("depth: 4", "hidden_size: 64, layers: 2, heads: 2, "
                                        "sequence_length: 64")))) == []  # fmt: skip


def test_a_model_that_is_given_keeps_its_horizon() -> None:
    """Going on from somebody's base is no base: its tokens are its author's to say."""
    given = {"name": "old", "kind": "given", "model": "somewhere"}
    more = {"name": "more", "kind": "pretrain"}
    value = {"tokenizer": {"vocab_size": 512}, "model": {"depth": 4}, "stages": [given, more]}
    found = filled(value)["stages"]
    assert found[0] == given
    assert "tokens" not in found[1]["train"]
    assert found[1]["train"]["batch_tokens"] == 4096


@pytest.mark.parametrize("depth", ["0", "-3", "2.5", "deep", "true", "9999"])
def test_no_such_depth(depth: str) -> None:
    with pytest.raises(RecipeError, match=r"model\.depth: should be"):
        loads(TEXT.replace("depth: 4", f"depth: {depth}"))


def test_a_budget_without_a_dial_is_refused() -> None:
    stated = "hidden_size: 64, layers: 2, heads: 2, sequence_length: 64, tokens_per_parameter: 9"
    with pytest.raises(RecipeError, match="tokens_per_parameter belongs to a depth"):
        loads(TEXT.replace("depth: 4", stated))


def test_editors_ask_for_either() -> None:
    either = schema()["$defs"]["ModelSpec"]["anyOf"]
    assert {"required": ["depth"]} in either
    assert any("hidden_size" in one["required"] for one in either)


if __name__ == "__main__":
    page = ROOT / "docs" / "dial.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
