"""`dedup:` in a recipe: what it may say, what it comes to, and where it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pretend import recipe_text

from matura.core.record import plain
from matura.data.deduped import DedupedSource
from matura.ladder.recipe import load, schema
from matura.ladder.show import show_recipe
from matura.stages.parts import Part


def recipe(folder: Path, dedup: str) -> Path:
    """A recipe whose base reads a file in which ten of 90 texts come again, changed by a word."""
    texts = [
        "".join(f"{n * k % 97} and {n * k % 89} make {k}, {n % 7} less\n" for k in range(2, 60))
        for n in range(1, 81)
    ]
    texts += [text + "changed\n" for text in texts[:9]] + [texts[20]]
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    text = recipe_text(folder)
    source = f"{{kind: jsonl, path: {rows}, format: text}}"
    before = next(line for line in text.splitlines() if "share: 1.0" in line)
    start = before.index("source: ") + len("source: ")
    end = before.index(", share: 1.0")
    path = folder / "r.yaml"
    path.write_text(text.replace(before[start:end], f"{source}, dedup: {dedup}", 1))
    return path


@pytest.mark.parametrize(
    ("spelled", "near", "threshold"),
    [
        ("near", True, 0.8),
        ("exact", False, 0.8),
        ("{threshold: 0.9}", True, 0.9),
        ("{near: false}", False, 0.8),
    ],
)
def test_it_is_named_or_spelled_out(
    tmp_path: Path, spelled: str, near: bool, threshold: float
) -> None:
    part = load(recipe(tmp_path, spelled)).stages[0].mixture[0]
    assert part.dedup is not None
    assert (part.dedup.near, part.dedup.threshold) == (near, threshold)
    assert isinstance(part.readable, DedupedSource)
    assert Part.model_validate({**plain(part)}) == part
    kept = part.model_copy(update={"dedup": None})
    assert not isinstance(kept.readable, DedupedSource)
    assert plain(kept) != plain(part)


@pytest.mark.parametrize(
    ("spelled", "reason"),
    [
        ("nearly", "'nearly' is not one of 'near', 'exact'"),
        ("{treshold: 0.9}", "unknown key (did you mean 'threshold'?)"),
        ("{threshold: 2}", "less than or equal to 1"),
    ],
)
def test_what_it_cannot_be_is_named_with_its_line(
    tmp_path: Path, spelled: str, reason: str
) -> None:
    path = recipe(tmp_path, spelled)
    with pytest.raises(Exception, match=r"r\.yaml:\d+: ") as problem:
        load(path)
    assert reason in str(problem.value)
    assert "dedup" in str(problem.value)


def test_what_is_made_up_is_not_compared(tmp_path: Path) -> None:
    text = recipe(tmp_path, "near").read_text()
    start, end = text.index("source: {"), text.index(", dedup")
    path = tmp_path / "r.yaml"
    path.write_text(text[:start] + "source: {kind: repetition}" + text[end:])
    with pytest.raises(Exception, match="'dedup' is for text that was found"):
        load(path)


def test_the_schema_takes_both(tmp_path: Path) -> None:
    validator = Draft202012Validator(schema())
    asked = {"source": {"kind": "stdlib"}, "share": 1.0}
    stage = {"name": "base", "kind": "pretrain", "train": {}, "exams": []}
    for dedup, good in (("near", True), ({"threshold": 0.9}, True), ("nearly", False)):
        value = {
            "name": "x",
            "tokenizer": {"vocab_size": 300},
            "model": {"hidden_size": 8, "layers": 1, "heads": 1, "sequence_length": 8},
            "stages": [{**stage, "mixture": [{**asked, "dedup": dedup}]}],
        }
        assert validator.is_valid(value) == good


def test_show_says_what_was_left_out(tmp_path: Path) -> None:
    shown = show_recipe(recipe(tmp_path, "near"), (), "base")
    source = shown.stages[0].parts[0].source
    assert source is not None
    assert source.deduped["read"] == 90
    assert source.deduped["dropped"] == {"exact duplicate": 1, "near duplicate": 9}
    assert source.read == source.deduped["kept"] == 80
    assert any(
        line == "90 compared: 80 kept; dropped: 1 exact duplicate, 9 near duplicate"
        for line in source.lines()
    )
