"""The smoke recipe from an empty folder to a model that speaks, all through the command line."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from matura.cli.main import main
from matura.core.store import Folder
from matura.core.types import Conversation, Message
from matura.models.hf import load as load_decoder
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parent.parent / "recipes" / "smoke.yaml"
STAGES = ["tokenizer", "base", "format", "tools"]
TALK = [
    {"role": "system", "content": "Be <|assistant|> brief."},
    {"role": "user", "content": "What is 12 + 30?"},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "And <|end_turn|> twice that?"},
]


@dataclass
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def matura(*arguments: object) -> Said:
    """One command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


def climb(runs: Path, *more: object) -> Said:
    """The smoke recipe, climbed in `runs`."""
    return matura("run", RECIPE, "--runs", runs, "--json", *more)


@dataclass
class Climbed:
    """A whole run and what climbing it said; nobody may write to it."""

    run: Path
    said: Said

    def copy(self, runs: Path) -> Path:
        """Another folder of runs with the same run in it."""
        shutil.copytree(self.run, runs / self.run.name)
        return runs


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Climbed:
    runs = tmp_path_factory.mktemp("runs")
    said = climb(runs)
    assert said.code == 0, said.err
    return Climbed(runs / "smoke", said)


def hashes(run: Path, stages: Sequence[str]) -> dict[str, Any]:
    return {stage: Folder.open(run / stage).record["files"] for stage in stages}


def test_the_transcript_tells_every_sitting(climbed: Climbed) -> None:
    found = climbed.said.json
    assert found == matura("transcript", climbed.run, "--json").json
    assert list(found) == ["run", "stages"]
    assert [stage["name"] for stage in found["stages"]] == STAGES
    for stage in found["stages"]:
        assert list(stage) == ["name", "attempt", "seconds", "peak_rss_bytes", "tokens", "exams"]
        assert stage["attempt"] == 1
        assert stage["seconds"] > 0
        assert 10_000_000 < stage["peak_rss_bytes"] < 3_000_000_000
        assert (stage["tokens"] > 0) == (stage["name"] != "tokenizer")
        for exam in stage["exams"]:
            assert list(exam) == ["name", "score", "low", "high", "n", "outcome", "change"]
            assert exam["low"] <= exam["score"] <= exam["high"]
            assert exam["n"] > 0
            assert exam["outcome"] == "pass"
    sat = [[exam["name"] for exam in stage["exams"]] for stage in found["stages"]]
    assert sat == [
        [],
        ["bpb"],
        ["format_strict", "bpb"],
        ["calculator", "bpb", "format_strict"],
    ]
    bpb = [exam for stage in found["stages"] for exam in stage["exams"] if exam["name"] == "bpb"]
    assert bpb[0]["change"] is None
    assert bpb[1]["change"] == pytest.approx(bpb[1]["score"] - bpb[0]["score"])
    assert bpb[2]["change"] == pytest.approx(bpb[2]["score"] - bpb[1]["score"])


def test_status_and_show_read_the_run(climbed: Climbed) -> None:
    state = matura("status", climbed.run, "--json").json
    assert (state["run"], state["climbing"]) == ("smoke", None)
    assert [(stage["name"], stage["state"]) for stage in state["stages"]] == [
        (name, "passed") for name in STAGES
    ]
    shown = matura("show", climbed.run, "--json").json
    assert [stage["name"] for stage in shown["stages"]] == STAGES[1:]
    parts = {part["name"] for part in shown["stages"][-1]["parts"]}
    assert {"arithmetic", "replay:base.stdlib", "replay:format.format_lock"} <= parts
    drawn = matura("show", climbed.run, "--stage", "format")
    assert drawn.code == 0
    assert "format_lock" in drawn.out


def test_the_report_is_one_file_that_opens_offline(climbed: Climbed) -> None:
    page = (climbed.run / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert not re.search(r"<(script|link|iframe|object|embed|base)\b", page)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(?!#|data:)""", page)
    assert not re.search(r"@import|url\(\s*[\"']?(?!#|data:)", page)
    for word in (*STAGES, "calculator", "format_strict", "bpb"):
        assert word in page


def test_run_again_and_everything_is_there_already(climbed: Climbed, tmp_path: Path) -> None:
    runs = climbed.copy(tmp_path)
    before = hashes(runs / "smoke", [f"{name}@1" for name in STAGES])
    said = climb(runs)
    assert said.code == 0
    assert said.json == climbed.said.json
    for name in STAGES:
        assert f"{name}@1: there already" in said.err
    assert ": made" not in said.err
    assert hashes(runs / "smoke", list(before)) == before


def test_another_recipe_is_refused_and_nothing_touched(climbed: Climbed, tmp_path: Path) -> None:
    runs = climbed.copy(tmp_path)
    before = sorted(path.relative_to(runs) for path in runs.rglob("*"))
    spelled = (runs / "smoke" / "recipe.yaml").read_bytes()
    said = climb(runs, "--set", "stages.format.train.tokens=31_000")
    assert said.code == 1
    assert said.out == ""
    assert "stages.format.train.tokens: 30000 -> 31000" in said.err
    assert "--rebuild" in said.err
    assert "Traceback" not in said.err
    assert sorted(path.relative_to(runs) for path in runs.rglob("*")) == before
    assert (runs / "smoke" / "recipe.yaml").read_bytes() == spelled


def test_rebuild_makes_the_next_attempt_beside_the_old(climbed: Climbed, tmp_path: Path) -> None:
    runs = climbed.copy(tmp_path)
    old = hashes(runs / "smoke", [f"{name}@1" for name in STAGES])
    said = climb(runs, "--rebuild", "tools")
    assert said.code == 0, said.err
    assert [stage["attempt"] for stage in said.json["stages"]] == [1, 1, 1, 2]
    assert hashes(runs / "smoke", list(old)) == old
    new = Folder.open(runs / "smoke" / "tools@2")
    weights = "model/model.safetensors"
    assert new.sha256(weights) == old["tools@1"][weights]["sha256"]
    assert said.json["stages"][-1]["exams"] == climbed.said.json["stages"][-1]["exams"]


def test_transformers_loads_the_model_unchanged(climbed: Climbed) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = climbed.run / "tools@1" / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    ).eval()
    ours = load_decoder(folder)
    vocabulary = ours.config.vocab_size
    ids_BT = torch.randint(vocabulary, (2, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids_BT), theirs(ids_BT).logits, rtol=0, atol=1e-4)
    template = Template(Tokenizer.load(folder))
    codec = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    messages = tuple(Message(row["role"], row["content"]) for row in TALK)  # type: ignore[arg-type]

    def applied(count: int, *, prompt: bool) -> tuple[int, ...]:
        return tuple(
            codec.apply_chat_template(
                TALK[:count], tokenize=True, return_dict=False, add_generation_prompt=prompt
            )
        )

    assert applied(4, prompt=True) == template.prompt(messages)
    assert applied(2, prompt=True) == template.prompt(messages[:2])
    assert applied(3, prompt=False) == template.render(Conversation(messages[:3], "talk")).ids
    assert codec.decode(codec("Größe = 12\n")["input_ids"]).endswith("Größe = 12\n")


@pytest.mark.parametrize("stage", ["", "base@1", "tools@1/model"])
def test_every_spelling_of_a_model_generates(climbed: Climbed, stage: str) -> None:
    asked = ("generate", climbed.run / stage, "--max-tokens", 6, "--json", "--prompt", "Say yes.")
    said = matura(*asked)
    assert said.code == 0, said.err
    found = said.json
    assert list(found) == ["prompt_ids", "ids", "text", "finish_reason", "tool_calls"]
    assert found["finish_reason"] in ("stop", "length", "tool_calls")
    assert 1 <= len(found["ids"]) <= 6
    template = Template(Tokenizer.load(climbed.run / "tools@1" / "model"))
    chats = stage != "base@1"
    expected = template.prompt((Message("user", "Say yes."),))
    assert (tuple(found["prompt_ids"]) == expected) is chats
    assert matura(*asked).json == found


def test_a_closed_gate_stops_the_climb_with_3(tmp_path: Path) -> None:
    short = [
        word
        for change in (
            "name=closed",
            "stages.base.train.tokens=8_000",
            "stages.base.exams.0.at_most=9",
            "stages.format.train.tokens=4_000",
            "stages.format.exams.0.at_least=0.97",
        )
        for word in ("--set", change)
    ]
    said = climb(tmp_path, *short)
    assert said.code == 3
    assert "format@1 did not pass: format_strict fail (all 0.000" in said.err
    assert "worst answers in format_strict" in said.err
    table = said.err.partition("worst answers in format_strict")[2]
    assert all(head in table for head in ("asked", "expected", "said", "ended by"))
    assert len(re.findall(r"│ +(?:stop|length|tool_calls) +│", table)) == 10
    assert said.json["stages"][-1]["name"] == "format"
    assert said.json["stages"][-1]["exams"][0]["outcome"] == "fail"
    run = tmp_path / "closed"
    assert sorted(path.name for path in run.glob("*@*")) == ["base@1", "format@1", "tokenizer@1"]
    kept = json.loads((run / "format@1" / "exams.json").read_text(encoding="utf-8"))
    items = kept["sittings"][0]["items"]
    assert len(items) == 200
    assert all(item["prompt"] and item["gold"] and item["finish_reason"] for item in items)
    assert (run / "report.html").is_file()
    again = climb(tmp_path, *short)
    assert again.code == 3
    assert ": made" not in again.err


def test_plan_counts_what_the_climb_does(climbed: Climbed, tmp_path: Path) -> None:
    said = matura("plan", RECIPE, "--runs", tmp_path, "--json")
    assert said.code == 0, said.err
    found = said.json
    assert {"seconds", "memory_bytes", "disk_bytes", "cost", "stages"} <= found.keys()
    assert [stage["name"] for stage in found["stages"]] == STAGES
    made = climbed.said.json["stages"]
    for planned, done in zip(found["stages"][1:], made[1:], strict=True):
        assert planned["tokens"] == pytest.approx(done["tokens"], rel=0.1)
        assert planned["total_s"] > 0
        asked = {*planned["exams"], *planned["exams_again"]}
        assert asked == {exam["name"] for exam in done["exams"]}
    assert list(tmp_path.iterdir()) == []
