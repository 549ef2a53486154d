"""A corpus from documents to token shards: ours beside datatrove's, on two cores.

Documents are cut from the standard library and installed packages, with planted near-duplicates;
both sides read, filter, drop duplicates and tokenise with the same vocabulary. datatrove lives in
`.venv-datatrove`, which the first use makes from the package registry.

    .venv/bin/python bench/corpus.py --json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from corpus_texts import UNLIKE, Planted, alike, write
from watch import Watched, watched

from matura.core.store import Folder
from matura.text.tokenizer import Tokenizer

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
ENVIRONMENT = ROOT / ".venv-datatrove"
WANTED = BENCH / "corpus_datatrove.txt"
WORKERS = 2
VOCAB_SIZE = 8192
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


def ours(folder: Path, out: Path, engine: str = "local", workers: int = WORKERS) -> Watched:
    """One corpus made by us."""
    shutil.rmtree(out, ignore_errors=True)
    return watched(ours_command(folder, out, engine, workers), ONE_THREAD)


def ours_command(folder: Path, out: Path, engine: str, workers: int) -> list[str]:
    """What makes it."""
    command = [sys.executable, str(BENCH / "corpus_ours.py"), str(folder), str(out)]
    return [*command, str(folder / "tokenizer"), str(workers), engine]


def theirs(python: Path, folder: Path, out: Path) -> Watched:
    """One corpus made by datatrove."""
    shutil.rmtree(out, ignore_errors=True)
    command = [str(python), str(BENCH / "corpus_theirs.py"), str(folder), str(out)]
    command += [str(folder / "tokenizer" / "tokenizer.json"), str(WORKERS)]
    return watched(command, ONE_THREAD)


def prepare(folder: Path, documents: int) -> Planted:
    """The documents and a tokenizer for them."""
    folder.mkdir(parents=True)
    print(f"cutting {documents:,} documents", file=sys.stderr)
    planted = write(folder, documents)
    some = (json.loads(line)["text"] for line in (folder / "part-03.jsonl").open(encoding="utf-8"))
    texts = [text for _, text in zip(range(4000), some, strict=False)]
    Tokenizer.train(texts, vocab_size=VOCAB_SIZE, dialect="matura").save(folder / "tokenizer")
    return planted


def found_by_us(out: Path) -> dict[str, str]:
    """Each document that we left out as a duplicate, and of which one."""
    rows = map(json.loads, (out / "duplicates.jsonl").read_text(encoding="utf-8").splitlines())
    return {name(row["left_out"]): name(row["kept"]) for row in rows}


def found_by_them(out: Path) -> set[str]:
    """Each document that datatrove left out as a duplicate."""
    return {
        json.loads(line)["id"]
        for path in sorted((out / "dropped").glob("*.jsonl"))
        for line in path.open(encoding="utf-8")
    }


def name(spelled: str) -> str:
    """The document's own name, without its source's."""
    return spelled.removeprefix("code/")


def judged(left_out: set[str], planted: Planted) -> dict[str, float]:
    """Recall and precision on what was planted: of a pair, one must go, of lookalikes none."""
    hits = sum(copy in left_out or of in left_out for copy, of in planted.copies.items())
    false = sum(other in left_out for other in planted.lookalikes)
    return {
        "near_recall": round(hits / len(planted.copies), 4),
        "near_precision": round(hits / max(1, hits + false), 4),
    }


def really_alike(folder: Path, pairs: dict[str, str]) -> float:
    """The share of our pairs that have 70 % of their runs of words in common, counted here: with
    another notion of a word, which is why it is not 80 %."""
    texts = {
        row["id"]: row["text"]
        for path in sorted(folder.glob("part-*.jsonl"))
        for row in map(json.loads, path.open(encoding="utf-8"))
    }
    some = sorted(pairs.items())[:: max(1, len(pairs) // 3000)]
    enough = [alike(texts[copy], texts[of]) > UNLIKE for copy, of in some]
    return round(sum(enough) / max(1, len(enough)), 4)


def measure(folder: Path, documents: int, rounds: int, python: Path | None) -> dict[str, Any]:
    """Both sides, turn by turn."""
    planted = prepare(folder / "in", documents)
    inputs, out = folder / "in", folder / "out"
    mine: list[Watched] = []
    other: list[Watched] = []
    for number in range(rounds):
        mine.append(ours(inputs, out / "ours"))
        print(f"round {number}: ours {mine[-1].seconds:.1f} s", file=sys.stderr)
        if python is not None:
            other.append(theirs(python, inputs, out / "theirs"))
            print(f"round {number}: datatrove {other[-1].seconds:.1f} s", file=sys.stderr)
    pairs = found_by_us(out / "ours")
    record = Folder.open(out / "ours").record["sources"]["code"]
    told: dict[str, Any] = {
        **judged(set(pairs), planted),
        "pairs_alike": really_alike(inputs, pairs),
        "peak_rss_bytes": max(each.peak_rss_bytes for each in mine),
        "seconds": round(statistics.median(each.seconds for each in mine), 2),
        "cpu_s": round(statistics.median(each.cpu_s for each in mine), 2),
        "documents": planted.documents,
        "characters": planted.characters,
        "planted": len(planted.copies),
        "lookalikes": len(planted.lookalikes),
        "left_out": record["left_out"],
        "tokens": sum(record["tokens"].values()),
        "steps": json.loads(mine[-1].out.splitlines()[-1])["done_after_s"],
    }
    if other:
        gone = found_by_them(out / "theirs")
        told |= {
            "ratio": round(
                statistics.median(b.seconds / a.seconds for a, b in zip(mine, other, strict=True)),
                2,
            ),
            "ratio_cpu": round(
                statistics.median(b.cpu_s / a.cpu_s for a, b in zip(mine, other, strict=True)), 2
            ),
            "datatrove": {
                **judged(gone, planted),
                "seconds": round(statistics.median(each.seconds for each in other), 2),
                "cpu_s": round(statistics.median(each.cpu_s for each in other), 2),
                "peak_rss_bytes": max(each.peak_rss_bytes for each in other),
                "left_out": len(gone),
                "steps": json.loads(other[-1].out.splitlines()[-1]),
            },
        }
    return told


def grown(folder: Path, documents: int, times: int) -> dict[str, Any]:
    """Our memory with so many documents and with some times as many."""
    told = {}
    for factor in (1, times):
        inputs = folder / f"in-{factor}"
        planted = prepare(inputs, documents * factor)
        run = ours(inputs, folder / "grown")
        told[f"{factor}x"] = {
            "documents": planted.documents,
            "characters": planted.characters,
            "peak_rss_bytes": run.peak_rss_bytes,
            "seconds": round(run.seconds, 1),
        }
        shutil.rmtree(inputs)
    return told


def datatrove_environment() -> Path:
    """The interpreter of datatrove's own environment, made first if it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    wanted = hashlib.sha256(WANTED.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / "installed"
    if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
        return python
    print(f"making {ENVIRONMENT.name} from {WANTED.name}: minutes, once", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(WANTED)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted, encoding="ascii")
    return python


def main() -> int:
    """Parses, measures, prints; 1 if kills changed anything."""
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    about.add_argument("--documents", type=int, default=50_000)
    about.add_argument("--rounds", type=int, default=1)
    about.add_argument("--times", type=int, help="instead: our memory at 1x and at so many times")
    about.add_argument("--kills", type=int, help="instead: kill -9 so often, compare every file")
    about.add_argument("--engines", action="store_true", help="instead: the corpora of all engines")
    about.add_argument(
        "--kill-workers", type=int, metavar="N", help="with --engines: kill Ray's, N times at most"
    )
    about.add_argument("--without-datatrove", action="store_true", help="only ours")
    about.add_argument("--folder", type=Path, help="where it all lies meanwhile; default: /tmp")
    about.add_argument("--json", action="store_true")
    asked = about.parse_args()
    os.environ.update(ONE_THREAD)
    with tempfile.TemporaryDirectory(prefix="corpus-", dir=asked.folder) as name:
        folder = Path(name)
        if asked.times:
            told = grown(folder, asked.documents, asked.times)
        elif asked.kills:
            from corpus_kills import torture

            told = torture(folder, asked.documents, asked.kills)
        elif asked.engines:
            from corpus_kills import engines

            told = engines(folder, asked.documents, asked.kill_workers or 0)
        else:
            python = None if asked.without_datatrove else datatrove_environment()
            told = measure(folder, asked.documents, asked.rounds, python)
    if asked.json:
        print(json.dumps(told))
    else:
        for key, value in told.items():
            print(f"{key:16} {value}")
    return 0 if told.get("equal", True) else 1


if __name__ == "__main__":
    sys.exit(main())
