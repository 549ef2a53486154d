"""`bench/induction.py`: its ways differ in nothing but what the second stage reads, and it reports
what they came to."""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from matura.core.errors import MaturaError, RedLine
from matura.core.ledger import Ledger
from matura.core.types import Cell, Item, Score
from matura.exams.interval import wilson
from matura.ladder.lines import spell
from matura.ladder.recipe import load, loads
from matura.ladder.spelling import whole

ROOT = Path(__file__).parent.parent
QUIET = Ledger(mode="quiet")
RIGHT = {"base": 0.02, "text": 0.04, "replay": 0.9, "bare": 0.94}
BPB = {"base": 2.5, "text": 2.25, "replay": 2.625, "bare": 3.5}


@pytest.fixture
def induction(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("induction", monkeypatch)


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of `bench/`, imported as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module(name)


def plain() -> dict[str, Any]:
    return dict(whole(load(ROOT / "bench" / "induction.yaml")))


def kinds(stage: Mapping[str, Any]) -> set[str]:
    return {part["source"]["kind"] for part in stage["mixture"]}


@pytest.mark.parametrize("size", ["full", "tiny"])
def test_the_ways_differ_in_what_the_second_stage_reads(induction: ModuleType, size: str) -> None:
    recipe = induction.tiny(plain()) if size == "tiny" else plain()
    ways = induction.ways_of(recipe)
    assert list(ways) == ["text", "replay", "bare"]
    assert ways["replay"] == recipe
    base, stage = recipe["stages"]
    assert kinds(base) == {"stdlib"}  # copying is taught by the stage alone
    for way, made in ways.items():
        loads(spell(made), where=way)
        assert {k: v for k, v in made.items() if k != "stages"} == {
            k: v for k, v in recipe.items() if k != "stages"
        }
        assert made["stages"][0] == base
        assert made["stages"][1]["train"] == stage["train"]
    text, bare = ways["text"]["stages"][1], ways["bare"]["stages"][1]
    assert text["mixture"] == base["mixture"]
    assert not text["replay"]
    assert not bare["replay"]
    assert kinds(bare) == {"repetition"} == kinds(stage)
    asked = [part["share"] for part in stage["mixture"]]
    got = [part["share"] for part in bare["mixture"]]
    assert got == pytest.approx([share / sum(asked) for share in asked])


def test_enough_is_made_that_nothing_is_told_twice(induction: ModuleType) -> None:
    bare = induction.ways_of(plain())["bare"]["stages"][1]
    for part in bare["mixture"]:
        assert part["source"]["tokens"] >= part["share"] * bare["train"]["tokens"], part["name"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda stages: stages.append(stages[1] | {"name": "third"}), "two stages"),
        (lambda stages: stages[1].update(replay=[]), "replays the first"),
        (lambda stages: stages[0]["exams"].pop(), "bpb and induction"),
        (lambda stages: stages[1].update(exams=stages[0]["exams"]), "would choose"),
        (lambda stages: stages[1]["train"].update(evaluations=2), "would choose"),
        (lambda stages: stages[1]["train"].update(tokens=None, epochs=1.0), "epochs differ"),
    ],
)
def test_what_cannot_be_compared_is_refused(induction: ModuleType, change: Any, why: str) -> None:
    recipe = plain()
    change(recipe["stages"])
    with pytest.raises(SystemExit, match=why):
        induction.ways_of(recipe)


# Numbers


def cell(score: float, n: int) -> Cell:
    return Cell(score, *wilson(score, n), n, "pass", None)


def score(exam: str, overall: Cell, buckets: Mapping[str, Cell], items: tuple[Item, ...]) -> Score:
    notes = {"prefix_matching": 0.5}
    return Score(exam, 1, overall, buckets, "pass", 0, items, "", "", {}, notes)


def sat(found: ModuleType, way: str, seed: int = 0, documents: int = 10, **more: Any) -> Any:
    """A model that copies `RIGHT` of 100 runs of each length, and reads documents of two rows, the
    later ones of which are harder for every model alike."""
    rows: dict[str, int] = {}
    items = []
    for number in range(documents):
        for row, size in enumerate((100, 60)):
            task = f"bpb/a/{number}.txt/{row}/0a1b"
            rows[task] = size
            hard = BPB[way] + number + seed / 8
            items.append(Item(task, "", hard, "", "", "", "length"))
    bits = math.fsum(item.grade * rows[item.task] for item in items)
    bpb = score("bpb", cell_of(bits / sum(rows.values()), len(items)), {}, tuple(items))
    lengths = {f"length {length}": cell(RIGHT[way], 100) for length in range(1, 9)}
    copies = score("induction", cell(RIGHT[way], 800), lengths, ())
    given = {"scores": {"bpb": bpb, "induction": copies}, "row_bytes": rows} | more
    return found.Sat(way, seed, tokens=1000 + seed, seconds=2.0, **given)


def cell_of(value: float, n: int) -> Cell:
    return Cell(value, value - 1, value + 1, n, "pass", None)


def every(found: ModuleType, seeds: int = 3, **more: Any) -> list[Any]:
    return [sat(found, way, seed, **more) for seed in range(seeds) for way in RIGHT]


def test_copies_are_pooled_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    found = module("induction_found", monkeypatch)
    results = found.found(every(found))
    assert list(results["accuracy"]) == list(RIGHT)
    for way, cells in results["accuracy"].items():
        assert list(cells) == [*map(str, range(1, 9)), "all"]
        assert cells["8"]["score"] == pytest.approx(RIGHT[way])
        assert cells["8"]["n"] == 300
        assert (cells["8"]["low"], cells["8"]["high"]) == pytest.approx(wilson(RIGHT[way], 300))
        assert [one["seed"] for one in cells["all"]["seeds"]] == [0, 1, 2]
    json.dumps(results, allow_nan=False)


def test_changes_are_taken_document_by_document(monkeypatch: pytest.MonkeyPatch) -> None:
    found = module("induction_found", monkeypatch)
    results = found.found(every(found))
    bpb, change = results["bpb"], results["change"]
    # a document costs up to 9 bits a byte more than another, for every model
    assert bpb["base"]["score"] == pytest.approx(2.5 + 4.5 + 1 / 8)
    assert bpb["base"]["draws"] == "10 documents"
    assert bpb["base"]["high"] - bpb["base"]["low"] > 3
    for pair, wanted in (("text - base", -0.25), ("bare - base", 1.0), ("bare - replay", 0.875)):
        assert change[pair]["score"] == pytest.approx(wanted)
        assert change[pair]["high"] - change[pair]["low"] == pytest.approx(0, abs=1e-9)
        assert [one["score"] for one in change[pair]["seeds"]] == pytest.approx([wanted] * 3)
    assert set(change) == {f"{after} - {before}" for after, before in found.PAIRS}


def test_the_interval_is_that_of_whole_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    found = module("induction_found", monkeypatch)
    # two documents, 0 and 2 bits a byte: mean 1, each 1 byte * 1 bit off
    spread = found.spread({"a": (0.0, 1), "b": (2.0, 1)})
    assert spread["score"] == 1.0
    assert spread["high"] - 1.0 == pytest.approx(1.959963984540054 * math.sqrt(2 * 2 / 1) / 2)
    assert found.spread({"a": (3.0, 2)}) == {"score": 1.5, "low": None, "high": None}
    # the same document in three seeds is one draw, not three
    sizes = {"a": (0.0, 1), "b": (2.0, 1)}
    assert found.spread(found.summed([sizes] * 3)) == pytest.approx(spread)
    few = found.found(every(found, documents=2))
    assert few["bpb"]["base"]["draws"] == "4 rows"


def test_other_text_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    found = module("induction_found", monkeypatch)
    with pytest.raises(ValueError, match="same held-out text"):
        found.found([sat(found, "base"), sat(found, "text", documents=9)])


def test_a_way_that_broke_off_is_said_and_the_others_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, plot = module("induction_found", monkeypatch), module("induction_plot", monkeypatch)
    broken = sat(found, "bare", scores={}, row_bytes={}, broke="loss is not finite")
    results = found.found([*(sat(found, way) for way in ("base", "text", "replay")), broken])
    assert results["broke_off"] == {"bare, seed 0": "loss is not finite"}
    assert "bare" not in results["accuracy"]
    assert "bare - base" not in results["change"]
    table = "\n".join(found.markdown(results))
    assert "bare, seed 0 broke off: loss is not finite" in table
    assert "Without replay against with it" not in table
    ElementTree.fromstring(plot.drawing(results))
    # one seed of two: each score stands under its own seed
    results = found.found([*every(found, 2)[:-1], broken])
    row = next(line for line in found.markdown(results) if "no replay" in line and "8.0" in line)
    assert row.split("|")[2:4] == [" 8.000 ", "  "]


def test_tables_say_every_length_and_change(monkeypatch: pytest.MonkeyPatch) -> None:
    found = module("induction_found", monkeypatch)
    lines = list(found.markdown(found.found(every(found))))
    copies = next(line for line in lines if line.startswith("| (b) "))
    low, high = wilson(0.9, 300)
    assert copies.count(f"0.90 [{low:.2f}, {high:.2f}]") == 8
    assert any("| -0.250 [-0.250, -0.250] |" in line for line in lines if "(a)" in line)
    assert "Without replay against with it: +0.875 [+0.875, +0.875] bits per byte." in lines


def test_the_plot_shows_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found, plot = module("induction_found", monkeypatch), module("induction_plot", monkeypatch)
    svg = plot.drawing(found.found(every(found)))
    root = ElementTree.fromstring(svg)
    titles = [element.text or "" for element in root.iter() if element.tag.endswith("title")]
    for way, called in found.CALLED.items():
        for length in range(1, 9):
            assert f"{called}, length {length}: {RIGHT[way]:.3f} of 300" in titles
        assert any(title.startswith(f"{called}: ") and "bits per byte" in title for title in titles)
    # higher is up: the base copies less than the way with replay, and has fewer bits per byte
    heights = {
        title.text.partition(",")[0]: float(mark.attrib["cy"])
        for mark in root.iter("{http://www.w3.org/2000/svg}circle")
        if (title := mark[0] if len(mark) else None) is not None and title.text
    }
    base = heights["the base"]
    triangle = re.search(r'points="[\d.]+,([\d.]+) [^"]*"><title>\(b\)[^<]*length 1:', svg)
    assert triangle is not None
    assert float(triangle[1]) < base
    # another palette for the dark, and nothing from elsewhere
    assert "prefers-color-scheme: dark" in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


# Climbing


def test_a_red_line_ends_one_way_and_not_the_rest(
    induction: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = module("induction_found", monkeypatch)
    asked: list[str] = []

    def climbed(recipe: Any, name: str, seed: int, runs: Path, ledger: Ledger) -> Path:
        asked.append(name)
        if name.startswith("replay"):
            raise RedLine("step 7: loss is not finite")
        return runs / name

    monkeypatch.setattr(induction, "climbed", climbed)
    monkeypatch.setattr(induction, "lend", lambda *_: None)
    monkeypatch.setattr(induction, "_stage", lambda run, name: run / name)
    monkeypatch.setattr(induction, "held_out_rows", lambda *_: {})
    monkeypatch.setattr(induction, "sat", lambda way, seed, *_: sat(found, way, seed))
    ways = induction.ways_of(plain())
    sats = list(induction.measured(ways, [3, 4], tmp_path, QUIET))
    assert asked == [f"{way}-{seed}" for seed in (3, 4) for way in RIGHT]
    assert [(s.way, s.seed) for s in sats if s.broke] == [("replay", 3), ("replay", 4)]
    assert len(sats) == 8


@pytest.mark.slow
def test_the_try_out_runs_and_goes_on(
    induction: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, text = tmp_path / "runs", tmp_path / "text"
    text.mkdir()
    for path in sorted((ROOT / "matura" / "exams").glob("*.py")):
        shutil.copy(path, text)
    words = ["--tiny", "--seeds", "0", "--runs", str(runs), "--text", str(text), "--json"]
    assert induction.main(words) == 0
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert list(results["accuracy"]) == list(RIGHT)
    assert list(results["accuracy"]["bare"]) == [*map(str, range(1, 9)), "all"]
    assert "(c) induction, no replay" in said.err
    tokens = [results["tokens"][way][0] for way in ("text", "replay", "bare")]
    assert max(tokens) <= 1.04 * min(tokens)  # rows are alike, what pads them is not
    # one base for all, and every way was asked about the same text
    models = {
        (runs / f"{way}-0" / "base@1" / "model" / "model.safetensors").read_bytes() for way in RIGHT
    }
    assert len(models) == 1
    assert said.err.count("base@1: made, ") == 1
    scored = json.loads((runs / "base-0" / "base@1" / "exams.json").read_text())["sittings"]
    bpb = next(score for score in scored if score["exam"] == "bpb")
    assert results["bpb"]["base"]["score"] == pytest.approx(bpb["overall"]["score"])
    for way in ("text", "replay", "bare"):
        cells = results["bpb"]
        change = results["change"][f"{way} - base"]["score"]
        assert change == pytest.approx(cells[way]["score"] - cells["base"]["score"])
    ElementTree.parse(results["plot"])
    # called again, nothing is made anew
    assert induction.main(words) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["bpb"] == results["bpb"]
    assert "made, " in said.err
    assert "made, " not in again.err
    # nor is another recipe's run taken for this one's
    code = induction.main([*words, "--set", "stages.base.train.decay=0.1"])
    assert code == MaturaError.exit_code
    told = capsys.readouterr().err
    assert "stages.base.train.decay: 0.3 -> 0.1" in told
    assert "--runs" in told
