"""FAULTS D1 to D3: files that somebody made to run code, or to take time and memory, are refused by
name, quickly, and nothing in them is ever run."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import foreign
from tiny import settings, shape, spread, trained

from matura.core.errors import MaturaError
from matura.core.rng import rng
from matura.core.store import Checkpoints, Folder, publish, work_place
from matura.core.types import Given
from matura.data.sources.jsonl import Jsonl
from matura.data.sources.parquet import Parquet
from matura.ladder.machine import forget_peak, peak_rss_bytes
from matura.ladder.models import find
from matura.ladder.recipe import load
from matura.learn.checkpoint import OPTIMIZER, REST, WEIGHTS, read_weights
from matura.models import adapter, hf
from matura.text.shards import Shard

RUNS = "touched"


class Runs:
    """What a pickle of it does when it is opened: a file appears."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.canary), "w"))


def zipped(raw: bytes, name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"archive/{name}", raw)
        archive.writestr("archive/version", b"3\n")
    return made.getvalue()


def tarred(raw: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages"):
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return made.getvalue()


def arrays(value: object, *, many: bool) -> bytes:
    made = io.BytesIO()
    held = np.array([value], dtype=object)
    np.savez(made, a=held) if many else np.save(made, held, allow_pickle=True)
    return made.getvalue()


def saved_by_torch(value: object, *, legacy: bool) -> bytes:
    made = io.BytesIO()
    torch.save({"weight": value}, made, _use_new_zipfile_serialization=not legacy)
    return made.getvalue()


def pickles(canary: Path) -> dict[str, bytes]:
    """Files as `torch`, `numpy`, `joblib` and checkpoints of many processes write them."""
    runs = Runs(canary)
    raw = {f"protocol {number}": pickle.dumps(runs, number) for number in range(6)}
    plain = raw["protocol 2"]
    inner = {"state_dict": {"w": [1, {"x": (runs,)}]}}
    return raw | {
        "by name": f"c__builtin__\nopen\n(V{canary}\nVw\ntR.".encode(),
        "nested": pickle.dumps(inner),
        "torch": saved_by_torch(runs, legacy=False),
        "old torch": saved_by_torch(runs, legacy=True),
        "torch's zip": zipped(plain, "data.pkl"),
        "script's zip": zipped(plain, "constants.pkl"),
        "torch's tar": tarred(plain),
        "numpy": arrays(runs, many=False),
        "numpy's zip": arrays(runs, many=True),
        "joblib": zlib.compress(plain),
        "after a header": struct.pack("<Q", 2) + b"{}" + plain,
    }


PICKLES = sorted(pickles(Path("x")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each kind of folder that is opened, as it should be."""
    root = tmp_path_factory.mktemp("made")
    foreign(root / "model", "chatml")
    vocab = 512
    hf.save(spread(shape(vocab_size=vocab)), root / "model", bos_id=1, stop_ids=(2,), pad_id=0)
    trained(root / "state", settings(5))
    return root


def stored(root: Path, name: str, raw: bytes) -> Folder:
    """A checkpoint that is whole by its record, one file of which is something else."""
    old = Checkpoints(root / "state").at(5)
    final = root / "other"
    work = work_place(final)
    shutil.copytree(old, work)
    (work / "record.json").unlink()
    (work / name).write_bytes(raw)
    return publish(work, final, {})


def opened_weights(root: Path, raw: bytes) -> None:
    (root / "model" / hf.WEIGHTS).write_bytes(raw)
    hf.load(root / "model")


def opened_pickle(name: str) -> Callable[[Path, bytes], object]:
    def opened(root: Path, raw: bytes) -> None:
        (root / "model" / hf.WEIGHTS).unlink()
        (root / "model" / name).write_bytes(raw)
        hf.load(root / "model")

    return opened


def opened_json(name: str) -> Callable[[Path, bytes], object]:
    def opened(root: Path, raw: bytes) -> None:
        (root / "model" / name).write_bytes(raw)
        find(root / "model").sampler()

    return opened


def opened_state(name: str) -> Callable[[Path, bytes], object]:
    def opened(root: Path, raw: bytes) -> None:
        folder = stored(root, name, raw)
        shutil.rmtree(root / "state")
        (root / "state").mkdir()
        folder.path.rename(Checkpoints(root / "state").at(5))
        trained(root / "state", settings(10))

    return opened


def opened_adapter(root: Path, raw: bytes) -> None:
    at = root / "adapter"
    at.mkdir()
    (at / adapter.WEIGHTS).write_bytes(raw)
    base = hf.weights_sha256(root / "model")
    (at / adapter.BASE).write_text(json.dumps({"weights_sha256": base}))
    (at / adapter.CONFIG).write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1, '
                                     '"target_modules": ["q_proj"]}')  # fmt: skip
    adapter.load(at, root / "model")


def opened_source(kind: Any, name: str) -> Callable[[Path, bytes], object]:
    def opened(root: Path, raw: bytes) -> None:
        (root / name).write_bytes(raw)
        list(kind(path=root / name).read(Given(rng=rng(0, "hostile"))))

    return opened


def opened_file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def opened(root: Path, raw: bytes) -> None:
        (root / name).write_bytes(raw)
        read(root / name)

    return opened


OPENED: dict[str, Callable[[Path, bytes], object]] = {
    "model.safetensors": opened_weights,
    **{
        name: opened_pickle(name)
        for name in ("pytorch_model.bin", "model.pt", "consolidated.00.pth", "w.pkl", "x.ckpt")
    },
    **{
        name: opened_json(name)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    },
    **{name: opened_state(name) for name in (WEIGHTS, OPTIMIZER, REST)},
    "adapter_model.safetensors": opened_adapter,
    "a.shard": opened_file("a.shard", Shard.open),
    "a recipe": opened_file("recipe.yaml", load),
    "rows": opened_source(Jsonl, "rows.jsonl"),
    "a table": opened_source(Parquet, "table.parquet"),
}


@pytest.mark.parametrize("where", OPENED)
def test_no_pickle_is_ever_run(where: str, made: Path, ram: Path) -> None:
    """D1: seventeen pickles as each of sixteen files."""
    canary = ram / RUNS
    for name, raw in pickles(canary).items():
        root = ram / name
        shutil.copytree(made, root)
        with pytest.raises(MaturaError) as caught:
            OPENED[where](root, raw)
        assert str(root) in str(caught.value), name
        assert not canary.exists(), name
        shutil.rmtree(root)


@pytest.mark.parametrize("name", ["protocol 0", "protocol 5", "by name", "nested"])
def test_they_would_run_if_they_were_opened(name: str, tmp_path: Path) -> None:
    canary = tmp_path / RUNS
    pickle.loads(pickles(canary)[name])
    assert canary.exists()


# safetensors


def file_of(header: object, data: bytes = b"", *, says: int | None = None) -> bytes:
    spelled = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(spelled) if says is None else says) + spelled + data


def entry(start: int, end: int, *size: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(size), "data_offsets": [start, end]}


NORM = "model.norm.weight"
EMPTY = b'"w%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a terabyte of header": lambda: file_of({}, says=10**12),
    "more header than any file": lambda: file_of({}, says=2**64 - 1),
    "a header beyond the end": lambda: file_of({NORM: entry(0, 4, 1)}, says=400),
    "no JSON": lambda: file_of(b"{" * 100),
    "nested": lambda: file_of(b'{"a":' * 50_000),
    "a list": lambda: file_of([]),
    "100,000 entries": lambda: file_of(b"{%s}" % b",".join(EMPTY % n for n in range(100_000))),
    "overlapping": lambda: file_of({"a": entry(0, 8, 2), "b": entry(4, 12, 2)}, bytes(12)),
    "a hole": lambda: file_of({"a": entry(0, 4, 1), "b": entry(8, 12, 1)}, bytes(12)),
    "backwards": lambda: file_of({NORM: entry(8, 0, 2)}, bytes(8)),
    "below zero": lambda: file_of({NORM: entry(-4, 0, 1)}, bytes(4)),
    "beyond the end": lambda: file_of({NORM: entry(0, 10**12, 10**12 // 4)}),
    "a shape that overflows": lambda: file_of({NORM: entry(0, 0, 2**40, 2**40)}),
    "a shape below zero": lambda: file_of({NORM: entry(0, 4, -1)}, bytes(4)),
    "a number type of nobody": lambda: file_of({NORM: entry(0, 4, 1, dtype="NaN")}, bytes(4)),
    "a name twice": lambda: file_of(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        bytes(8),
    ),
    "more than it says": lambda: file_of({NORM: entry(0, 4, 1)}, bytes(4 + 99)),
    "metadata that is no text": lambda: file_of({"__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_safetensors_are_refused_quickly(name: str, made: Path, ram: Path) -> None:
    """D2: within a second each and 200 MB, wherever such a file is read."""
    shutil.copytree(made, ram / "made")
    raw = HOSTILE[name]()
    forget_peak()
    before, began_s = peak_rss_bytes(), time.process_time()
    for opened in (opened_weights, opened_adapter):
        with pytest.raises(MaturaError) as caught:
            opened(ram / "made", raw)
        assert str(ram / "made") in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
        shutil.copy(made / "model" / hf.WEIGHTS, ram / "made" / "model" / hf.WEIGHTS)
    folder = stored(ram / "made", WEIGHTS, raw)
    with pytest.raises(MaturaError):
        read_weights(folder, spread(shape(qk_norm=True)))
    assert time.process_time() - began_s < 3  # of the processor: others may be at work
    assert peak_rss_bytes() - before < 200e6


# Configs that name code


def renamed(file: str, **more: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        said = json.loads((folder / file).read_text()) | more
        (folder / file).write_text(json.dumps(said))

    return change


CODE = "import pathlib; pathlib.Path({canary!r}).touch()\n"
NAMING: dict[str, Callable[[Path], None]] = {
    "a model's class": renamed("config.json", auto_map={"AutoModelForCausalLM": "code.X"}),
    "a config's class": renamed("config.json", auto_map={"AutoConfig": "code.X"}),
    "a model kind": renamed("config.json", model_type="code.X"),
    "a tokenizer's class": renamed(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.X", None]}
    ),
    "a template's": renamed(
        "tokenizer_config.json",
        chat_template="{{ cycler.__init__.__globals__.os.system('touch x') }}",
    ),
    "a template that imports": renamed(
        "tokenizer_config.json", chat_template="{% import 'code' as c %}{{ c.x }}"
    ),
}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, made: Path, ram: Path) -> Iterator[Path]:
    """A model's folder with a module in it that would be noticed, as the current folder."""
    folder = ram / "model"
    shutil.copytree(made / "model", folder)
    (folder / "code.py").write_text(CODE.format(canary=str(ram / RUNS)))
    monkeypatch.chdir(folder)
    yield folder
    assert not (ram / RUNS).exists()
    assert not (folder / "x").exists()


def spoken_to(folder: Path) -> None:
    """All that chatting with a model reads of its folder."""
    found = find(folder)
    found.sampler()
    found.template().jinja()


@pytest.mark.parametrize("name", NAMING)
def test_a_config_that_names_code_is_refused(name: str, watched: Path) -> None:
    """D3."""
    spoken_to(watched)
    NAMING[name](watched)
    if "template" in name:
        (watched / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(MaturaError) as caught:
        spoken_to(watched)
    assert "template" in name or str(watched) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "name: !!python/object/apply:os.system ['touch x']",
        "name: !!python/name:os.system",
        "name: !!python/module:code",
        "_target_: os.system",
        "model: {from: {_target_: code.X}}",
        "tokenizer: {kind: code.X}",
    ],
)
def test_a_recipe_that_names_code_is_refused(line: str, watched: Path) -> None:
    (watched / "r.yaml").write_text(line + "\n")
    with pytest.raises(MaturaError, match=r"r\.yaml:"):
        load(watched / "r.yaml")


def test_what_is_as_it_should_be_is_opened(made: Path) -> None:
    assert find(made / "model").sampler()
    assert hf.load(made / "model")
    assert Checkpoints(made / "state").newest().step == 5
