"""`matura replay`: branches of equal length from one start, both losses, a suggestion by its rule,
and a run left as it was."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fakes import heard
from pretend import recipe_text

from matura.cli.main import main
from matura.core.errors import DataError, GateClosed, RecipeError, StoreError
from matura.core.ledger import Ledger
from matura.core.rng import rng
from matura.core.store import Folder
from matura.ladder.branches import find, kept_beside
from matura.ladder.climb import climb
from matura.ladder.correction import reshared
from matura.ladder.recipe import Recipe, load, loads, spell
from matura.ladder.shares import Branch, Fall, Point, Sweep, settings_of, shares_from, suggest
from matura.report.shares import drawing

OLD = "replay:base.folder"
TWO = """
name: two
tokenizer: {kind: bpe, vocab_size: 300, dialect: matura}
model: {hidden_size: 32, layers: 1, heads: 2, sequence_length: 128}
stages:
  - {name: base, kind: pretrain, mixture: [{source: {kind: stdlib}, share: 1.0}]}
  - {name: drill, kind: pretrain, mixture: [{source: {kind: repetition, tokens: 9000}, share: 1.0}]}
  - name: chat
    kind: sft
    mixture:
      - {source: {kind: echo}, share: 0.3, max_repeats: 7}
      - {source: {kind: format_lock}, share: 0.4}
    replay: [{stage: base, share: 0.2, max_repeats: 9}, {stage: drill, share: 0.1}]
"""


@dataclass(frozen=True)
class Made:
    """A recipe and its run, climbed up to the base."""

    recipe: Recipe
    run: Path


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_COMPILE", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("shares")
    path = folder / "r.yaml"
    path.write_text(recipe_text(folder))
    sets = (
        "model.sequence_length=128",
        "stages.base.train.tokens=8000",
        "stages.base.mixture.0.max_repeats=99",
        "stages.chat.train.tokens=8000",
        "stages.chat.mixture.0.max_repeats=99",
        "stages.chat.replay.0.max_repeats=99",
        "stages.chat.exams=[]",
        "stages.chat.tags=as they are",
    )
    recipe = load(path, sets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATURA_COMPILE", "0")
        climb(recipe, folder / "runs", until="base", ledger=Ledger(mode="quiet"))
    return Made(recipe, folder / "runs" / recipe.name)


def swept(made: Made, *shares: float, recipe: Recipe | None = None, **more: Any) -> Sweep:
    more.setdefault("ledger", Ledger(stage="chat", mode="quiet"))
    return find(recipe or made.recipe, made.run, "chat", of="base", shares=shares, **more)


@pytest.fixture(scope="module")
def found(made: Made) -> Sweep:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATURA_COMPILE", "0")
        return swept(made, 0.0, 0.5)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_one_start_equal_tokens_and_both_losses(made: Made, found: Sweep) -> None:
    none, half = found.branches
    assert (found.start, found.tokens, found.whole) == ("base@1", 2000, 8000)
    assert none.points[0] == half.points[0]
    for branch in found.branches:
        assert branch.tokens == pytest.approx(2000, abs=256)
        assert branch.got == pytest.approx(branch.share, abs=0.05)
        assert branch.points[-1].losses.keys() == {"echo", OLD}
        assert len(branch.points) == 5
        assert branch.points[-1].tokens == branch.tokens
        assert found.end(branch) < found.learnt(branch.points[0].losses)  # type: ignore[operator]
    (lost, fell), (lost_less, fell_less) = (found.held(branch) for branch in found.branches)
    assert (lost.name, fell.name) == (OLD, "exam bpb")
    assert lost.lost > lost_less.lost
    assert fell.lost > fell_less.lost
    told = Folder.open(made.run / "base@1").record["numbers"]["validation"]["folder"]
    assert lost.before == pytest.approx(told, rel=1e-6)  # the parent's, on the same rows
    assert lost.allowed == pytest.approx(0.2 * lost.before + 0.1)
    assert fell.allowed == 0.05


def test_the_same_again_and_nothing_touched(made: Made, found: Sweep) -> None:
    before = contents(made.run)
    again = swept(made, 0.5)
    assert again.branches == found.branches[1:]  # whatever else is tried beside it
    assert contents(made.run) == before
    assert json.loads(json.dumps(again.as_dict(), allow_nan=False))["tried"][0]["share"] == 0.5


def test_what_is_finished_is_not_made_again(made: Made, found: Sweep, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    swept(made, 0.5, kept=kept)
    one = json.loads(kept.read_text())
    ledger, stream = heard()
    both = swept(made, 0.0, 0.5, kept=kept, ledger=ledger)
    assert "2 branches of 2.00k tokens, 1 there already" in " ".join(stream.getvalue().split())
    assert both.branches == found.branches
    more = json.loads(kept.read_text())["branches"]
    assert len(more) == 2
    assert more.items() >= one["branches"].items()
    # what is tolerated changes what is said of a branch, not the branch
    strict = loads(spell(made.recipe), ["stages.chat.gold.source_rise_at_most=0"])
    ledger, stream = heard()
    judged = swept(made, 0.5, kept=kept, recipe=strict, ledger=ledger)
    assert "1 branch of 2.00k tokens, 1 there already" in " ".join(stream.getvalue().split())
    assert judged.limits[OLD] == pytest.approx(0.1)
    # what is a function of something else is not taken for it
    ledger, stream = heard()
    swept(made, 0.5, kept=kept, tokens=1024, ledger=ledger)
    assert "there already" not in stream.getvalue()
    kept.write_text('{"kind": "shopping list"}')
    with pytest.raises(StoreError, match="not what a replay sweep keeps"):
        swept(made, 0.5, kept=kept)
    kept.write_text('{"kind": "replay sweep", "branches": {"a": {"share": 1}}}')
    with pytest.raises(StoreError, match="delete it and try again"):
        swept(made, 0.5, kept=kept)


def test_what_the_command_leaves(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, plot = tmp_path / "r.yaml", tmp_path / "p.svg"
    recipe.write_text(spell(made.recipe))
    asked = ["replay", recipe, "--stage", "chat", "--of", "base", "--shares", "0.2", "--json"]
    more = ["--tokens", "1024", "--runs", made.run.parent, "--plot", plot]
    code = main([str(word) for word in (*asked, *more)])
    said = capsys.readouterr()
    assert code == 0, said.err
    told = json.loads(said.out)
    assert list(told) == [
        *("recipe", "stage", "of", "start", "tokens", "whole_tokens", "compute", "share"),
        *("parent", "rule", "tried", "suggestion", "seconds", "plot"),
    ]
    (one,) = told["tried"]
    assert list(one) == [
        *("share", "got", "steps", "tokens", "points", "exams", "falls", "stopped"),
        *("loss", "held", "enough"),
    ]
    assert list(one["held"][0]) == ["name", "before", "after", "lost", "allowed", "within"]
    assert list(told["suggestion"]) == ["share", "why", "set"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.json", "p.svg", "r.yaml"]
    assert main([str(word) for word in (*asked[:-1], *more)]) == 0
    said = capsys.readouterr()
    assert "1 there already" in said.err
    assert "share of base" in said.out
    assert told["suggestion"]["why"] in " ".join(said.out.split())


@pytest.mark.slow
def test_as_long_as_the_stage_it_is_the_stage(made: Made, tmp_path: Path) -> None:
    """What a branch measures on its way is, to the bit, what the stage itself measures."""
    run = shutil.copytree(made.run.parent, tmp_path / "runs") / made.run.name
    with suppress(GateClosed):  # it may well forget too much
        climb(made.recipe, tmp_path / "runs", ledger=Ledger(mode="quiet"))
    found = swept(Made(made.recipe, run), 0.2, tokens=8000)
    rows = [json.loads(line) for line in (run / "chat@1/metrics.jsonl").read_text().splitlines()]
    seen = [row for row in rows if f"validation/{OLD}" in row]
    assert len(seen) == 4
    for row, point in zip(seen, found.branches[0].points[1:], strict=True):
        for name, loss in point.losses.items():
            assert row[f"validation/{name}"] == loss
    assert found.made == run.as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lora={rank: 2}", "optimizer_state=parent"])
def test_a_branch_learns_as_its_stage_would(how: str, made: Made) -> None:
    recipe = loads(spell(made.recipe), [f"stages.chat.train.{how}"])
    (plain,) = swept(made, 0.2, tokens=1024).branches
    (other,) = swept(made, 0.2, tokens=1024, recipe=recipe).branches
    assert other.points[0] == plain.points[0]
    assert other.points[-1].tokens == plain.points[-1].tokens
    assert other.points[1] != plain.points[1]


def test_a_branch_that_runs_away_is_a_result(made: Made) -> None:
    base, chat = made.recipe.stages
    wild = chat.train.model_copy(update={"matrix_learning_rate": 1e30})  # type: ignore[attr-defined]
    stages = (base, chat.model_copy(update={"train": wild}))
    found = swept(made, 0.1, recipe=made.recipe.model_copy(update={"stages": stages}), tokens=1024)
    assert found.branches[0].stopped is not None
    assert found.suggestion.share is None
    assert "look at the stage's rates" in found.suggestion.why
    ElementTree.fromstring(drawing(found))


@pytest.mark.parametrize(
    ("stage", "of", "more", "words"),
    [
        ("chatt", "base", {}, "--stage chatt: no such stage.*'chat'"),
        ("chat", "bass", {}, "--of bass: no stage below chat.*'base'"),
        ("chat", "chat", {}, "--of chat: no stage below chat"),
        ("base", "chat", {}, "--of chat: no stage below base: nothing"),
        ("tokenizer", "base", {}, "--of base: no stage below tokenizer"),
        ("chat", "base", {"tokens": 10}, "--tokens 10: batch_tokens: .*256"),
        ("chat", "base", {"tokens": math.nan}, "--tokens nan: expected a whole number"),
    ],
)
def test_what_makes_no_sense(
    stage: str, of: str, more: dict[str, Any], words: str, made: Made
) -> None:
    with pytest.raises(RecipeError, match=words):
        find(
            made.recipe,
            made.run,
            stage,
            of=of,
            shares=(0.1,),
            ledger=Ledger(mode="quiet"),
            **more,
        )


def test_what_is_not_there(made: Made, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"goes on from .* not made .*--until base"):
        swept(Made(made.recipe, tmp_path / "none"), 0.1)
    alone = made.recipe.stages[1].model_copy(update={"replay": ()})
    without = made.recipe.model_copy(update={"stages": (made.recipe.stages[0], alone)})
    with pytest.raises(RecipeError, match=r"--of base: chat replays nothing of it.*'replay'"):
        swept(made, 0.1, recipe=without)
    few = loads(spell(made.recipe), ["stages.chat.replay.0.max_repeats=0.2"])
    with pytest.raises(DataError, match=r"'replay:base.folder' is asked for .* tokens"):
        swept(made, 0.0, 0.9, recipe=few, tokens=4000)
    with pytest.raises(RecipeError, match=r"--plot a\.json: branches are kept in \.json"):
        kept_beside(Path("a.json"))


@pytest.mark.parametrize("text", ["", "a", "0,1", "-0.1", "nan", "0.1,0.10", "inf", "0;0.1"])
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(RecipeError, match="--shares"):
        shares_from(text)


def test_shares_rise() -> None:
    assert shares_from("0.2, 0 ,0.05") == (0.0, 0.05, 0.2)


def test_all_shares_sum_to_one() -> None:
    """Whatever is asked of one old stage, the rest shrinks or grows in proportion."""
    chat, draw = loads(TWO).stages[2], rng(0, "shares")
    for share in (0.0, 0.2, 1e-9, 0.999999, *(draw.random() for _ in range(50))):
        after = reshared(chat, {"base": share})
        parts = {part.title: part.share for part in after.mixture}
        old = {entry.stage: entry.share for entry in after.replay}
        assert math.fsum([*parts.values(), *old.values()]) == pytest.approx(1, abs=1e-9)
        assert old.get("base", 0.0) == pytest.approx(share, abs=1e-10)
        assert ("base" in old) == (share > 0)
        # three, four and one of eight, as before
        for part, eighths in ((parts["echo"], 3), (parts["format_lock"], 4), (old["drill"], 1)):
            assert part == pytest.approx((1 - share) * eighths / 8, abs=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.75])
def test_the_change_is_spelled_as_set_takes_it(share: float) -> None:
    recipe = loads(TWO)
    after = reshared(recipe.stages[2], {"base": share})
    sets = settings_of(recipe.stages[2], after)
    assert bool(sets) == (share != 0.2)
    assert loads(spell(recipe), sets).stages[2] == after


def sweep(*lost: float | None, falls: Sequence[float] = ()) -> Sweep:
    """Branches at 0, 0.1, 0.2 … that lost so much of the 0.3 nats that may be lost; None for one
    that stopped."""
    falls = falls or [0.0] * len(lost)
    start = Point(0, {"echo": 5.0, OLD: 1.0})
    branches = []
    for number, (nats, fall) in enumerate(zip(lost, falls, strict=True)):
        end = Point(900, {"echo": 2.0 + number / 100, OLD: 1.0 + (nats or 0.0)})
        branches.append(
            Branch(
                share=number / 10,
                got=number / 10,
                steps=9,
                tokens=900,
                points=(start,) if nats is None else (start, end),
                exams={"echo": 0.5},
                falls={"exam <quiz>": Fall(0.9, 0.9 - fall, fall, 0.0, 0.1, 60)},
                stopped="step 3: loss nan" if nats is None else None,
            )
        )
    return Sweep(
        recipe="r<",
        stage="chat",
        of="base",
        start="base@1",
        tokens=900,
        whole=3600,
        compute="c",
        share=0.1,
        own={"echo": 1.0},
        limits={OLD: 0.3, "exam <quiz>": 0.05},
        source_rise_at_most=0.2,
        parent={"echo": 0.0},
        branches=tuple(branches),
        sets={n / 10: () if n == 1 else (f"stages.chat.x={n}",) for n in range(len(lost))},
        made=None,
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("found", "share", "words"),
    [
        (sweep(0.5, 0.3, 0.1), 0.1, "0.1 is the smallest of these that is enough: base.folder"),
        (
            sweep(0.5, 0.3, 0.1),
            0.1,
            "+0.300 where 0.300 is allowed; chat ends 0.010 nats above share 0",
        ),
        (sweep(0.1, 0.0, -0.1), 0.0, "0 is the smallest"),
        (sweep(0.9, 0.6, 0.4), None, "none of these is enough: at 0.2 still base.folder"),
        (sweep(0.9, 0.2, 0.1, falls=[0, 0.1, 0.05]), 0.2, "0.2 is the smallest"),
        (sweep(0.9, 0.2, 0.1, falls=[0, 0.1, 0.1]), None, "exam <quiz> goes from 0.900 to 0.800"),
        (sweep(0.9, 0.2, 0.4), 0.1, "but 0.2 is not, so this is near the noise"),
        (sweep(None, None), None, "every branch ran out of numbers"),
        (sweep(None, 0.2), 0.1, "0.1 is the smallest"),
    ],
)
def test_the_suggestion(found: Sweep, share: float | None, words: str) -> None:
    said = suggest(found)
    assert said.share == share
    assert words in said.why


def test_the_rule_and_the_way_on_are_said() -> None:
    found = sweep(0.9, 0.6, 0.2)
    assert "more than 20% and 0.1 nats" in found.rule
    assert "<quiz> by 0.05" in found.rule
    assert found.command == "--set stages.chat.x=2"
    made = replace(found, made="runs/r")
    assert made.command == "matura retry chat --replay base=0.2 --run runs/r"
    assert sweep(0.9, 0.2, 0.2).command == ""  # as the recipe has it


def test_the_picture_is_whole_by_itself(found: Sweep) -> None:
    root = ElementTree.fromstring(drawing(found))
    assert "href" not in drawing(found)
    dots = [e for e in root.iter() if e.tag.endswith("circle") and e.get("class") is None]
    assert len(dots) == 2 + 2 * 2 + 2  # what was learnt, what was lost twice, the names
    for made_up in (sweep(None, None), sweep(0.1), sweep(99.0, 0.2), sweep(None, 0.2)):
        ElementTree.fromstring(drawing(made_up))
    assert len([e for e in ElementTree.fromstring(drawing(sweep(99.0, 0.2))).iter()
                if e.get("class") == "chosen"]) == 1  # fmt: skip
