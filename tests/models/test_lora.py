"""Adapters: what they add is what PEFT says, by every path, and merging them changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LENGTH, numbered, shape, some_ids, spread, weights_of
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from matura.core.errors import StoreError
from matura.learn.loop import seeded
from matura.models import adapter, hf
from matura.models.decoder import Cache, Decoder, DecoderConfig
from matura.models.lora import adapted, attach, detach, linears, merge, trained_parameters

QKV, FED = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
ALL = (*QKV, "o_proj", *FED)
TWO = {"layers": 2, "qk_norm": True}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"layers": 2},
    "tied": {"layers": 2, "tie_embeddings": True},
    "qwen3, all heads": TWO | {"kv_heads": 4},
    "biased": {"layers": 2, "biases": "inputs"},
    "convolutions": TWO | {"conv_layers": (0,), "tie_embeddings": True},
}
TARGETS = {name: ("in_proj", "out_proj", *ALL) if "conv" in name else ALL for name in SHAPES}
CLOSE: dict[str, float] = {"rtol": 0.0, "atol": 1e-4}


def learnt(
    config: DecoderConfig, targets: tuple[str, ...] = ALL, *, rank: int = 3, alpha: float = 6
) -> Decoder:
    """A model whose adapters have learnt something."""
    model = spread(config)
    attach(model, rank=rank, alpha=alpha, targets=targets, generator=seeded(1))
    generator = seeded(2)
    with torch.no_grad():
        for _, _, one in adapted(model):
            one.up.normal_(0.0, 0.2, generator=generator)
    return model


def ids() -> Tensor:
    return some_ids(2, 24, seed=5)


@pytest.fixture(params=SHAPES)
def config(request: pytest.FixtureRequest) -> DecoderConfig:
    """Every kind of layer."""
    return shape(**SHAPES[request.param])


def every(config: DecoderConfig) -> tuple[str, ...]:
    return ("in_proj", "out_proj", *ALL) if config.conv_layers else ALL


def test_a_fresh_adapter_adds_nothing(config: DecoderConfig) -> None:
    plain, model = spread(config), spread(config)
    attach(model, rank=4, alpha=8, targets=every(config), generator=seeded(0))
    assert torch.equal(model(ids()), plain(ids()))
    assert all(bool(one.down.any()) for _, _, one in adapted(model))


def test_merged_and_attached_say_the_same(config: DecoderConfig) -> None:
    model = learnt(config, every(config))
    plain = spread(config)(ids())
    before = model(ids())
    assert (before - plain).abs().max() > 0.1
    merge(model)
    assert weights_of(model).keys() == weights_of(spread(config)).keys()
    torch.testing.assert_close(model(ids()), before, **CLOSE)
    assert all(weight.requires_grad for weight in model.parameters())


def test_every_path_goes_through_them(config: DecoderConfig) -> None:
    """Cached and packed, as without adapters."""
    model = learnt(config, every(config))
    whole = model(ids())
    cache = Cache.empty(config, 2, 24)
    places = torch.arange(24).expand(2, 24)
    cached = [
        model.forward_cached(ids()[:, at : at + 1], places[:, at : at + 1], cache)
        for at in range(24)
    ]
    torch.testing.assert_close(torch.cat(cached, dim=1), whole, **CLOSE)
    packed = torch.cat((ids()[:1], ids()[1:]), dim=1)
    found = model(
        packed,
        positions_BT=torch.arange(24).repeat(2)[None],
        segments_BT=torch.tensor([1, 2]).repeat_interleave(24)[None],
    )
    torch.testing.assert_close(found.view(2, 24, -1), whole, **CLOSE)


@pytest.mark.parametrize("targets", [("q_proj",), ("v_proj", "k_proj"), ("up_proj",), QKV, FED])
def test_some_of_those_that_are_joined(targets: tuple[str, ...]) -> None:
    model = learnt(shape(), targets)
    before = model(ids())
    assert {name.rpartition(".")[2] for name, _, _ in adapted(model)} == {*targets}
    merge(model)
    torch.testing.assert_close(model(ids()), before, **CLOSE)


def test_only_adapters_learn_and_they_are_counted(config: DecoderConfig) -> None:
    model = learnt(config, every(config), rank=5)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if ".lora." in name}
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert count == trained_parameters(config, rank=5, targets=every(config))
    detach(model)
    assert weights_of(model) == weights_of(spread(config))


def test_what_has_adapters_gets_no_others() -> None:
    model = learnt(shape())
    with pytest.raises(ValueError, match="already"):
        attach(model, rank=1, alpha=1, targets=ALL, generator=seeded(0))
    with pytest.raises(ValueError, match="in_proj"):
        attach(spread(shape()), rank=1, alpha=1, targets=("in_proj",), generator=seeded(0))


# PEFT's own code as the oracle


def saved(model: Decoder, folder: Path, base: Decoder) -> tuple[Path, Path]:
    """The base's folder and the adapter's."""
    hf.save(base, folder / "base", bos_id=None, stop_ids=(1,), pad_id=None)
    adapter.save(model, folder / "adapter", base=folder / "base")
    return folder / "base", folder / "adapter"


def theirs(base: Path, folder: Path, *, training: bool = False) -> Any:
    """The stock model with the adapter, by `peft`."""
    peft = pytest.importorskip("peft")
    stock = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(stock, folder, is_trainable=training)


def test_peft_loads_the_folder_and_says_the_same(config: DecoderConfig, tmp_path: Path) -> None:
    model = learnt(config, every(config))
    base, folder = saved(model, tmp_path, spread(config))
    other = theirs(base, folder)
    torch.testing.assert_close(other(ids()).logits, model(ids()), **CLOSE)
    merge(model)
    torch.testing.assert_close(other.merge_and_unload()(ids()).logits, model(ids()), **CLOSE)
    told = json.loads((folder / "adapter_config.json").read_text())
    assert (told["r"], told["lora_alpha"], told["base_model_name_or_path"]) == (3, 6, "../base")


@pytest.mark.parametrize(
    ("name", "targets", "spelled"),
    [
        ("llama", ("v_proj", "q_proj"), ["q_proj", "v_proj"]),
        ("convolutions", ("o_proj",), ["model.layers.1.self_attn.out_proj"]),
        ("convolutions", ("out_proj", "up_proj"), ["model.layers.0.conv.out_proj"]),
        ("convolutions", ("out_proj", "o_proj"), ["out_proj"]),
    ],
)
def test_targets_mean_the_same_to_peft(
    name: str, targets: tuple[str, ...], spelled: list[str], tmp_path: Path
) -> None:
    """Ours and LFM2's names differ: what we call `o_proj` is one of its two `out_proj`."""
    config = shape(**SHAPES[name])
    model = learnt(config, targets)
    base, folder = saved(model, tmp_path, spread(config))
    told = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert {*spelled} <= {*told}
    torch.testing.assert_close(theirs(base, folder)(ids()).logits, model(ids()), **CLOSE)
    assert torch.equal(adapter.load(folder, base)(ids()), model(ids()))


@pytest.mark.parametrize("name", ["llama", "tied", "convolutions"])
def test_rows_given_a_meaning_travel_along(name: str, tmp_path: Path) -> None:
    """Control tags' rows are not the base's; in PEFT they are its `trainable_token_indices`."""
    config = shape(**SHAPES[name])
    model = learnt(config, every(config))
    with torch.no_grad():
        for matrix in {model.model.embed_tokens.weight, model.lm_head.weight}:
            matrix[[3, 7]] += 0.5
    base, folder = saved(model, tmp_path, spread(config))
    seen = torch.cat((ids(), torch.tensor([[3], [7]])), dim=1)
    torch.testing.assert_close(theirs(base, folder)(seen).logits, model(seen), **CLOSE)
    assert torch.equal(adapter.load(folder, base)(seen), model(seen))


def test_gradients_are_those_of_peft(config: DecoderConfig, tmp_path: Path) -> None:
    model = learnt(config, every(config))
    base, folder = saved(model, tmp_path, spread(config))
    other = theirs(base, folder, training=True)
    batch = numbered(0, length=LENGTH)
    seen = batch.ids_BL
    for logits in (model(seen), other(seen).logits):
        wanted = seen[:, 1:].flatten()
        cross_entropy(logits[:, :-1].flatten(0, 1), wanted).backward()
    own = {
        f"base_model.model.{hf.their_name(name, config)}.{matrix}.weight": weight.grad
        for name, _, one in adapted(model)
        for matrix, weight in (("lora_A", one.down), ("lora_B", one.up))
    }
    found = {
        name.replace(".default.", "."): weight.grad
        for name, weight in other.named_parameters()
        if weight.requires_grad
    }
    assert own.keys() == found.keys()
    assert len(own) == 2 * len([*adapted(model)])
    for name, grad in own.items():
        assert grad is not None
        assert bool(grad.any())
        torch.testing.assert_close(grad, found[name], **CLOSE)
    assert all(w.grad is None for n, w in model.named_parameters() if ".lora." not in n)


# What is not right is refused


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A base and its adapter."""
    return saved(learnt(shape(), ("q_proj", "v_proj")), tmp_path, spread(shape()))


def test_an_adapter_on_another_base_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, folder = folders
    adapter.load(folder, base)
    hf.save(spread(shape(), seed=9), tmp_path / "other", bos_id=None, stop_ids=(1,), pad_id=None)
    with pytest.raises(StoreError, match="belongs to the model with weights"):
        adapter.load(folder, tmp_path / "other")


def test_a_base_that_was_changed_in_training_is_refused(tmp_path: Path) -> None:
    model = learnt(shape(), ("q_proj",))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6  # type: ignore[index,union-attr]
    with pytest.raises(StoreError, match=r"up_proj\.weight is not what"):
        saved(model, tmp_path, spread(shape()))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("base.json", lambda told: told | {"weights_sha256": None}),
        ("adapter_config.json", lambda told: told | {"r": 2}),
        ("adapter_config.json", lambda told: told | {"target_modules": ["q_proj"]}),
        ("adapter_config.json", lambda told: told | {"use_dora": True}),
        ("adapter_config.json", lambda told: {}),
        ("adapter_config.json", lambda told: []),
    ],
)
def test_what_the_files_do_not_agree_on(file: str, change: Any, folders: tuple[Path, Path]) -> None:
    base, folder = folders
    told = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(change(told)))
    with pytest.raises(StoreError, match=folder.name):
        adapter.load(folder, base)


@pytest.mark.parametrize("file", ["base.json", "adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file(file: str, folders: tuple[Path, Path]) -> None:
    base, folder = folders
    (folder / file).unlink()
    with pytest.raises(StoreError):
        adapter.load(folder, base)
    shutil.rmtree(folder)


def test_only_linears_inside_the_layers() -> None:
    names = {name for name, _ in linears(spread(shape(**SHAPES["convolutions"])))}
    assert {name.split(".")[0] for name in names} == {"model"}
    assert {name.rpartition(".")[2] for name in names} == {"in_proj", "out_proj", *ALL}
