"""A plan counts what a climb will do, and times it on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretend import Pretended, pretend, recipe_text
from rich.console import Console

from matura.core.errors import RecipeError
from matura.ladder.among import ALONE, Among
from matura.ladder.calibrate import Speed
from matura.ladder.drawn import drawn_plan
from matura.ladder.papers import Paper
from matura.ladder.plan import Plan, plan
from matura.ladder.recipe import load
from matura.ladder.warnings import too_large
from matura.learn.room import FILLS

CHAT = "stages.chat.train.tokens"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pretended:
    return pretend(tmp_path_factory.mktemp("plan"))


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_COMPILE", "0")


def test_steps_and_exams_are_those_of_the_climb(made: Pretended, tmp_path: Path) -> None:
    found = plan(made.recipe, disk=tmp_path / "runs", price_per_hour=3600.0)
    tokenizer, base, chat = found.stages
    assert tokenizer.steps == 0
    assert base.steps == pytest.approx(4000 / 256, abs=1)
    assert (base.batch_rows, base.evaluations) == (4, 4)
    assert (base.exams, base.exams_again) == (("bpb",), ())
    assert set(chat.exams) == {"echo", "format_strict"}
    assert chat.exams_again == ("bpb",)
    assert found.parameters > 20_000
    assert found.measured
    assert 0 < found.seconds < 600
    assert found.cost == pytest.approx(found.seconds)
    assert found.memory_bytes > 50_000_000
    assert all(seconds >= 0 for stage in found.stages for seconds in stage.seconds.values())
    assert chat.seconds["exams"] > base.seconds["exams"] > 0
    assert json.loads(json.dumps(found.as_dict()))["seconds"] == found.seconds
    assert not (tmp_path / "runs").exists()


def test_a_data_sheet_needs_no_clock(made: Pretended) -> None:
    slow = plan(made.recipe, hardware="rtx-3090")
    assert not slow.measured
    assert "data sheet" in slow.compute
    assert slow.cost is None
    one, many = (plan(made.recipe, hardware=name) for name in ("h100", "64xh100"))
    assert (one.price_per_hour, many.price_per_hour) == (3.0, 192.0)
    assert many.memory_bytes < one.memory_bytes
    assert many.cost_without_data is not None
    assert many.cost_without_data < (many.cost or 0)
    assert plan(made.recipe, hardware="h100", price_per_hour=1.0).price_per_hour == 1.0
    for name in ("0xh100", "8x", "8xh20"):
        with pytest.raises(RecipeError, match=f"--hardware {name}: not known"):
            plan(made.recipe, hardware=name)
    with pytest.raises(RecipeError, match=r"--hardware h20.*h200"):
        plan(made.recipe, hardware="h20")
    with pytest.raises(RecipeError, match="--price"):
        plan(made.recipe, hardware="h200", price_per_hour=-1)


def test_it_minds_what_will_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    found = plan(load(path, ["stages.base.train.tokens=4e6"]), hardware="a100")
    assert any("base: folder is to be seen" in warning for warning in found.warnings)
    few = plan(load(path, ["model.hidden_size=512", "model.heads=8"]), hardware="a100")
    assert any("for each parameter" in warning for warning in few.warnings)


def told(found: Plan) -> str:
    console = Console(width=250, color_system=None)
    with console.capture() as text:
        console.print(drawn_plan(found))
    return text.get()


def test_it_says_how_often_each_source_is_seen(tmp_path: Path) -> None:
    """C-09: by source, replay included, and more than five times is said though it is allowed."""
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    base = "stages.base.train={epochs: 2.5, batch_tokens: 256}"
    found = plan(load(path, [base]), hardware="a100")
    _, text, chat = found.stages
    assert text.seen == {"folder": pytest.approx(2.5, rel=0.01)}
    assert set(chat.seen) == {"echo", "replay:base.folder"}
    assert text.steps == pytest.approx(text.tokens / 260, rel=0.05)
    assert "seen in base: folder 2.50 times" in told(found)
    assert f"replay:base.folder {chat.seen['replay:base.folder']:.2f} times" in told(found)
    assert not any("seen" in warning for warning in found.warnings)
    assert found.as_dict()["stages"][1]["seen"]["folder"] == text.seen["folder"]
    many = "stages.base.train={epochs: 7, batch_tokens: 256}"
    refused = plan(load(path, [many]), hardware="a100").warnings
    assert any("base: folder is to be seen 7.0 times, max_repeats is 5" in w for w in refused)
    allowed = load(path, [many, "stages.base.mixture.0.max_repeats=9"])
    (warning,) = (w for w in plan(allowed, hardware="a100").warnings if "seen" in w)
    assert warning.startswith("base: folder is seen 7.0 times: more than 5 teaches the examples")


def test_it_refuses_a_patience_that_cannot_fire(tmp_path: Path) -> None:
    """C-43: three evaluations were asked for, but there are two steps."""
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    few = "stages.chat.train={tokens: 600, batch_tokens: 256, patience: 1, evaluations: 3}"
    with pytest.raises(RecipeError, match=r"chat: patience: 1 can never .* 2 evaluations.*2 steps"):
        plan(load(path, [few]), hardware="a100")


def test_epochs_too_few_are_minded(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    few = "stages.base.train={epochs: 0.1, batch_tokens: 256, warmup_tokens: 50000}"
    found = plan(load(path, [few]), hardware="a100")
    assert any("base: train.warmup_tokens: a warm-up" in warning for warning in found.warnings)


def test_a_paper_costs_more_the_longer_its_answers() -> None:
    speed = Speed("x", True, "", {}, {}, 0.0, 1e-4, 1e-2, 1e-4, 0.0, 0)
    short, long = (Paper(1e-3, 40.0, (n,) * 10, None) for n in (4, 40))
    silent = Paper(1e-3, 40.0, (), None)
    assert silent.seconds(200, speed) == pytest.approx(200 * (1e-3 + 4e-3))
    assert short.seconds(200, speed) == pytest.approx(1.0 + 2 * 4e-2 + 200 * 4 * 1e-4)
    assert long.seconds(200, speed) > short.seconds(200, speed)


def test_a_sheet_says_what_will_not_fit_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that only fits with layers computed again takes longer, unless it is to be cut; it
    is cut by itself where the parts are large enough for the processor."""
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    large = [
        *("model.hidden_size=256", "model.layers=12", "model.heads=4", "model.kv_heads=4"),
        *("stages.base.train.tokens=8e6", "stages.base.train.batch_tokens=800000"),
    ]
    halved = plan(load(path, large), hardware="rtx-3090")
    assert "computed again" not in halved.compute
    assert halved.memory_bytes < 24e9
    monkeypatch.setitem(FILLS, "cuda", 10**6)
    again = plan(load(path, large), hardware="rtx-3090")
    assert again.stages[1].seconds["training"] > halved.stages[1].seconds["training"]
    kept = plan(load(path, large), hardware="h200")
    cut = plan(load(path, [*large, "stages.base.train.micro_rows=16"]), hardware="rtx-3090")
    assert "computed again" in again.compute
    assert "computed again" not in kept.compute + cut.compute
    assert cut.memory_bytes < again.memory_bytes < 24e9 < kept.memory_bytes
    assert again.stages[1].seconds["training"] > cut.stages[1].seconds["training"]


def test_memory_of_several_processes(tmp_path: Path) -> None:
    """By data sheet: shared out, each needs less than with all weights; the first, which looks at
    the whole, more than the others."""
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    large = load(path, ["model.hidden_size=256", "model.layers=12"])
    replicas, shared = (plan(large, hardware="8xh100", shard=shard) for shard in (False, True))
    assert shared.others_bytes < replicas.others_bytes
    assert replicas.others_bytes == replicas.memory_bytes
    assert shared.memory_bytes >= shared.others_bytes
    assert shared.as_dict()["among"] == {"processes": 8, "shard": True}
    trained = [found.stages[1].seconds["training"] for found in (replicas, shared)]
    assert trained[0] == trained[1] > 0
    for wrong in ({"processes": 4}, {"processes": 0}):
        with pytest.raises(RecipeError, match="--processes"):
            plan(large, hardware="8xh100", **wrong)
    with pytest.raises(RecipeError, match="--shard: among whom"):
        plan(large, hardware="h100", shard=True)
    with pytest.raises(RecipeError, match="--shard: among whom"):
        plan(large, shard=True)


def test_what_a_plan_says_of_processes() -> None:
    assert ALONE.told(10**9, 0) == "memory 1.0 GB"
    assert Among(2).told(10**9, 10**9) == (
        "memory 1.0 GB in each of 2 processes (all weights in each)"
    )
    assert Among(4, shard=True).told(2 * 10**9, 10**9) == (
        "memory 1.0 GB in each of 4 processes, 2.0 GB in the first (weights shared out)"
    )


def test_processes_here_share_the_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured for one, reckoned for each of several, and warned of if all together is too much."""
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(tmp_path))
    one, two = (plan(load(path), processes=n) for n in (None, 2))
    assert one.others_bytes == one.memory_bytes
    assert two.others_bytes > one.memory_bytes / 2  # Python and torch are in each
    speed = Speed("here", True, "", {}, {}, 0.0, 0.0, 0.0, 0.0, 0.0, 6 * 10**9, 4 * 10**9)
    monkeypatch.setattr("matura.ladder.warnings.memory_there", lambda: 9e9)
    assert not [*too_large(0, speed, tmp_path, ALONE)]
    (line,) = too_large(0, speed, tmp_path, Among(2))
    assert line.startswith("10.0 GB of memory are needed, 9.0 GB are there")
