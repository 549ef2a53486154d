"""Control tags that start with a meaning: their rows are averages of the rows of words that say it.

A model that never saw `<|user|>` learns a chat format faster when the tag's row starts near "user"
than near nothing (MyPT's "sft ready" checkpoint). Norms are matched to trained rows, and small
noise keeps tags with the same words apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.models.decoder import Decoder

NOISE = 0.05
"""Size of the noise relative to the row: enough that no two tags are equal, too little to hide the
words."""


@dataclass(frozen=True)
class Weighted:
    """What happened to one tag's row: cosine to the old one, and the norms."""

    id: int
    cosine: float
    norm_before: float
    norm_after: float


def weigh_tags(
    model: Decoder, words: Mapping[int, Sequence[int]], text_ids: int, generator: torch.Generator
) -> list[Weighted]:
    """Gives each tag in `words` the mean row of its words' ids, in the input embedding and the
    head.

    `text_ids`: ids below are text, whose rows are the measure of a trained row's norm.
    """
    report: list[Weighted] = []
    matrices = [model.model.embed_tokens.weight]
    if not model.config.tie_embeddings:
        matrices.append(model.lm_head.weight)
    with torch.no_grad():
        for which, rows in enumerate(matrices):
            usual = rows[:text_ids].norm(dim=1).median()
            for tag, ids in sorted(words.items()):
                row = _row(rows, ids, usual, generator)
                if which == 0:
                    before = rows[tag]
                    cosine = torch.cosine_similarity(before, row, dim=0)
                    report.append(
                        Weighted(tag, float(cosine), float(before.norm()), float(row.norm()))
                    )
                rows[tag] = row
    return report


def grown(model: Decoder, rows: int) -> Decoder:
    """The model with at least so many rows in its matrices of ids, new ones the mean of the others:
    no likelier than any word, until they are weighed or learnt."""
    old = model.config.vocab_size
    if rows <= old:
        return model
    made = Decoder(model.config.model_copy(update={"vocab_size": rows}))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            before = model.get_parameter(name)
            if before.shape == weight.shape:
                weight.copy_(before)
            else:
                weight[:old] = before
                weight[old:] = before.mean(dim=0)
    return made.train(model.training)


def _row(rows: Tensor, ids: Sequence[int], norm: Tensor, generator: torch.Generator) -> Tensor:
    """The mean of some rows, with a trained row's norm and a little noise."""
    mean = rows[list(ids)].mean(dim=0)
    noise = torch.randn(mean.shape, generator=generator)
    row = mean / mean.norm().clamp(min=1e-6) + NOISE * noise / noise.norm()
    scaled: Tensor = row / row.norm() * norm
    return scaled
