"""Red lines while learning: each fault is injected and caught, and healthy runs raise none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tiny import FP32, VOCAB, Noted, fresh, numbered, settings, shape, spread, trained, weights_of
from torch import Tensor

from matura.core.errors import RedLine
from matura.learn.batch import Batch
from matura.learn.gold import Gold
from matura.learn.loop import Evaluation, seeded
from matura.learn.objectives.next_token import NextToken
from matura.learn.optim import Optimizer
from matura.learn.redlines import IN_A_ROW, WINDOWS, RedLines
from matura.learn.sight import check_sight
from matura.learn.step import Stepper
from matura.models.decoder import Decoder

CHANCE = math.log(VOCAB)
GPT2 = 50_257


def stepper(model: Decoder | None = None) -> Stepper:
    return Stepper(fresh(layers=2) if model is None else model, NextToken(), FP32)


# F6 and F5: what a position sees, before the first step


def no_mask(length: int, segments_BT: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros(1, 1, length, length, dtype=like.dtype)


def causal_only(length: int, segments_BT: Tensor | None, like: Tensor) -> Tensor:
    hidden = torch.full((length, length), float("-inf"), dtype=like.dtype).triu(1)
    return hidden[None, None]


def packed_only(length: int, segments_BT: Tensor | None, like: Tensor) -> Tensor:
    """Within its own example a position sees everything, also what comes after it."""
    assert segments_BT is not None
    other = segments_BT[:, None, :, None] != segments_BT[:, None, None, :]
    return torch.zeros(other.shape, dtype=like.dtype).masked_fill_(other, float("-inf"))


@pytest.mark.parametrize("hole", [no_mask, causal_only, packed_only])
@pytest.mark.parametrize("start", ["fresh", "trained"])
def test_f6_a_hole_in_the_mask_is_found_before_the_first_step(
    hole: Callable[..., Tensor], start: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also in a fresh model, whose layers add nothing yet: the losses could not tell."""
    monkeypatch.setattr("matura.learn.step.unseen", hole)
    model = fresh() if start == "fresh" else spread(shape())
    before = weights_of(model)
    with pytest.raises(RedLine, match="the future is seen: before the first step, rows of step 0"):
        trained(tmp_path, settings(5), model=model, scratch=start == "fresh")
    assert weights_of(model) == before
    assert list(tmp_path.iterdir()) == []


def test_f5_labels_that_are_the_inputs_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Batch, "targets_BT", property(lambda batch: batch.ids_BL[:, :-1]))
    with pytest.raises(RedLine, match="targets are not the next tokens"):
        trained(tmp_path, settings(5))


@pytest.mark.parametrize("micro_rows", [None, 1, 3])
@pytest.mark.parametrize("positions", ["segment", "row"])
def test_a_right_mask_is_no_red_line_and_leaves_no_gradient(
    micro_rows: int | None, positions: Any
) -> None:
    for model in (fresh(), fresh(layers=2, tie_embeddings=True), spread(shape())):
        before = weights_of(model)
        check_sight(stepper(model), replace(numbered(3), positions=positions), micro_rows)
        assert weights_of(model) == before
        assert all(weight.grad is None for weight in model.parameters())


def test_rows_too_short_or_empty_tell_nothing() -> None:
    batch = numbered(0)
    empty = replace(batch, segments_BL=torch.zeros_like(batch.segments_BL))
    alone = torch.arange(1, batch.ids_BL.shape[1] + 1).expand_as(batch.segments_BL)
    for odd in (empty, replace(batch, segments_BL=alone.contiguous())):
        check_sight(stepper(), odd)


# F4, and S001-29: nothing is learnt


def random_labels(step: int) -> Batch:
    ids = torch.randint(VOCAB, (16, 17), generator=seeded(step))
    return replace(numbered(step, rows=16), ids_BL=ids)


def shuffled_labels(step: int) -> Batch:
    """The tokens of a language in which some are common, in any order."""
    weights = 1.0 / torch.arange(1, VOCAB + 1)
    ids = torch.multinomial(weights, 16 * 17, replacement=True, generator=seeded(step))
    return replace(numbered(step, rows=16), ids_BL=ids.view(16, 17))


def entropy(batches: Callable[[int], Batch]) -> float:
    counts = torch.bincount(torch.cat([batches(i).ids_BL.flatten() for i in range(100)]))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())


@pytest.mark.parametrize("batches", [random_labels, shuffled_labels])
def test_f4_random_and_shuffled_labels_are_found_within_200_steps(
    batches: Callable[[int], Batch], tmp_path: Path
) -> None:
    """D3: above the unigram entropy."""
    how = settings(500, evaluate_at=frozenset())
    lines = RedLines(VOCAB, entropy(batches))
    ledger = Noted()
    with pytest.raises(RedLine, match="not learning: step"):
        trained(tmp_path, how, batches=batches, lines=lines, ledger=ledger)
    assert len(ledger.losses) <= 200


def fed(lines: RedLines, losses: Iterator[float] | list[float], rate: float = 1.0) -> int | None:
    """The step at which a trace of losses is stopped, if it is."""
    for step, loss in enumerate(losses):
        try:
            lines.step(step, f"rows {step}", loss, rate)
        except RedLine:
            return step
    return None


def noisy(levels: Callable[[int], float], steps: int, noise: float, seed: int) -> list[float]:
    draw = Random(seed)
    return [levels(step) + draw.gauss(0, noise) for step in range(steps)]


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_stays_at_10_is_found(seed: int) -> None:
    """S001-29, with a vocabulary whose chance is 10.8; the entropy need not be known."""
    for unigram in (None, 7.4):
        stuck = noisy(lambda step: 10.2, 400, 0.05, seed)
        assert (fed(RedLines(GPT2, unigram), stuck) or 999) <= 200


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_step", [0.001, 0.003, 0.01])
def test_a_loss_that_falls_slowly_is_none(seed: int, per_step: float) -> None:
    """S001-33, however high it still is."""
    slow = noisy(lambda step: 10.6 - per_step * step, 500, 0.05, seed)
    assert fed(RedLines(GPT2, 7.4), slow) is None


def test_warming_up_is_none() -> None:
    """While the rate is next to nothing, so is what is learnt."""
    lines = RedLines(GPT2, 7.4)
    assert fed(lines, noisy(lambda step: 10.8, 1000, 0.02, 0), rate=0.1) is None
    assert fed(lines, noisy(lambda step: 10.8 - step / 100, 600, 0.02, 0)) is None


# S001-32: what was learnt is gone


def test_a_run_whose_loss_jumps_is_stopped_and_one_odd_batch_is_none() -> None:
    base = noisy(lambda step: 3.0, 100, 0.1, 1)
    odd = [*base, 9.0, *noisy(lambda step: 3.0, 60, 0.1, 2), *[9.0] * (IN_A_ROW - 1), *base]
    assert fed(RedLines(GPT2), odd) is None
    lost = fed(RedLines(GPT2), [*base, *[9.0] * 20])
    assert lost == 100 + IN_A_ROW - 1


def test_swinging_chat_batches_are_none() -> None:
    """Losses of 0.06 to 1.5 from one batch to the next were healthy (LOG 2026-11-20)."""
    draw = Random(0)
    assert fed(RedLines(2048, 4.0), [draw.uniform(0.06, 1.5) for _ in range(600)]) is None


def zeroed(rows: Tensor) -> None:
    rows.zero_()


def shuffled(rows: Tensor) -> None:
    rows.copy_(rows[torch.randperm(len(rows), generator=seeded(1))])


def scaled(rows: Tensor) -> None:
    rows.mul_(100)


FAULTS = [zeroed, shuffled, scaled]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("some", [2, VOCAB])
def test_f12_embeddings_edited_between_steps_are_found_at_once(
    fault: Callable[[Tensor], None], some: int, tmp_path: Path
) -> None:
    model, ledger = fresh(), Noted()

    def batches(step: int) -> Batch:
        if step == 12:
            with torch.no_grad():
                fault(model.model.embed_tokens.weight[:some])
        return numbered(step)

    with pytest.raises(RedLine, match=rf"embeddings broken: before step 12: {some} rows changed"):
        trained(tmp_path, settings(), model=model, batches=batches, ledger=ledger)
    assert max(ledger.losses) == 11


@pytest.mark.parametrize(("fault", "some"), [(zeroed, VOCAB), (shuffled, VOCAB), (scaled, 12)])
def test_f12_embeddings_broken_by_an_update_are_found_by_the_next_evaluation(
    fault: Callable[[Tensor], None], some: int, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ledger = fresh(), Noted()
    real = Optimizer.step

    def step(optimizer: Optimizer, factor: float) -> None:
        real(optimizer, factor)
        if optimizer.step_count == 58:
            with torch.no_grad():
                fault(model.model.embed_tokens.weight[:some])

    monkeypatch.setattr(Optimizer, "step", step)
    how = settings(120, evaluate_at=frozenset({40, 58, 80}))
    with pytest.raises(RedLine, match=r"lost basic language: step 58|embeddings broken: step 58"):
        trained(ram, how, model=model, ledger=ledger)


@pytest.mark.parametrize(("fault", "told"), [(zeroed, "3 rows of zeros"), (scaled, "2 rows more")])
def test_f12_a_few_odd_rows_are_found_at_an_evaluation(
    fault: Callable[[Tensor], None], told: str
) -> None:
    """So few that no loss shows it; those that were there from the start are none."""
    model = fresh()
    with torch.no_grad():
        model.model.embed_tokens.weight[5].zero_()
    lines = RedLines(VOCAB)
    lines.begin(model, {})
    lines.evaluation(5, model, {"a": 2.0}, {}, {})
    with torch.no_grad():
        fault(model.model.embed_tokens.weight[5:8])
    with pytest.raises(RedLine, match=told):
        lines.evaluation(10, model, {"a": 2.0}, {}, {})


def test_a_base_that_lost_its_language_is_found() -> None:
    lines, model = RedLines(2048), fresh()
    lines.begin(model, {"replay:base.text": 2.9})
    for half_forgotten in (3.5, 4.1, 3.2):  # without any replay: docs/LOG.md
        lines.evaluation(5, model, {"replay:base.text": half_forgotten}, {}, {})
    with pytest.raises(RedLine, match=r"lost basic language: step 9, replay:base.text: .* 6.400"):
        lines.evaluation(9, model, {"replay:base.text": 6.4}, {}, {})


# Behaviour: seen twice


def flagged(at: dict[int, dict[str, str]]) -> Callable[[int], Evaluation]:
    return lambda step: Evaluation({"a": 1.0}, 0.5, flags=at.get(step, {}))


COLLAPSE = {"mode collapse": "59 of 60 answers are 'ok'"}
TAGS = {"malformed tags": "40 of 60 answers"}


def test_behaviour_that_stays_stops_the_run(tmp_path: Path) -> None:
    at = {5: TAGS, 10: COLLAPSE, 15: COLLAPSE | TAGS}
    with pytest.raises(RedLine, match="mode collapse: step 15, and the evaluation before: 59 of"):
        trained(tmp_path, settings(), evaluate=flagged(at))


def test_behaviour_that_heals_does_not(tmp_path: Path) -> None:
    found = trained(tmp_path, settings(), evaluate=flagged({5: COLLAPSE, 10: TAGS, 20: COLLAPSE}))
    assert found.fitted.last.flags == COLLAPSE


def test_what_was_seen_before_a_kill_is_remembered(tmp_path: Path) -> None:
    def killed(step: int) -> Batch:
        if step == 12:
            raise KeyboardInterrupt
        return numbered(step)

    look = flagged({10: COLLAPSE, 15: COLLAPSE})
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, settings(), evaluate=look, batches=killed)
    with pytest.raises(RedLine, match="mode collapse: step 15"):
        trained(tmp_path, settings(), evaluate=look)


def test_the_state_survives_a_restart() -> None:
    losses = noisy(lambda step: 10.2, 400, 0.05, 0)
    whole, cut = RedLines(GPT2), RedLines(GPT2)
    stopped = fed(whole, losses)
    assert stopped is not None
    for step, loss in enumerate(losses[:stopped]):
        cut.step(step, "", loss, 1.0)
        if step % 37 == 0:
            again = RedLines(GPT2)
            again.restore(cut.state())
            assert again == cut
            cut = again
    with pytest.raises(RedLine, match="not learning"):
        cut.step(stopped, "", losses[stopped], 1.0)


# Twenty healthy runs


def healthy(seed: int) -> list[float]:
    """Losses as healthy runs have them: a quick fall, a slow one, a cliff after a plateau among
    sources that do learn, a chat stage that swings, or an old model that has little to learn."""
    draw = Random(seed)
    noise = draw.uniform(0.02, 0.3)
    last, start = draw.uniform(0.2, 3.5), math.log(2048)
    cliff = draw.randrange(200, 400)
    kinds: list[Callable[[int], float]] = [
        lambda step: last + (start - last) * math.exp(-step / 60),
        lambda step: start - 0.5 * math.log1p(step / 5),
        lambda step: 0.6 * (3 + 4.6 * math.exp(-step / 50)) + 0.4 * (7.6 if step < cliff else 0.2),
        lambda step: 0.3 + draw.random() * 0.8 + 1.5 * math.exp(-step / 20),
        lambda step: last + 0.3 * math.exp(-step / 100),
    ]
    return [max(0.001, loss) for loss in noisy(kinds[seed % 5], 600, noise, seed)]


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_trace_raises_none(seed: int) -> None:
    draw = Random(seed)
    lines = RedLines(2048, draw.uniform(5.5, 7.0))
    lines.begin(fresh(), {"replay:a": 2.0})
    losses = healthy(seed)
    assert fed(lines, losses) is None
    assert len(lines.recent) == WINDOWS[-1]
    model = fresh()
    for step in range(100, 600, 100):
        old = 2.0 + draw.uniform(-0.2, 1.2)
        lines.evaluation(step, model, {"own": losses[step], "replay:a": old}, {}, {})


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_run_raises_none(seed: int, ram: Path) -> None:
    """And ends where it would have ended without anybody looking."""
    model = Decoder(shape(qk_norm=True, layers=1 + seed % 2, tie_embeddings=seed == 2))
    model.start(seeded(seed))

    def batches(step: int) -> Batch:
        return numbered(1000 * seed + step)

    lines = RedLines(VOCAB, entropy(numbered))
    how = settings(160, evaluate_at=frozenset(range(40, 161, 40)))
    found = trained(
        ram,
        how,
        model=model,
        batches=batches,
        lines=lines,
        gold=Gold(0.25, 0.2),
        begin=lambda: {"counting": CHANCE},
    )
    assert found.losses[159] < 0.6 * found.losses[0]
    assert len(lines.recent) >= WINDOWS[0]
