"""Whether real text comes through unmangled: a folder of anything, by one recipe, to shards.

Every `.txt`, `.json` and `.jsonl` below the folder becomes a part of a recipe, which `matura run`
climbs. Then each file is read once more with Python alone, cleaned, and compared byte for byte with
what the shards decode to: all that went in came out, or is counted as dropped.

    .venv/bin/python bench/mess.py --data FOLDER --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LEAST_WORDS = 2
"""A field with fewer words in its first row is a name or a number, and no text."""


@dataclass(frozen=True)
class Mess:
    """A file as a part of the recipe."""

    path: Path
    source: dict[str, Any]
    clean: dict[str, Any]

    @property
    def name(self) -> str:
        """What the part is called."""
        stem = self.path.name.lower()
        return "".join(c if c.isascii() and c.isalnum() else "-" for c in stem).strip("-")[:64]


@dataclass
class Found:
    """What became of one file; `wrong` says what is not as it should be."""

    file: str
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By the cleaner, of `read`."""
    made: int = 0
    """What cleaning made, or the sections that long documents were cut into."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Of `made`, by reason."""
    in_shards: int = 0
    """Examples and held-out documents that equal what was expected, byte for byte."""
    in_shards_bytes: int = 0
    unchanged: int = 0
    """Kept documents that equal what the file says, byte for byte."""
    wrong: list[str] = field(default_factory=list)


def mess_of(path: Path) -> Mess:
    """How a file is to be read, by looking into it."""
    raw = path.read_bytes()
    if path.suffix == ".txt":
        try:
            raw.decode()
        except UnicodeDecodeError:
            source = {"kind": "folder", "path": str(path), "encoding": "latin-1"}
        else:
            source = {"kind": "text", "path": str(path), "unit": "file"}
        return Mess(path, source, {"kind": "prose"})
    source = {"kind": "jsonl", "path": str(path)}
    row = rows_of(path)[0]
    for name, value in row.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            turn = {"speaker", "text"} & value[0].keys()
            if "text" in turn:
                layout = "{speaker}: {text}" if "speaker" in turn else "{text}"
                source |= {"each": name, "layout": layout}
                return Mess(path, source, {"kind": "dialogue"})
    if isinstance(row.get("text"), str):
        return Mess(path, source, {"kind": "prose"})
    words = [k for k, v in row.items() if isinstance(v, str) and len(v.split()) >= LEAST_WORDS]
    return Mess(path, source | {"layout": "\n".join(f"{{{k}}}" for k in words)}, {"kind": "qa"})


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A file's objects, read with nothing of Matura's."""
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix == ".json":
        return list(json.loads(text))
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def texts_of(mess: Mess) -> list[str]:
    """A file's documents, read with nothing of Matura's."""
    source = mess.source
    if source["kind"] != "jsonl":
        encoding = source.get("encoding", "utf-8-sig")
        return [mess.path.read_bytes().decode(encoding)]
    rows = rows_of(mess.path)
    if "layout" not in source:
        return [row["text"] for row in rows]
    layout, each = source["layout"], source.get("each")
    return [
        "\n".join(layout.format_map(item) for item in (row[each] if each else [row]))
        for row in rows
    ]


def recipe_of(messes: list[Mess], vocab_size: int) -> dict[str, Any]:
    """All files in one stage, which is trained as little as can be."""
    share = 1 / len(messes)
    parts = [
        {"source": m.source, "clean": [m.clean], "name": m.name, "share": share, "max_repeats": 1e9}
        for m in messes
    ]
    train = {"tokens": 20_000, "batch_tokens": 2048, "evaluations": 1}
    return {
        "name": "mess",
        "seed": 0,
        "tokenizer": {"kind": "bpe", "vocab_size": vocab_size, "corpus_bytes": 4_000_000},
        "model": {"hidden_size": 32, "layers": 1, "heads": 2, "sequence_length": 128},
        "stages": [{"name": "base", "kind": "pretrain", "mixture": parts, "train": train}],
    }


def compared(mess: Mess, stage: Path, counts: dict[str, Any]) -> Found:
    """One file's documents against its shards and its counts."""
    from matura.core.types import Document
    from matura.data.cleaner import outcome
    from matura.data.split import sections
    from matura.stages.parts import cleaner_kinds

    found = Found(mess.path.name)
    cleaner = cleaner_kinds()[mess.clean["kind"]].model_validate(mess.clean)
    expected: list[bytes] = []
    dropped: Counter[str] = Counter()
    cut = any("sections" in note for note in counts["notes"])
    for text in texts_of(mess):
        found.read += 1
        became = outcome([cleaner], Document(text=text, id=""))
        if not became.made:
            dropped[became.dropped[0].reason] += 1
            continue
        found.kept += 1
        found.unchanged += became.made[0].text == text
        for made in became.made:
            pieces = list(sections(made)) if cut else [made]
            assert "".join(piece.text for piece in pieces) == made.text
            expected += [piece.text.encode() for piece in pieces]
    found.dropped, found.made = dict(dropped), len(expected)
    found.left_out = counts["dropped"]
    got = list(decoded(stage, mess.name))
    missing, more = Counter(expected), Counter(got)
    missing, more = missing - more, more - missing
    found.in_shards = len(got) - more.total()
    found.in_shards_bytes = sum(map(len, got)) if not more else 0
    found.wrong = [f"in the shards, but not in the file: {raw[:60]!r}" for raw in more]
    cleaned = counts["cleaned"]
    left_out = sum(found.left_out.values())
    for what, ours, theirs in (
        ("documents read", found.read, cleaned["read"]),
        ("documents kept", found.kept, cleaned["kept"]),
        ("dropped", found.dropped, cleaned["dropped"]),
        ("read = kept + dropped", found.read, found.kept + sum(cleaned["dropped"].values())),
        ("read to be built", found.made, counts["read"]),
        ("built = kept + dropped", counts["read"], sum(counts["kept"].values()) + left_out),
        ("documents missing", missing.total(), left_out),
    ):
        if ours != theirs:
            found.wrong.append(f"{what}: {ours}, but the run says {theirs}")
    return found


def decoded(stage: Path, name: str) -> Iterator[bytes]:
    """What a source's shards and held-out file hold, as bytes."""
    from matura.data.held import held_out
    from matura.text.shards import Shard
    from matura.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(stage / "model")
    for split in ("train", "validation"):
        shard = Shard.open(stage / "data" / f"{name}.{split}.shard", tokenizer.sha256)
        for number in range(len(shard)):
            yield tokenizer.decode_bytes(shard.example(number)[0].tolist())
    if (path := stage / "data" / f"{name}.heldout.jsonl").exists():
        yield from (document.text.encode() for document in held_out(path))


def measured(data: Path, vocab_size: int) -> dict[str, Any]:
    """The whole comparison."""
    files = [p for p in sorted(data.rglob("*")) if p.suffix in (".txt", ".json", ".jsonl")]
    messes = [mess_of(path.resolve()) for path in files]
    if not messes:
        raise SystemExit(f"{data}: no .txt, .json or .jsonl")
    with tempfile.TemporaryDirectory() as made:
        recipe, runs = Path(made, "mess.json"), Path(made, "runs")
        recipe.write_text(json.dumps(recipe_of(messes, vocab_size), indent=1))
        for mess in messes:
            print(f"{mess.path.name}: {mess.source} {mess.clean}", file=sys.stderr)
        command = [sys.executable, "-m", "matura.cli.main", "run", str(recipe), "--runs", str(runs)]
        done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr)
        if done.returncode:
            raise SystemExit(f"matura run: exit code {done.returncode}")
        stage = runs / "mess" / "base@1"
        built = json.loads((stage / "data" / "built.json").read_text(encoding="utf-8"))
        found = [compared(mess, stage, built[mess.name]) for mess in messes]
    return {
        "files": [asdict(one) for one in found],
        "read": sum(one.read for one in found),
        "kept": sum(one.kept for one in found),
        "dropped": sum(sum(one.dropped.values()) for one in found),
        "in_shards": sum(one.in_shards for one in found),
        "in_shards_bytes": sum(one.in_shards_bytes for one in found),
        "left_out": sum(sum(one.left_out.values()) for one in found),
        "wrong": sum(len(one.wrong) for one in found),
    }


def main() -> None:
    """Prints what was found; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder with files to read.")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--json", action="store_true", help="One JSON object on stdout.")
    asked = parser.parse_args()
    found = measured(asked.data, asked.vocab_size)
    if asked.json:
        print(json.dumps(found))
    else:
        for one in found["files"]:
            print(
                f"{one['file']}: {one['read']:,} = {one['kept']:,} kept + {one['dropped'] or 0} "
                f"dropped; {one['unchanged']:,} unchanged; {one['made']:,} made = "
                f"{one['in_shards']:,} in shards + {one['left_out'] or 0} left out"
            )
            for problem in one["wrong"]:
                print(f"  WRONG {problem}")
        print(f"wrong: {found['wrong']}")
    sys.exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
