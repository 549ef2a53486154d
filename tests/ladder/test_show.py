"""`show` and the sample it stands on: the same rows that training reads, and honest estimates."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretend import Pretended, pretend, recipe_text
from rich.console import Console

from matura.core.errors import RecipeError, StoreError
from matura.data.mixture import Feed, Part
from matura.ladder.drawn import drawn, drawn_row
from matura.ladder.recipe import load
from matura.ladder.show import BatchSeen, show_recipe, show_run
from matura.ladder.status import status
from matura.ladder.trial import try_out
from matura.text.shards import Shard


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pretended:
    return pretend(tmp_path_factory.mktemp("show"))


def test_the_batch_is_the_first_that_training_reads(made: Pretended) -> None:
    shown = show_run(made.run, "chat")
    data = made.run
    parts = [
        Part("echo", Shard.open(data / "chat@1" / "data" / "echo.train.shard"), 0.8, "drop"),
        Part(
            "replay:base.folder", Shard.open(data / "base@1" / "data" / "folder.train.shard"), 0.2
        ),
    ]
    feed = Feed(
        parts, tokens=6000, row_length=65, pad_id=made.template.pad_id, seed=7, stage="chat"
    )
    rows = feed.at(range(4))
    assert shown.batch.ids == rows.ids_NL.tolist()
    assert shown.batch.weights == rows.weights_NL.tolist()
    assert shown.batch.segments == rows.segments_NL.tolist()


def test_the_tree_of_a_run_has_its_recorded_shares(made: Pretended) -> None:
    base, chat = show_run(made.run).stages
    assert [part.name for part in chat.parts] == ["echo", "replay:base.folder"]
    assert base.parts[0].exact
    assert sum(part.share_got or 0 for part in chat.parts) == pytest.approx(1)


def test_a_recipe_is_shown_from_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    shown = show_recipe(path, ["stages.base.train.tokens=2000"], "chat")
    assert shown.sampled
    assert shown.batch.stage == "chat"
    assert shown.stages[0].tokens == 2000
    assert [part.name for part in shown.stages[1].parts] == ["echo", "replay:base.folder"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.yaml", "text"]
    with pytest.raises(RecipeError, match="--stage chatt"):
        show_recipe(path, (), "chatt")


def test_a_small_source_is_counted_not_estimated(made: Pretended, tmp_path: Path) -> None:
    trial = try_out(made.recipe, tmp_path)
    folder = trial.parts["base", "folder"]
    assert folder.exact
    assert folder.tokens == folder.shard.tokens
    assert trial.parts["chat", "echo"].tokens > 0
    assert folder.documents


def test_a_large_lesson_is_estimated_well(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    most = "stages.chat.mixture.0.source.max_examples=3000"
    recipe = load(path, [most])
    tried = try_out(recipe, tmp_path / "a").parts["chat", "echo"]
    assert not tried.exact
    assert tried.tokens == pytest.approx(tried.shard.tokens * 3000 / 400, rel=0.01)


def test_what_is_trained_stands_out_without_colours(made: Pretended) -> None:
    template = made.template
    ids = [*template.tokenizer.encode("ab"), template.pad_id, template.pad_id]
    text = drawn_row(template, ids, [0, 1, 0, 0], [1, 1, 0, 0], colours=False)
    assert str(text) == "a⟦b⟧·2"
    coloured = drawn_row(template, ids, [0, 1, 0, 0], [1, 2, 0, 0], colours=True)
    assert str(coloured) == "a│b·2"


def test_other_weights_than_one_are_told(made: Pretended) -> None:
    template = made.template
    ids = [*template.tokenizer.encode("abcd"), template.end_of_turn_id, template.pad_id]
    weights, segments = [0, 1, 1, -1, 2, 0], [1, 1, 1, 1, 1, 0]
    text = drawn_row(template, ids, weights, segments, colours=False)
    assert str(text) == "a⟦bc⟧⟦×-1 d⟧⟦×2 <|end_turn|>⟧·1"
    coloured = drawn_row(template, ids, weights, segments, colours=True)
    assert str(coloured) == "abc×-1d×2<|end_turn|>·1"


def test_a_batch_is_tallied() -> None:
    seen = BatchSeen("s", [[1, 2, 3, 0], [4, 5, 6, 7]], [[0, 1, 1, 0], [0, 2, 0, 1]],
                     [[1, 1, 1, 0], [1, 1, 2, 2]])  # fmt: skip
    assert seen.counts() == {"trained": 4, "read only": 3, "padding": 1, "segments": 3}


def test_a_weighted_stage_shows_its_weights_and_what_is_too_short(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    chat = "stages.chat."
    more = [f"{chat}weights=weighted", f"{chat}train.min_tokens=30", f"{chat}train.order=random"]
    shown = show_recipe(path, more, "chat")
    plain = show_recipe(path, (), "chat")
    weights = {weight for row in shown.batch.weights for weight in row}
    assert weights == {0.0, 1.0, 2.0}
    assert {weight for row in plain.batch.weights for weight in row} == {0.0, 1.0}
    echo = shown.stages[1].parts[0]
    assert echo.source is not None
    assert echo.source.left_out["too short"] > 0
    assert echo.tokens_available < plain.stages[1].parts[0].tokens_available
    console = Console(width=200, color_system=None)
    with console.capture() as text:
        console.print(drawn(shown, colours=False))
    assert "too short" in text.get()
    assert "⟦trained⟧  ×2  read only" in text.get()
    assert "×2 <|end_turn|>⟧" in text.get()
    assert "4 rows of 65, " in text.get()


def test_epochs_are_shown_as_tokens(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    half = "stages.chat.train={epochs: 0.5, batch_tokens: 256}"
    chat = show_recipe(path, [half], "chat").stages[1]
    assert chat.parts[0].seen == pytest.approx(0.5, rel=0.01)
    assert chat.tokens == pytest.approx(0.5 * chat.parts[0].tokens_available / 0.8, rel=0.01)


def test_status_of_a_run_in_the_middle(tmp_path: Path) -> None:
    run = pretend(tmp_path, stages=1).run
    states = status(run).stages
    assert [stage.state for stage in states] == ["passed", "passed", "waiting"]
    work = run / "chat@1.work"
    work.mkdir()
    assert status(run).stages[2].detail == "making data"
    (work / "metrics.jsonl").write_text('{"step": 4, "loss": 1.5}\n{"ste')
    assert status(run).stages[2].detail == "training, step 5, loss 1.500"
    (work / "made.json").write_text("{}")
    found = status(run).stages[2]
    assert (found.state, found.detail) == ("unfinished", "sitting exams, 0 done")
    with pytest.raises(StoreError, match="not there"):
        status(tmp_path / "none")
