"""The documented fetching script on a hub and an OPUS of our own: every documented line, resumed,
refused, and what becomes of its tokens."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documented import Ran, ran
from served import Reply, Served, serving

from compat.mypt.sourcing import SourcesFile, read_sources
from matura.core.errors import RecipeError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.sources.prepared import Prepared
from matura.data.tokens import TokenFolder
from matura.text.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent.parent
CODEC = Tokenizer.bytes_only("mypt")
COMMIT = "0123456789abcdef" * 2 + "01234567"
FETCH = (
    "scripts/fetch_and_prepare_phase1_5.py --sources_file data/sources/phase1_5_induction.json "
    "--out_dir data/phase1_5_induction_raw --total_tokens 40000"
)
OUT = Path("data/phase1_5_induction_raw")


def code(number: int) -> str:
    lines = [f"    total_{number} = total_{number} + values[{n}]" for n in range(8)]
    return "\n".join([f"def add_{number}(values):", f"    total_{number} = 0", *lines]) + "\n"


def rows(field: str, texts: list[str]) -> bytes:
    return b"".join(json.dumps({field: text}).encode() + b"\n" for text in texts)


def shelve(served: Served, id: str, files: dict[str, bytes], licence: str = "mit") -> None:
    """Makes the server a hub that has this set."""
    files = {"README.md": f"---\nlicense: {licence}\n---\n".encode(), **files}
    served.says(f"/api/datasets/{id}/revision/main", Reply(json.dumps({"sha": COMMIT}).encode()))
    listed = [{"type": "file", "path": name, "size": len(raw)} for name, raw in files.items()]
    tree = f"/api/datasets/{id}/tree/{COMMIT}?recursive=true&expand=false"
    served.says(tree, Reply(json.dumps(listed).encode()))
    for name, raw in files.items():
        served.says(f"/datasets/{id}/resolve/{COMMIT}/{name}", Reply(raw, etag=f'"{len(raw)}"'))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A folder to work in, a file of three sources, and the server that has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MATURA_OFFLINE", raising=False)
    with serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        texts = [code(number) for number in range(300)]
        shelve(served, "some/code", {"python/train-0.jsonl": rows("content", [*texts, "x = 1\n"])})
        answer = "<p>You can say it in many words, and then again in some more words.</p>"
        told = [f"<p>How do I do {n}?</p>{answer}" for n in range(300)]
        shelve(served, "some/answers", {"train-0.jsonl": rows("text", told)})
        lines = "\n".join(f"- This is line {n} of a film, which is long." for n in range(4000))
        served.says("/OPUS-Films/v1/mono/en.txt.gz", Reply(gzip.compress(lines.encode())))
        write_sources(served)
        yield served


def write_sources(served: Served, **changed: Any) -> None:
    hugging: dict[str, Any] = {"type": "huggingface", "est_tokens": 1_000_000}
    sources: dict[str, dict[str, Any]] = {
        "codeparrot": {
            **hugging,
            "dataset_id": "some/code",
            "data_dir": "python",
            "text_field": "content",
        },
        "opensub_en": {
            "type": "opus",
            "url": f"{served.url}/OPUS-Films/v1/mono/en.txt.gz",
            "language": "en",
        },
        "stackoverflow": {**hugging, "dataset_id": "some/answers", **changed},
    }
    about = {
        "name": "tiny",
        "default_weights": {"codeparrot": 2, "opensub_en": 1, "stackoverflow": 1},
        "sources": sources,
        "replay": {"wiki": 0.1},
    }
    path = Path("data/sources/phase1_5_induction.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about))


def made(line: str = FETCH) -> Ran:
    done = ran(line)
    assert done.code == 0, done.err
    return done


def documents(split: str) -> list[str]:
    source = Prepared(path=OUT)
    given = Given(rng=rng(0), tokenizer=CODEC, split="train" if split == "train" else "validation")
    return [CODEC.decode(thing.ids or ()) for thing in source.read(given) if _is(thing)]


def _is(thing: object) -> bool:
    return isinstance(thing, Document)


def test_the_documented_line_makes_tokens_that_can_be_trained_on(hub: Served) -> None:
    done = made()
    assert "codeparrot" in done.out
    folder = TokenFolder.open(OUT)
    told = folder.about
    assert folder.count("train") == told["train_tokens"]
    assert folder.count("val") == told["val_tokens"]
    assert told["licences"] == {
        "codeparrot": "mit",
        "opensub_en": "as OPUS's page of Films says",
        "stackoverflow": "mit",
    }
    assert sum(told["origins"].values()) == pytest.approx(1)
    both = documents("train") + documents("val")
    assert code(7) in both  # indentation and bytes as they were
    assert "x = 1\n" not in both  # too short for the cleaner
    assert not any("DOC START" in text or "<p>" in text for text in both)
    assert len(both) == len(set(both)) == sum(one["documents"] for one in told["sources"].values())
    for key in told["sources"]:  # validation holds every source, not the last one
        assert list((OUT / "val").glob(f"{key}_*.bin"))
    share = len(documents("val")) / len(both)
    assert 0.01 < share < 0.12


def test_only_these_sources(hub: Served) -> None:
    made(f"{FETCH} --sources codeparrot opensub_en")
    assert set(TokenFolder.open(OUT).about["sources"]) == {"codeparrot", "opensub_en"}
    assert not any("answers" in path for path, _ in hub.asked)
    done = ran(f"{FETCH} --sources codeparot")
    assert done.code == 2
    assert "did you mean 'codeparrot'" in done.err


def test_an_interrupted_download_goes_on(hub: Served) -> None:
    path = f"/datasets/some/answers/resolve/{COMMIT}/train-0.jsonl"
    whole = hub.replies[path]
    hub.says(path, Reply(b"gone", status=404))
    done = ran(FETCH)
    assert done.code == 1
    assert not OUT.exists()
    done = made(f"{FETCH} --skip_download")
    assert "not downloaded, left out: stackoverflow" in done.err
    hub.replies[path] = whole
    hub.asked.clear()
    assert "codeparrot: there already" in made().err
    assert not any("some/code" in path for path, _ in hub.asked)
    assert set(TokenFolder.open(OUT).about["sources"]) == {
        "codeparrot",
        "opensub_en",
        "stackoverflow",
    }


def test_skip_download_needs_something(hub: Served) -> None:
    done = ran(f"{FETCH} --skip_download")
    assert done.code == 1
    assert "none of the sources is there" in done.err


def test_the_steps_one_by_one(hub: Served) -> None:
    one = f"{FETCH} --raw_dir raw --clean_dir clean --tokens_per_shard 3000 "
    one += "--sources codeparrot stackoverflow"
    made(f"{one} --download_only")
    assert Path("raw/codeparrot/shard-00000.txt").read_text().startswith("==== DOC START ====")
    assert not Path("clean").exists()
    made(f"{one} --clean_only")
    assert (Path("clean/codeparrot/cleaning.json")).is_file()
    assert not OUT.exists()
    made(f"{one} --skip_download --skip_clean --val_fraction 0.2")
    assert any("<p>" in text for text in documents("train"))
    assert len(list((OUT / "train").glob("codeparrot_*.bin"))) > 1
    first = {path.name: path.read_bytes() for path in (OUT / "train").iterdir()}
    made(f"{one} --skip_download --skip_clean --val_fraction 0.2")
    assert first == {path.name: path.read_bytes() for path in (OUT / "train").iterdir()}


def test_a_few_documents_are_split_all_the_same(hub: Served) -> None:
    made(f"{FETCH} --skip_clean --total_tokens 1000 --sources codeparrot --val_fraction 0.001")
    assert len(documents("val")) == 1
    assert len(documents("train")) > 1
    done = ran(f"{FETCH} --skip_clean --sources opensub_en --out_dir other")
    assert done.code == 1
    assert "too little to be split: one document; fetch more of opensub_en" in done.err
    assert not Path("other").exists()


def test_weights_are_shares_of_the_total_and_a_changed_one_fetches_anew(hub: Served) -> None:
    made()
    raw = Path("data/phase1_5_induction_raw_downloads")
    before = json.loads((raw / "stackoverflow/made_from.json").read_text())
    assert before["tokens"] == 10_000
    done = made(f"{FETCH} --weight stackoverflow:0.1")
    after = json.loads((raw / "stackoverflow/made_from.json").read_text())
    assert after["tokens"] == round(40_000 * 0.1 / 3.1)
    assert after["characters"] < before["characters"]
    assert "was made from something else" in done.err
    for wrong in ("--weight nothing:1", "--weight stackoverflow", "--total_tokens 0"):
        assert ran(f"{FETCH} {wrong}").code == 2


def test_a_licence_nobody_names_is_refused_unless_allowed(hub: Served) -> None:
    shelve(hub, "some/answers", {"train-0.jsonl": rows("text", ["one"])}, licence="unknown")
    done = ran(FETCH)
    assert done.code == 1
    assert "its card names no licence" in done.err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text_feild": "x"}, "did you mean 'text_field'"),
        ({"type": "web"}, "sources.stackoverflow.type"),
        ({"dataset_id": None}, "needs its 'dataset_id'"),
    ],
)
def test_a_wrong_file_of_sources_is_refused(
    hub: Served, changed: dict[str, Any], said: str
) -> None:
    write_sources(hub, **changed)
    done = ran(FETCH)
    assert done.code == 2
    assert "data/sources/phase1_5_induction.json: sources.stackoverflow" in done.err
    assert said in done.err


def test_a_folder_of_something_else_is_left_alone(hub: Served) -> None:
    OUT.mkdir(parents=True)
    (OUT / "thesis.txt").write_text("years of work")
    done = ran(FETCH)
    assert done.code == 2
    assert (OUT / "thesis.txt").read_text() == "years of work"


def test_the_file_that_is_shipped_holds_the_documented_sources() -> None:
    about = read_sources(ROOT / "compat/mypt/data/sources/phase1_5_induction.json")
    budgets = about.budgets(3_500_000_000, {})
    assert len(budgets) == 8
    assert sum(budgets.values()) == pytest.approx(3_500_000_000, abs=8)
    whole = 0.87  # shares of the mix that it is for
    assert budgets["codeparrot"] == pytest.approx(0.25 / whole * 3.5e9, rel=1e-3)
    kinds = {key: entry.kind_of_text(key) for key, entry in about.sources.items()}
    bare = SourcesFile.model_validate(
        {
            "sources": {
                key: {k: v for k, v in entry.model_dump().items() if k != "cleaner"}
                for key, entry in about.sources.items()
            }
        }
    )
    assert {key: entry.kind_of_text(key) for key, entry in bare.sources.items()} == kinds
    for key, entry in about.sources.items():
        assert len(entry.sources(budgets[key])) == 1
    joined = about.sources["codeparrot"].model_copy(update={"split": "train+validation"})
    assert [source.split for source in joined.sources(5)] == ["train", "validation"]  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="no such file"):
        read_sources(Path("data/sources/phase9.json"))


def test_a_script_runs_from_any_folder_without_installing(tmp_path: Path) -> None:
    script = ROOT / "compat/mypt/scripts/fetch_and_prepare_phase1_5.py"
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script, "--sources_file", "s.json", "--out_dir", "o"],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "s.json: no such file" in done.stderr
    assert not any(tmp_path.iterdir())
