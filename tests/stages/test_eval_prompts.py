"""Eval prompts: every form of the file, every mistake with its line, and what is kept of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import recipe_text

from matura.core.errors import DataError, MaturaError, RedLine, StoreError
from matura.core.ledger import Ledger, read_rows
from matura.core.record import plain
from matura.core.store import publish
from matura.core.types import Message
from matura.ladder.climb import asked_of
from matura.ladder.recipe import Recipe, loads
from matura.models import hf
from matura.models.decoder import Decoder
from matura.report.html import _samples
from matura.report.prompted import prompted
from matura.stages.prompts import MAX_TOKENS, SAID, Prompt, load
from matura.stages.stage import Context, Made
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer

SYSTEM = "You are MyPT. Be concise: 1-2 sentences. Follow instructions exactly."
TAGGED = f"<myPT_system>{SYSTEM}</myPT_system><myPT_user>Say hello.</myPT_user><myPT_assistant>"


def written(folder: Path, text: str, name: str = "prompts.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


# Forms


def test_mypts_form_is_read_and_its_tags_become_messages(tmp_path: Path) -> None:
    """S001-07, S001-09: prompts and expected outputs by name, in the run's own dialect."""
    whole = {
        "description": "alpha",
        "system_prompt": SYSTEM,
        "prompts": {"hello": TAGGED, "hallo": "Sag Hallo."},
        "expected_outputs": {"hello": "hello.", "hallo": "Hallo."},
        "notes": ["any"],
    }
    hello, hallo = load(written(tmp_path, json.dumps(whole, indent=2)))
    system = Message("system", SYSTEM)
    assert hello == Prompt("hello", (system, *user("Say hello.")), "hello.")
    assert hallo == Prompt("hallo", (system, *user("Sag Hallo.")), "Hallo.")
    for dialect in ("mypt", "matura", "chatml"):
        template = Template(Tokenizer.bytes_only(dialect))
        spelled = template.spell(template.prompt(hello.messages))
        assert "Say hello." in spelled
        assert ("<myPT_user>" in spelled) == (dialect == "mypt")
    legacy = TAGGED.replace("</myPT_user>", "<myPT_eot>\n").replace(
        "</myPT_system>", "<myPT_eot>\n"
    )
    assert load(written(tmp_path, json.dumps([legacy])))[0].messages == hello.messages


def test_lists_and_lines(tmp_path: Path) -> None:
    entries: list[Any] = [
        "Repeat: Hello world",
        {"prompt": "Echo: Testing 123", "expected": "Testing 123", "name": "echo"},
        {"prompt": "Say: Blurpix", "expected": "", "system": "Be brief.", "max_tokens": 5},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                      {"role": "user", "content": "c <|user|> Ä\u2028"}]},
    ]  # fmt: skip
    lines = "\ufeff" + "\r\n\r\n".join(json.dumps(entry) for entry in entries) + "\n"
    found = load(written(tmp_path, lines, "p.jsonl"))
    assert [p.name for p in found] == ["line 1", "echo", "line 5", "line 7"]
    assert found[0] == Prompt("line 1", user("Repeat: Hello world"), None, MAX_TOKENS)
    assert found[2].messages[0] == Message("system", "Be brief.")
    assert (found[2].expected, found[2].max_tokens) == ("", 5)
    assert [m.role for m in found[3].messages] == ["user", "assistant", "user"]
    for text in (
        json.dumps(entries),
        json.dumps(entries, indent=3, ensure_ascii=False),
        json.dumps({"prompts": entries}),
        "\n".join(map(json.dumps, entries)),  # lines in a file called .json
    ):
        again = load(written(tmp_path, text))
        assert [(p.messages, p.expected, p.max_tokens) for p in again] == [
            (p.messages, p.expected, p.max_tokens) for p in found
        ]


MISTAKES = {
    "[]": "no prompts",
    "": "no prompts",
    '["a",\n"b"\n"c"]': ":3: bad JSON at column 1",
    '{"prompts": {"a": "x",\n"a": "y"}}': ":2: key 'a' stands twice",
    '{"prompts": ["a"],\n"expcted_outputs": {}}': ":2: unknown key 'expcted_outputs' (did you mean",
    '{\n"prompt": "a"}': ":2: unknown key 'prompt' (did you mean 'prompts'?)",
    '{"prompts": ["a"],\n"expected_outputs": {"a": "b"}}': ":2: 'expected_outputs' needs prompts",
    '{"prompts": {"a": "x"},\n"expected_outputs": {\n"b": "y"}}': ":3: 'b' has an expected output,",
    '{"prompts": {"a": "x"},\n"expected_outputs": {"a": 3}}': ":2: what is expected must be text",
    '{"prompts": "a"}': ":1: 'prompts' cannot be text",
    '{"system": 3,\n"prompts": []}': ":1: 'system' cannot be a number",
    '{\n"notes": "x"}': ":1: no 'prompts', only ['notes']",
    '[\n"a",\n3]': ":3: expected a text, or an object with 'prompt' or 'messages'",
    '[\n"a",\n\n{"prompt": ""}]': ":4: 'prompt' is empty",
    '[{"promt": "a"}]': ":1: unknown key 'promt' (did you mean 'prompt'?)",
    '[{"expected": "a"}]': ":1: expected one of 'prompt' and 'messages'",
    '[{"prompt": "a",\n"prompt": "b"}]': ":1: key 'prompt' stands twice",
    '[{"prompt": "a", "max_tokens": 0}]': ":1: 'max_tokens' must be a whole number above 0",
    '[{"prompt": "a", "max_tokens": true}]': ":1: 'max_tokens' must be",
    '[{"prompt": "a", "expected": 4}]': ":1: 'expected' must be text",
    '[{"prompt": "a", "name": "x"},\n{"prompt": "b", "name": "x"}]': ":2: a second prompt",
    '[{"prompt": NaN}]': "NaN is not JSON",
    '[{"prompt": "\\ud800"}]': "half a character",
    '[{"messages": [{"role": "user", "content": "a"},\n{"role": "assistant", "content": "b"}]}]': (
        ":1: ends with role 'assistant'"
    ),
    '[{"messages": [{"role": "usr", "content": "a"}]}]': ":1: message 1: unknown role 'usr'",
    '["<myPT_user>a"]': ":1: prompt: <myPT_user> is not closed",
    '["<myPT_system>a</myPT_system>"]': ":1: ends with role 'system'",
    '[{"prompt": "<myPT_system>a</myPT_system><myPT_user>b</myPT_user>", "system": "c"}]': (
        ":1: two different system prompts"
    ),
    '"a"\n{"prompt": "b"}\n{"prompt" "c"}': ":3: bad JSON at column 11",
    '{"prompt": "b"}\n[]': ":2: expected a text",
    "[" * 2000: ":1: bad JSON",
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_each_mistake_has_its_file_and_line(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:")
    assert MISTAKES[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "utf16.json").write_bytes('["a"]'.encode("utf-16"))
    (tmp_path / "latin.json").write_bytes('["ä"]'.encode("latin-1"))
    many = written(tmp_path, json.dumps([f"{i}" for i in range(1001)]), "many.json")
    for path in (
        tmp_path,
        tmp_path / "none",
        tmp_path / "utf16.json",
        tmp_path / "latin.json",
        many,
    ):
        with pytest.raises(DataError, match=str(path)):
            load(path)


# In a stage


@pytest.fixture(autouse=True)
def plain_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 and no compiler, on every machine."""
    monkeypatch.setenv("MATURA_DTYPE", "float32")
    monkeypatch.setenv("MATURA_COMPILE", "0")


class Kept(Ledger):
    """A ledger that keeps what it is told, and may be interrupted at an evaluation."""

    def __init__(self, stop: int = 0) -> None:
        super().__init__(None, "chat", mode="quiet")
        self.values: list[tuple[int, dict[str, Any]]] = []
        self.tables: list[tuple[str, list[Any]]] = []
        self.stop = stop

    def row(self, step: int, values: Any, *, clock: Any = None) -> None:
        self.values.append((step, dict(values)))
        if self.stop and step + 1 == self.stop and "loss" in values:
            raise KeyboardInterrupt

    def table(self, title: str, head: Any, rows: Any) -> None:
        self.tables.append((title, [list(row) for row in rows]))


ASKED = [
    {"prompt": "Say river.", "expected": "river.", "max_tokens": 6},
    {"prompt": "<script>", "max_tokens": 4, "name": "free"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the parents of every stage here lie."""
    return tmp_path_factory.mktemp("parents")


@pytest.fixture
def recipe(folder: Path, tmp_path: Path) -> Recipe:
    """Two stages; the second asks prompts."""
    asks = written(tmp_path, json.dumps(ASKED))
    more = f"    kind: sft\n    tags: as they are\n    eval_prompts: {asks}\n"
    return loads(recipe_text(folder).replace("    kind: sft\n", more))


def make(recipe: Recipe, stage: int, work: Path, parents: dict[str, Path], ledger: Ledger) -> Made:
    kind = recipe.stages[stage].model_copy(update={"exams": ()})
    work.mkdir(exist_ok=True)
    context = Context(
        seed=recipe.seed,
        tokenizer=recipe.tokenizer,
        model=recipe.model,
        start=recipe.stages[stage - 1].name if stage else None,
        earlier={s.name: s for s in recipe.stages[:stage]},
        ledger=ledger,
    )
    return kind.make(work, parents, context)


@pytest.fixture
def parents(recipe: Recipe, folder: Path) -> dict[str, Path]:
    """A tokenizer of bytes, and a base with its record; made once."""
    tokenizer, base = folder / "tokenizer@1", folder / "base@1"
    if not base.exists():
        Tokenizer.bytes_only("matura").save(tokenizer / "model")
        made = make(recipe, 0, folder / "base.work", {"tokenizer": tokenizer}, Kept())
        publish(folder / "base.work", base, {"numbers": dict(made.numbers)})
    return {"tokenizer": tokenizer, "base": base}


def test_a_stage_asks_at_each_evaluation_and_a_resumed_one_notes_the_same(
    recipe: Recipe, parents: dict[str, Path], tmp_path: Path
) -> None:
    ledger = Kept()
    made = make(recipe, 1, tmp_path / "chat.work", parents, ledger)
    rows = read_rows(tmp_path / "chat.work" / SAID)
    steps = sorted({row["step"] for row in rows})
    assert [(row["step"], row["name"]) for row in rows] == [
        (step, name) for step in steps for name in ("prompt 1", "free")
    ]
    assert len(steps) == 4
    first = rows[0]
    assert (first["prompt"], first["expected"]) == ("Say river.", "river.")
    assert first["as_expected"] == (first["reply"] == "river." and first["finish_reason"] == "stop")
    assert (rows[1]["expected"], rows[1]["as_expected"]) == (None, None)
    noted = [(step, values) for step, values in ledger.values if "prompts/as_expected" in values]
    assert [step + 1 for step, _ in noted] == steps
    tables = [(title, body) for title, body in ledger.tables if "eval prompts" in title]
    assert len(tables) == 4
    assert tables[0][1][0][:2] == ["prompt 1", "Say river."]
    assert tables[0][1][0][3] == "river."
    assert made.numbers["eval_prompts"]["prompts"] == 2
    assert {step["verdict"] for step in made.numbers["gold"]["steps"]} <= {
        "taken", "refused", "not better"
    }  # fmt: skip
    assert made.numbers["gold"]["guards"]["source_rise_at_most"] == 0.2
    assert made.numbers["gold"]["start"].keys() == {"replay:base.folder"}
    with pytest.raises(KeyboardInterrupt):
        make(recipe, 1, tmp_path / "twin.work", parents, Kept(stop=steps[1] + 2))
    again = make(recipe, 1, tmp_path / "twin.work", parents, Kept())
    assert (tmp_path / "twin.work" / SAID).read_bytes() == (
        tmp_path / "chat.work" / SAID
    ).read_bytes()
    assert again.numbers == made.numbers
    _shown(tmp_path, made)


def _shown(tmp_path: Path, made: Made) -> None:
    """What the report tells of it: escaped, the answers of the step that was kept."""
    folder = publish(tmp_path / "chat.work", tmp_path / "chat@1", {"numbers": dict(made.numbers)})
    answers = prompted(folder)
    assert answers is not None
    assert answers.step == made.numbers["best_step"]
    assert [known for _, known, _ in answers.course] == [1, 1, 1, 1]
    page = "".join(_samples([], [("chat", answers)]))
    assert "Say river." in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_asking_changes_nothing_that_is_learnt(
    recipe: Recipe, parents: dict[str, Path], tmp_path: Path
) -> None:
    make(recipe, 1, tmp_path / "asked", parents, Kept())
    stage = recipe.stages[1].model_copy(update={"eval_prompts": None})
    silent = recipe.model_copy(update={"stages": (recipe.stages[0], stage)})
    make(silent, 1, tmp_path / "silent", parents, Kept())
    weights = [hf.weights_sha256(tmp_path / name / "model") for name in ("asked", "silent")]
    assert weights[0] == weights[1]
    assert plain(stage) == plain(recipe.stages[1])  # no part of what a stage is
    assert not (tmp_path / "silent" / SAID).exists()


def test_a_wrong_file_is_told_before_anything_runs(recipe: Recipe, tmp_path: Path) -> None:
    written(tmp_path, '[\n"a",\n{"promt": "b"}]')
    with pytest.raises(DataError, match=r"prompts.json:3: unknown key 'promt'"):
        asked_of(recipe, 2, {"tokenizer": "tokenizer@1", "base": "base@1"})


def test_a_damaged_file_of_answers_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, '{"step": 1}\n[]\n', SAID)
    with pytest.raises(StoreError, match=rf"{SAID}:2: expected an object with a step"):
        read_rows(path)


# F12 and F13 where a stage begins


def rows_scaled(rows: torch.Tensor) -> None:
    rows[: len(rows) // 2] *= 100


def rows_shuffled(rows: torch.Tensor) -> None:
    rows.copy_(rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))])


def rows_zeroed(rows: torch.Tensor) -> None:
    rows.zero_()


@pytest.mark.parametrize("fault", [rows_scaled, rows_shuffled, rows_zeroed])
def test_f12_a_parent_with_broken_embeddings_is_refused(
    fault: Any, recipe: Recipe, parents: dict[str, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    real = hf.load

    def broken(folder: Path) -> Decoder:
        model = real(folder)
        with torch.no_grad():
            fault(model.model.embed_tokens.weight)
        return model

    monkeypatch.setattr(hf, "load", broken)
    with pytest.raises(MaturaError) as caught:
        make(recipe, 1, tmp_path / "chat.work", parents, Kept())
    assert isinstance(caught.value, RedLine)
    assert "before the first step replay:base.folder costs" in str(caught.value)
