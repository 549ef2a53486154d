"""Part of a ladder climbed today, the rest later."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import Lay, Quiz, lay, recipe, replay

from matura.core.errors import RecipeError
from matura.core.ledger import Ledger
from matura.ladder.climb import climb
from matura.ladder.recipe import Recipe

QUIET = Ledger(mode="quiet")


def two_stages(folder: Path) -> Recipe:
    Lay.calls.clear()
    return recipe(
        folder,
        lay("base", {"quiz": 190}, Quiz(at_least=0.9)),
        lay(
            "chat",
            {"riddle": 150},
            Quiz(exam="riddle", at_least=0.5),
            replay=(replay("base", 0.25),),
        ),
    )


def test_until_climbs_no_higher_and_the_next_run_goes_on(tmp_path: Path) -> None:
    two = two_stages(tmp_path / "text")
    assert climb(two, tmp_path, until="base", ledger=QUIET).made == ("tokenizer@1", "base@1")
    assert climb(two, tmp_path, ledger=QUIET).made == ("chat@1",)
    low = climb(two, tmp_path, until="base", ledger=QUIET)
    assert (low.made, low.skipped) == ((), ("tokenizer@1", "base@1"))
    assert (tmp_path / two.name / "chat@1").is_dir()
    with pytest.raises(RecipeError, match=r"--until bse: no such stage \(did you mean 'base'"):
        climb(two, tmp_path, until="bse", ledger=QUIET)
    with pytest.raises(RecipeError, match="--rebuild chat: stands above --until base"):
        climb(two, tmp_path, rebuild="chat", until="base", ledger=QUIET)


def test_who_looks_at_a_run_is_called_after_each_stage_that_was_made(tmp_path: Path) -> None:
    """A climb of hours may be stopped at any time: its report must not wait for the end."""
    two = two_stages(tmp_path / "text")
    seen: list[list[str]] = []

    def after(run: Path) -> None:
        seen.append(sorted(path.name for path in run.glob("*@1")))

    climb(two, tmp_path, until="base", ledger=QUIET, after=after)
    assert seen == [["tokenizer@1"], ["base@1", "tokenizer@1"]]
    climb(two, tmp_path, ledger=QUIET, after=after)
    assert seen[2:] == [["base@1", "chat@1", "tokenizer@1"]]
