"""Part of a ladder climbed today, the rest later."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import Lay, Quiz, lay, recipe, replay

from matura.core.errors import RecipeError
from matura.core.ledger import Ledger
from matura.ladder.climb import climb

QUIET = Ledger(mode="quiet")


def test_until_climbs_no_higher_and_the_next_run_goes_on(tmp_path: Path) -> None:
    Lay.calls.clear()
    two = recipe(
        tmp_path / "text",
        lay("base", {"quiz": 190}, Quiz(at_least=0.9)),
        lay(
            "chat",
            {"riddle": 150},
            Quiz(exam="riddle", at_least=0.5),
            replay=(replay("base", 0.25),),
        ),
    )
    assert climb(two, tmp_path, until="base", ledger=QUIET).made == ("tokenizer@1", "base@1")
    assert climb(two, tmp_path, ledger=QUIET).made == ("chat@1",)
    low = climb(two, tmp_path, until="base", ledger=QUIET)
    assert (low.made, low.skipped) == ((), ("tokenizer@1", "base@1"))
    assert (tmp_path / two.name / "chat@1").is_dir()
    with pytest.raises(RecipeError, match=r"--until bse: no such stage \(did you mean 'base'"):
        climb(two, tmp_path, until="bse", ledger=QUIET)
    with pytest.raises(RecipeError, match="--rebuild chat: stands above --until base"):
        climb(two, tmp_path, rebuild="chat", until="base", ledger=QUIET)
