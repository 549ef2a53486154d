"""The documented command lines, literally, on a tiny model: artefacts, shares and notices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from documented import Run, ran

from matura.cli.main import COMMANDS
from matura.data.sources.jsonl import Jsonl
from matura.ladder.models import find

PROMPTS = "--eval_prompts_file configs/sft_eval/phase3a1_eval_prompts.json"
ALPHA = (
    "scripts/generate_format_lock_dataset.py --mode minimal --math exclude "
    "--output_dir data/sft_format_lock_alpha",
    "scripts/prepare_chat_sft.py --input data/sft_format_lock_alpha/mypt_format_lock_v1.jsonl "
    "--output_dir data/sft_ready/phase3a1_alpha --val_split 0.1",
    "train.py --model_name phase3a1_alpha --dataset_dir data/sft_ready/phase3a1_alpha "
    "--init_from_model domain_v5_sft_ready "
    f"--config_file configs/sft1/750M_phase3a1_alpha.json {PROMPTS}",
)
BETA = (
    "scripts/generate_echo_dataset.py --gibberish exclude --max_examples 2500 "
    "--output_dir data/sft_echo_beta",
    "scripts/mix_sft_jsonl.py --inputs data/sft_echo_beta/mypt_echo_diverse.jsonl "
    "data/sft_format_lock_alpha/mypt_format_lock_v1.jsonl "
    "--output data/sft_mixed/phase3a1_beta_mixed.jsonl --shuffle",
    "scripts/prepare_chat_sft.py --input data/sft_mixed/phase3a1_beta_mixed.jsonl "
    "--output_dir data/sft_ready/phase3a1_beta --val_split 0.1",
    "train.py --model_name phase3a1_beta --dataset_dir data/sft_ready/phase3a1_beta "
    "--init_from_model phase3a1_alpha "
    f"--config_file configs/sft1/750M_phase3a1_beta.json {PROMPTS}",
)
GAMMA = (
    "scripts/generate_echo_dataset.py --gibberish only --output_dir data/sft_echo_gamma",
    "scripts/mix_sft_jsonl.py --inputs data/sft_echo_gamma/mypt_echo_diverse.jsonl "
    "data/sft_echo_beta/mypt_echo_diverse.jsonl "
    "--output data/sft_mixed/phase3a1_gamma_mixed.jsonl --shuffle",
    "scripts/prepare_chat_sft.py --input data/sft_mixed/phase3a1_gamma_mixed.jsonl "
    "--output_dir data/sft_ready/phase3a1_gamma --val_split 0.1",
    "train.py --model_name phase3a1_gamma --dataset_dir data/sft_ready/phase3a1_gamma "
    "--init_from_model phase3a1_beta "
    f"--config_file configs/sft1/750M_phase3a1_gamma.json {PROMPTS}",
)
KNOWLEDGE = (
    "scripts/generate_format_lock_dataset.py --mode full --math include "
    "--output_dir data/sft_format_lock_3a2",
    "scripts/mix_sft_jsonl.py --inputs data/sft_format_lock_3a2/mypt_format_lock_v1.jsonl "
    "data/sft_echo_beta/mypt_echo_diverse.jsonl "
    "--output data/sft_mixed/phase3a2_mixed.jsonl --shuffle",
    "scripts/prepare_chat_sft.py --input data/sft_mixed/phase3a2_mixed.jsonl "
    "--output_dir data/sft_ready/phase3a2 --val_split 0.1",
    "train.py --model_name phase3a2 --dataset_dir data/sft_ready/phase3a2 "
    "--init_from_model phase3a1_gamma "
    f"--config_file configs/sft1/750M_phase3a2.json {PROMPTS}",
)
REGIME = (
    "scripts/generate_format_lock_dataset.py",
    "scripts/prepare_chat_sft.py --input data/sft_format_lock/mypt_format_lock_v1.jsonl "
    "--output data/sft_format_lock_prepared --val_split 0.1",
    "train.py --model_name phase3a1_format_lock --init_from_model domain_v5 "
    "--config_file configs/sft1/750M_phase3a1_format_lock.json "
    "--dataset_dir data/sft_format_lock_prepared",
)
REGIME_QA = (
    "scripts/generate_run2_minimal_qa.py",
    "scripts/prepare_chat_sft.py "
    "--input data/sft_run2_minimal_qa/mypt_run2_minimal_qa_v1.jsonl "
    "--output data/sft_run2_prepared --val_split 0.1",
    "train.py --model_name phase3a2_minimal_qa --init_from_model phase3a1_format_lock "
    "--config_file configs/sft1/750M_phase3a2_minimal_qa.json "
    "--dataset_dir data/sft_run2_prepared",
)
SYSTEM = "<myPT_system>You are MyPT. Be concise: 1-2 sentences. Follow instructions exactly."
NEWER = SYSTEM + "</myPT_system><myPT_user>Say hello.</myPT_user><myPT_assistant>"
OLDER = (
    "<myPT_system>You are MyPT.<myPT_eot>\\n<myPT_user>Sag Grüß Gott.<myPT_eot>\\n<myPT_assistant>"
)


def climbed(run: Run, *chains: tuple[str, ...]) -> None:
    for line in (line for chain in chains for line in chain):
        done = run(line)
        assert done.code == 0, f"{line}\n{done.err}"
        assert "better: matura " in done.err
        assert done.out


def rows(path: str) -> int:
    return len(Path(path).read_text(encoding="utf-8").splitlines())


def test_alpha_runs_as_documented(run: Run) -> None:
    climbed(run, ALPHA)
    first = json.loads(Path("checkpoints/phase3a1_alpha/record.json").read_text())
    assert first["asked"]["stage"]["tags"] == "weighted"
    assert first["numbers"]["tags_weighted"]
    assert "taken for domain_v5" in run(ALPHA[2]).err


@pytest.mark.slow
def test_beta_and_gamma_run_as_documented(run: Run) -> None:
    climbed(run, ALPHA, BETA, GAMMA)
    for name in ("phase3a1_alpha", "phase3a1_beta", "phase3a1_gamma"):
        found = find(Path("checkpoints", name))
        assert found.speaks == "chat"
        assert found.template().dialect.name == "mypt"
        answers = Path("checkpoints", name, "eval_prompts.jsonl")
        asked = [json.loads(line) for line in answers.read_text().splitlines()]
        assert {"Hallo.", "hello.", "Zanthor quexling"} <= {row["expected"] for row in asked}
    record = json.loads(Path("checkpoints/phase3a1_beta/record.json").read_text())
    assert record["numbers"]["started_from"].endswith("phase3a1_alpha")
    assert record["asked"]["stage"]["tags"] == "as they are"


@pytest.mark.slow
def test_knowledge_and_the_other_regime_run_as_documented(run: Run) -> None:
    climbed(run, ALPHA, BETA, GAMMA, KNOWLEDGE, REGIME, REGIME_QA)
    record = json.loads(Path("checkpoints/phase3a1_format_lock/record.json").read_text())
    assert record["asked"]["stage"]["tags"] == "weighted"  # domain_v5 never saw a tag
    assert "eval set format_lock: loss" in run(REGIME_QA[2]).out


@pytest.mark.parametrize(
    ("line", "path", "documented"),
    [
        (ALPHA[0], "data/sft_format_lock_alpha/mypt_format_lock_v1.jsonl", 1_000),
        (BETA[0], "data/sft_echo_beta/mypt_echo_diverse.jsonl", 2_500),
        (GAMMA[0], "data/sft_echo_gamma/mypt_echo_diverse.jsonl", 3_500),
        (KNOWLEDGE[0], "data/sft_format_lock_3a2/mypt_format_lock_v1.jsonl", 11_000),
        (REGIME[0], "data/sft_format_lock/mypt_format_lock_v1.jsonl", 500),
        (REGIME_QA[0], "data/sft_run2_minimal_qa/mypt_run2_minimal_qa_v1.jsonl", 1_000),
    ],
)
def test_sets_have_the_documented_names_and_sizes(
    run: Run, line: str, path: str, documented: int
) -> None:
    assert run(line).code == 0
    assert rows(path) == pytest.approx(documented, rel=0.1)
    episode = json.loads(Path(path).read_text(encoding="utf-8").splitlines()[0])
    assert {"context", "messages", "language", "_meta"} <= episode.keys()
    assert {"payload", "template", "expected", "operator"} <= episode["_meta"].keys()


def test_a_prepared_folder_holds_the_same_as_text_and_as_tokens(run: Run) -> None:
    climbed(run, ALPHA[:2])
    folder = Path("data/sft_ready/phase3a1_alpha")
    about = json.loads((folder / "dataset_metadata.json").read_text())
    assert about["schema"] == "episode_indexed_sft_v1"
    assert json.loads((folder / "tokenizer_state.json").read_text())["dialect"] == "mypt"
    payloads = []
    for split in ("train", "val"):
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        index = np.fromfile(folder / split / "episodes.idx", dtype="<u8").reshape(-1, 2)
        ids = np.fromfile(folder / split / "tokens.bin", dtype="<u4")
        mask = np.fromfile(folder / split / "mask.bin", dtype="u1")
        assert len(index) == len(lines) == about["episodes"][split]
        assert len(ids) == len(mask) == index[:, 1].sum() == about["tokens"][split]
        assert set(mask.tolist()) == {0, 1}
        assert mask.sum() == about["trained_tokens"][split]
        payloads.append({json.loads(line)["_meta"]["payload"].casefold() for line in lines})
    assert not payloads[0] & payloads[1]  # split by content, so nothing is in both
    assert about["val_split"]["got"] == pytest.approx(0.1, abs=0.04)
    kept = sum(about["episodes"].values())
    assert about["rows"] == kept + sum(about["dropped"].values())


def test_fifteen_per_cent_replay_says_what_it_is(run: Run) -> None:
    climbed(run, ALPHA[:1], BETA[:2], GAMMA[:2])
    beta, gamma = run(BETA[1]).out, run(GAMMA[1]).out
    assert "1,000 examples = 28.6% of examples" in beta
    assert "2,500 examples = 41.7% of examples" in gamma
    assert beta.count("of tokens, ") == 2
    text = Path("data/sft_mixed/phase3a1_beta_mixed.jsonl").read_text(encoding="utf-8")
    inputs = [
        Path(path).read_text(encoding="utf-8").splitlines()
        for path in (
            "data/sft_echo_beta/mypt_echo_diverse.jsonl",
            "data/sft_format_lock_alpha/mypt_format_lock_v1.jsonl",
        )
    ]
    assert sorted(text.splitlines()) == sorted(inputs[0] + inputs[1])
    assert text.splitlines() != inputs[0] + inputs[1]


def test_prompts_are_read_in_both_documented_forms(run: Run) -> None:
    climbed(run, ALPHA)
    line = "generate.py {} phase3a1_alpha --prompt '{}' --temperature 0 --max_new_tokens 4"
    newer = run(line.format("--model", NEWER))
    older = run(line.format("--model_name", OLDER))
    assert newer.code == older.code == 0
    assert "read in the form" in older.err
    assert "read in the form" not in newer.err


def test_a_typed_newline_is_the_only_thing_unescaped() -> None:
    from compat.mypt.generating import understood

    turns, _ = understood(OLDER.replace("Grüß", "C:\\\\new \\n Grüß"))
    assert [turn.role for turn in turns] == ["system", "user"]
    assert turns[1].content == "Sag C:\\\\new \\n Grüß Gott."


@pytest.mark.parametrize(
    "prompt", ["A B C D. A B C", "Copy exactly: red mountain peak. Output: red"]
)
def test_generate_takes_the_probes_of_a_base_model(run: Run, prompt: str) -> None:
    done = run(f"generate.py --model_name domain_v5 --prompt '{prompt}' --temperature 0")
    assert done.code == 0


def test_the_same_model_is_not_made_twice_and_never_from_something_else(run: Run) -> None:
    climbed(run, ALPHA)
    again = ran(ALPHA[2])
    assert again.code == 0
    assert "there already" in again.err
    other = ran(ALPHA[2] + " --learning_rate 1e-4")
    assert other.code == 1
    assert "made from something else" in other.err


def test_a_training_that_was_stopped_goes_on_or_is_refused(run: Run) -> None:
    climbed(run, ALPHA)
    again = ALPHA[2].replace("--model_name phase3a1_alpha", "--model_name stopped")
    again = again.removesuffix(PROMPTS)
    work = Path("checkpoints/stopped.work")
    (work / "state/step-00000003").mkdir(parents=True)
    (work / "asked.json").write_text('{"stage": {}}')
    assert ran(again).code == 1  # something was learnt from something else
    (work / "state/step-00000003").rmdir()
    assert ran(again).code == 0  # nothing was
    assert not work.exists()


def test_a_hint_names_a_command_that_exists(run: Run) -> None:
    known = {function.__name__ for function, _ in COMMANDS} | {"data"}
    for line in (ALPHA[0], BETA[0], BETA[1], ALPHA[1], "generate.py --model X --prompt Y"):
        err = run(line).err
        assert err.partition("better: matura ")[2].split()[0] in known


def test_shipped_prompts_and_configurations_are_understood() -> None:
    from compat.mypt.configuring import read_config
    from compat.mypt.places import OURS
    from matura.stages.prompts import load

    configs = sorted(OURS.glob("configs/sft1/*.json")) + sorted(OURS.glob("configs/base/*.json"))
    assert len(configs) == 7
    found = {path.stem: read_config(path, {})[0] for path in configs}
    alpha = found["750M_phase3a1_alpha"]
    assert alpha.max_iters * alpha.batch_size / 1000 == 56  # the documented exposures
    base = found["750M_phase1_5_induction"]
    assert (base.max_iters, base.warmup_iters, base.eval_interval) == (500_000, 5_000, 2_000)
    assert (base.learning_rate, base.weight_decay) == (3e-5, 0.1)
    assert (base.batch_size, base.block_size) == (12, 1024)
    assert base.init_from_model == "domain_v5"
    prompts = load(OURS / "configs/sft_eval/phase3a1_eval_prompts.json")
    assert {p.expected for p in prompts} >= {"hello.", "Hello.", "Hallo."}


def test_what_is_generated_is_read_as_any_other_episode(run: Run) -> None:
    from matura.core.rng import rng
    from matura.core.types import Given

    climbed(run, ALPHA[:1])
    path = Path("data/sft_format_lock_alpha/mypt_format_lock_v1.jsonl")
    talks = list(Jsonl(path=path).read(Given(rng=rng(0, "test"))))
    roles = {tuple(turn.role for turn in talk.messages) for talk in talks}  # type: ignore[union-attr]
    assert roles == {("system", "user", "assistant"), ("user", "assistant")}


def test_the_document_has_a_row_for_every_script() -> None:
    root = Path(__file__).parent.parent.parent
    table = (root / "docs/compat.md").read_text(encoding="utf-8")
    scripts = [*(root / "compat/mypt/scripts").glob("[a-z]*.py")]
    for name in ("train.py", "generate.py", *(path.name for path in scripts)):
        assert f"| `{name} " in table or f"| `{name}`" in table, name


def test_every_line_of_the_document_is_one_that_runs_here() -> None:
    """S001-02, S003: the page shows nothing that these tests do not run."""
    text = (Path(__file__).parent.parent.parent / "docs/compat.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python compat/mypt/(.+)$", text, re.MULTILINE)
    ran_here = {*ALPHA, *BETA, *GAMMA, *KNOWLEDGE, *REGIME, *REGIME_QA}
    assert [line for line in lines if line not in ran_here] == [
        'generate.py --model phase3a1_alpha --prompt "<myPT_system>You are MyPT.</myPT_system>'
        '<myPT_user>Say hello.</myPT_user><myPT_assistant>" --temperature 0'
    ]
    assert len(lines) == 4


def test_a_name_is_never_completed(run: Run) -> None:
    """D-06: the short forms worked by accident, until a second option began alike."""
    line = "scripts/generate_echo_dataset.py --out data/sft_echo_beta"
    assert run(line).code == 2
    assert "--out" in run(line).err
