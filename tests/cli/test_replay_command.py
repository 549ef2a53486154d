"""`matura replay`: what it refuses, in one line and before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Call
from pretend import recipe_text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--of base", ("Missing option", "--stage")),
        ("--stage chat", ("Missing option", "--of")),
        ("--stage chatt --of base", ("--stage chatt: no such stage", "'chat'")),
        ("--stage chat --of bass", ("--of bass: no stage below chat", "'base'")),
        ("--stage base --of chat", ("--of chat: no stage below base",)),
        ("--stage chat --of base", ("which is not made in runs/tiny", "--until base")),
        ("--stage chat --of base --shares 0,1", ("--shares 0,1: 1: expected shares from 0",)),
        ("--stage chat --of base --shares 0.1,x", ("--shares 0.1,x: x: expected",)),
        ("--stage chat --of base --shares 0.1,0.1", ("0.1 is there twice",)),
        ("--stage chat --of base --shares ,", ("--shares: none are given",)),
        ("--stage chat --of base --tokens many", ("--tokens", "number")),
        ("--stage chat --of base --plot p.json", ("--plot p.json", "another ending")),
        ("--stage chat --of base --set stages.chat.trian.tokens=9", ("trian", "'train'")),
    ],
)
def test_bad_input_is_one_line_and_2(
    asked: str, words: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(recipe_text(tmp_path))
    said = call(["replay", recipe, *asked.split()])
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.strip().splitlines()
    assert line.startswith("matura: ")
    for word in words:
        assert word in line
    assert list(Path.cwd().iterdir()) == []


def test_the_rule_is_in_the_help(call: Call) -> None:
    said = " ".join(call(["replay", "--help"]).out.replace("│", " ").split())
    assert "the smallest share that keeps what OLD knew" in said
    assert "Changes nothing in a run" in said
