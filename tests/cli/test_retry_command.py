"""`matura retry`: what it refuses in one line, and one real correction of a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Call
from pretend import Pretended, recipe_text

from matura.core.store import Folder


def spelled(tiny: Pretended, tmp_path: Path) -> dict[str, object]:
    """What stands for paths in the cases below."""
    recipe = tmp_path / "other.yaml"
    recipe.write_text((tiny.run / "recipe.yaml").read_text().replace("name: tiny", "name: other"))
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [a\n")
    return {
        "RUN": tiny.run,
        "RUNS": tiny.run.parent,
        "NEAR": tiny.run.parent / "tinny",
        "GONE": tmp_path / "gone",
        "EMPTY": tmp_path,
        "OTHER": recipe,
        "BAD": bad,
    }


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("chatt --run RUN --replay base=+0.1", ("retry chatt: no such stage", "'chat'")),
        ("tokenizer --run RUN --tokens 2e6", ("retry tokenizer: no such stage",)),
        ("chat --run RUN --replay bass=+0.1", ("--replay bass=+0.1", "'bass'", "'base'")),
        ("chat --run RUN --replay echo=+0.1", ("--replay echo=+0.1", "no stage below chat")),
        ("base --run RUN --replay chat=+0.1", ("no stage below base", "is the first")),
        ("chat --run RUN --replay base=+0.9", ("base=+0.9", "would be 1.1", "it is 0.2")),
        ("chat --run RUN --replay base=1", ("base=1", "between 0 and 1")),
        ("chat --run RUN --replay base=-0.3", ("base=-0.3", "would be -0.1")),
        ("chat --run RUN --replay base", ("--replay base: expected",)),
        ("chat --run RUN --replay base=nan", ("--replay base=nan: expected",)),
        ("chat --run RUN", ("retry chat: nothing is changed", "--replay")),
        ("chat --run RUN --tokens many", ("--tokens", "number")),
        ("chat --run RUN --tokens -5", ("--tokens -5", "whole number")),
        ("chat --run RUN --tokens 1e400", ("--tokens inf",)),
        ("chat --run RUN --tokens 100", ("train.batch_tokens", "256", "100")),
        ("chat --run RUN --set stages.chat.train.tokes=9", ("--set", "tokes", "'tokens'")),
        ("chat --run RUN --set stages.base.train.tokens=9000", ("stages.base.train", "its own")),
        ("chat --run RUN --set model.layers=3", ("model.layers: 2 -> 3", "its own stage only")),
        ("chat --run RUN --set stages.chat.exams.0.at_least=0.1", ("exams", "how it is examined")),
        ("chat --run RUN --set seed=8", ("seed: 7 -> 8", "its own stage only")),
        ("chat --run GONE --tokens 9e3", ("gone: not there",)),
        ("chat --run NEAR --runs RUNS --tokens 9e3", ("tinny: not there", "'tiny'")),
        ("chat --run EMPTY --tokens 9e3", ("not a run", "recipe.yaml")),
        ("chat --run OTHER --tokens 9e3", ("other is no run yet", "matura run")),
        ("chat --run BAD --tokens 9e3", ("bad.yaml", "not YAML")),
        ("chat --tokens 9e3", ("no run in runs", "--run")),
        ("--run RUN --tokens 9e3", ("Missing argument", "stage")),
    ],
)
def test_bad_input_is_one_line_and_2(
    asked: str, words: tuple[str, ...], call: Call, tiny: Pretended, tmp_path: Path
) -> None:
    places = spelled(tiny, tmp_path)
    before = sorted(path.name for path in tiny.run.iterdir())
    said = call(["retry", *(places.get(word, word) for word in asked.split())])
    assert said.code == 2, said.err
    assert said.out == ""
    (line,) = said.err.strip().splitlines()
    assert line.startswith("matura: ")
    for word in words:
        assert word in line
    assert {*before, ".lock"} >= {path.name for path in tiny.run.iterdir()}


def test_several_runs_are_told_apart(call: Call, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.yaml").write_text("name: x")
    said = call(["retry", "chat", "--tokens", "9e3", "--runs", tmp_path / "runs"])
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "(a, b): give --run" in said.err


def test_the_rule_is_in_the_help(call: Call) -> None:
    said = " ".join(call(["retry", "--help"]).out.replace("│", " ").split())
    assert "surely better in some exam and surely worse in none" in said
    assert "Exit code 3" in said


@pytest.mark.slow
def test_a_real_stage_is_corrected(call: Call, tmp_path: Path) -> None:
    """What fails for want of training passes after a retry; the run goes on from there."""
    recipe = tmp_path / "r.yaml"
    text = recipe_text(tmp_path, "real")
    text = text.replace("tokens: 4000", "tokens: 1000").replace("at_most: 9.0", "at_most: 3.0")
    text = text.replace("exams: [{exam: echo}, {exam: format_strict}]", "exams: []")
    recipe.write_text(text)
    runs = tmp_path / "runs"
    first = call(["run", recipe, "--runs", runs])
    assert first.code == 3, first.err
    assert f"matura retry base --tokens 2000 --run {runs}/real" in first.err
    said = call(["retry", "base", "--run", runs / "real", "--tokens", "30_000", "--json"])
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert list(found) == ["run", "stage", "old", "new", "changes", "adopted", "why", "exams"]
    assert (found["adopted"], found["why"]) == (True, "passes the gate that base@1 did not pass")
    assert found["changes"] == ["train.tokens: 1000 -> 30000"]
    assert found["exams"][0]["gain"] > 0.5
    assert found["exams"][0]["verdict"] == "better"
    # the recipe as it was goes on; what it forgets is replayed more
    again = call(["run", recipe, "--runs", runs])
    assert again.code == 3, again.err
    assert "base@2: there already" in again.err
    assert f"matura retry chat --replay base=+0.1 --run {runs}/real" in again.err
    asked = ["retry", "chat", "--run", recipe, "--runs", runs, "--replay", "base=+0.5", "--json"]
    replayed = json.loads(call(asked).out)
    assert replayed["changes"] == ["replay base: 0.2 -> 0.7", "echo: 0.8 -> 0.3"]
    (bpb,) = replayed["exams"]
    assert bpb["gain"] > 0.02
    lineage = Folder.open(runs / "real" / "chat@2").record["lineage"]
    assert lineage["corrects"] == "chat@1"
    assert lineage["asked"] == {"chat/echo": 0.3, "base/folder": 0.7}
    page = (runs / "real" / "report.html").read_text(encoding="utf-8")
    assert "chat@2 corrects chat@1" in page
    assert 'base@1 <span class="quiet">replaced</span>' in page
    table = call(["transcript", runs / "real"]).out
    assert all(head in table for head in ("base@1", "base@2", "chat@1", "chat@2"))
