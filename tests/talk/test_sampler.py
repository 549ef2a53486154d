"""A row says the same alone and in a batch, cached and uncached."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import pytest
import torch
import torch.nn.functional as F

from matura.core.errors import RecipeError, RolloutError
from matura.models.decoder import Cache, Decoder, DecoderConfig
from matura.talk.chance import uniform
from matura.talk.rollout import Sampler
from matura.talk.sampler import TorchSampler, weights_sha256
from matura.text.template import Template

CONTEXT = 64


def small(template: Template, *, seed: int = 0, loud: float = 3.0) -> Decoder:
    """A random decoder whose answers are not all alike: `loud` scales its head."""
    config = DecoderConfig(
        vocab_size=template.tokenizer.vocab_size + 7,
        hidden_size=32,
        layers=2,
        heads=4,
        kv_heads=2,
        sequence_length=CONTEXT,
        qk_norm=True,
    )
    model = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.2, generator=generator)
        model.lm_head.weight.mul_(loud)
    return model


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sampler(matura: Template) -> TorchSampler:
    return TorchSampler(small(matura), matura, max_batch=8)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = Random(5)
    return [[rng.randrange(256) for _ in range(rng.randrange(1, 30))] for _ in range(21)]


def uncached(sampler: TorchSampler, prompt: list[int], tokens: int) -> list[int]:
    """Greedy continuation, the whole row read again for each id."""
    ids = list(prompt)
    while len(ids) < len(prompt) + tokens:
        with torch.no_grad():
            logits_V = sampler.model(torch.tensor([ids]))[0, -1]
        logits_V[sorted(sampler.template.forbidden_ids)] = -math.inf
        logits_V[sampler.template.tokenizer.vocab_size :] = -math.inf
        ids.append(int(logits_V.argmax()))
    return ids[len(prompt) :]


def test_cached_logits_equal_uncached_ones(sampler: TorchSampler) -> None:
    model = sampler.model
    ids_BT = torch.randint(256, (3, 20), generator=torch.Generator().manual_seed(1))
    starts = [4, 9, 1]  # rows are read up to here at once and then id by id, each at its own place
    cache = Cache.empty(model.config, 3, 20)
    with torch.no_grad():
        whole = model(ids_BT)
        model.hidden_cached(ids_BT[:, :9], torch.arange(9).expand(3, 9), cache, span=9)
        for step in range(11):
            places = torch.tensor([[start + step] for start in starts])
            ids = ids_BT.gather(1, places)
            logits = model.forward_cached(ids, places, cache, span=int(places.max()) + 1)
            wanted = torch.stack([whole[row, place] for row, place in enumerate(places[:, 0])])
            torch.testing.assert_close(logits[:, 0], wanted, rtol=1e-5, atol=1e-5)


def test_greedy_equals_the_uncached_argmax(sampler: TorchSampler, prompts: list[list[int]]) -> None:
    said = sampler.generate(prompts, max_tokens=12, stop=False)
    for prompt, generation in zip(prompts, said, strict=True):
        assert list(generation.ids) == uncached(sampler, prompt, 12)
    assert len({generation.ids for generation in said}) > 10


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_a_row_alone_is_the_row_in_a_batch(
    sampler: TorchSampler, prompts: list[list[int]], temperature: float
) -> None:
    budgets = [3 + row % 20 for row in range(len(prompts))]
    seeds = [1000 + row for row in range(len(prompts))]
    together = sampler.generate(prompts, max_tokens=budgets, temperature=temperature, seed=seeds)
    for row, prompt in enumerate(prompts):
        (alone,) = sampler.generate(
            [prompt], max_tokens=budgets[row], temperature=temperature, seed=seeds[row : row + 1]
        )
        assert alone.ids == together[row].ids
        assert alone.finish_reason == together[row].finish_reason
        assert alone.logprobs == pytest.approx(together[row].logprobs, abs=1e-4)


def test_the_first_rows_do_not_change_when_more_follow(
    sampler: TorchSampler, prompts: list[list[int]]
) -> None:
    few = sampler.generate(prompts[:5], max_tokens=9, temperature=1.0, seed=3)
    all_of_them = sampler.generate(prompts, max_tokens=9, temperature=1.0, seed=3)
    assert [g.ids for g in few] == [g.ids for g in all_of_them[:5]]
    again = sampler.generate(prompts, max_tokens=9, temperature=1.0, seed=3)
    assert again == all_of_them
    other = sampler.generate(prompts, max_tokens=9, temperature=1.0, seed=4)
    assert [g.ids for g in other] != [g.ids for g in all_of_them]


def test_rows_of_one_prompt_differ_from_their_first_id_on(sampler: TorchSampler) -> None:
    said = sampler.generate([[1, 2, 3]] * 64, max_tokens=4, temperature=1.5, stop=False)
    assert len({generation.ids[0] for generation in said}) > 8
    assert len({generation.ids for generation in said}) > 48


def test_sampling_follows_the_distribution(matura: Template) -> None:
    sampler = TorchSampler(small(matura, loud=1.0), matura, max_batch=512)
    rows = 4000
    said = sampler.generate([[7, 8]] * rows, max_tokens=1, temperature=0.8, stop=False)
    with torch.no_grad():
        logits_V = sampler.model(torch.tensor([[7, 8]]))[0, -1]
    logits_V[sorted(matura.forbidden_ids)] = -math.inf
    logits_V[matura.tokenizer.vocab_size :] = -math.inf
    wanted_V = (logits_V / 0.8).softmax(-1)
    counts_V = torch.zeros_like(wanted_V)
    for generation in said:
        counts_V[generation.ids[0]] += 1
    likely = wanted_V.topk(5).indices
    for id in likely.tolist():
        share = float(wanted_V[id])
        assert abs(counts_V[id] / rows - share) < 5 * math.sqrt(share * (1 - share) / rows)
    assert float((counts_V / rows - wanted_V).abs().sum()) < 0.35


@pytest.mark.parametrize("temperature", [0.0, 5.0, 1000.0])
def test_a_forbidden_id_is_never_sampled(template: Template, temperature: float) -> None:
    model = small(template)
    forbidden = sorted(template.forbidden_ids)
    with torch.no_grad():  # as if training had gone badly wrong: results and roles before all else
        direction = model.lm_head.weight[forbidden[0]].clone() * 20
        model.lm_head.weight[forbidden] = direction
    sampler = TorchSampler(model, template, max_batch=64)
    said = sampler.generate(
        [[row, 3] for row in range(60)], max_tokens=20, temperature=temperature, stop=False
    )
    ids = {id for generation in said for id in generation.ids}
    assert not ids & template.forbidden_ids
    assert max(ids) < template.tokenizer.vocab_size
    assert {len(generation.ids) for generation in said} == {20}


def wanting(template: Template, id: int) -> TorchSampler:
    """A model that always says this id."""
    model = small(template)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[id] = 1.0
    return TorchSampler(model, template)


def test_a_stop_id_ends_the_row_and_is_kept(template: Template) -> None:
    for id in template.stop_ids:
        (said,) = wanting(template, id).generate([[1, 2]], max_tokens=9)
        assert (said.ids, said.finish_reason) == ((id,), "stop")
        (said,) = wanting(template, id).generate([[1, 2]], max_tokens=1)
        assert said.finish_reason == "stop"
        (said,) = wanting(template, id).generate([[1, 2]], max_tokens=9, stop=False)
        assert (said.ids, said.finish_reason) == ((id,) * 9, "length")


def test_length_and_the_end_of_the_context(matura: Template) -> None:
    sampler = wanting(matura, 65)
    said = sampler.generate(
        [[1], [1] * 50, [1] * CONTEXT, [1] * (CONTEXT + 9), [2]], max_tokens=[5, 99, 5, 5, 0]
    )
    assert [len(g.ids) for g in said] == [5, CONTEXT - 50, 0, 0, 0]
    assert {g.finish_reason for g in said} == {"length"}
    assert sampler.generate([], max_tokens=5) == []


def test_logprobs_are_the_model_s_own(sampler: TorchSampler, prompts: list[list[int]]) -> None:
    for temperature in (0.0, 1.7):
        said = sampler.generate(prompts, max_tokens=8, temperature=temperature, stop=False)
        rows = [[*p, *g.ids] for p, g in zip(prompts, said, strict=True)]
        for prompt, generation, nats in zip(prompts, said, sampler.nats(rows), strict=True):
            assert [-n for n in nats[len(prompt) - 1 :]] == pytest.approx(
                generation.logprobs, abs=1e-4
            )


def test_nats_are_those_of_each_row_alone(sampler: TorchSampler, prompts: list[list[int]]) -> None:
    for row, nats in zip(prompts, sampler.nats(prompts), strict=True):
        assert len(nats) == len(row) - 1
        if nats:
            with torch.no_grad():
                logits_TV = sampler.model(torch.tensor([row]))[0, :-1]
            wanted = F.cross_entropy(logits_TV, torch.tensor(row[1:]), reduction="none")
            assert nats == pytest.approx(wanted.tolist(), abs=1e-4)
    assert sampler.nats([]) == []


def test_prefix_matching_is_the_mean_attention_to_the_targets(sampler: TorchSampler) -> None:
    rows = [[1, 2, 3, 1, 2], [4, 5, 4], [9]]
    targets = [[-1, -1, -1, 1, 2], [-1, -1, 1], [-1]]
    found = sampler.prefix_matching(rows, targets)
    assert (len(found), len(found[0])) == (2, 4)
    for layer in range(2):
        for head in range(4):
            seen = []
            for row, wanted in zip(rows, targets, strict=True):
                with torch.no_grad():
                    weights = sampler.model.attention(torch.tensor([row]))[layer][0, head]
                seen += [float(weights[t, j]) for t, j in enumerate(wanted) if j >= 0]
            assert found[layer][head] == pytest.approx(sum(seen) / len(seen), abs=1e-5)
    for bad in ([[0, 2]], [[0]], [[-2, 0]], [[-1, -1]]):
        with pytest.raises(RolloutError):
            sampler.prefix_matching([[1, 2]], bad)


def test_bad_input_is_refused(sampler: TorchSampler) -> None:
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(RecipeError, match="temperature"):
            sampler.generate([[1]], max_tokens=1, temperature=temperature)
    for prompt in ([], [-1], [sampler.model.config.vocab_size]):
        with pytest.raises(RolloutError):
            sampler.generate([prompt], max_tokens=1)
    with pytest.raises(RolloutError, match="context"):
        sampler.nats([[1] * (CONTEXT + 1)])


def test_a_broken_row_ends_as_an_error_and_no_other_does(matura: Template) -> None:
    model = small(matura)
    with torch.no_grad():
        model.model.embed_tokens.weight[200] = math.nan
    sampler = TorchSampler(model, matura)
    for temperature in (0.0, 1.0):
        good, bad = sampler.generate([[1, 2], [1, 200]], max_tokens=4, temperature=temperature)
        assert good.finish_reason != "error"
        assert bad.finish_reason == "error"


def test_the_stream_says_what_generate_says(
    sampler: TorchSampler, prompts: list[list[int]]
) -> None:
    for temperature in (0.0, 1.0):
        for prompt in prompts[:4]:
            (said,) = sampler.generate([prompt], max_tokens=9, temperature=temperature, seed=7)
            tokens = list(sampler.stream(prompt, max_tokens=9, temperature=temperature, seed=7))
            assert tuple(token.id for token in tokens) == said.ids
            assert tokens[-1].finish_reason == said.finish_reason
            assert {token.finish_reason for token in tokens[:-1]} <= {None}
    assert list(sampler.stream([1] * CONTEXT, max_tokens=9)) == []


def test_sampling_leaves_the_model_and_every_global_stream_as_they_were(matura: Template) -> None:
    model = small(matura)
    model.compute_dtype = torch.bfloat16
    before, state = weights_sha256(model), torch.get_rng_state()
    sampler: Sampler = TorchSampler(model, matura)
    generations = sampler.generate([[1, 2, 3]], max_tokens=5, temperature=1.0)
    sampler.nats([[1, 2, 3]])
    sampler.prefix_matching([[1, 1]], [[-1, 0]])
    assert model.compute_dtype is torch.bfloat16
    assert torch.equal(torch.get_rng_state(), state)
    assert sampler.weights_sha256 == before
    assert all(weight.grad is None for weight in model.parameters())
    # and it computed in fp32, whatever training computes in
    model.compute_dtype = torch.float32
    assert sampler.generate([[1, 2, 3]], max_tokens=5, temperature=1.0) == generations
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-6
    assert sampler.weights_sha256 != before


def test_a_training_step_may_stand_between_two_streamed_ids(sampler: TorchSampler) -> None:
    stream = sampler.stream([1, 2, 3], max_tokens=4)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    (torch.ones(2, requires_grad=True) * 2).sum().backward()
    assert len(list(stream)) <= 3


def test_uniform_numbers_are_uniform_and_free_of_patterns() -> None:
    seeds = list(range(200))
    numbers = torch.tensor([list(uniform(seeds, step)) for step in range(200)])
    assert 0.0 <= float(numbers.min()) < 0.001
    assert 0.999 < float(numbers.max()) < 1.0
    assert abs(float(numbers.mean()) - 0.5) < 0.01
    flat = numbers.flatten()
    assert len(flat.unique()) == len(flat)
    for one, other in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        together = torch.stack((one.flatten(), other.flatten())).corrcoef()[0, 1]
        assert abs(float(together)) < 0.03


def test_small_memory_for_the_cache_changes_no_answer(
    sampler: TorchSampler, prompts: list[list[int]]
) -> None:
    tight = TorchSampler(sampler.model, sampler.template, cache_bytes=1)
    before = sampler.generate(prompts, max_tokens=7, temperature=1.0, seed=2)
    after = tight.generate(prompts, max_tokens=7, temperature=1.0, seed=2)
    assert [g.ids for g in before] == [g.ids for g in after]


def test_what_training_wrote_in_between_is_heard(
    matura: Template, prompts: list[list[int]]
) -> None:
    model = small(matura)
    sampler = TorchSampler(model, matura)
    sampler.generate(prompts[:4], max_tokens=6, stop=False)
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight.mul_(-3.0)  # type: ignore[union-attr]
    fresh = TorchSampler(model, matura).generate(prompts[:4], max_tokens=6, stop=False)
    assert sampler.generate(prompts[:4], max_tokens=6, stop=False) == fresh
