"""What a training step takes of memory, reckoned from the model's shape: what the forward pass
keeps for the gradient, the gradients, the update.

Each term is a tensor that PyTorch really keeps; a test counts them. What the compiler keeps is
less, but for attention's weights, which the fused operator does not keep.

Axes: B rows, T positions, C model width, D head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from matura.learn.objectives.next_token import CHUNK
from matura.models.attending import blocks
from matura.models.shape import DecoderConfig

FP32 = 4
CHUNK_COPIES = 5
"""Of a chunk's logits: they, their powers, shares, the target's place, and the gradient."""
ORTHOGONAL_COPIES = 5
"""Of the largest group of matrices of one shape while it is orthogonalised: the moved momenta, the
stack of them, it scaled, the next iterate, and about as much in squares and products."""
COMPILED_SHARE = 0.6
"""Of what eager layers keep, attention's weights apart: the compiler computes norms and gates once
more. A guess, not measured in steps yet."""


@dataclass(frozen=True)
class Footprint:
    """The bytes of one micro-batch's step beside weights and optimizer state, which lie there
    always."""

    kept: int
    """By the forward pass for the gradient, at its end; the head's own gradient is made by then."""
    passing: int
    """At most at once by what is computed forwards and backwards and let go of again: one layer's
    gradients, a chunk of logits, the head's gradient."""
    gradients: int
    update: int
    """By the update while the gradients are there: the weights before it, where a step is measured,
    and the matrices that are orthogonalised."""

    @property
    def peak(self) -> int:
        """The most at any time of the step."""
        return self.gradients + max(self.kept + self.passing, self.update)


def footprint(
    config: DecoderConfig,
    rows: int,
    length: int,
    *,
    learning: int,
    size: int = FP32,
    compiled: bool = False,
    recompute: bool = False,
) -> Footprint:
    """What a micro-batch of that many rows of `length` positions takes, of a model in which so many
    numbers learn.

    Units: bytes; `size` is that of a number computed with, weights and gradients are fp32.
    """
    tokens = rows * length
    per_layer = [_layer(config, n, tokens, length, size, compiled) for n in range(config.layers)]
    inputs = size * config.hidden_size * tokens
    kept = config.layers * inputs if recompute else sum(per_layer)
    mask = tokens * length * size
    angles = 2 * tokens * config.head_width * size
    last = tokens * config.hidden_size * (2 * FP32 + size)
    head = FP32 * config.hidden_size * config.vocab_size if _all(config, learning) else 0
    passing = 2 * head + _passing(config, tokens, length, size, compiled)
    return Footprint(
        kept=kept + mask + angles + last + head,
        passing=passing + (max(per_layer) if recompute else 0),
        gradients=FP32 * learning,
        update=_update(config, learning),
    )


def standing(config: DecoderConfig, *, learning: int, copies: int = 1, shared_by: int = 1) -> int:
    """The bytes that lie there between steps: all weights, the moments of those that learn, and
    `copies` of what is saved: the good state to go back to, or what is on its way to the disk.

    `shared_by` are the processes among which all of it is shared out.
    """
    outside = config.vocab_size * config.hidden_size * (1 if config.tie_embeddings else 2)
    adamw = outside if _all(config, learning) else learning
    moments = learning + adamw
    whole = config.parameters + (0 if _all(config, learning) else learning)
    return FP32 * (whole + moments + copies * (learning + moments)) // shared_by


@dataclass(frozen=True)
class Held:
    """The most bytes that one of several processes holds, by what it does."""

    standing: int
    """Between steps."""
    training: int
    looking: int
    """Of rank 0, which looks at the model from outside for an evaluation."""
    starting: int
    """Of main memory, while it reads or draws a model of which it keeps its rows."""

    @property
    def first(self) -> int:
        """Of rank 0, all in one memory."""
        return max(self.training, self.looking, self.starting)

    @property
    def others(self) -> int:
        """Of every other rank."""
        return max(self.training, self.starting)


def held(
    config: DecoderConfig,
    rows: int,
    length: int,
    *,
    learning: int,
    processes: int = 1,
    shard: bool = False,
    size: int = FP32,
    compiled: bool = False,
    recompute: bool = False,
) -> Held:
    """What each of so many processes holds that trains on micro-batches of `rows`, with replicas of
    all weights or, with `shard`, with its rows of them (docs/decisions/0010).

    Units: bytes; other arguments as for `footprint`.
    """
    step = footprint(
        config,
        rows,
        length,
        learning=learning,
        size=size,
        compiled=compiled and not shard,  # sharded layers never are
        recompute=recompute,
    )
    there = standing(config, learning=learning, shared_by=processes if shard else 1)
    if not shard:
        summed = step.gradients if processes > 1 else 0  # all in one row, for the others
        peak = step.gradients + max(step.kept + step.passing, step.update, summed)
        return Held(there, there + peak, there, there)
    table = config.vocab_size * config.hidden_size
    tables = table if config.tie_embeddings else 2 * table
    all_learn = _all(config, learning)
    layer = -(-(config.parameters - tables) // config.layers)
    # whole while they compute: what is outside of the layers, a layer, and the next one that is
    # fetched meanwhile; gradients of a layer and of the embeddings, the head's being in `kept`
    gathered = FP32 * (tables + 2 * layer)
    gradients = FP32 * (layer + tables - table if all_learn else -(-learning // config.layers))
    weights = FP32 * (config.parameters if all_learn else config.parameters + learning)

    def shared(whole: int) -> int:
        return -(-whole // processes)

    peak = shared(step.gradients) + max(
        gathered + gradients + step.kept + step.passing, shared(step.update)
    )
    return Held(there, there + peak, there + weights + step.passing, weights + shared(weights))


def _all(config: DecoderConfig, learning: int) -> bool:
    return learning >= config.parameters


def _layer(
    config: DecoderConfig, number: int, tokens: int, length: int, size: int, compiled: bool
) -> int:
    """What one layer keeps."""
    c, inner, heads, kv = config.hidden_size, config.inner_width, config.heads, config.kv_heads
    d, share = config.head_width, COMPILED_SHARE if compiled else 1.0
    # each norm: its input and its scaled input in fp32, and what comes out
    numbers = 2.0 * c * (2 * FP32 + size)
    # gate and up, silu of the gate, their product
    numbers += 4 * inner * size
    weights = 2 * inner * c  # joined for one product
    if number in config.conv_layers:
        numbers += 8 * c * size
        own = 4 * c * c + c * inner
        attention = 0.0
    else:
        values = (heads + 2 * kv) * d if heads == kv else heads * d
        numbers += size * (values + 3 * heads * d) + FP32 * heads
        if config.qk_norm:
            numbers += (heads + kv) * d * (FP32 if size == FP32 else 2 * FP32)
        joined = (heads + 2 * kv) * d * c
        weights += joined
        own = heads * d * c + c * inner
        # written out: each block's weights on the keys up to its end
        ends = [end for _, end in blocks(length)]
        attention = size * heads * sum(ends) / len(ends) if compiled else 0.0
    cast = weights if size == FP32 else weights + own  # another type is a copy of every matrix
    return round(tokens * (numbers * share + attention)) + size * cast


def _passing(config: DecoderConfig, tokens: int, length: int, size: int, compiled: bool) -> int:
    """What comes and goes: a chunk of logits or, later, one layer's gradients. The head's gradient,
    which the caller counts, is twice there besides: its sum so far while a chunk is added, and
    scaled when it is handed on."""
    c, v = config.hidden_size, config.vocab_size
    chunk = CHUNK_COPIES * FP32 * CHUNK * v
    layer = tokens * size * (5 * config.inner_width + 4 * c)
    if compiled:
        layer += tokens * config.heads * length * FP32
    return max(chunk, layer) + (size * c * v if size != FP32 else 0)


def _update(config: DecoderConfig, learning: int) -> int:
    c, inner = config.hidden_size, config.inner_width
    if not _all(config, learning):  # adapters are AdamW's
        return FP32 * learning * 3
    width, kv = config.heads * config.head_width, config.kv_heads * config.head_width
    groups: dict[tuple[int, int], int] = {}
    attending, convolving = len(config.attending), len(config.conv_layers)
    for rows, columns, many in (
        (width, c, 2 * attending),
        (kv, c, 2 * attending),
        (3 * c, c, convolving),
        (c, c, convolving),
        (inner, c, 3 * config.layers),
    ):
        shape = (min(rows, columns), max(rows, columns))
        groups[shape] = groups.get(shape, 0) + rows * columns * many
    return FP32 * (learning + ORTHOGONAL_COPIES * max(groups.values()))
