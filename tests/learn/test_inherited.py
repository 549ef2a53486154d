"""A training that takes an optimizer over goes on as if there had been no border; what does not fit
is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import done, run
from tiny import VOCAB, Outcome, fresh, numbered, settings, stops_at, trained

from matura.core.errors import StoreError
from matura.core.store import Checkpoints, Folder, publish
from matura.learn.batch import Batch
from matura.learn.checkpoint import OPTIMIZER, REST
from matura.learn.inherited import Inherited
from matura.learn.loop import seeded
from matura.learn.optim import Optimizer
from matura.learn.schedule import Schedule
from matura.learn.settings import Settings
from matura.learn.team import Team
from matura.models.decoder import Decoder
from matura.models.lora import attach
from matura.models.special_rows import grown
from matura.models.weights import open_tensors, save_tensors

STEPS, BORDER = 20, 10
RISING = {5: 0.1, 10: 0.4, 15: 0.7, 20: 0.9}
"""The best step is the last one: the weights that are left are those of the end."""
BEST = 10
"""Of a run of `ranked`."""
EMBEDDINGS = "model.embed_tokens.weight"


def steady(steps: int) -> Settings:
    """Rates that do not move: otherwise two trainings are not one."""
    return settings(steps, schedule=Schedule(10**9, 0, 0))


def later(step: int) -> Batch:
    """The batches after the border."""
    return numbered(step + BORDER)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Decoder]:
    """A training up to the border, and its model."""
    folder, model = tmp_path_factory.mktemp("parent"), fresh()
    trained(folder, steady(BORDER), model=model, exams=RISING)
    return folder, model


def state(parent: tuple[Path, Decoder]) -> Folder:
    return Folder.open(Checkpoints(parent[0]).at(BORDER))


def copied(model: Decoder) -> Decoder:
    made = fresh()
    made.load_state_dict(model.state_dict())
    return made


def child(
    folder: Path,
    parent: tuple[Path, Decoder],
    *,
    batches: Callable[[int], Batch] = later,
    inherits: bool = True,
    **more: Any,
) -> Outcome:
    """The training after the border, on the parent's weights."""
    return trained(
        folder,
        steady(STEPS - BORDER),
        model=copied(parent[1]),
        batches=batches,
        exams=RISING,
        scratch=False,
        inherits=Inherited(state(parent)) if inherits else None,
        **more,
    )


def optimizer(model: Decoder) -> Optimizer:
    rates = {"matrix_learning_rate": 0.02, "learning_rate": 3e-3, "embedding_learning_rate": 0.03}
    return Optimizer.of(model, **rates, weight_decay=0.0)


# Parity


def test_two_trainings_are_one(parent: tuple[Path, Decoder], tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", steady(STEPS), exams=RISING)
    found = child(tmp_path / "child", parent)
    assert found.weights == whole.weights
    assert found.losses == {step - BORDER: whole.losses[step] for step in range(BORDER, STEPS)}
    other = child(tmp_path / "other", parent, inherits=False)
    assert other.losses[0] == found.losses[0]  # no update yet
    assert other.losses[1] != found.losses[1]


@pytest.mark.parametrize("step", [0, 1, 6])
def test_killed_it_goes_on_with_the_same_bits(
    step: int, parent: tuple[Path, Decoder], tmp_path: Path
) -> None:
    whole = child(tmp_path / "whole", parent)

    def killed(number: int) -> Batch:
        stops_at(step)(number)
        return later(number)

    with pytest.raises(KeyboardInterrupt):
        child(tmp_path / "killed", parent, batches=killed)
    found = child(tmp_path / "killed", parent)
    assert found.weights == whole.weights
    saved = Checkpoints(tmp_path / "killed").newest().folder
    assert saved is not None
    assert saved.json(REST)["optimizer_steps"] == STEPS


def test_going_back_to_the_start_goes_back_to_what_was_inherited(
    parent: tuple[Path, Decoder], tmp_path: Path
) -> None:
    """A weight edited from outside, before there is any good state but the first."""
    whole = child(tmp_path / "whole", parent)
    model, edited = copied(parent[1]), []

    def batches(number: int) -> Batch:
        if number == 3 and not edited:
            edited.append(number)
            with torch.no_grad():
                model.model.embed_tokens.weight[:2].zero_()
        return later(number)

    found = trained(
        tmp_path / "back",
        steady(STEPS - BORDER),
        model=model,
        batches=batches,
        exams=RISING,
        scratch=False,
        inherits=Inherited(state(parent)),
    )
    assert [event["line"] for event in found.fitted.events] == ["embeddings broken"]
    assert found.weights == whole.weights


# What is taken


def test_it_has_what_the_checkpoint_has(parent: tuple[Path, Decoder]) -> None:
    made = optimizer(parent[1])
    Inherited(state(parent)).into(made, parent[1])
    assert made.step_count == BORDER
    with open_tensors(state(parent).path / OPTIMIZER) as saved:
        for name, own in made.buffers.items():
            assert own.any(), name
            assert torch.equal(own, saved.get_tensor(name)), name


def test_rows_given_other_weights_start_anew(parent: tuple[Path, Decoder]) -> None:
    whole, made = optimizer(parent[1]), optimizer(parent[1])
    Inherited(state(parent)).into(whole, parent[1])
    Inherited(state(parent), {EMBEDDINGS: [3, VOCAB - 1]}).into(made, parent[1])
    for name, own in made.buffers.items():
        expected = whole.buffers[name].clone()
        if name.endswith(EMBEDDINGS):
            assert expected[3].any()
            expected[[3, VOCAB - 1]] = 0
        assert torch.equal(own, expected), name


@pytest.mark.parametrize("more", [1, 7])
def test_rows_that_were_not_there_start_anew(more: int, parent: tuple[Path, Decoder]) -> None:
    larger = grown(copied(parent[1]), VOCAB + more)
    whole, made = optimizer(parent[1]), optimizer(larger)
    for own in made.buffers.values():
        own.fill_(9.0)
    Inherited(state(parent)).into(whole, parent[1])
    Inherited(state(parent)).into(made, larger)
    for name, own in made.buffers.items():
        old = whole.buffers[name]
        assert torch.equal(own[: len(old)], old), name
        assert not own[len(old) :].any(), name
    assert len(made.buffers[f"momentum.{EMBEDDINGS}"]) == VOCAB + more


# What is refused


def test_another_model_is_refused_by_name(parent: tuple[Path, Decoder]) -> None:
    inherits = Inherited(state(parent))
    deeper, wider = fresh(layers=2), fresh(intermediate_size=64)
    with pytest.raises(StoreError, match=r"differs in momentum\.model\.layers\.1\..*fresh"):
        inherits.into(optimizer(deeper), deeper)
    with pytest.raises(StoreError, match=r"layers\.0\.mlp\.\w+\.weight is .*, expected "):
        inherits.into(optimizer(wider), wider)
    fewer = fresh(vocab_size=VOCAB - 1)
    with pytest.raises(StoreError, match=r"weight is \(48, 32\), expected \(47, 32\)"):
        inherits.into(optimizer(fewer), fewer)


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_are_refused(tied: bool, parent: tuple[Path, Decoder]) -> None:
    model = fresh(tie_embeddings=tied)
    attach(model, rank=2, alpha=2.0, targets=("q_proj",), generator=seeded(0))
    with pytest.raises(StoreError, match="another model"):
        Inherited(state(parent)).into(optimizer(model), model)


def test_a_damaged_or_poorer_state_is_refused(parent: tuple[Path, Decoder], tmp_path: Path) -> None:
    whole = state(parent)
    with open_tensors(whole.path / OPTIMIZER) as saved:
        tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118

    def written(name: str, tensors: dict[str, Any], rest: str) -> Folder:
        work = tmp_path / f"{name}.work"
        work.mkdir()
        save_tensors(tensors, work / OPTIMIZER)
        (work / REST).write_text(rest)
        return publish(work, tmp_path / name, {})

    model, rest = parent[1], json.dumps(whole.json(REST))
    some = {name: t for name, t in tensors.items() if name != f"variance.{EMBEDDINGS}"}
    half = {name: t.half() for name, t in tensors.items()}
    for name, found, why in (
        ("some", written("some", some, rest), f"differs in variance.{EMBEDDINGS}"),
        ("half", written("half", half, rest), "is in torch.float16, expected torch.float32"),
        ("mute", written("mute", tensors, "{}"), "no readable state"),
    ):
        made = optimizer(model)
        with pytest.raises(StoreError, match=why):
            Inherited(found).into(made, model)
        assert made.step_count == 0, name


def test_what_is_inherited_is_not_written_to(parent: tuple[Path, Decoder], tmp_path: Path) -> None:
    before = state(parent).record
    child(tmp_path, parent)
    assert state(parent).record == before


# Several processes


@pytest.mark.slow  # starting two processes takes 10 to 20 s
@pytest.mark.parametrize("how", [{"MATURA_SHARD": "1"}, {}], ids=["sharded", "exact"])
def test_two_inherit_what_one_inherits(how: dict[str, str], tmp_path: Path) -> None:
    """Each reads its rows, of a checkpoint that two wrote in parts."""
    exact = {} if how else {"exact": True}
    first = {"do": "run", "folder": str(tmp_path / "parent"), **exact}
    state = {"inherits": str(Checkpoints(tmp_path / "parent").at(BEST))}
    second = {"do": "run", "folder": str(tmp_path / "child"), **state, **exact}
    (_, found), _ = done(2, [first, second], tmp_path, **how)
    threads = torch.get_num_threads()
    one = run(tmp_path / "one", Team(exact=not how), **state)
    fresh = run(tmp_path / "fresh", Team(exact=not how))
    torch.set_num_threads(threads)
    assert found["losses"] != fresh["losses"]
    if how:
        for step, loss in found["losses"].items():
            assert loss == pytest.approx(one["losses"][step], abs=1e-5), step
    else:
        assert (found["losses"], found["sha256"]) == (one["losses"], one["sha256"])
