"""What a position sees, tried out before the first step: nothing that comes after it, nothing of
another example, and a target that is the next token.

It is tried on the training's own path, compiled or not, and on gradients rather than losses: in a
fresh model every layer adds nothing yet, so its losses could not tell a hole in the mask.

Axes: B rows, L tokens of a row.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from matura.core.errors import RedLine
from matura.learn.batch import Batch
from matura.learn.step import Stepper
from matura.models.layers import Block
from matura.models.pieces import whole

TOLERANCE = 1e-3
"""Share that a gradient may differ by. What is computed is the same to the bit, but for kernels
that add in no fixed order; a hole in the mask changes it by a tenth and more."""
LEAST = 3
"""Tokens that an example needs to have something before the cut and something after it."""
ROWS = 2
"""Rows on which targets are looked at."""


def check_sight(stepper: Stepper, batch: Batch, micro_rows: int | None = None) -> None:
    """Looks at the first micro-batch; no gradient is left behind, and no weight changed.

    Raises:
        RedLine: a position sees what it must not, or is not taught the next token.
    """
    part = next(batch.split(stepper.room.cut.of(len(batch.ids_BL), micro_rows)))
    known_BL, cut_BL = _halves(part.segments_BL)
    if not bool(known_BL.any()):
        return
    weighed = replace(part, weights_BL=known_BL.to(part.weights_BL.dtype))
    changed = replace(weighed, ids_BL=_others(part.ids_BL, ~_upto(known_BL), stepper))
    total, gradients = _gradients(stepper, weighed)
    other_total, other = _gradients(stepper, changed)
    off = max(
        abs(total - other_total) / max(abs(total), 1e-9),
        *(
            float((a - b).norm() / a.norm().clamp(min=1e-12))
            for a, b in zip(gradients, other, strict=True)
        ),
    )
    if not math.isfinite(off):
        return  # the step itself tells, and the next one is looked at instead
    if off > TOLERANCE:
        raise RedLine(
            f"the future is seen: before the first step, {batch.name}: changing only what comes "
            f"later, or stands in other examples, changes a gradient by {off:.1%}; the attention "
            "mask has a hole"
        )
    _check_targets(stepper, part, cut_BL)


def _check_targets(stepper: Stepper, part: Batch, cut_BL: Tensor) -> None:
    """A target that is the next token makes the loss depend on the next token."""
    few = next(replace(part, weights_BL=cut_BL.to(part.weights_BL.dtype)).split(ROWS))
    if not bool(cut_BL[:ROWS].any()):
        return
    other = replace(few, ids_BL=_others(few.ids_BL, cut_BL[:ROWS], stepper))
    if float(stepper.measure(few).total) == float(stepper.measure(other).total):
        raise RedLine(
            f"targets are not the next tokens: before the first step, {part.name}: the loss at a "
            "position stays the same whatever comes next; are the labels the inputs?"
        )


def _halves(segments_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Of one example a row: the tokens to be known, from its second to a cut half way, and the
    cut."""
    known = torch.zeros_like(segments_BL, dtype=torch.bool)
    cut = known.clone()
    for row, segments in enumerate(segments_BL.tolist()):
        sizes: dict[int, int] = {}
        for segment in segments:
            sizes[segment] = sizes.get(segment, 0) + (segment > 0)
        longest = max(sizes, key=lambda segment: sizes[segment])
        if sizes[longest] < LEAST:
            continue
        first = segments.index(longest)
        last = first + sizes[longest] // 2
        known[row, first + 1 : last + 1] = True
        cut[row, last] = True
    return known, cut


def _upto(known_BL: Tensor) -> Tensor:
    """The known tokens and the one before them, which they are told from."""
    upto = known_BL.clone()
    upto[:, :-1] |= known_BL[:, 1:]
    return upto


def _others(ids_BL: Tensor, where_BL: Tensor, stepper: Stepper) -> Tensor:
    """The ids, other ones where it is said."""
    vocab = stepper.model.config.vocab_size
    return torch.where(where_BL, (ids_BL + 1 + vocab // 3) % vocab, ids_BL)


def _gradients(stepper: Stepper, batch: Batch) -> tuple[float, list[Tensor]]:
    """The loss, and the gradients of what is read elsewhere in the first layer and the last; where
    that is frozen, of all that learns in them."""
    layers = stepper.model.model.layers
    ends = [layers[0], layers[-1]] if len(layers) > 1 else [layers[0]]
    total = stepper.gradients(batch, float(batch.target_weights_BT.abs().sum()))
    found = [_of(weight) for layer in ends for weight in _telling(layer)]  # type: ignore[arg-type]
    for weight in stepper.model.parameters():
        weight.grad = None
    return total, found


def _telling(layer: Block) -> list[Tensor]:
    if layer.mixed.requires_grad:
        return [layer.mixed]
    return [weight for weight in layer.parameters() if weight.requires_grad]


def _of(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else whole(weight.grad).float().clone()
