"""Control tags that start near the words that say what they mean."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from tiny import shape, spread

from matura.learn.loop import seeded
from matura.models.decoder import Decoder
from matura.models.special_rows import weigh_tags

TEXT = 40
WORDS = {40: [1, 2, 3], 41: [1, 2, 3], 42: [7], 45: [9, 9, 4]}


def matrices(model: Decoder) -> list[torch.Tensor]:
    return [model.model.embed_tokens.weight.detach(), model.lm_head.weight.detach()]


@pytest.mark.parametrize("tied", [False, True])
def test_tags_get_the_mean_of_their_words_and_nothing_else_changes(tied: bool) -> None:
    model = spread(shape(tie_embeddings=tied))
    before = [rows.clone() for rows in matrices(model)]
    others = {n: w.clone() for n, w in model.named_parameters() if ".layers." in n}
    report = weigh_tags(model, WORDS, TEXT, seeded(0))
    untouched = [i for i in range(model.config.vocab_size) if i not in WORDS]
    for old, new in zip(before, matrices(model), strict=True):
        assert torch.equal(old[untouched], new[untouched])
        usual = old[:TEXT].norm(dim=1).median()
        for tag, words in WORDS.items():
            torch.testing.assert_close(new[tag].norm(), usual)
            near = torch.cosine_similarity(new[tag], old[words].mean(0), dim=0)
            assert near > 0.99
        for one, two in combinations(WORDS, 2):
            assert not torch.equal(new[one], new[two])
    for name, weight in model.named_parameters():
        assert name not in others or torch.equal(weight, others[name])
    assert [row.id for row in report] == sorted(WORDS)
    for row in report:
        assert row.norm_before == pytest.approx(float(before[0][row.id].norm()))
        assert row.norm_after == pytest.approx(float(matrices(model)[0][row.id].norm()))


def test_tied_rows_stay_tied() -> None:
    model = spread(shape(tie_embeddings=True))
    weigh_tags(model, WORDS, TEXT, seeded(0))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_noise_is_a_function_of_the_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        model = spread(shape())
        weigh_tags(model, WORDS, TEXT, seeded(seed))
        found.append(matrices(model)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
