"""`show` says of every source what was read, kept, dropped and why, and how much of it is
trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretend import pretend, recipe_text
from rich.console import Console

from matura.core.errors import StoreError
from matura.ladder.drawn import drawn
from matura.ladder.show import show_recipe, show_run
from matura.ladder.sourced import counted, source_seen
from matura.ladder.warnings import too_long_ones


def chat_recipe(folder: Path) -> Path:
    """A recipe whose chat stage reads ShareGPT rows: some twice, one longer than a row."""
    rows = [
        {"conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": "yes"}]}
        for n in range(120)
    ]
    long = {
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "word " * 200}]
    }
    chats = folder / "chats.jsonl"
    chats.write_text("\n".join(json.dumps(row) for row in (*rows, *rows[:7], long)))
    text = recipe_text(folder).replace(
        "{kind: echo, max_examples: 300}", f"{{kind: jsonl, path: {chats}}}"
    )
    text = text.replace(", lose_at_most: 1", "")
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def test_a_recipe_tells_what_becomes_of_its_sources(tmp_path: Path) -> None:
    shown = show_recipe(chat_recipe(tmp_path), (), "chat")
    base, chat = shown.stages
    own, replayed = chat.parts
    assert own.source is not None
    assert own.source.read == 128
    assert own.source.dropped == {"duplicate": 7, "too long": 1}
    assert sum(own.source.kept.values()) == 120
    assert own.source.left_out == {}
    assert own.source.too_long["longest"] > 200 > own.source.lengths["most"]
    assert own.source.lengths["most"] > own.source.trained_lengths["most"] > 0
    assert own.source.trained_share == pytest.approx(own.trained_share)
    assert base.parts[0].source is not None
    assert base.parts[0].source.trained_share > 0.9
    assert replayed.source is None
    assert json.loads(json.dumps(shown.as_dict()))["stages"][1]["parts"][0]["source"]["read"] == 128
    licence, read, long, lengths = own.source.lines()
    assert licence == "licence: own"
    assert read.startswith("128 read: ")
    assert "7 duplicate, 1 too long" in read
    assert long.startswith("1 of 121 are longer than a row of 65 tokens (the longest has 1,0")
    assert f"{tmp_path}/chats.jsonl:128); 0 cut, 1 dropped; lost 1,0" in long
    (mind,) = too_long_ones({stage.name: stage for stage in shown.stages})
    assert mind.startswith("chat: jsonl: it will be refused: ")
    assert "lose_at_most is 0.1" in mind
    assert lengths.startswith("tokens an example: ")
    assert lengths.endswith("% in all")


def test_a_run_tells_what_was_counted(tmp_path: Path) -> None:
    run = pretend(tmp_path).run
    shown = show_run(run)
    (source, _) = (part.source for part in shown.stages[1].parts)
    assert source is not None
    built = counted(run / "chat@1")["echo"]
    assert source == source_seen(built, {"dropped": source.left_out, "cut": source.cut})
    assert source.kept == built["kept"]
    assert source.read == sum(built["kept"].values()) + sum(built["dropped"].values())
    console = Console(width=200, color_system=None)
    with console.capture() as told:
        console.print(drawn(shown, colours=False))
    for line in source.lines():
        assert line in told.get()


def test_a_run_of_an_older_version_is_shown_without(tmp_path: Path) -> None:
    assert counted(tmp_path) == {}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "built.json").write_text("{")
    with pytest.raises(StoreError, match="no readable counts"):
        counted(tmp_path)
    old = {"read": 3, "kept": {"train": 3}, "dropped": {}, "trained_share": 0.5, "lengths": {}}
    seen = source_seen(old, {"dropped": {"too long": 2}, "cut": 1})
    assert list(seen.lines()) == [
        "3 read: 3 train; dropped: none; left out of rows: 2 too long; 1 cut to fit",
        "tokens an example: none; trained of them: 50% in all",
    ]


def test_a_source_that_has_nothing_for_a_tokenizer_is_shown(tmp_path: Path) -> None:
    drills = "{source: {kind: repetition, tokens: 9000, shares: {drills: 1}}, share: 0.4}"
    text = recipe_text(tmp_path).replace("share: 1.0}]", f"share: 0.6}}, {drills}]", 1)
    path = tmp_path / "r.yaml"
    path.write_text(text)
    parts = show_recipe(path, (), "base").stages[0].parts
    assert [part.source.read > 0 for part in parts if part.source] == [True, True]
