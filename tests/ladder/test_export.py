"""An export is published only with the proof that it is the model it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from tiny import shape, spread

from matura.core.errors import DataError, RecipeError, UnprovenError
from matura.core.ledger import Ledger
from matura.core.store import sha256_of
from matura.ladder.asked import Asked, asked
from matura.ladder.export import Exported, Format, export, published, way
from matura.ladder.gguf_names import halved, interleaved
from matura.ladder.gguf_tokens import Tokens, nearest, read_tokens
from matura.ladder.models import Found, find
from matura.ladder.proof import PROOF, Dtype
from matura.models import hf
from matura.models.attending import rotate
from matura.models.decoder import rotary_table
from matura.text.template import Template
from matura.text.tokenizer import Cut, Tokenizer

QUIET = Ledger(mode="quiet")
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_embeddings": True, "kv_heads": 4},
    "qk_norm": {"qk_norm": True, "head_dim": 16},
    "conv": {"qk_norm": True, "conv_layers": (0,), "tie_embeddings": True},
    "conv, untied": {"qk_norm": True, "conv_layers": (1,), "conv_width": 4, "kv_heads": 1},
    "qwen2": {"biases": "inputs"},
    "biases": {"biases": "all"},
    "llama3 positions": {
        "stretched": {"kind": "llama3", "factor": 8.0, "original_length": 64},
    },
    "linear positions": {"stretched": {"kind": "linear", "factor": 4.0}},
}
TEXT = ["the quick brown fox's den\n    return  12 + x", "don't 'say' that", "हिन्दी में लिखा है"] * 9


@pytest.fixture(scope="session")
def tokens() -> Callable[[Cut], Tokenizer]:
    made: dict[Cut, Tokenizer] = {}

    def of(cut: Cut) -> Tokenizer:
        if cut not in made:
            made[cut] = Tokenizer.train(TEXT, vocab_size=400, dialect="matura", spare=2, split=cut)
        return made[cut]

    return of


@pytest.fixture
def model(tmp_path: Path, tokens: Callable[[Cut], Tokenizer]) -> Callable[..., Found]:
    """A model with random weights everywhere, as a Hugging Face folder."""

    def make(**more: Any) -> Found:
        template = Template(tokens("words"))
        size = template.tokenizer.vocab_size + 3  # rows that no token has
        usual = {"vocab_size": size, "layers": 2, "sequence_length": 128}
        folder = tmp_path / "source"
        hf.save(
            spread(shape(**(usual | more)), seed=3),
            folder,
            bos_id=template.bos_id,
            stop_ids=tuple(sorted(template.stop_ids)),
            pad_id=template.pad_id,
        )
        template.tokenizer.save(folder)
        return find(folder)

    return make


def few(found: Found) -> Asked:
    """A tenth of what an export asks, so that a test takes no longer than it must."""
    whole = asked(found.template(), 128)
    return Asked(whole.conversations[::8], whole.prompts[::10])


def exported(
    found: Found,
    into: Path,
    format: Format,
    dtype: Dtype = "f32",
    breaking: Callable[[Path], object] = lambda made: None,
) -> Exported:
    """The export, with something done to it between writing and proving."""
    write, prove = way(found, few(found), format, dtype, QUIET)

    def both(made: Path) -> None:
        write(made)
        breaking(made)

    return published(into, {"format": format}, both, prove, QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hf", "gguf"])
@pytest.mark.parametrize("more", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_is_proven(
    format: Format, more: dict[str, Any], model: Callable[..., Found], tmp_path: Path
) -> None:
    made = exported(model(**more), tmp_path / "out", format)
    assert all(check["holds"] for check in made.proof["checks"])
    said = json.loads((tmp_path / "out" / PROOF).read_text())
    assert said == made.proof
    for name, file in said["export"]["files"].items():
        assert sha256_of(tmp_path / "out" / name) == file["sha256"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hf", "gguf"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_a_cast_is_half_the_size_and_proven(
    format: Format, dtype: Dtype, model: Callable[..., Found], tmp_path: Path
) -> None:
    found = model()
    made = exported(found, tmp_path / "out", format, dtype)
    file = tmp_path / "out" / ("model.gguf" if format == "gguf" else hf.WEIGHTS)
    whole = exported(found, tmp_path / "whole", format)
    assert file.stat().st_size < 0.75 * (whole.folder / file.name).stat().st_size
    checks = {check["check"]: check for check in made.proof["checks"]}
    assert checks["answers after rounding"]["largest_difference"] > 0
    assert checks["answers after rounding"]["nats_a_token"] < 5e-3


@pytest.mark.slow
def test_a_tokenizer_that_transformers_takes_for_another_is_said(
    model: Callable[..., Found], tmp_path: Path
) -> None:
    """For qwen2, AutoTokenizer takes Qwen2's own patterns whatever the folder says."""
    made = exported(model(biases="inputs"), tmp_path / "out", "hf")
    (said,) = made.proof["not_checked"]
    assert "Qwen2Tokenizer" in said
    assert "PreTrainedTokenizerFast" in said
    assert exported(model(), tmp_path / "plain", "hf").proof["not_checked"] == []


@pytest.mark.slow
def test_the_folder_is_a_model_again(model: Callable[..., Found], tmp_path: Path) -> None:
    """What was exported can be chatted with and exported again, to the same bytes."""
    found = model(qk_norm=True)
    first = export(found, tmp_path / "one", format="hf", dtype="f32", ledger=QUIET)
    again = exported(find(first.folder), tmp_path / "two", "hf")
    assert again.proof["export"] == first.proof["export"]
    texts = [c["texts"] for c in first.proof["checks"] if "texts" in c]
    assert min(texts) >= 50
    assert [c["greedy_equal"] for c in first.proof["checks"] if "prompts" in c] == [100, 100]


def weights(folder: Path) -> None:
    found = load_file(folder / hf.WEIGHTS)
    found["model.layers.1.mlp.up_proj.weight"][3, 4] += 1e-3
    save_file(found, folder / hf.WEIGHTS)


def merges(folder: Path) -> None:
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    pairs = said["model"]["merges"]
    pairs.reverse()
    path.write_text(json.dumps(said))


def template(folder: Path) -> None:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("<|assistant|>", "<|user|>"))


def ends(folder: Path) -> None:
    path = folder / hf.GENERATION
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 1}))


def settings(folder: Path) -> None:
    path = folder / hf.CONFIG
    said = json.loads(path.read_text())
    said["rope_parameters"]["rope_theta"] = said["rope_theta"] = 500.0
    path.write_text(json.dumps(said))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (weights, r"its weights do not hold: model.layers.1.mlp.up_proj.weight: 1 of \d+ numbers"),
        (merges, "chat template and tokenizer do not hold: .*other ids"),
        (template, "chat template and tokenizer do not hold: .*other ids"),
        (ends, r"ends of turn do not hold: generation_config.json stops at \['1'\]"),
        (settings, "answers .* do not hold: "),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_a_broken_folder_is_never_published(
    breaking: Callable[[Path], object], message: str, model: Callable[..., Found], tmp_path: Path
) -> None:
    with pytest.raises(UnprovenError, match=message):
        exported(model(), tmp_path / "out", "hf", breaking=breaking)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def tensor(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        reader = GGUFReader(folder / "model.gguf", "r+")
        data = next(t.data for t in reader.tensors if t.name == name)
        data.reshape(-1)[7] += np.float32(1e-3)
        data.base.flush() if hasattr(data.base, "flush") else None

    return change


def field(key: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        reader = GGUFReader(folder / "model.gguf", "r+")
        change(reader.fields[key])

    return changed


def swap(found: Any) -> None:
    """The first two strings of one length change places."""
    lengths = [len(found.parts[at]) for at in found.data]
    one, two = next(
        (a, b) for a in range(len(lengths)) for b in range(a) if lengths[a] == lengths[b]
    )
    first, second = found.parts[found.data[one]], found.parts[found.data[two]]
    kept = first.copy()
    first[:] = second
    second[:] = kept


def number(value: Any) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        found.parts[found.data[0]][0] = value

    return change


def letter(found: Any) -> None:
    text = found.parts[found.data[0]]
    at = bytes(text).rindex(b"<|assistant|>")
    text[at + 2] = ord("e")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (tensor("blk.1.ffn_up.weight"), "layers.1.mlp.up_proj.weight: 1 of"),
        (tensor("output_norm.weight"), "model.norm.weight: 1 of"),
        (field("tokenizer.ggml.merges", swap), r"tokens do not hold: merges\[\d+\] is"),
        (field("tokenizer.ggml.tokens", swap), r"tokens do not hold: tokens\[\d+\] is"),
        (field("tokenizer.ggml.eot_token_id", number(1)), "eot_token_id is 1, not"),
        (field("tokenizer.ggml.add_bos_token", number(False)), "add_bos_token is False"),
        (field("tokenizer.chat_template", letter), "chat template do not hold: .*other ids"),
        (field("llama.rope.freq_base", number(500.0)), "llama.rope.freq_base is 500.0"),
        (field("llama.attention.head_count_kv", number(4)), "head_count_kv is 4, not 2"),
    ],
)
def test_a_broken_file_is_never_published(
    breaking: Callable[[Path], object], message: str, model: Callable[..., Found], tmp_path: Path
) -> None:
    with pytest.raises(UnprovenError, match=message):
        exported(model(), tmp_path / "out", "gguf", breaking=breaking)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_numbers_that_do_not_fit_are_refused(
    format: Format, model: Callable[..., Found], tmp_path: Path
) -> None:
    found = model()
    said = load_file(found.path / hf.WEIGHTS)
    said["lm_head.weight"][0, 0] = 1e6
    save_file(said, found.path / hf.WEIGHTS)
    with pytest.raises(
        UnprovenError, match=r"lm_head.weight is not finite: .* do not fit into f16"
    ):
        exported(found, tmp_path / "out", format, "f16")


@pytest.mark.parametrize("place", ["../x", "a/../../x"])
def test_no_way_leads_upwards(
    place: str, model: Callable[..., Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(RecipeError, match="leads upwards"):
        export(model(), Path(place), format="hf", dtype="f32", ledger=QUIET)
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_over_or_into_the_source(
    model: Callable[..., Found], tmp_path: Path
) -> None:
    found = model()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine\.txt: is there already"):
        export(found, tmp_path / "out", format="hf", dtype="f32", ledger=QUIET)
    with pytest.raises(RecipeError, match="lies in source"):
        export(found, found.path / "x", format="hf", dtype="f32", ledger=QUIET)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_what_llama_cpp_lacks_is_refused(model: Callable[..., Found], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no biases in qwen3; export it as --format hf"):
        exported(model(qk_norm=True, biases="all"), tmp_path / "out", "gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_neighbours_turn_as_halves_did() -> None:
    """Rotating neighbours of reordered rows, as llama.cpp does, gives the scores that rotating
    halves gives."""
    config = shape(hidden_size=32, heads=4, sequence_length=8)
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 32, generator=draw).double()
    x_TC = torch.randn(8, 32, generator=draw).double()
    cos, sin = (table.double() for table in rotary_table(config))
    ours = rotate((x_TC @ weight.T).view(1, 8, 4, 8), cos[:, None], sin[:, None])[0]
    rows = interleaved(weight, 4)
    pairs = (x_TC @ rows.T).view(8, 4, 4, 2)
    turned = torch.view_as_complex(pairs) * torch.complex(cos, sin)[:, None, :4]
    theirs = torch.view_as_real(turned).flatten(2)
    want = torch.einsum("thd,shd->hts", ours, ours)
    torch.testing.assert_close(
        torch.einsum("thd,shd->hts", theirs, theirs), want, rtol=0, atol=1e-5
    )
    assert torch.equal(halved(rows, 4), weight)
    assert not torch.equal(rows, weight)


@pytest.mark.parametrize(("cut", "name"), [("words", "qwen35"), ("atoms", "superbpe")])
def test_the_nearest_cut_is_found(
    cut: Cut, name: str, tokens: Callable[[Cut], Tokenizer], tmp_path: Path
) -> None:
    """Marks stay with their letters, and runs of spaces whole where they are so."""
    tokenizer = tokens(cut)
    tokenizer.save(tmp_path)
    read: Tokens = read_tokens(tmp_path, tokenizer.vocab_size)
    found = nearest(read, ["    return 12", "हिन्दी"])
    assert found.name == name
    assert len(found.other) <= 0.01 * found.tried
    assert read.types[tokenizer.control["<|end|>"]] == gguf.TokenType.CONTROL
