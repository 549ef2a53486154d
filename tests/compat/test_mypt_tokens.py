"""Token folders, and what the documented commands refuse: in one line, with an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from documented import Run, ran

from matura.core.errors import DataError
from matura.core.rng import rng
from matura.core.types import Document, Given
from matura.data.sources.prepared import Prepared
from matura.data.tokens import TokenFolder
from matura.text.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent.parent
CODEC = Tokenizer.bytes_only("mypt")
MIX = (
    "scripts/mix_tokenized_datasets.py --domain_dir data/phase1_5_induction_raw "
    "--replay_dir data/multilingual_1.5B_wiki90 --replay2_dir data/domain_161M_corpus_tokenized "
    "--output_dir data/phase1_5_mixed --replay_ratio 0.10 --replay2_ratio 0.03"
)
TRAIN = (
    "train.py --model_name domain_v6_induction --dataset_dir data/phase1_5_mixed "
    "--config_file configs/base/750M_phase1_5_induction.json --init_from_model domain_v5"
)


def token_folder(folder: Path, tokens: int, *, low: int, dtype: str = "uint32") -> None:
    """Two training files and one for validation, of ids from `low` to `low` + 49."""
    draw = np.arange(tokens) % 50 + low
    width = "<u4" if dtype == "uint32" else "<u2"
    for name, ids in (
        ("train/shard_00000/a.bin", draw[: tokens // 2]),
        ("train/shard_00001/b.bin", draw[tokens // 2 :]),
        ("val/a.bin", draw[:500]),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ids.astype(width).tofile(path)
    (folder / "dataset_metadata.json").write_text(json.dumps({"dtype": dtype}))
    (folder / "tokenizer_state.json").write_text('{"is": "one"}')


@pytest.fixture(scope="module")
def corpora(workspace: Path) -> Path:
    """The documents' three folders, small; the second spells a token in 2 bytes."""
    data = workspace / "data"
    token_folder(data / "phase1_5_induction_raw", 8_700, low=0)
    token_folder(data / "multilingual_1.5B_wiki90", 5_000, low=50, dtype="uint16")
    token_folder(data / "domain_161M_corpus_tokenized", 2_000, low=100)
    return data


def test_replay_has_the_share_that_was_asked_for(run: Run, corpora: Path) -> None:
    done = run(MIX)
    assert done.code == 0, done.err
    folder = TokenFolder.open(corpora / "phase1_5_mixed")
    ids = np.concatenate([folder.tokens(file) for file in folder.files("train")])
    assert len(ids) == folder.about["train_tokens"] == 10_000
    shares = [float(np.mean((ids >= low) & (ids < low + 50))) for low in (0, 50, 100)]
    assert shares == pytest.approx([0.87, 0.10, 0.03], abs=1e-6)
    assert folder.count("val") == 1_500  # every part keeps its own
    assert "8,700 tokens = 87.00%" in done.out
    assert "10.00%" in done.out


def test_more_training_of_a_base_runs_as_documented(run: Run, corpora: Path) -> None:
    assert run(MIX).code == 0
    done = run(f"{TRAIN} --max_iters 4 --batch_size 2 --warmup_iters 1 --eval_interval 2")
    assert done.code == 0, done.err
    record = json.loads(Path("checkpoints/domain_v6_induction/record.json").read_text())
    stage = record["asked"]["stage"]
    assert stage["kind"] == "pretrain"
    assert stage["train"]["tokens"] == 4 * 2 * 256
    assert stage["train"]["weight_decay"] == 0.1
    assert "dropout (Matura's models have none)" in done.err
    assert "n_layer 32 (the start model's is 2)" in done.err
    assert (
        run("generate.py --model_name domain_v6_induction --prompt 'A B' --temperature 0").code == 0
    )


def test_a_share_out_of_reach_is_refused_with_what_can_be_reached(run: Run, corpora: Path) -> None:
    done = run(MIX.replace("0.03", "0.3").replace("phase1_5_mixed", "other"))
    assert done.code == 1
    assert "at most" in done.err
    assert not (corpora / "other").exists()


def test_another_tokenizer_is_refused(run: Run, corpora: Path) -> None:
    (corpora / "foreign").mkdir()
    token_folder(corpora / "foreign", 5_000, low=0)
    (corpora / "foreign/tokenizer_state.json").write_text('{"is": "another"}')
    done = run(MIX.replace("data/multilingual_1.5B_wiki90", "data/foreign"))
    assert done.code == 1
    assert "another tokenizer" in done.err


def test_token_files_are_checked_for_all_that_they_do_not_say(tmp_path: Path) -> None:
    token_folder(tmp_path / "a", 1000, low=0, dtype="uint16")
    (tmp_path / "a/dataset_metadata.json").write_text('{"dtype": "uint32"}')
    given = Given(rng=rng(0, "test"), tokenizer=CODEC)
    with pytest.raises(DataError, match="another tokenizer, or with another dtype"):
        list(Prepared(path=tmp_path / "a").read(given))
    token_folder(tmp_path / "b", 1000, low=0)
    with (tmp_path / "b/train/shard_00000/a.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="no whole number of tokens"):
        list(Prepared(path=tmp_path / "b").read(given))
    (tmp_path / "b/train/episodes.idx").write_bytes(b"")
    with pytest.raises(DataError, match="prepare it again from its JSONL"):
        list(Prepared(path=tmp_path / "b").read(given))


def test_no_token_is_lost_or_comes_twice(tmp_path: Path) -> None:
    token_folder(tmp_path, 9_999, low=0)
    given = Given(rng=rng(0, "test"), tokenizer=CODEC)
    documents = list(Prepared(path=tmp_path).read(given))
    assert all(isinstance(document, Document) for document in documents)
    ids = [id for document in documents for id in document.ids or ()]  # type: ignore[union-attr]
    assert ids == [number % 50 for number in range(9_999)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (TRAIN.replace("phase1_5_mixed", "nowhere"), "fetch_and_prepare_phase1_5.py"),
        (TRAIN.replace("domain_v5", "domain_v9"), "did you mean 'domain_v5'"),
        (TRAIN.replace("750M_phase1_5", "750M_phase1_6"), "did you mean"),
        ("train.py --model_name x --dataset_dir data --config_file c.json", "no such file"),
        ("scripts/prepare_chat_sft.py --input a.jsonl --output_dir b --val_split 1", "share above"),
        ("scripts/generate_echo_dataset.py --gib only", "unrecognized arguments"),
        ("scripts/prepare_chat_sft.py --inp a.jsonl --output_dir b", "required"),
    ],
)
def test_wrong_names_and_halves_of_options_are_usage_errors(run: Run, line: str, said: str) -> None:
    done = ran(line)
    assert done.code == 2
    assert said in done.err


def test_a_bad_row_is_named_by_its_line(run: Run, workspace: Path) -> None:
    Path("bad.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    for script in (
        "scripts/prepare_chat_sft.py --input bad.jsonl --output_dir made",
        "scripts/mix_sft_jsonl.py --inputs bad.jsonl --output made.jsonl",
    ):
        done = ran(script)
        assert done.code == 1
        assert "bad.jsonl:1: " in done.err
    assert not Path("made").exists()
    assert not Path("made.jsonl").exists()


def test_an_unknown_key_of_a_configuration_is_refused(run: Run, corpora: Path) -> None:
    assert run(MIX).code == 0
    Path("typo.json").write_text('{"max_iters": 5, "learning_rate": 1e-4, "neftune_alfa": 5}')
    done = ran(TRAIN.replace("configs/base/750M_phase1_5_induction.json", "typo.json"))
    assert done.code == 2
    assert "typo.json: neftune_alfa: is not known (did you mean 'neftune_alpha'?)" in done.err


@pytest.mark.parametrize("script", sorted((ROOT / "compat/mypt/scripts").glob("[a-z]*.py")))
def test_every_script_explains_itself(run: Run, script: Path) -> None:
    done = run(f"scripts/{script.name} --help")
    assert done.code == 0
    assert "better: matura" in done.out
