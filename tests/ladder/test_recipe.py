"""A recipe means what it says, or is refused with file, line and a way out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from matura.core.errors import RecipeError
from matura.core.record import plain
from matura.data.sources.stdlib import Stdlib
from matura.exams.bpb import Bpb
from matura.ladder.lineage import input_hashes
from matura.ladder.recipe import Recipe, load, loads, schema, spell
from matura.lessons.echo import Echo

GOOD = """\
name: quick
seed: 3
tokenizer: {kind: bpe, vocab_size: 2048, dialect: matura}
model: {hidden_size: 192, layers: 4, heads: 6, kv_heads: 6, sequence_length: 256}
stages:
  - name: base
    kind: pretrain
    mixture: [{source: {kind: stdlib, max_bytes: 1_000_000}, share: 1.0}]
    train:
      tokens: 2_000_000
      learning_rate: 3e-3
    exams: [{exam: bpb, at_most: 2.4}]
  - name: chat
    kind: sft
    mixture:
      - {source: {kind: echo}, share: 0.6}
      - {source: {kind: echo, gibberish: only}, share: 0.27, name: gibberish}
    replay: [{stage: base, share: 0.13}]
    exams: [{exam: echo, at_least: 0.95}]
gates: {forget_at_most: 0.05, on_fail: stop}
"""


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as problem:
        loads(text, overrides, where="r.yaml")
    assert problem.value.exit_code == 2
    return str(problem.value)


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def test_it_means_what_it_says() -> None:
    recipe = loads(GOOD)
    base, chat = recipe.stages
    assert isinstance(base.mixture[0].source, Stdlib)
    assert isinstance(base.exams[0], Bpb)
    assert isinstance(chat.mixture[1].source, Echo)
    assert chat.mixture[1].source.gibberish == "only"
    assert [part.title for part in chat.mixture] == ["echo", "gibberish"]
    train = base.train  # type: ignore[attr-defined]
    assert train.tokens == 2_000_000
    assert train.learning_rate == 0.003
    assert [stage.name for stage in recipe.ladder] == ["tokenizer", "base", "chat"]
    assert recipe.tokenizer_stage.mixture == base.mixture
    assert recipe.seed == 3


def test_the_resolved_spelling_reads_back_as_the_same() -> None:
    recipe = loads(GOOD)
    again = loads(spell(recipe))
    assert again == recipe
    assert plain(again) == plain(recipe)
    assert "checkpoint_every_s" in spell(recipe)
    assert "checkpoint_every_s" not in json.dumps(plain(recipe))


def test_json_and_yaml_are_one(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("\ufeff" + GOOD, encoding="utf-8")
    value = yaml.safe_load(GOOD)
    (tmp_path / "r.json").write_text(json.dumps(value, indent="\t").replace('"3e-3"', "3e-3"))
    assert load(tmp_path / "r.json") == load(tmp_path / "r.yaml") == loads(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        (
            "tokens: 2_000_000",
            "tokns: 2_000_000",
            10,
            "stages[0].train.tokns: unknown key (did you mean 'tokens'?)",
        ),
        ("kind: sft", "kind: stf", 14, "stages[1].kind: unknown kind 'stf' (did you mean 'sft'?)"),
        (
            "{kind: stdlib, max_bytes: 1_000_000}",
            "{kind: stdlb}",
            8,
            "stages[0].mixture[0].source.kind: unknown kind 'stdlb' (did you mean 'stdlib'?)",
        ),
        (
            "max_bytes: 1_000_000",
            "max_byte: 1",
            8,
            "stages[0].mixture[0].source.max_byte: unknown key (did you mean 'max_bytes'?)",
        ),
        ("{exam: bpb,", "{exam: bbp,", 12, "stages[0].exams[0].exam: unknown exam 'bbp'"),
        ("at_most: 2.4", "at_mots: 2.4", 12, "unknown key (did you mean 'at_most'?)"),
        ("{exam: bpb, at_most: 2.4}", "{exam: bpb}", 12, "stages[0].exams[0]: bpb has no floor"),
        ("at_most: 2.4", "at_least: 0.4", 12, "at_least means nothing here"),
        ("tokens: 2_000_000", "tokens: many", 10, "stages[0].train.tokens: should be a valid"),
        ("tokens: 2_000_000", "tokens: -5", 10, "should be greater than 0, not -5"),
        ("tokens: 2_000_000", "tokens: 1.5", 10, "stages[0].train.tokens: should be a valid int"),
        ("tokens: 2_000_000", "tokens: true", 10, "should be a number, not true or false"),
        ("tokens: 2_000_000", "tokens: '2000000'", 10, "should be a number, not text"),
        ("learning_rate: 3e-3", "learning_rate: .inf", 11, "learning_rate: should be a valid num"),
        ("share: 1.0", "share: 1.1", 8, "should be less than or equal to 1, not 1.1"),
        ("share: 1.0", "share: 0.9", 8, "stages[0].mixture: the shares sum to 0.9, not to 1"),
        (
            "share: 0.13",
            "share: 0.12",
            15,
            "stages[1].mixture: the shares sum to 0.99 with the replay, not to 1",
        ),
        (
            "share: 0.6}",
            "share: 0.6, too_lon: drop}",
            16,
            "stages[1].mixture[0].too_lon: unknown key (did you mean 'too_long'?)",
        ),
        ("share: 0.6}", "share: 0.6, too_long: cut}", 16, "stages[1].mixture[0].too_long: "),
        (
            "dialect: matura}",
            "dialect: matura, mixture: [{source: {kind: echo}, share: 1, too_long: split}]}",
            3,
            "tokenizer.mixture[0].too_long: is for stages",
        ),
        (", name: gibberish", "", 17, "stages[1].mixture[1]: a second 'echo'; give each its own"),
        (
            "{stage: base,",
            "{stage: bass,",
            18,
            "stages[1].replay[0].stage: 'bass' is no earlier stage (did you mean 'base'?)",
        ),
        ("{stage: base,", "{stage: chat,", 18, "'chat' is no earlier stage (known: base)"),
        ("name: chat", "name: base", 13, "stages[1].name: the name 'base' is taken"),
        ("name: chat", "name: tokenizer", 13, "the name 'tokenizer' is the tokenizer's own"),
        ("name: chat", "name: Chat/1", 13, "stages[1].name: 'Chat/1' is no name: small letters"),
        ("name: quick", "name: ../up", 1, "name: '../up' is no name"),
        ("name: quick", "nam: quick", 1, "nam: unknown key (did you mean 'name'?)"),
        ("kv_heads: 6", "kv_heads: 4", 4, "model.kv_heads: 6 heads cannot be shared evenly"),
        (
            "hidden_size: 192",
            "hidden_size: 191",
            4,
            "model.heads: hidden_size 191 is not divisible",
        ),
        ("hidden_size: 192", "hidden_size: 18", 4, "model.heads: the head's size must be even"),
        ("dialect: matura", "dialect: matur", 3, "tokenizer.dialect: there is no dialect 'matur'"),
        ("vocab_size: 2048", "vocab_size: 280", 3, "tokenizer.vocab_size: 280 has no room for"),
        ("kind: bpe", "kind: bpx", 3, "tokenizer.kind: 'bpx' is not one of 'bpe'"),
        (
            "tokens: 2_000_000",
            "tokens: 5000\n      warmup_tokens: 6000",
            11,
            "stages[0].train.warmup_tokens: a warm-up of 6000 tokens is longer",
        ),
        ("tokens: 2_000_000", "tokens: 1000", 9, "stages[0].train.batch_tokens: one batch of 4096"),
        (
            "sequence_length: 256",
            "sequence_length: 128",
            12,
            "exams[0].row_length: 256 is more than the model's sequence_length 128",
        ),
        ("on_fail: stop", "on_fail: pray", 20, "'pray' is not one of 'stop' or 'continue'"),
        ("seed: 3", "seed: 3\nseed: 4", 3, "the key 'seed' stands in line 2 already"),
        ("seed: 3", "\tseed: 3", 2, "a tab; indent with spaces"),
        ("seed: 3", "seed: [3", 3, "not YAML: while parsing a flow sequence"),
        ("seed: 3", "seed: !!python/object/apply:os.system ['id']", 2, "a recipe is data"),
        ("seed: 3", "seed: &a [*a]", 2, "an alias inside what it stands for"),
        ("seed: 3", "seed: \x07", 2, "a character that no text file holds"),
        ("seed: 3", "seed:", 2, "seed: should be a valid integer, not None"),
        ("stages:\n", "steps:\n", 5, "steps: unknown key (did you mean 'stages'?)"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(old: str, new: str, line: int, said: str) -> None:
    """PITFALLS C-21, 17: nothing is ignored."""
    problem = refused(changed(old, new))
    assert problem.startswith(f"r.yaml:{line}: ")
    assert said in problem
    assert "\n" not in problem


def test_several_faults_are_told_at_once() -> None:
    text = changed("kv_heads: 6", "kv_heads: 4").replace("share: 1.0", "share: 0.5")
    assert [line.split(": ")[0] for line in refused(text).splitlines()] == [
        "r.yaml:4",
        "r.yaml:8",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "r.yaml: empty"),
        ("[]", "r.yaml:1: a recipe is a mapping"),
        ("name", "r.yaml:1: a recipe is a mapping"),
        ("name: a\n---\nname: b", "r.yaml:2: not YAML: expected a single document"),
        ("a: " + "[" * 5000, "r.yaml: nested too deeply"),
        ("name: x\nstages: []", "stages: needs at least 1"),
    ],
)
def test_other_things_are_no_recipe(text: str, said: str) -> None:
    assert said in refused(text)


def test_nested_anchors_do_not_blow_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "more than 50000 values" in refused("\n".join(lines))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no\.yaml: cannot read: No such file"):
        load(tmp_path / "no.yaml")
    with pytest.raises(RecipeError, match=r"cannot read: Is a directory"):
        load(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(b"name: quick\nseed: \xff\n")
    with pytest.raises(RecipeError, match=r"bad\.yaml:2: not UTF-8"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "bad.json").write_text('{"name": "quick",\n "seed": }')
    with pytest.raises(RecipeError, match=r"bad\.json:2: not JSON: Expecting value"):
        load(tmp_path / "bad.json")
    (tmp_path / "twice.json").write_text('{"name": "quick",\n"name": "quick"}')
    with pytest.raises(RecipeError, match=r"twice\.json:2: the key 'name' stands in line 1"):
        load(tmp_path / "twice.json")
    (tmp_path / "big.yaml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(RecipeError, match=r"big\.yaml: 2000000 bytes"):
        load(tmp_path / "big.yaml")


def test_overrides_go_by_name() -> None:
    recipe = loads(
        GOOD,
        [
            "stages.base.train.tokens=4e6",
            "stages.base.mixture.0.source={kind: folder, path: /corpus}",
            "stages.chat.mixture.gibberish.source.gibberish=include",
            "stages.chat.train.evaluations=2",
            "stages[1].exams[0].at_least=0.5",
            "seed=1",
        ],
    )
    base, chat = recipe.stages
    assert base.train.tokens == 4_000_000  # type: ignore[attr-defined]
    assert base.mixture[0].source.kind == "folder"
    assert chat.mixture[1].source.gibberish == "include"  # type: ignore[union-attr]
    assert chat.train.evaluations == 2  # type: ignore[attr-defined]
    assert chat.exams[0].at_least == 0.5
    assert recipe.seed == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.bse.train.tokens=1", "stages has no 'bse' (did you mean 'base'?)"),
        ("stages.7.name=x", "stages has no '7' (known: base, chat)"),
        ("stages.base.trian.tokens=1", "stages[0].trian: unknown key (did you mean 'train'?)"),
        (
            "stages.base.train.tokns=1",
            "stages[0].train.tokns: unknown key (did you mean 'tokens'?)",
        ),
        ("stages.base.train.tokens=-1", "stages[0].train.tokens: should be greater than 0"),
        (
            "stages.base.train.tokens=",
            "stages[0].train.tokens: give tokens or epochs, one of the two; found neither",
        ),
        ("stages.base.train.tokens=[", "not YAML"),
        ("seed", "expected PLACE=VALUE"),
        ("=1", "expected PLACE=VALUE"),
        ("stages..base=1", "is no place like"),
        ("stages.base.mixture.0.share=0.4", "the shares sum to 0.4"),
    ],
)
def test_bad_overrides_are_named(override: str, said: str) -> None:
    problem = refused(GOOD, override)
    assert said in problem
    assert "\n" not in problem
    if "shares" not in said:  # what no longer sums to 1 stands in the file
        assert problem.startswith(f"--set {override}")


def test_the_schema_takes_good_recipes_and_no_bad_ones() -> None:
    found = schema()
    Draft202012Validator.check_schema(found)
    validator = Draft202012Validator(found)
    good = json.loads(json.dumps(plain(loads(GOOD))))
    assert list(validator.iter_errors(good)) == []
    good["stages"][0]["train"]["tokns"] = 1
    assert list(validator.iter_errors(good))
    text = json.dumps(found)
    assert "As many as `heads` if absent." in text  # a field's docstring is its help
    assert "stdlib" in text
    assert "format_strict" in text


def test_reading_a_recipe_needs_no_torch() -> None:
    program = (
        "import sys; from matura.ladder.recipe import loads, schema; schema();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_recipe_is_frozen() -> None:
    recipe = loads(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 5  # type: ignore[misc]
    assert isinstance(recipe, Recipe)


def test_the_files_a_cleaner_reads_are_part_of_what_is_asked(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("an item of an exam")
    source = "source: {kind: stdlib, max_bytes: 1_000_000}"
    cleaner = f"clean: [{{kind: decontaminate, against: ['{tmp_path}/items.txt']}}]"
    part = loads(GOOD.replace(source, f"{source}, {cleaner}")).stages[0].mixture[0]
    before = input_hashes([part])
    assert any(name.endswith("items.txt") for name in before["stdlib.clean"])
    (tmp_path / "items.txt").write_text("another item")
    after = input_hashes([part])
    assert after["stdlib.clean"] != before["stdlib.clean"]
    assert after["stdlib"] == before["stdlib"]


def test_only_text_that_was_found_is_cleaned() -> None:
    """A lesson says what it means to say; a cleaner there would be a mistake."""
    source = "source: {kind: stdlib, max_bytes: 1_000_000}"
    assert source in GOOD
    found = loads(GOOD.replace(source, f"{source}, clean: [{{kind: code, min_lines: 2}}]"))
    (cleaner,) = found.stages[0].mixture[0].clean
    assert cleaner.kind == "code"
    problem = refused(GOOD.replace(source, f"{source}, clean: [{{kind: cod}}]"))
    assert "'code'" in problem
    lesson = "source: {kind: repetition}, clean: [{kind: code}]"
    assert "'clean' is for text that was found" in refused(GOOD.replace(source, lesson))
