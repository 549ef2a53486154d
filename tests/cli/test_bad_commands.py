"""Forty kinds of bad input: each is one line that names file, line or key, and an exit code of 1
or 2; nothing is left half-written.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Call
from pretend import Pretended, pretend, recipe_text

from matura.core.disk import read_json


class Place(NamedTuple):
    """Where a case puts its bad files, and what it can lean on."""

    here: Path
    tiny: Path
    """A run."""


class Bad(NamedTuple):
    """A kind of bad input."""

    name: str
    arguments: Callable[[Place], list[object]]
    words: tuple[str, ...]
    code: int = 2


def written(place: Place, name: str, text: str | bytes) -> Path:
    path = place.here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def recipe(*changes: tuple[str, str], name: str = "r.yaml") -> Callable[[Place], list[object]]:
    """`run` of a recipe in which texts were replaced."""

    def arguments(place: Place) -> list[object]:
        text = recipe_text(place.here, "bad")
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        return ["run", written(place, name, text)]

    return arguments


def as_is(text: str | bytes, name: str = "r.yaml") -> Callable[[Place], list[object]]:
    return lambda place: ["run", written(place, name, text)]


def chats(text: str | bytes, name: str = "c.jsonl") -> Callable[[Place], list[object]]:
    return lambda place: ["show", "--dialect", "matura", "--messages", written(place, name, text)]


def overridden(*sets: str) -> Callable[[Place], list[object]]:
    def arguments(place: Place) -> list[object]:
        flags = [flag for change in sets for flag in ("--set", change)]
        return ["run", written(place, "r.yaml", recipe_text(place.here, "bad")), *flags]

    return arguments


def damaged(place: Place, hurt: Callable[[Path], None]) -> list[object]:
    """`generate` from a copy of the run after something happened to it."""
    run = shutil.copytree(place.tiny, place.here / "copy")
    hurt(run)
    return ["generate", run, "--prompt", "hi"]


def no_permission(place: Place) -> list[object]:
    path = written(place, "r.yaml", recipe_text(place.here, "bad"))
    path.chmod(0)
    return ["run", path]


GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ROW = json.dumps(GOOD) + "\n"
MODEL = "model: {hidden_size: 32, layers: 2, heads: 2, sequence_length: 64}\n"
DEEP = "a: " + "[" * 3000 + "]" * 3000

CASES = (
    # recipes
    Bad("no such recipe", lambda p: ["run", p.here / "gone.yaml"], ("gone.yaml", "cannot read")),
    Bad("recipe is a folder", lambda p: ["plan", p.here], ("cannot read",)),
    Bad("empty recipe", as_is(""), ("r.yaml", "empty")),
    Bad("recipe is a list", as_is("- a\n"), ("r.yaml:1", "mapping")),
    Bad("bad YAML", as_is("name: [a\nb: c"), ("r.yaml:", "not YAML")),
    Bad("a tab", as_is("name: x\nmodel:\n\thidden_size: 3\n"), ("r.yaml:3", "tab")),
    Bad("bad JSON recipe", as_is('{"name": "x",}', "r.json"), ("r.json:1", "not JSON")),
    Bad("invalid UTF-8 recipe", as_is(b"name: x\nseed: \xff\n"), ("r.yaml:2", "UTF-8")),
    Bad("a key twice", as_is("name: a\nname: b\n"), ("r.yaml:2", "'name'", "line 1")),
    Bad("nested too deeply", as_is(DEEP), ("r.yaml", "nested")),
    Bad("a YAML object tag", as_is("name: !!python/object:os.system x\n"), ("r.yaml:1", "tag")),
    Bad("unknown key", recipe(("seed: 7", "sead: 7")), ("r.yaml:3", "sead", "'seed'")),
    Bad("unknown nested key", recipe(("batch_tokens", "batch_token")), ("r.yaml:10", "batch_tok")),
    Bad("unknown stage kind", recipe(("kind: sft", "kind: sfd")), ("r.yaml:13", "'sfd'", "'sft'")),
    Bad("unknown source", recipe(("kind: folder", "kind: foldr")), ("foldr", "'folder'")),
    Bad("unknown exam", recipe(("exam: echo", "exam: ecko")), ("r.yaml:17", "'ecko'", "'echo'")),
    Bad("unknown dialect", recipe(("dialect: matura", "dialect: latin")), ("r.yaml:4", "latin")),
    Bad("wrong type", recipe(("layers: 2", "layers: two")), ("r.yaml:5", "layers", "two")),
    Bad("number as text", recipe(("seed: 7", "seed: '7'")), ("r.yaml:3", "seed", "text")),
    Bad("out of range", recipe(("share: 0.8", "share: 1.8")), ("share", "1.8")),
    Bad("shares do not sum", recipe(("share: 0.8", "share: 0.7")), ("r.yaml:14", "0.9")),
    Bad("wrong parent", recipe(("stage: base", "stage: bass")), ("r.yaml:15", "bass", "'base'")),
    Bad("heads do not divide", recipe(("heads: 2", "heads: 5")), ("r.yaml:5", "heads")),
    Bad("a bad name", recipe(("name: bad", "name: ../up")), ("r.yaml:2", "name")),
    Bad("missing key", recipe((MODEL, "")), ("r.yaml", "model: missing")),
    Bad("no such --set", overridden("stages.bass.kind=sft"), ("--set", "bass", "'base'")),
    Bad("--set without value", overridden("seed"), ("--set seed", "PLACE=VALUE")),
    Bad("--set of an unknown key", overridden("model.hiden_size=3"), ("--set", "hiden_size")),
    Bad("unreadable recipe", no_permission, ("r.yaml", "ermission")),
    Bad(
        "no such input folder",
        lambda p: [*recipe()(p), "--set", "stages.0.mixture.0.source.path=gone"],
        ("gone",),
        1,
    ),
    Bad(
        "rebuilding no stage",
        lambda p: [*recipe()(p), "--rebuild", "chatt"],
        ("--rebuild chatt", "'chat'"),
    ),
    Bad(
        "runs folder is a file",
        lambda p: [*recipe()(p), "--runs", written(p, "runs", "x")],
        ("runs", "file"),
        1,
    ),
    Bad(
        "unknown hardware",
        lambda p: ["plan", recipe()(p)[1], "--hardware", "h1000"],
        ("--hardware h1000", "h100"),
    ),
    # conversations
    Bad("no such file", lambda p: ["data", "check", p.here / "no.jsonl"], ("no.jsonl",), 1),
    Bad("empty rows", chats(""), ("c.jsonl", "no rows"), 1),
    Bad("bad JSON row", chats(ROW + "{oops\n"), ("c.jsonl:2", "bad JSON"), 1),
    Bad("row of a wrong field", chats('{"mesages": []}\n'), ("c.jsonl:1", "mesages"), 1),
    Bad("unknown role", chats(ROW.replace("user", "usr")), ("c.jsonl:1", "'usr'", "'user'"), 1),
    Bad("answer missing", chats('{"messages": [{"role":"user","content":"a"}]}'), (":1",), 1),
    Bad("invalid UTF-8 row", chats(ROW.encode() + b'{"\xff": 1}\n'), ("c.jsonl:2", "UTF-8"), 1),
    Bad("UTF-16", chats(ROW.encode("utf-16")), ("c.jsonl", "UTF-16"), 1),
    Bad("cut gzip", chats(gzip.compress(ROW.encode())[:-9], "c.jsonl.gz"), ("c.jsonl.gz",), 1),
    Bad("half a character", chats('{"text": "\\ud800"}\n'), ("c.jsonl:1", "half"), 1),
    Bad("dialect not known", lambda p: [*chats(ROW)(p), "--dialect", "chatm"], ("'chatml'",)),
    Bad("no dialect", lambda p: ["show", "--messages", written(p, "c.jsonl", ROW)], ("--dialect",)),
    Bad("no shard", lambda p: ["data", "check", written(p, "a.shard", "x")], ("a.shard",), 1),
    # models and runs
    Bad("no such model", lambda p: ["chat", p.here / "m"], ("m: not there",), 1),
    Bad("nearly a run", lambda p: ["chat", p.tiny.parent / "tiney"], ("'tiny'",), 1),
    Bad("model is a file", lambda p: ["chat", written(p, "f", "x")], ("f: a file",), 1),
    Bad("folder without model", lambda p: ["generate", p.here, "--prompt", "x"], ("no model",), 1),
    Bad("stage without model", lambda p: ["chat", p.tiny / "tokenizer@1"], ("no model",), 1),
    Bad("no such exam", lambda p: ["exam", p.tiny, "ekko"], ("'ekko'", "echo")),
    Bad("empty prompt", lambda p: ["generate", p.tiny, "--prompt", ""], ("empty",)),
    Bad("prompt too long", lambda p: ["generate", p.tiny, "--prompt", "x" * 999], ("tokens",)),
    Bad("no prompt", lambda p: ["generate", p.tiny], ("--prompt",)),
    Bad("bad messages", lambda p: ["generate", p.tiny, "--messages", "[{]"], ("--messages",), 1),
    Bad("not a number", lambda p: ["chat", p.tiny, "--temperature", "hot"], ("temperature",)),
    Bad("transcript of no run", lambda p: ["transcript", p.here / "r"], ("r: not there",), 1),
    Bad("report of no run", lambda p: ["report", p.here], ("recipe.yaml",), 1),
    Bad("no runs", lambda p: ["status", "--runs", p.here / "none"], ("none", "matura run"), 1),
    Bad("no such lesson", lambda p: ["lesson", "eko"], ("'eko'", "echo")),
    Bad("no such lesson option", lambda p: ["lesson", "echo", "gibberich=only"], ("gibberich",)),
    Bad("lesson value", lambda p: ["lesson", "echo", "gibberish=some"], ("gibberish", "'some'")),
    Bad("lesson size", lambda p: ["lesson", "echo", "size=gama"], ("size", "'gamma'")),
    Bad("lesson count", lambda p: ["lesson", "echo", "size=beta", "max_examples=9"], ("2500",)),
    Bad("lesson file", lambda p: ["lesson", "echo", f"never={p.here / 'n'}"], ("cannot be",), 1),
    Bad("no such command", lambda p: ["climb"], ("climb",)),
    Bad("no such option", lambda p: ["run", "x.yaml", "--ste", "a=b"], ("--ste",)),
    Bad(
        "changed weights",
        lambda p: damaged(p, lambda r: flip(r / "chat@1" / "model" / "model.safetensors")),
        ("model.safetensors", "corrupt"),
        1,
    ),
    Bad(
        "torn record",
        lambda p: damaged(p, lambda r: cut(r / "chat@1" / "record.json")),
        ("record.json", "not JSON"),
        1,
    ),
    Bad(
        "missing file",
        lambda p: damaged(p, lambda r: (r / "base@1" / "exams.json").unlink()),
        ("exams.json", "missing"),
        1,
    ),
)  # fmt: skip


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_there_are_forty_kinds() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_line(case: Bad, call: Call, tiny: Pretended, tmp_path: Path) -> None:
    if case.name == "unreadable recipe" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    here = tmp_path / "inputs"
    here.mkdir()
    said = call(case.arguments(Place(here, tiny.run)))
    lines = said.err.strip().splitlines()
    assert said.code == case.code, said.err
    assert "Traceback" not in said.err + said.out
    refusals = [line for line in lines if line.startswith("matura: ")]
    assert len(refusals) == 1, said.err
    assert refusals[0] == lines[-1], said.err
    for word in case.words:
        assert word in refusals[0], said.err
    left = [path for path in (tmp_path / "here").rglob("*") if path.suffix == ".tmp"]
    assert not left
    for folder in (tmp_path / "here").rglob("*@*"):
        assert folder.name.endswith(".work") or (folder / "record.json").is_file()


def test_a_folder_that_may_not_be_written(call: Call, tmp_path: Path) -> None:
    text = recipe_text(tmp_path, "bad")
    (tmp_path / "r.yaml").write_text(text)
    target = "/proc/nothing/runs"
    said = call(["run", tmp_path / "r.yaml", "--runs", target])
    assert said.code == 1
    assert said.err.startswith("matura: /proc")
    assert len(said.err.strip().splitlines()) == 1


def test_an_unforeseen_error_is_one_line_too(tmp_path: Path) -> None:
    code = (
        "import matura.cli.main as m, matura.cli.looking as l\n"
        "def broken(): raise ZeroDivisionError('by nothing')\n"
        "m.COMMANDS = ((broken, 'x'), (l.schema, 'x'))\n"
        "import sys; sys.exit(m.main(['broken']))\n"
    )
    for asked, lines in (("0", 1), ("1", 5)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "MATURA_TRACEBACK": asked},
            check=False,
        )
        assert done.returncode == 1
        assert "ZeroDivisionError" in done.stderr
        assert len(done.stderr.strip().splitlines()) >= lines
        assert ("Traceback" in done.stderr) == (asked == "1")
        if asked == "0":
            assert "MATURA_TRACEBACK=1" in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1


def test_several_mistakes_in_a_recipe_are_all_told(call: Call, tmp_path: Path) -> None:
    text = recipe_text(tmp_path, "bad").replace("layers: 2", "layers: x").replace("seed", "sead")
    (tmp_path / "r.yaml").write_text(text)
    said = call(["run", tmp_path / "r.yaml"])
    assert said.code == 2
    assert len(said.err.strip().splitlines()) == 2
    assert "layers" in said.err
    assert "sead" in said.err


def test_data_check_tells_every_line(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(ROW + "{\n" + ROW + '{"messages": 3}\n')
    said = call(["data", "check", path, "--json"])
    assert said.code == 1
    (report,) = json.loads(said.out)
    assert (report["ok"], report["rows"]) == (False, 4)
    assert f"{path}:2" in said.err
    assert f"{path}:4" in said.err


def test_the_pretended_run_is_whole(tmp_path: Path) -> None:
    made = pretend(tmp_path)
    record = read_json(made.run / "chat@1" / "record.json")
    assert record["numbers"]["mixture"]["parts"].keys() == {"echo", "replay:base.folder"}
