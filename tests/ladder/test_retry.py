"""A stage made once more with something changed: adopted only if better, and held to afterwards."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dying import dies_at
from fakes import Lay, heard, recipe
from learners import QUIET, QUIZ, again, closed, learner, names, three

from matura.core.errors import DriftError, GateClosed, RecipeError
from matura.core.store import Folder, work_place
from matura.ladder.climb import climb
from matura.ladder.compare import Compared, Side, decision
from matura.ladder.correction import corrected, taken_over
from matura.ladder.retry import retry
from matura.ladder.transcript import columns, last_passed, rows, transcript_json, transcript_table
from matura.stages.parts import Train


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for noted in (Lay.calls, Lay.stops, Lay.breaks):
        noted.clear()


def test_a_closed_gate_names_the_command(tmp_path: Path) -> None:
    made, run, said = closed(tmp_path)
    assert "chat@1 did not pass: quiz fail (fell by 0.100" in said
    assert "--rebuild chat" in said
    assert said.endswith(f"with: matura retry chat --replay base=+0.1 --run {run}")
    # what was not learnt needs more tokens; what is made of replay already, too
    poor = recipe(tmp_path / "text", learner("base", {"quiz": 90}, QUIZ), name="poor")
    with pytest.raises(GateClosed, match=r"matura retry base --tokens 2000 --run \S+poor$"):
        climb(poor, tmp_path, ledger=QUIET)
    # a correction that was not adopted is not suggested again
    declined = again(made, run, "base=+0.01")
    assert declined.closed.endswith(f"--replay base=+0.2 --run {run}")


def test_what_passes_the_gate_is_adopted(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path)
    ledger, stream = heard()
    found = again(made, run, "base=+0.2", ledger=ledger)
    assert found.closed == ""
    assert found.found["adopted"] is True
    assert found.found["why"] == "passes the gate that chat@1 did not pass"
    said = " ".join(stream.getvalue().split())
    assert "chat@2 corrects chat@1: replay base: 0.1 -> 0.3; folder: 0.9 -> 0.7" in said
    assert f"chat@2 is adopted; {run}/recipe.yaml now says replay base: 0.1 -> 0.3" in said
    assert "share: 0.3" in (run / "recipe.yaml").read_text()
    assert last_passed(run).path.name == "chat@2"
    record = Folder.open(run / "chat@2").record
    assert record["adopted"] is True
    assert record["lineage"]["corrects"] == "chat@1"
    assert record["lineage"]["changes"] == ["replay base: 0.1 -> 0.3", "folder: 0.9 -> 0.7"]
    assert record["lineage"]["asked"] == {"chat/folder": 0.7, "base/folder": 0.3}


def test_an_unchanged_recipe_goes_on_from_what_was_adopted(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path)
    again(made, run, "base=+0.2")
    ledger, stream = heard()
    before = (run / "recipe.yaml").read_bytes()
    done = climb(made, tmp_path, ledger=ledger)
    assert done.skipped == ("tokenizer@1", "base@1", "chat@2")
    assert done.made == ("tools@1",)
    assert "chat: with replay base: 0.1 -> 0.3" in " ".join(stream.getvalue().split())
    assert (run / "recipe.yaml").read_bytes() == before
    # so does the recipe that has taken the change over
    assert climb(taken_over(made, run), tmp_path, ledger=QUIET).made == ()
    # and any other is drift, with the correction named
    other = three(tmp_path / "text", by_tokens={"riddle": 1})
    with pytest.raises(DriftError, match=r"(?s)chat@2 was made.*chat@2 corrects chat@1: replay"):
        climb(other, tmp_path, ledger=QUIET)


def test_what_is_worse_is_kept_but_not_adopted(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path, by_replay={"quiz": 5, "riddle": -7})
    before = (run / "recipe.yaml").read_bytes()
    ledger, stream = heard()
    found = again(made, run, "base=+0.1", ledger=ledger)
    assert found.found["adopted"] is False
    assert found.found["why"] == "is worse than chat@1 in riddle (-0.035)"
    assert "chat@1 did not pass" in found.closed
    assert "chat@2 is kept beside it, not adopted" in " ".join(stream.getvalue().split())
    assert (run / "recipe.yaml").read_bytes() == before
    assert names(run) == ["base@1", "chat@1", "chat@2", "recipe.yaml", "tokenizer@1"]
    assert [row.folder.path.name for row in rows(run)] == ["tokenizer@1", "base@1", "chat@1"]
    calls = list(Lay.calls)
    with pytest.raises(GateClosed, match="chat@1 did not pass"):
        climb(made, tmp_path, ledger=QUIET)
    assert Lay.calls == calls
    with pytest.raises(RecipeError, match=r"chat@2 was made from exactly this and was not adopted"):
        again(made, run, "base=+0.1")
    assert again(made, run, "base=+0.05").found["new"] == "chat@3"


def test_a_gate_that_was_open_is_not_given_up(tmp_path: Path) -> None:
    made = three(tmp_path / "text", by_replay={"quiz": 32, "riddle": -20})
    climb(made, tmp_path, ledger=QUIET)
    found = again(made, tmp_path / "run", "base=+0.05")
    assert found.found["why"] == "is worse than chat@1 in riddle (-0.050)"
    found = again(made, tmp_path / "run", "base=+0.2")
    assert found.found["why"] == "does not pass the gate that chat@1 passed"
    assert found.found["adopted"] is False
    assert found.closed == ""  # the run's own attempt passes still


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


def test_a_gain_must_be_surer_the_more_exams_there_are(tmp_path: Path) -> None:
    """Five items of 200 are sure for one exam (p = 0.031), and not where two could have won."""
    made, run, _ = closed(tmp_path, by_replay={"quiz": 5})
    assert again(made, run, "base=+0.1").found["why"] == "is not surely better than chat@1 anywhere"
    found = again(made, run, "base=+0.12").found
    assert found["why"] == "is better than chat@1 in quiz (+0.030) and worse nowhere"
    assert found["adopted"] is True


def test_stages_above_are_made_again_on_what_was_adopted(tmp_path: Path) -> None:
    made = three(tmp_path / "text", by_replay={"quiz": 32})
    climb(made, tmp_path, ledger=QUIET)
    run = tmp_path / "run"
    ledger, stream = heard()
    assert again(made, run, "base=+0.05", ledger=ledger).found["adopted"] is True
    assert "tools stand on chat@1: `matura run` makes them again on chat@2" in " ".join(
        stream.getvalue().split()
    )
    done = climb(made, tmp_path, ledger=QUIET)
    assert (done.skipped[-1], done.made) == ("chat@2", ("tools@2",))
    # rebuilt from below, it stays corrected
    done = climb(made, tmp_path, rebuild="base", ledger=QUIET)
    assert done.made == ("base@2", "chat@3", "tools@3")
    asked = Folder.open(run / "chat@3").record["asked"]
    assert asked["stage"]["replay"][0]["share"] == 0.15
    assert climb(made, tmp_path, ledger=QUIET).made == ()
    # rebuilt by name, it is what the recipe says again
    ledger, stream = heard()
    assert climb(made, tmp_path, rebuild="chat", ledger=ledger).made == ("chat@4", "tools@4")
    assert "chat: made again as the recipe says, without" in " ".join(stream.getvalue().split())
    assert climb(made, tmp_path, ledger=QUIET).made == ()
    asked = Folder.open(run / "chat@4").record["asked"]
    assert asked["stage"]["replay"][0]["share"] == 0.1


def test_corrections_of_corrections_hold_too(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path)
    first = again(made, run, "base=+0.04")
    assert first.found["why"] == "is better than chat@1 in quiz (+0.040) and worse nowhere"
    assert "chat@2 did not pass: quiz fail (fell by 0.060" in first.closed
    found = again(made, run, "base=+0.06", tokens=2e3)
    assert found.found["old"] == "chat@2"
    assert found.found["changes"] == [
        "replay base: 0.14 -> 0.2",
        "folder: 0.86 -> 0.8",
        "train.tokens: 1000 -> 2000",
    ]
    assert found.found["adopted"] is True
    assert climb(made, tmp_path, ledger=QUIET).skipped[-1] == "chat@3"
    standings = {row.folder.path.name: row.standing for row in columns(run)}
    assert standings["chat@1"] == standings["chat@2"] == "replaced"
    assert standings["chat@3"] == "current"


def test_both_attempts_stand_side_by_side(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path)
    found = again(made, run, "base=+0.01")
    told = json.loads(json.dumps(found.as_dict()))
    assert list(told) == ["run", "stage", "old", "new", "changes", "adopted", "why", "exams"]
    assert (told["run"], told["stage"], told["old"], told["new"]) == (
        "run",
        "chat",
        "chat@1",
        "chat@2",
    )
    assert [exam["name"] for exam in told["exams"]] == ["riddle", "quiz"]
    for exam in told["exams"]:
        assert list(exam) == ["name", "old", "new", "gain", "low", "high", "n", "verdict"]
        assert list(exam["old"]) == ["score", "low", "high", "n", "outcome"]
        assert exam["low"] <= exam["gain"] <= exam["high"]
        assert exam["n"] == 200
    assert told["exams"][1]["gain"] == pytest.approx(2 / 200)
    assert [told["exams"][1][side]["outcome"] for side in ("old", "new")] == ["fail", "fail"]
    transcript = transcript_json(run)
    assert [stage["attempt"] for stage in transcript["stages"]] == [1, 1, 1]
    assert transcript["corrections"] == [
        {key: value for key, value in told.items() if key != "run"}
    ]
    table = transcript_table(run)
    assert [str(column.header) for column in table.columns] == [
        "exam",
        "base@1",
        "chat@1",
        "chat@2\nnot adopted",
    ]
    changes = {row.folder.path.name: row.sittings[-1].change for row in columns(run)[1:]}
    assert changes["chat@1"] == pytest.approx(-0.1)  # each against the stage below
    assert changes["chat@2"] == pytest.approx(-0.09)


def test_an_interrupted_retry_goes_on_even_after_a_run(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path)
    Lay.stops.add("chat")
    with pytest.raises(KeyboardInterrupt):
        again(made, run, "base=+0.2")
    Lay.stops.clear()
    work = work_place(run / "chat@2")
    with pytest.raises(GateClosed):
        climb(made, tmp_path, ledger=QUIET)
    assert (work / "state" / "step-00000001").is_dir()
    ledger, stream = heard()
    assert again(made, run, "base=+0.2", ledger=ledger).found["adopted"] is True
    assert "dropped" not in stream.getvalue()
    assert not work.exists()


def test_another_retry_drops_what_one_began(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path)
    Lay.stops.add("chat")
    with pytest.raises(KeyboardInterrupt):
        again(made, run, "base=+0.2")
    Lay.stops.clear()
    ledger, stream = heard()
    assert again(made, run, "base=+0.25", ledger=ledger).found["new"] == "chat@2"
    assert "chat@2.work: begun from something else, dropped" in stream.getvalue()
    asked = Folder.open(run / "chat@2").record["asked"]
    assert asked["stage"]["replay"][0]["share"] == 0.35


@pytest.mark.parametrize("stride", [53, pytest.param(9, marks=pytest.mark.slow)])
def test_killed_anywhere_it_comes_to_the_same(ram: Path, stride: int) -> None:
    made, start, _ = closed(ram)
    number, killed, deaths = 0, True, 0
    while killed:
        run = ram / str(number) / "run"
        shutil.copytree(start, run)
        killed = dies_at(number, lambda run=run: again(made, run, "base=0.3"))
        deaths += killed
        with suppress(RecipeError):  # nothing is changed: it was adopted before the kill
            again(made, run, "base=0.3")
        climb(made, run.parent, ledger=QUIET)
        assert names(run) == [
            *("base@1", "chat@1", "chat@2", "recipe.yaml", "tokenizer@1", "tools@1")
        ]
        assert "share: 0.3" in (run / "recipe.yaml").read_text()
        assert last_passed(run).path.name == "tools@1"
        number += stride
    assert deaths > 1


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


def test_a_stage_that_is_not_there_cannot_be_corrected(tmp_path: Path) -> None:
    made, run, _ = closed(tmp_path)
    with pytest.raises(RecipeError, match=r"tools@1 is not made yet; `matura run` makes it first"):
        retry(made, run, "tools", replay=["base=+0.1"], ledger=QUIET)
    with pytest.raises(DriftError, match="chat@1 was made from something else"):
        again(three(tmp_path / "text", by_replay={"quiz": 21}), run, "base=+0.1")
    assert names(run) == ["base@1", "chat@1", "recipe.yaml", "tokenizer@1"]
