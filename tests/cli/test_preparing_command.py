"""`data prepare` by its command: what it prints, what it refuses, and what it never writes over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Call

ITEM = "How many geese does the farmer have left after selling five of his twelve geese?"


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A command that makes a corpus of a folder of JSON lines."""
    folder = tmp_path / "rows"
    folder.mkdir()
    texts = [" ".join(f"word{n * 40 + k}" for k in range(40)) for n in range(30)]
    for number, some in enumerate((texts[:15], [*texts[15:], texts[2], " ", f"So: {ITEM}"])):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in some)
        (folder / f"{number}.jsonl").write_text(rows)
    where = ["--into", tmp_path / "corpus", "--workers", 1]
    return ["data", "prepare", f"found={folder}", *where, "--vocab-size", 300]


def test_it_is_made_once_and_its_counts_add_up(
    call: Call, words: list[object], tmp_path: Path
) -> None:
    (tmp_path / "items.txt").write_text(f"{ITEM}\n")
    words += ["--against", tmp_path / "items.txt"]
    said = call(words)
    assert said.code == 0
    assert "1 exact duplicate" in said.out
    assert "1 evaluation item" in said.out
    assert "How many geese" in said.out
    assert "gathering" in said.err
    assert "{kind: corpus, path: " in said.err
    assert not (tmp_path / "corpus.work").exists()
    again = call([*words, "--json"])
    assert again.code == 0
    assert "gathering" not in again.err
    one = json.loads(again.out)["sources"]["found"]
    assert (one["read"], one["kept"], one["dropped"]) == (33, 32, {"text: empty": 1})
    assert sum(one["left_out"].values()) + sum(one["documents"].values()) == one["made"]
    assert sum(one["documents"].values()) == 30


def test_another_setting_is_refused_until_it_is_made_again(
    call: Call, words: list[object], tmp_path: Path
) -> None:
    assert call(words).code == 0
    before = (tmp_path / "corpus/record.json").read_bytes()
    other = call([*words, "--exact"])
    assert other.code == 1
    assert "duplicates.near: true -> false" in other.err
    assert "--rebuild" in other.err
    assert (tmp_path / "corpus/record.json").read_bytes() == before
    assert call([*words, "--exact", "--rebuild"]).code == 0
    (tmp_path / "corpus/found.heldout.jsonl").write_text("")
    damaged = call([*words, "--exact"])
    assert (damaged.code, "--rebuild" in damaged.err) == (1, True)
    assert call([*words, "--exact", "--rebuild"]).code == 0


def test_what_is_no_corpus_is_never_written_over(
    call: Call, words: list[object], tmp_path: Path
) -> None:
    taken = tmp_path / "corpus"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    (tmp_path / "corpus" / "record.json").write_text('{"files": {}}')
    for more in ([], ["--rebuild"]):
        said = call([*words, *more])
        assert (said.code, "no corpus; name another folder" in said.err) == (1, True)
    assert (taken / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "corpus.work").exists()


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--vocab-size", 100], 2, "--vocab-size"),
        (["--tokenizer", "nowhere"], 2, "one of the two"),
        (["--clean", "coed"], 2, "did you mean 'code'"),
        (["--engine", "rey"], 2, "did you mean 'ray'"),
        (["--threshold", 2], 2, "--threshold"),
        (["--set", "min_lines=3"], 2, "one cleaner"),
        (["--suffix", ".jsonl", "--suffix", "md"], 2, "each with its dot"),
        (["--against", "nowhere.jsonl"], 1, "nowhere.jsonl"),
    ],
)
def test_bad_options_are_one_line(
    call: Call,
    words: list[object],
    tmp_path: Path,
    options: list[object],
    code: int,
    reason: str,
) -> None:
    said = call([*words, *options])
    assert said.code == code
    assert reason in said.err
    assert "unexpected" not in said.err
    assert not (tmp_path / "corpus").exists()


def test_each_source_may_be_read_and_cleaned_in_its_own_way(call: Call, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "old").mkdir()
    for n in range(12):
        lines = "\n".join(f"value_{n}_{k} = compute({k * n})" for k in range(9))
        (tmp_path / f"src/{n}.py").write_text(f"# Copyright (c) somebody.\n\n{lines}\n")
        (tmp_path / f"src/{n}.c").write_text(f"int value_{n};\n")
        words = " ".join(f"caf\xe9{n * 30 + k}" for k in range(30))
        (tmp_path / f"old/{n}.txt").write_bytes(words.encode("latin-1"))
    rows = [{"q": f"Number {n} and {n}?", "a": f"That is {2 * n}."} for n in range(12)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words: list[object] = ["data", "prepare", f"code={tmp_path / 'src'}", f"old={tmp_path / 'old'}"]
    words += [f"qa={tmp_path / 'qa.jsonl'}", "--into", tmp_path / "corpus", "--exact", "--json"]
    words += ["--vocab-size", 400, "--workers", 1, "--clean", "pii", "--clean", "code=code"]
    words += ["--set", "code=min_lines=5", "--suffix", "code=.py", "--encoding", "old=latin-1"]
    words += ["--layout", "qa={q}\\n={a}", "--clean", "old="]
    said = call(words)
    assert said.code == 0, said.err
    asked = json.loads((tmp_path / "corpus/record.json").read_text())["asked"]["sources"]
    kinds = {name: [one["kind"] for one in source["cleaners"]] for name, source in asked.items()}
    assert kinds == {"code": ["code"], "old": [], "qa": ["pii"]}
    assert asked["code"]["cleaners"][0]["min_lines"] == 5
    told = json.loads(said.out)["sources"]
    assert {name: one["read"] for name, one in told.items()} == dict.fromkeys(asked, 12)
    held = {
        name: json.loads(path.read_text().splitlines()[0])["text"]
        for name in asked
        if (path := tmp_path / f"corpus/{name}.heldout.jsonl")
    }
    assert "Copyright" not in held["code"]
    assert "caf\xe9" in held["old"]
    assert "?\n=That is" in held["qa"]
    for wrong, reason in (
        (["--clean", "coed=code"], "no source is called 'coed' (did you mean 'code'?)"),
        (["--set", "qa=typo=1"], "cleaner pii: typo"),
    ):
        bad = call([*words, "--rebuild", *wrong])
        assert (bad.code, reason in bad.err) == (2, True), bad.err


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "--vocab-size", 300, "--workers", 1],
        ["clean", "pii"],
        ["dedup"],
    ],
    ids=lambda words: words[0],
)
def test_rows_of_several_fields_are_spelled_out(
    call: Call, tmp_path: Path, words: list[object]
) -> None:
    path = tmp_path / "qa.jsonl"
    rows = ({"q": f"How much is {n} and {n}?", "a": f"It is {2 * n}, I think."} for n in range(9))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = [path, "--into", tmp_path / "out"]
    refused = call(["data", *words, *more])
    assert (refused.code, "'a', 'q'" in refused.err) == (1, True)
    said = call(["data", *words, *more, "--layout", "{q}\\n{a}", "--json"])
    assert said.code == 0
    texts = [*(tmp_path / "out").glob("*.txt"), *(tmp_path / "out").glob("*.heldout.jsonl")]
    written = "".join(text.read_text() for text in texts)
    assert "?\nIt is" in written.replace("\\n", "\n")
