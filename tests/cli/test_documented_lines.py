"""Every command line that is written down is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from matura.cli.main import COMMANDS, DATA_COMMANDS, application
from matura.ladder.recipe import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "bench/README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\s*#?\s*(?:\.venv/bin/)?matura ")
INLINE = re.compile(r"`(matura [a-z][^`]*)`")
PLACEHOLDER = re.compile(r"[\[|…]|\.\.\.|\b[A-Z]{2,}\b")
"""Of lines that show a form, not a command."""


def lines_of(text: str) -> Iterator[str]:
    """Commands in a text, each in one line and without what is said about it."""
    for line in text.replace("\\\n", " ").splitlines():
        if COMMAND.match(line):
            bare = COMMAND.sub("matura ", line).partition(" # ")[0].partition(" > ")[0].strip()
            # a recipe's `--set` has brackets of its own
            if not PLACEHOLDER.search(re.sub(r"'[^']*'", "", bare)):
                yield bare


def inline(text: str) -> Iterator[str]:
    """Commands in the middle of a sentence; forms are left out, and a command's mere name."""
    for hit in INLINE.finditer(" ".join(text.split())):
        line = hit[1]
        words = line.removeprefix("matura ").removeprefix("data ").split()
        whole = len(words) > 1 and not words[1].startswith("-")
        if whole and not PLACEHOLDER.search(re.sub(r"'[^']*'", "", line)):
            yield line


def documented() -> list[tuple[str, str]]:
    """Where a command stands, and the command."""
    found = [
        (page.relative_to(ROOT).as_posix(), line)
        for page in PAGES
        for block in FENCED.findall(page.read_text(encoding="utf-8"))
        for line in lines_of(block)
    ]
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        # comments go on in the next line with an option
        text = re.sub(r"\n#\s+(--)", r" \1", recipe.read_text(encoding="utf-8"))
        found += [(recipe.name, line) for line in lines_of(text)]
    for page in [*PAGES, *sorted((ROOT / "recipes").glob("*.yaml"))]:
        text = re.sub(r"\n *#", "\n", FENCED.sub("", page.read_text(encoding="utf-8")))
        found += [(page.name, line) for line in inline(text)]
    found += [("--help", example) for _, example in (*COMMANDS, *DATA_COMMANDS)]
    return list(dict.fromkeys(found))


LINES = documented()


def understood(line: str) -> dict[str, Any]:
    """What the command line makes of it, nothing run."""
    words = shlex.split(line.partition(" > ")[0])[1:]
    command: Any = typer.main.get_command(application())
    context = command.make_context("matura", words)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return dict(context.params)


def test_there_are_many() -> None:
    assert len(LINES) >= 50
    assert {place for place, _ in LINES} >= {"README.md", "docs/corpora.md", "--help"}


@pytest.mark.parametrize(("place", "line"), LINES)
def test_it_is_understood(place: str, line: str) -> None:
    """S001-02: a documented option that does not exist is an error here."""
    found = understood(line)
    recipe = found.get("recipe")
    if isinstance(recipe, Path) and (ROOT / recipe).is_file():
        assert load(ROOT / recipe, found.get("set") or ())


def test_a_line_that_is_wrong_is_found() -> None:
    usage: Any = typer.BadParameter.__mro__[1]
    for wrong in ("matura run r.yaml --rebuilt a", "matura climb r.yaml", "matura data chec a"):
        with pytest.raises(usage):
            understood(wrong)
