"""`data dedup` and `data decontaminate` by their commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Call

TEXT = "\n".join(f"the {n}th line of a text that is long enough to be compared" for n in range(30))
ITEM = "How many geese does the farmer have left after selling five of his twelve geese?"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = [TEXT, TEXT, f"{TEXT}\nand a line more", f"Nothing of it.\n{ITEM}\n", "Short."]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_data_dedup_counts_and_its_shards_are_read(call: Call, rows: Path, tmp_path: Path) -> None:
    words = ["data", "dedup", rows, "--into", tmp_path / "out"]
    said = call([*words, "--json"])
    assert said.code == 0
    found = json.loads(said.out)
    (counts,) = found["sources"].values()
    assert (counts["read"], counts["kept"]) == (5, 3)
    assert counts["dropped"] == {"exact duplicate": 1, "near duplicate": 1}
    assert found["clusters"][0]["duplicates"] == 2
    again = call(words)
    assert (again.code, "made already" in again.err) == (1, True)
    exact = call([*words[:4], tmp_path / "exact", "--exact"])
    assert exact.code == 0
    assert "1 exact duplicate" in exact.out
    assert "near" not in exact.out
    assert "kind: marked" in exact.err
    shown = call([*words[:4], tmp_path / "shown", "--threshold", "0.9"])
    assert "left out for" in shown.out
    assert "+ 'and a line more'" in shown.out
    shards = call(["data", "dedup", tmp_path / "out", "--into", tmp_path / "twice", "--json"])
    assert next(iter(json.loads(shards.out)["sources"].values()))["kept"] == 3


def test_data_decontaminate_says_what_matched(call: Call, rows: Path, tmp_path: Path) -> None:
    items = tmp_path / "bench.jsonl"
    items.write_text(json.dumps({"q": ITEM, "note": TEXT}) + "\n" + json.dumps({"q": "Eh?"}) + "\n")
    words = ["data", "decontaminate", rows, "--against", items, "--field", "q", "--into"]
    said = call([*words, tmp_path / "out", "--json"])
    assert said.code == 0
    (counts,) = json.loads(said.out)["sources"].values()
    assert (counts["read"], counts["kept"]) == (5, 4)
    (hit,) = counts["hits"]
    assert (hit["document"], hit["item"]) == ("rows.jsonl:4", "bench.jsonl:1 q")
    assert hit["text"] == ITEM[:-1]
    assert "mind: 1 of 2 items too short" in said.err
    drawn = call([*words, tmp_path / "drawn"])
    assert "1 evaluation item, exact" in drawn.out
    assert ITEM[:40] in drawn.out
    again = call([*words, tmp_path / "drawn"])
    assert (again.code, "made already" in again.err) == (1, True)


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["dedup", "missing", "--into", "o"], 1, "missing: no such file or folder"),
        (
            ["dedup", "here.txt", "--into", "o", "--threshold", "0.1"],
            2,
            "greater than or equal",
        ),
        (["dedup", "here.txt"], 2, "--into"),
        (["decontaminate", "here.txt", "--into", "o"], 2, "--against"),
        (
            ["decontaminate", "here.txt", "--into", "o", "--against", "gone.txt"],
            1,
            "gone.txt: no such file",
        ),
        (["dedup", "here.txt", "here.txt", "--into", "o"], 1, "named twice"),
    ],
)
def test_what_cannot_be_is_one_line(call: Call, options: list[str], code: int, reason: str) -> None:
    Path("here.txt").write_text("Some text.\n")
    said = call(["data", *options])
    assert said.code == code
    assert reason in said.err
    assert said.err.startswith("matura: ")
    assert len(said.err.strip().splitlines()) == 1
    assert not Path("o").exists() or not list(Path("o").iterdir())
