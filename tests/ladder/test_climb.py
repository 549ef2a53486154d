"""Skip, refuse or make; then the gate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dying import dies_at
from fakes import Lay, Quiz, heard, lay, recipe, replay

from matura.core.errors import DataError, DriftError, GateClosed, RecipeError, StoreError
from matura.core.ledger import Ledger
from matura.core.lock import RunLock
from matura.core.store import Folder, work_place
from matura.ladder.climb import climb
from matura.ladder.lineage import input_hashes
from matura.ladder.recipe import Gates, Recipe
from matura.ladder.transcript import last_passed, rows, transcript_json, transcript_table
from matura.stages.parts import Part

QUIET = Ledger(mode="quiet")
QUIZ = Quiz(at_least=0.9)
RIDDLE = Quiz(exam="riddle", at_least=0.5)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for noted in (Lay.calls, Lay.stops, Lay.breaks):
        noted.clear()


def two(folder: Path, *, second: dict[str, int] | None = None, **more: object) -> Recipe:
    return recipe(
        folder,
        lay("base", {"quiz": 190}, QUIZ),
        lay("chat", second or {"riddle": 150}, RIDDLE, replay=(replay("base", 0.25),)),
        **more,
    )


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir() if not path.name.startswith("."))


def test_it_climbs_once_and_then_skips(tmp_path: Path) -> None:
    first = climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    assert first.made == ("tokenizer@1", "base@1", "chat@1")
    assert first.skipped == ()
    assert names(tmp_path / "run") == ["base@1", "chat@1", "recipe.yaml", "tokenizer@1"]
    before = [(tmp_path / "run" / at / "record.json").read_bytes() for at in first.made]
    again = climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    assert again.skipped == first.made
    assert again.made == ()
    assert Lay.calls == ["base", "chat"]
    assert before == [(tmp_path / "run" / at / "record.json").read_bytes() for at in first.made]


def test_the_record_says_what_and_whence(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    record = Folder.open(tmp_path / "run" / "chat@1").record
    assert record["asked"]["parents"] == {"tokenizer": "tokenizer@1", "base": "base@1"}
    inputs = record["asked"]["inputs"]["folder"]
    assert list(inputs) == [(tmp_path / "text").as_posix()]
    assert record["lineage"]["asked"] == {"chat/folder": 0.75, "base/folder": 0.25}
    assert record["lineage"]["got"] == {"chat/folder": 0.75, "base/folder": 0.25}
    assert record["lineage"]["model_tokens"] == {"base/folder": 1250, "chat/folder": 750}
    assert record["numbers"]["tokens"] == 1000
    assert record["numbers"]["steps"] == 10
    assert record["numbers"]["seconds"] >= 0
    assert record["numbers"]["peak_rss_bytes"] > 1_000_000
    assert record["version"]
    assert record["machine"]["python"]
    assert set(record["files"]) == {"asked.json", "exams.json", "metrics.jsonl"} | {
        name for name in record["files"] if name.startswith(("model/", "events.out"))
    }


def test_another_recipe_is_refused_with_every_difference(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    before = names(tmp_path / "run")
    with pytest.raises(DriftError) as problem:
        climb(two(tmp_path / "text", second={"riddle": 160}), tmp_path, ledger=QUIET)
    said = str(problem.value)
    assert "chat@1 was made from something else:" in said
    assert "  stages.chat.knows.riddle: 150 -> 160" in said
    assert "base@1" not in said
    assert "--rebuild" in said
    assert "--set name=" in said
    with pytest.raises(DriftError, match=r"(?s)tokenizer@1.*  seed: 0 -> 1.*base@1.*chat@1"):
        climb(two(tmp_path / "text", seed=1), tmp_path, ledger=QUIET)
    assert names(tmp_path / "run") == before
    assert Lay.calls == ["base", "chat"]


def test_a_changed_input_file_is_drift(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    (tmp_path / "text" / "a.txt").write_text("other words\n")
    with pytest.raises(DriftError, match=r"inputs\.folder\..*text: \"[0-9a-f]{64}\" -> "):
        climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)


def test_where_it_runs_is_no_part_of_identity(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    gates = Gates(on_fail="continue")
    assert climb(two(tmp_path / "text", gates=gates), tmp_path, ledger=QUIET).made == ()


def test_rebuild_makes_the_next_attempt_and_all_above(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    new = two(tmp_path / "text", second={"riddle": 160})
    assert climb(new, tmp_path, rebuild="chat", ledger=QUIET).made == ("chat@2",)
    made = climb(new, tmp_path, rebuild="base", ledger=QUIET).made
    assert made == ("base@2", "chat@3")
    for name in ("base@1", "chat@1", "chat@2"):
        Folder.open(tmp_path / "run" / name)
    assert [row.attempt for row in rows(tmp_path / "run")] == [1, 2, 3]
    assert climb(new, tmp_path, ledger=QUIET).made == ()
    with pytest.raises(RecipeError, match=r"--rebuild bse: no such stage \(did you mean 'base'"):
        climb(new, tmp_path, rebuild="bse", ledger=QUIET)


def test_an_interrupted_rebuild_goes_on_by_itself(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    Lay.stops.add("chat")
    with pytest.raises(KeyboardInterrupt):
        climb(two(tmp_path / "text"), tmp_path, rebuild="base", ledger=QUIET)
    assert "chat@2.work" in names(tmp_path / "run")
    Lay.stops.clear()
    done = climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    assert done.made == ("chat@2",)
    assert done.skipped == ("tokenizer@1", "base@2")


def test_unfinished_work_is_never_finished_from_another_recipe(tmp_path: Path) -> None:
    Lay.stops.add("base")
    with pytest.raises(KeyboardInterrupt):
        climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    Lay.stops.clear()
    model = two(tmp_path / "text").model.model_copy(update={"layers": 2})
    with pytest.raises(DriftError, match=r"(?s)base@1\.work was made .*model\.layers: 1 -> 2"):
        climb(two(tmp_path / "text", model=model), tmp_path, ledger=QUIET)
    climb(two(tmp_path / "text", model=model), tmp_path, rebuild="base", ledger=QUIET)
    record = Folder.open(tmp_path / "run" / "base@1").record
    assert record["asked"]["model"]["layers"] == 2


def test_bad_input_leaves_nothing_half_made(tmp_path: Path) -> None:
    Lay.breaks.add("chat")
    with pytest.raises(DataError, match=r"^text\.jsonl:3: not JSON$"):
        climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    assert names(tmp_path / "run") == ["base@1", "recipe.yaml", "tokenizer@1"]
    Lay.breaks.clear()
    climb(two(tmp_path / "text", second={"riddle": 160}), tmp_path, ledger=QUIET)


def test_too_little_room_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    climb(recipe(tmp_path / "text", lay("base", {"quiz": 190}, QUIZ)), tmp_path, ledger=QUIET)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    climb(recipe(tmp_path / "text", lay("base", {"quiz": 190}, QUIZ)), tmp_path, ledger=QUIET)
    with pytest.raises(StoreError, match=r"GB are needed, 0\.00 GB are free"):
        climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    assert names(tmp_path / "run") == ["base@1", "recipe.yaml", "tokenizer@1"]


def test_a_missing_parent_is_an_error(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    (tmp_path / "run" / "base@1").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"chat@1 stands on base@1, which is not in"):
        climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    done = climb(two(tmp_path / "text"), tmp_path, rebuild="base", ledger=QUIET)
    assert done.made == ("base@1", "chat@2")


def test_a_corrupt_folder_is_never_built_upon(tmp_path: Path) -> None:
    climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)
    (tmp_path / "run" / "base@1" / "model" / "config.json").write_text("{}")
    with pytest.raises(StoreError, match=r"base@1/model/config\.json: "):
        climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)


def test_one_climb_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (
        RunLock(tmp_path / "run"),
        pytest.raises(StoreError, match=r"run: in use by process \d+"),
    ):
        climb(two(tmp_path / "text"), tmp_path, ledger=QUIET)


def test_a_closed_gate_keeps_the_folder_and_says_it_again(tmp_path: Path) -> None:
    poor = recipe(tmp_path / "text", lay("base", {"quiz": 150}, QUIZ), lay("chat", {"riddle": 1}))
    ledger, stream = heard()
    with pytest.raises(GateClosed) as problem:
        climb(poor, tmp_path, ledger=ledger)
    assert problem.value.exit_code == 3
    said = str(problem.value)
    assert "base@1 did not pass: quiz fail (all 0.750 [0.730, 0.770] n=200, 0.9 asked)" in said
    assert "--rebuild base" in said
    assert "worst answers in quiz" in stream.getvalue()
    assert stream.getvalue().count("said 1") >= 10
    folder = Folder.open(tmp_path / "run" / "base@1")
    kept = folder.json("exams.json")
    assert len(kept["sittings"][0]["items"]) == 200
    assert not (tmp_path / "run" / "chat@1").exists()
    with pytest.raises(GateClosed) as again:
        climb(poor, tmp_path, ledger=QUIET)
    assert str(again.value) == said
    assert Lay.calls == ["base"]


def test_going_on_past_a_closed_gate_still_ends_with_it(tmp_path: Path) -> None:
    gates = Gates(on_fail="continue")
    poor = recipe(
        tmp_path / "text",
        lay("base", {"quiz": 150}, QUIZ),
        lay("chat", {"riddle": 190}, RIDDLE),
        gates=gates,
    )
    with pytest.raises(GateClosed, match="base@1 did not pass"):
        climb(poor, tmp_path, ledger=QUIET)
    assert Lay.calls == ["base", "chat"]
    with pytest.raises(StoreError, match="no stage has passed"):
        last_passed(tmp_path / "run")


def test_forgetting_closes_the_gate(tmp_path: Path) -> None:
    bad = two(tmp_path / "text", second={"riddle": 190, "quiz": 170})
    with pytest.raises(
        GateClosed, match=r"chat@1 did not pass: quiz fail \(fell by 0\.100 .* 0\.05 allowed\)"
    ):
        climb(bad, tmp_path, ledger=QUIET)
    assert last_passed(tmp_path / "run").path.name == "base@1"
    kept = Folder.open(tmp_path / "run" / "chat@1").json("exams.json")
    assert [score["exam"] for score in kept["sittings"]] == ["riddle", "quiz"]
    assert kept["owners"] == {"riddle": "chat", "quiz": "base"}
    assert kept["regressions"][0]["drop"] == pytest.approx(0.1)
    # allowed by the exam itself
    mild = Quiz(at_least=0.9, forget_at_most=0.2)
    good = recipe(
        tmp_path / "text",
        lay("base", {"quiz": 190}, mild),
        lay("chat", {"riddle": 190, "quiz": 170}, RIDDLE),
        name="mild",
    )
    climb(good, tmp_path, ledger=QUIET)
    assert last_passed(tmp_path / "mild").path.name == "chat@1"


def test_the_transcript_is_exactly_what_scripts_rely_on(tmp_path: Path) -> None:
    climb(two(tmp_path / "text", second={"riddle": 150, "quiz": 188}), tmp_path, ledger=QUIET)
    found = json.loads(json.dumps(transcript_json(tmp_path / "run")))
    for stage in found["stages"]:
        assert stage.pop("seconds") >= 0
        assert stage.pop("peak_rss_bytes") > 0
        for exam in stage["exams"]:
            exam |= {key: round(exam[key], 6) for key in ("low", "high", "change") if exam[key]}
    quiz = {"name": "quiz", "n": 200, "outcome": "pass"}
    assert found == {
        "run": "run",
        "stages": [
            {"name": "tokenizer", "attempt": 1, "tokens": 0, "exams": []},
            {
                "name": "base",
                "attempt": 1,
                "tokens": 1000,
                "exams": [quiz | {"score": 0.95, "low": 0.93, "high": 0.97, "change": None}],
            },
            {
                "name": "chat",
                "attempt": 1,
                "tokens": 1000,
                "exams": [
                    quiz
                    | {"name": "riddle", "score": 0.75, "low": 0.73, "high": 0.77, "change": None},
                    quiz
                    | {
                        "score": 0.94,
                        "low": 0.92,
                        "high": 0.96,
                        "change": -0.01,
                    },
                ],
            },
        ],
    }
    ledger, stream = heard()
    ledger.show(transcript_table(tmp_path / "run"))
    assert "quiz" in stream.getvalue()
    assert "0.940 (-0.010)" in stream.getvalue()


@pytest.mark.parametrize("what", ["absent", "file", "empty", "bad"])
def test_no_run_is_said_in_one_line(tmp_path: Path, what: str) -> None:
    run = tmp_path / what
    if what == "file":
        run.write_text("x")
    if what in ("empty", "bad"):
        run.mkdir()
    if what == "bad":
        (run / "recipe.yaml").write_text("stages: 3")
    with pytest.raises(StoreError) as problem:
        transcript_json(run)
    assert "\n" not in str(problem.value)
    assert what in str(problem.value)


def test_interrupted_exams_cost_no_training_and_no_finished_sitting(tmp_path: Path) -> None:
    class Flaky(Quiz):
        def sit(self, hall: object) -> object:  # type: ignore[override]
            if flaky:
                raise KeyboardInterrupt
            return super().sit(hall)  # type: ignore[arg-type]

    flaky = True
    hard = recipe(
        tmp_path / "text",
        lay("base", {"quiz": 190, "riddle": 190}, QUIZ, Flaky(exam="riddle", at_least=0.5)),
    )
    with pytest.raises(KeyboardInterrupt):
        climb(hard, tmp_path, ledger=QUIET)
    work = work_place(tmp_path / "run" / "base@1")
    assert [path.name for path in (work / "sittings").iterdir()] == ["quiz.json"]
    flaky = False
    climb(hard, tmp_path, ledger=QUIET)
    assert Lay.calls == ["base"]
    files = Folder.open(tmp_path / "run" / "base@1").record["files"]
    assert not [name for name in files if name.startswith(("sittings", "made", "clock"))]


@pytest.mark.parametrize("stride", [31, pytest.param(7, marks=pytest.mark.slow)])
def test_killed_anywhere_it_climbs_on_to_the_same(ram: Path, stride: int) -> None:
    """FAULTS A2 over a whole ladder: at every few calls that change the disk."""
    plain = recipe(ram / "text", lay("base", {"quiz": 190}, QUIZ), lay("chat", {"quiz": 189}))
    quiet = Ledger(mode="quiet")
    climb(plain, ram / "whole", ledger=quiet)
    wanted = model_hashes(ram / "whole" / "run")
    number, killed, deaths = 0, True, 0
    while killed:
        root = ram / str(number)
        killed = dies_at(number, lambda r=root: climb(plain, r, ledger=quiet))
        deaths += killed
        climb(plain, root, ledger=quiet)
        assert model_hashes(root / "run") == wanted
        assert names(root / "run") == names(ram / "whole" / "run")
        number += stride
    assert deaths > 4


def test_many_files_are_one_hash_wherever_they_lie(tmp_path: Path) -> None:
    class Source:
        kind = "many"

        def __init__(self, root: Path) -> None:
            self.root = root

        def inputs(self) -> Iterator[Path]:
            return iter(self.root.iterdir())

    found = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        for number in range(30):
            (tmp_path / name / f"{number}.txt").write_text(str(number))
        part = Part.model_construct(source=Source(tmp_path / name), share=1.0, name=None)
        found.append(input_hashes([part]))
    assert found[0] == found[1]
    assert list(found[0]["many"]) == ["30 files"]
    (tmp_path / "there" / "7.txt").write_text("8")
    assert input_hashes([part]) != found[0]


def test_reading_a_transcript_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import sys, matura.ladder.transcript;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def model_hashes(run: Path) -> dict[str, str]:
    """The hash of every file that is a function of the recipe."""
    return {
        f"{path.name}/{name}": entry["sha256"]
        for path in sorted(run.glob("*@*"))
        for name, entry in Folder.open(path).record["files"].items()
        if "events.out" not in name and not name.startswith("timings")
    }
