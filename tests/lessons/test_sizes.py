"""Sizes with a name hit the counts the lessons were first described with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from matura.core.record import plain
from matura.core.rng import rng
from matura.core.types import Given
from matura.lessons.echo import Echo
from matura.lessons.lesson import Lesson, kinds

ALPHA = {"mode": "minimal", "math": "exclude"}
DOCUMENTED: list[tuple[str, str, dict[str, Any], int]] = [
    # S001-27
    ("format_lock", "alpha", ALPHA, 1_000),
    ("echo", "beta", {"gibberish": "exclude"}, 2_500),
    ("echo", "gamma", {"gibberish": "only"}, 3_500),
    ("format_lock", "3a2", {"mode": "full", "math": "include"}, 11_000),
    ("knowledge", "3a2", {}, 11_000),
    # what MyPT's operators were tried with (S000-04)
    ("operators", "least", {}, 5_000),
    ("operators", "usual", {}, 9_000),
    ("operators", "most", {}, 16_500),
    # S004-06, without its repeats
    ("identity", "nanochat", {}, 1_000),
    # S003-03
    ("format_lock", "run1", ALPHA | {"german": 0}, 500),
    ("minimal_qa", "run2", {}, 1_000),
    ("tasks", "run3", {}, 1_500),
    ("structured", "run4", {}, 800),
]


@pytest.mark.parametrize(("kind", "size", "settings", "count"), DOCUMENTED)
def test_a_preset_hits_the_documented_count(
    kind: str, size: str, settings: dict[str, Any], count: int
) -> None:
    lesson = kinds()[kind](size=size, **settings)  # type: ignore[call-arg]
    made = sum(1 for _ in lesson.read(Given(rng(0, "size"))))
    assert made == lesson.max_examples
    assert 0.9 * count <= made <= 1.1 * count


@pytest.mark.parametrize("kind", kinds().values(), ids=kinds())
def test_a_size_is_a_preset_and_excludes_another_count(kind: type[Lesson]) -> None:
    with pytest.raises(ValidationError, match="'huge' is no preset"):
        kind(size="huge")  # type: ignore[call-arg]
    for size, count in kind.presets.items():
        lesson = kind(size=size)  # type: ignore[call-arg]
        assert lesson.max_examples == count
        assert kind.model_validate(plain(lesson)) == lesson
        with pytest.raises(ValidationError, match="leave max_examples out"):
            kind(size=size, max_examples=count + 1)  # type: ignore[call-arg]


def test_a_misspelt_size_is_pointed_at() -> None:
    with pytest.raises(ValidationError, match="did you mean 'gamma'"):
        Echo(size="gama")
