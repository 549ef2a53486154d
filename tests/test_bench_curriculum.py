"""`bench/curriculum.py`: the ways it compares read the same tokens, and it reports what they came
to."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from matura.ladder.lines import spell
from matura.ladder.recipe import load, loads
from matura.ladder.spelling import whole

ROOT = Path(__file__).parent.parent
RECIPES = ("curriculum", "quickstart", "smoke")


@pytest.fixture
def curriculum(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("curriculum")


def plain(name: str) -> dict[str, Any]:
    return dict(whole(load(ROOT / "recipes" / f"{name}.yaml")))


def spent(curriculum: ModuleType, recipe: dict[str, Any]) -> dict[str, float]:
    """Tokens of each kind of source that its chat stages read, replayed ones included."""
    chats = [stage for stage in recipe["stages"] if stage["kind"] == "sft"]
    by_name = {stage["name"]: stage for stage in recipe["stages"]}
    found: dict[str, float] = {}
    for (stage, title), tokens in curriculum._spent(recipe["stages"], chats)[0].items():
        parts = by_name[stage]["mixture"]
        source = next(p["source"] for p in parts if (p["name"] or p["source"]["kind"]) == title)
        key = source["kind"] + str(source.get("gibberish", ""))
        found[key] = found.get(key, 0.0) + tokens
    return found


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_every_way_reads_as_many_tokens(curriculum: ModuleType, name: str, scale: float) -> None:
    recipe = curriculum.scaled(plain(name), scale)
    made = {way: change(recipe) for way, change in curriculum.VARIANTS.items()}
    asked = {way: sum(map(curriculum.tokens_of, r["stages"])) for way, r in made.items()}
    assert len(set(asked.values())) == 1, asked
    assert made["ladder"] == recipe
    for way, changed in made.items():
        loads(spell(changed), where=way)  # and each is a recipe
    assert not any(stage["replay"] for stage in made["bare"]["stages"])
    *before, last = made["once"]["stages"]
    assert before == [stage for stage in recipe["stages"] if stage["kind"] == "pretrain"]
    assert last["kind"] == "sft"
    # all at once reads as much of everything as the ladder's chat stages together
    wanted = spent(curriculum, recipe)
    assert spent(curriculum, made["once"]) == pytest.approx(wanted, rel=1e-4)
    sat = {exam["exam"] for stage in recipe["stages"] for exam in stage["exams"]}
    assert {exam["exam"] for stage in made["once"]["stages"] for exam in stage["exams"]} == sat


def test_nothing_can_be_seen_more_often_than_the_ladder_allows(curriculum: ModuleType) -> None:
    recipe = plain("curriculum")
    bare = curriculum.bare(recipe)["stages"]
    for stage, was in zip(bare, recipe["stages"], strict=True):
        for part, old in zip(stage["mixture"], was["mixture"], strict=True):
            more = part["share"] / old["share"]
            assert part["max_repeats"] / old["max_repeats"] == pytest.approx(more)
    once = curriculum.once(recipe)["stages"][-1]
    limits = {part["name"]: part["max_repeats"] for part in once["mixture"]}
    assert limits["tools"] == 5  # in one stage only
    assert limits["copy-echo"] == 35  # and replayed in six more


def test_what_cannot_be_compared_is_refused(curriculum: ModuleType) -> None:
    recipe = plain("smoke")
    recipe["stages"].append(recipe["stages"][0])
    with pytest.raises(SystemExit, match="last ones"):
        curriculum.once(recipe)
    recipe = plain("smoke")
    recipe["stages"][-1]["train"] |= {"tokens": None, "epochs": 2.0}
    with pytest.raises(SystemExit, match=r"train\.tokens"):
        curriculum.once(recipe)


def climbed(curriculum: ModuleType, way: str, seed: int, scores: list[float]) -> Any:
    """A climb whose one exam was sat after each of some stages."""
    outcome = "pass" if scores[-1] > 0.5 else "fail"
    stages = [
        {
            "name": f"stage-{number}",
            "seconds": 2.0,
            "tokens": 10,
            "exams": [
                {
                    "name": "echo",
                    "score": score,
                    "low": score - 0.1,
                    "high": score + 0.1,
                    "n": 200,
                    "outcome": outcome,
                }
            ],
        }
        for number, score in enumerate(scores)
    ]
    return curriculum.Climb(way, seed, 0, {"run": way, "stages": stages})


def test_transcripts_stand_side_by_side(curriculum: ModuleType) -> None:
    climbs = [
        climbed(curriculum, way, seed, scores)
        for seed, more in ((0, 0.0), (1, 0.05))
        for way, scores in (("ladder", [0.8, 0.7 + more]), ("bare", [0.8, 0.2 + more]))
    ]
    found = curriculum.compare(climbs, {"ladder": plain("smoke")})
    assert found["tokens_asked"] == {"ladder": 120_000}
    assert found["final"]["echo"] == {"ladder": [0.7, 0.75], "bare": [0.2, 0.25]}
    assert found["first"]["echo"] == {"ladder": [0.8, 0.8], "bare": [0.8, 0.8]}
    assert found["passed"] == {"ladder": [1, 1], "bare": [0, 0]}
    lines = list(curriculum.markdown(climbs))
    assert lines[0].startswith("| at the end | ladder, seed 0 | bare, seed 0 | ladder, seed 1 |")
    assert "| `echo` | 0.700 [0.600, 0.800] | 0.200 [0.100, 0.300] fail |" in lines[2]
    assert lines[2].endswith("| 0.725 | 0.225 |")
    assert "bare, seed 1:" in lines
    assert "| `echo` | 0.800 [0.700, 0.900] | 0.700 [0.600, 0.800] |" in lines


def test_a_climb_that_breaks_off_counts_with_what_it_made(
    curriculum: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = climbed(curriculum, "bare", 0, [0.8]).transcript
    asked: list[tuple[str, ...]] = []

    def matura(*words: str) -> tuple[int, str]:
        asked.append(words)
        return (1, "") if words[0] == "run" else (0, json.dumps(made))

    monkeypatch.setattr(curriculum, "_matura", matura)
    recipe = tmp_path / "bare.yaml"
    recipe.write_text(spell(plain("smoke")), encoding="utf-8")
    with pytest.raises(SystemExit, match="exit code 1"):  # nothing was made
        curriculum.climb(recipe, "bare", 0, tmp_path)
    saved = tmp_path / "bare-0" / "recipe.yaml"
    saved.parent.mkdir()
    saved.write_text(spell(plain("smoke") | {"name": "bare-0", "seed": 5}), encoding="utf-8")
    with pytest.raises(SystemExit, match="exit code 1"):  # another recipe's run
        curriculum.climb(recipe, "bare", 0, tmp_path)
    last = plain("smoke") | {"name": "bare-0", "seed": 0}
    last["gates"] |= {"on_fail": "continue"}
    saved.write_text(spell(last), encoding="utf-8")
    asked.clear()
    found = curriculum.climb(recipe, "bare", 0, tmp_path)
    assert found.head == "bare, seed 0, broke off"
    assert found.last["echo"]["score"] == 0.8
    assert "gates.on_fail=continue" in asked[0]
    assert asked[1] == ("transcript", str(tmp_path / "bare-0"), "--json")
    monkeypatch.setattr(curriculum, "_matura", lambda *words: (2, ""))
    with pytest.raises(SystemExit, match="bare, seed 0: matura run ended with exit code 2"):
        curriculum.climb(recipe, "bare", 0, tmp_path)


def test_the_full_size_ladder_has_the_shape_and_shares_it_should(curriculum: ModuleType) -> None:
    small, full = plain("curriculum"), plain("curriculum-750m")
    assert [stage["name"] for stage in full["stages"]] == [s["name"] for s in small["stages"]]
    for stage in full["stages"]:
        assert stage["exams"]
        if stage["kind"] == "sft":  # chats replay chats, never text
            assert not {replay["stage"] for replay in stage["replay"]} & {"base", "induction"}
    own = {s["name"]: sum(part["share"] for part in s["mixture"]) for s in full["stages"]}
    assert own["format"] == pytest.approx(1.0)
    assert own["minimal_qa"] == pytest.approx(0.8)
    assert own["tasks"] == pytest.approx(0.7)
    assert own["structured"] == pytest.approx(0.7)
    replayed = {s["name"]: {r["stage"]: r["share"] for r in s["replay"]} for s in full["stages"]}
    assert replayed["induction"] == {"base": 0.13}
    assert replayed["echo"] == {"format": 0.15}
    assert replayed["copy"] == {"echo": 0.15}
    assert replayed["structured"]["tasks"] == 0.2
