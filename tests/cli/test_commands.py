"""What commands print: help that teaches, JSON that scripts rely on, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Call
from pretend import Pretended, pretend

from matura.cli.main import COMMANDS
from matura.core.errors import GateClosed
from matura.ladder import climb
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

ROWS = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b<|end|>"}]},
    {"prompt": "one", "completion": "two"},
]
HEAVY = ("torch", "transformers", "numpy", "pydantic", "yaml", "tokenizers")


def test_help_is_light_and_lists_every_command() -> None:
    code = (
        "import sys, matura.cli.main as m; c = m.main(['--help'])\n"
        f"print(c, [n for n in {HEAVY!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "0 []"
    for name in ("run", "plan", "status", "show", "transcript", "report", "chat", "generate"):
        assert f" {name} " in done.stdout
    for name in ("exam", "lesson", "data", "schema"):
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("argument", ["transcript", "status", "report"])
def test_reading_a_run_needs_no_torch(argument: str, tiny: Pretended, tmp_path: Path) -> None:
    made = pretend(tmp_path).run if argument == "report" else tiny.run
    code = (
        f"import sys, matura.cli.main as m; c = m.main([{argument!r}, {str(made)!r}])\n"
        "print(c, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "0 False", done.stderr


@pytest.mark.parametrize("name", [command.__name__ for command, _ in COMMANDS])
def test_every_command_teaches_by_example(name: str, call: Call) -> None:
    said = call([name, "--help"])
    assert said.code == 0
    assert "Example: matura" in " ".join(said.out.split())
    assert f"matura {name}" in " ".join(said.out.split())


def test_version(call: Call) -> None:
    said = call(["--version"])
    assert (said.code, said.out.split()[0]) == (0, "matura")


def test_nothing_asked_is_a_usage_error(call: Call) -> None:
    said = call([])
    assert said.code == 2
    assert "Usage" in said.out + said.err


def test_transcript_json_has_its_promised_shape(call: Call, tiny: Pretended) -> None:
    said = call(["transcript", tiny.run, "--json"])
    found = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert list(found) == ["run", "stages"]
    assert found["run"] == "tiny"
    assert [stage["name"] for stage in found["stages"]] == ["tokenizer", "base", "chat"]
    for stage in found["stages"]:
        assert list(stage) == ["name", "attempt", "seconds", "peak_rss_bytes", "tokens", "exams"]
        for exam in stage["exams"]:
            assert list(exam) == ["name", "score", "low", "high", "n", "outcome", "change"]
            assert exam["outcome"] in ("pass", "fail", "inconclusive")
    again = {exam["name"]: exam for exam in found["stages"][2]["exams"]}
    assert again["bpb"]["change"] == pytest.approx(0.05)
    assert again["echo"]["change"] is None


def test_generate_json_has_its_promised_shape(call: Call, tiny: Pretended) -> None:
    asked = ["generate", tiny.run, "--max-tokens", 5, "--json"]
    said = call([*asked, "--prompt", "hello"])
    found = json.loads(said.out)
    assert list(found) == ["prompt_ids", "ids", "text", "finish_reason", "tool_calls"]
    assert found["finish_reason"] in ("stop", "length", "tool_calls")
    assert 1 <= len(found["ids"]) <= 5
    template = Template(Tokenizer.load(tiny.run / "chat@1" / "model"))
    assert template.spell(found["prompt_ids"]) == "<|begin|><|user|>hello<|assistant|>"
    as_messages = call([*asked, "--messages", '[{"role": "user", "content": "hello"}]'])
    assert json.loads(as_messages.out) == found
    bare = call([*asked, "--prompt", "hello", "--no-tools", "--temperature", "0.8", "--seed", 3])
    assert bare.code == 0
    text = call([*asked[:-1], "--prompt", "hello"])
    assert text.out.strip("\n") == found["text"].strip("\n")


def test_generate_reads_messages_from_a_file(call: Call, tiny: Pretended, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"messages": [{"role": "user", "content": "ü"}]}')
    said = call(["generate", tiny.run, "--messages", f"@{path}", "--max-tokens", 2, "--json"])
    assert said.code == 0
    assert len(json.loads(said.out)["ids"]) <= 2


def test_a_base_model_goes_on_with_the_text(call: Call, tiny: Pretended) -> None:
    base = tiny.run / "base@1"
    said = call(["generate", base, "--prompt", "hello", "--max-tokens", 3, "--json"])
    found = json.loads(said.out)
    template = Template(Tokenizer.load(base / "model"))
    assert template.spell(found["prompt_ids"]) == "<|begin|>hello"


def test_a_foreign_folder_is_a_model_too(call: Call, chatty: Path) -> None:
    said = call(["generate", chatty, "--prompt", "hello", "--max-tokens", 3, "--json"])
    assert said.code == 0


@pytest.mark.parametrize("how", ["dialect", "model"])
def test_show_messages_gives_one_object_a_row(
    how: str, call: Call, tiny: Pretended, tmp_path: Path
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)).replace('{"prompt"', '\n{"prompt"'))
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:1] * 3))
    value: object = "matura" if how == "dialect" else tiny.run
    said = call(["show", "--messages", path, f"--{how}", value, "--json"])
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert list(row) == ["ids", "weights", "segments"]
        assert len(row["ids"]) == len(row["weights"]) == len(row["segments"])
        assert set(row["segments"]) == {1}
    template = tiny.template
    trained = [i for i, w in zip(rows[0]["ids"], rows[0]["weights"], strict=True) if w]
    assert template.spell(trained) == "b<|end|><|end_turn|>"
    assert trained.count(template.end_of_turn_id) == 1
    assert template.eos_id not in trained


def test_show_messages_marks_what_is_trained(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n")
    said = call(["show", "--messages", path, "--dialect", "chatml"])
    assert "⟦b<|end|><|im_end|>" in said.out.replace("⏎\n", "")
    assert "\x1b" not in said.out


def test_show_a_run_and_a_recipe(call: Call, tiny: Pretended) -> None:
    said = call(["show", tiny.run])
    assert said.code == 0
    assert "replay:base.folder" in said.out
    found = json.loads(call(["show", tiny.run, "--stage", "base", "--json"]).out)
    assert found["batch"]["stage"] == "base"
    assert {stage["name"] for stage in found["stages"]} == {"base", "chat"}
    recipe = call(["show", tiny.run / "recipe.yaml", "--json"])
    sampled = json.loads(recipe.out)
    assert sampled["sampled"] is True
    assert sampled["stages"][0]["parts"][0]["tokens"] == 4000


def test_status_of_one_run_and_of_all(call: Call, tiny: Pretended) -> None:
    one = json.loads(call(["status", tiny.run, "--json"]).out)
    assert [stage["state"] for stage in one["stages"]] == ["passed"] * 3
    assert one["climbing"] is None
    every = json.loads(call(["status", "--runs", tiny.run.parent, "--json"]).out)
    assert every == [one]
    assert "passed" in call(["status", tiny.run]).out


def test_exam_says_3_when_one_is_not_passed(call: Call, chatty: Path, tiny: Pretended) -> None:
    said = call(["exam", chatty, "echo", "--n", 200, "--json"])
    assert said.code == 3
    (score,) = json.loads(said.out)
    assert score["exam"] == "echo"
    assert score["outcome"] == "fail"
    assert "items" not in score
    drawn = call(["exam", tiny.run, "bpb"])
    assert "bpb" in drawn.out


def test_chat_answers_lines_of_stdin(
    call: Call, tiny: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/clear\n/help\n/quit\n"))
    said = call(["chat", tiny.run, "--max-tokens", 4])
    assert said.code == 0
    assert "tiny/chat@1" in said.err
    assert "forgotten" in said.err


def test_lesson_prints_examples_and_their_diversity(call: Call) -> None:
    said = call(["lesson", "echo", "max_examples=80", "gibberish=only", "--count", 2])
    assert said.code == 0
    assert "unique payloads" in said.out
    found = json.loads(call(["lesson", "arithmetic", "max_examples=70", "--json"]).out)
    assert found["diversity"]["examples"] == 70
    assert len(found["examples"]) == 5


def test_a_lesson_never_makes_what_another_s_exam_asks(call: Call, tmp_path: Path) -> None:
    """What one command prints is what the other takes."""
    asked = call(["lesson", "echo", "--split", "exam", "--count", 60, "--json"])
    never = tmp_path / "never.json"
    never.write_text(asked.out)
    options = ["max_examples=40", f"never={never}"]
    same = ["lesson", "echo", *options, "--split", "exam", "--json", "--count", 40]
    found = json.loads(call(same).out)
    payloads = {row["payload"] for row in json.loads(asked.out)["examples"]}
    assert not payloads & {row["payload"] for row in found["examples"]}
    assert found["diversity"]["held_back"] >= 60
    sized = json.loads(call(["lesson", "format_lock", "size=run1", "--json"]).out)["diversity"]
    assert sized["examples"] == 500 == sum(sized["by_bucket"].values())
    assert 0 < sized["answer_entropy"] < 9


def test_lesson_rows_are_rows_that_train(call: Call, tmp_path: Path) -> None:
    found = json.loads(call(["lesson", "arithmetic", "max_examples=70", "--json"]).out)
    path = tmp_path / "l.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found["examples"]))
    said = call(["data", "check", path, "--json"])
    assert said.code == 0, said.err
    assert json.loads(said.out)[0]["counts"]["conversations"] == 5


def test_schema_is_json_schema(call: Call) -> None:
    found = json.loads(call(["schema"]).out)
    assert found["$schema"].startswith("https://json-schema.org/")
    assert {"name", "stages", "tokenizer", "model"} <= found["properties"].keys()


def test_data_check_reads_recipes_and_shards(call: Call, tiny: Pretended) -> None:
    shard = tiny.run / "chat@1" / "data" / "echo.train.shard"
    said = call(["data", "check", tiny.run / "recipe.yaml", shard, "--json"])
    assert said.code == 0
    assert [report["kind"] for report in json.loads(said.out)] == ["recipe", "shard"]
    assert "ok" in call(["data", "check", shard]).out


def test_no_colour_off_a_terminal(call: Call, tiny: Pretended) -> None:
    for arguments in (["transcript", tiny.run], ["show", tiny.run], ["status", tiny.run]):
        assert "\x1b" not in call(arguments).out


def test_a_closed_gate_is_3_and_still_reports(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pretend(tmp_path, echo=100)

    def closed(*_: object, **__: object) -> None:
        raise GateClosed("chat@1 did not pass: echo fail")

    monkeypatch.setattr(climb, "climb", closed)
    said = call(["run", made.run / "recipe.yaml", "--runs", made.run.parent, "--json"])
    assert said.code == 3
    assert "echo fail" in said.err
    assert json.loads(said.out)["run"] == "tiny"
    assert (made.run / "report.html").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_with_their_code(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    program = (
        "import signal, sys, time, matura.cli.main as m\n"
        # a shell in the background hands down that Ctrl-C is ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def wait():\n"
        "    print('ready', flush=True)\n"
        "    try: time.sleep(30)\n"
        "    except KeyboardInterrupt: print('saved', flush=True); raise\n"
        "def other(): pass\n"
        "m.COMMANDS = ((wait, 'x'), (other, 'x'))\n"
        "sys.exit(m.main(['wait']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert out == "saved\n"
    assert err.startswith("matura: ")
    assert "Traceback" not in err


def test_data_clean_counts_and_its_shards_are_read(call: Call, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name, text in (("a.py", "x = 1  # one\n" * 12), ("b.py", "x\n")):
        (tmp_path / "src" / name).write_text(text)
    words = ["data", "clean", "code", tmp_path / "src", "--into", tmp_path / "out"]
    said = call([*words, "--set", "min_bytes=50", "--json"])
    assert said.code == 0
    (found,) = json.loads(said.out).values()
    assert (found["read"], found["kept"]) == (2, 1)
    assert found["dropped"] == {"code: too small": 1}
    again = call(words)
    assert (again.code, "made already" in again.err) == (1, True)
    assert call([*words[:4], "--into", tmp_path / "o", "--set", "min_byte=1"]).code == 2
    shard = tmp_path / "out" / "shard-00000.txt"
    assert "DOC START" in shard.read_text()


def test_data_fetch_says_when_there_is_nothing_to_fetch(call: Call, tiny: Pretended) -> None:
    said = call(["data", "fetch", tiny.run / "recipe.yaml"])
    assert (said.code, "no source" in said.out) == (0, True)
    assert call(["data", "fetch", tiny.run / "recipe.yaml", "--json"]).out == "[]\n"
