"""Updates arrive where they belong, however small, and the optimizer's state survives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tiny import shape, spread
from torch import Tensor

from matura.learn.loop import seeded
from matura.learn.optim import Optimizer, is_matrix, orthogonalised, update_ratio, update_ratios
from matura.models.decoder import Decoder


def optimizer(model: Decoder, rate: float = 0.01, **more: float) -> Optimizer:
    rates = {
        "matrix_learning_rate": rate,
        "learning_rate": rate,
        "embedding_learning_rate": rate,
        "weight_decay": 0.0,
    }
    return Optimizer.of(model, **(rates | more), muon_dtype=torch.float32)


def with_gradients(model: Decoder, seed: int = 0) -> Decoder:
    generator = seeded(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)
    return model


def copies(model: Decoder) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_end_near_1(dtype: torch.dtype) -> None:
    stack = (
        torch.randn(3, 16, 40, generator=seeded(0)) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    )
    values = torch.linalg.svdvals(orthogonalised(stack, dtype))
    assert bool((values > 0.6).all())
    assert bool((values < 1.3).all())


def test_a_zero_gradient_stays_zero() -> None:
    assert not orthogonalised(torch.zeros(2, 4, 8)).any()


def test_muon_takes_matrices_of_layers_only() -> None:
    model = spread(shape(qk_norm=True))
    taken = {name for name, weight in model.named_parameters() if is_matrix(name, weight)}
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.split(".")[-2] for name in taken} == set(names)
    made = optimizer(model)
    variance = {name.removeprefix("variance.") for name in made.buffers if "variance" in name}
    assert variance == {name for name, _ in model.named_parameters()} - taken
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= variance


@pytest.mark.parametrize(
    ("rate", "moves"),
    [
        ("matrix_learning_rate", lambda name: "_proj" in name),
        ("embedding_learning_rate", lambda name: "embed_tokens" in name),
        ("learning_rate", lambda name: "_proj" not in name and "embed_tokens" not in name),
    ],
)
def test_each_rate_moves_its_own_weights(rate: str, moves: Callable[[str], bool]) -> None:
    model = with_gradients(spread(shape(qk_norm=True)))
    before = copies(model)
    optimizer(model, 0.0, **{rate: 0.01}).step(1.0)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) != moves(name), name
        assert weight.grad is None


def test_the_first_step_is_as_long_as_the_rate_says() -> None:
    """AdamW moves each weight by the rate, Muon each matrix by about it in every direction."""
    model = with_gradients(spread(shape()))
    before = copies(model)
    optimizer(model, 0.01).step(0.5)
    for name, weight in model.named_parameters():
        move = weight.detach() - before[name]
        if is_matrix(name, weight):
            values = torch.linalg.svdvals(move) / max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
            assert float(values.max()) < 0.005 * 1.3
            assert float(values.min()) > 0.005 * 0.6
        else:
            torch.testing.assert_close(move.abs(), torch.full_like(move, 0.005), rtol=1e-2, atol=0)


def test_adamw_is_torch_s_own() -> None:
    model, twin = spread(shape()), spread(shape())
    names = [n for n, w in model.named_parameters() if not is_matrix(n, w)]
    theirs = torch.optim.AdamW(
        [w for n, w in twin.named_parameters() if n in names],
        lr=0.01,
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=0.0,
    )
    ours = optimizer(model)
    for step in range(5):
        with_gradients(model, step)
        with_gradients(twin, step)
        ours.step(1.0)
        theirs.step()
    for name in names:
        torch.testing.assert_close(
            model.get_parameter(name), twin.get_parameter(name), rtol=1e-5, atol=1e-6
        )


def test_an_update_of_a_millionth_survives() -> None:
    """C-20: in bf16 weights it would be rounded away; 100 of them must add up to 1e-4."""
    model = spread(shape())
    model.compute_dtype = torch.bfloat16
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
    made = optimizer(model, 0.0, learning_rate=1e-6, embedding_learning_rate=1e-6)
    names = ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"]
    for step in range(1, 101):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        made.step(1.0)
        if step in (1, 100):
            for name in names:
                moved = 1.0 - model.get_parameter(name).detach()
                torch.testing.assert_close(
                    moved, torch.full_like(moved, step * 1e-6), rtol=0.1, atol=0
                )


def test_a_matrix_keeps_an_update_of_a_millionth() -> None:
    model = with_gradients(spread(shape()))
    before = copies(model)
    optimizer(model, 0.0, matrix_learning_rate=1e-6).step(1.0)
    for name, weight in model.named_parameters():
        if is_matrix(name, weight):
            assert float((weight.detach() != before[name]).float().mean()) > 0.9


def test_weight_decay_shrinks_matrices() -> None:
    model = spread(shape())
    before = copies(model)
    optimizer(model, 0.1, weight_decay=0.5).step(1.0)  # no gradient: nothing but decay
    for name, weight in model.named_parameters():
        if is_matrix(name, weight):
            torch.testing.assert_close(weight.detach(), before[name] * 0.95)


def test_clipping() -> None:
    model = with_gradients(spread(shape()))
    made = optimizer(model)
    grads = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    norm = float(torch.cat(grads).norm())
    assert made.clip(1e9) == pytest.approx(norm, rel=1e-5)
    assert made.clip(0.5) == pytest.approx(norm, rel=1e-5)
    assert made.clip(1e9) == pytest.approx(0.5, rel=1e-4)


def test_the_state_of_one_goes_on_in_another() -> None:
    model, twin = spread(shape()), spread(shape())
    one = optimizer(model)
    for step in range(3):
        with_gradients(model, step)
        one.step(1.0)
    other = optimizer(twin)
    other.restore({name: t.clone() for name, t in one.state().items()}, one.step_count)
    twin.load_state_dict(model.state_dict())
    for each, made in ((model, one), (twin, other)):
        with_gradients(each, 9)
        made.step(0.7)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, twin.get_parameter(name))


@pytest.mark.parametrize("name", ["momentum.model.norm.weight", "variance.lm_head.weight"])
def test_a_state_that_does_not_fit_is_refused(name: str) -> None:
    made = optimizer(spread(shape()))
    state = made.state()
    with pytest.raises(KeyError, match=name):
        made.restore({n: t for n, t in state.items() if n != name}, 1)
    with pytest.raises(KeyError, match="more"):
        made.restore(state | {"more": torch.ones(1)}, 1)
    with pytest.raises(ValueError, match=name):  # a tensor of one number would spread over all
        made.restore(state | {name: torch.ones(1)}, 1)
    with pytest.raises(ValueError, match=name):
        made.restore(state | {name: state[name].double()}, 1)
    assert made.step_count == 0


def test_the_update_is_measured_against_the_weights() -> None:
    before = [torch.full((4,), 2.0), torch.full((9,), 2.0)]
    assert update_ratio(before, [b * 1.01 for b in before]) == pytest.approx(0.01, rel=1e-4)
    assert update_ratio(before, before) == 0.0
    assert update_ratio([torch.zeros(4)], [torch.ones(4)]) == 2.0
    assert not math.isfinite(update_ratio(before, [b * math.inf for b in before]))


def test_update_ratios_by_group_hold_every_parameter_once() -> None:
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight",
             "model.layers.0.input_layernorm.weight", "lm_head.weight"]  # fmt: skip
    before = {name: torch.ones(4, 4) if "norm" not in name else torch.ones(4) for name in names}
    by = (1.1, 1.2, 1.3, 1.4)
    after = {name: before[name] * times for name, times in zip(names, by, strict=True)}
    found = update_ratios(before, after)
    assert found == {
        "embeddings": pytest.approx(0.1, rel=1e-4),
        "matrices": pytest.approx(0.2, rel=1e-4),
        "rest": pytest.approx(0.3, rel=1e-4),
        "head": pytest.approx(0.4, rel=1e-4),
    }
