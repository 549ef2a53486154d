"""An export's weights against its source's, one by one, and what both models say.

Axes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.ladder.asked import CONTINUED, Asked
from matura.ladder.proof import HALF_ULP, LEAST, NATS, Check, Dtype, first
from matura.text.template import Template

if TYPE_CHECKING:
    from torch import Tensor

    from matura.models.decoder import Decoder

ROWS, LENGTH = 4, 48


@dataclass(frozen=True)
class Spoken:
    """What a model says: logits of seeded ids, and greedy answers to the prompts."""

    ids_BT: Tensor
    logits_BTV: Tensor
    said: tuple[tuple[int, ...], ...]
    banned_V: Tensor
    """Minus infinity for ids that the assistant may never say."""


def spoken(source: Path | Decoder, template: Template, asked: Asked) -> Spoken:
    """What the model says, in fp32."""
    import torch

    from matura.models import hf
    from matura.talk.sampler import TorchSampler

    model = hf.load(source) if isinstance(source, Path) else source
    sampler = TorchSampler(model, template)
    answers = sampler.generate(asked.prompts, max_tokens=CONTINUED)
    length = min(LENGTH, model.config.sequence_length)
    draw = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(model.config.vocab_size, (ROWS, length), generator=draw)
    with torch.inference_mode():
        logits_BTV = model(ids_BT)
    banned_V = torch.zeros(model.config.vocab_size)
    banned_V[template.tokenizer.vocab_size :] = -torch.inf
    banned_V[sorted(template.forbidden_ids)] = -torch.inf
    return Spoken(ids_BT, logits_BTV, tuple(answer.ids for answer in answers), banned_V)


def compared(before: Spoken, after: Spoken, dtype: Dtype) -> Check:
    """What the rounding changed of what the model says."""
    largest = float((before.logits_BTV - after.logits_BTV).abs().max())
    was, now = before.logits_BTV.log_softmax(-1), after.logits_BTV.log_softmax(-1)
    nats = max(0.0, float((was.exp() * (was - now)).sum(-1).mean()))
    equal = sum(a == b for a, b in zip(before.said, after.said, strict=True))
    wrong = []
    if not nats <= NATS[dtype]:
        wrong.append(f"{nats:.3g} nats a token lie between them, {NATS[dtype]:g} are allowed")
    if dtype == "f32" and largest > 0:
        wrong.append(f"logits differ by {largest:.3g} though nothing was rounded")
    if dtype == "f32" and equal < len(before.said):
        wrong.append(f"{len(before.said) - equal} greedy answers differ")
    numbers: Mapping[str, Any] = {
        "logits": before.logits_BTV.numel(),
        "largest_difference": largest,
        "nats_a_token": nats,
        "nats_allowed": NATS[dtype],
        "prompts": len(before.said),
        "greedy_equal": equal,
    }
    said = f"our decoder with the weights of the source and with those of the export ({dtype})"
    return Check("answers after rounding", said, numbers, tuple(wrong))


def rounding(name: str, was: Tensor, now: Tensor, dtype: Dtype) -> str | None:
    """What is wrong with `now` being `was` rounded, if anything is."""
    if was.shape != now.shape:
        return f"{name} is {tuple(now.shape)}, not {tuple(was.shape)}"
    if not bool(now.isfinite().all()):
        return f"{name} is not finite: its numbers do not fit into {dtype}"
    allowed = (was.abs() * HALF_ULP[dtype]).clamp(min=LEAST[dtype])
    off = (now - was).abs() > allowed
    if bool(off.any()):
        return f"{name}: {int(off.sum())} of {off.numel()} numbers are not the source's"
    return None


def rounded_check(source: Path, folder: Path, dtype: Dtype) -> Check:
    """Whether each weight in `folder` is that of `source`, rounded to `dtype`."""
    from matura.models.weights import Tensors

    wrong: list[str] = []
    numbers = 0
    with Tensors(source) as old, Tensors(folder) as new:
        wrong += [f"{name}: only on one side" for name in sorted(old.names() ^ new.names())]
        for name in sorted(old.names() & new.names()):
            was = old.read(name)
            numbers += was.numel()
            problem = rounding(name, was, new.read(name), dtype)
            wrong += [problem] if problem else []
    said = f"each of the source's, rounded to {dtype}" if dtype != "f32" else "each of the source's"
    return Check("weights", said, {"dtype": dtype, "numbers": numbers}, first(wrong))
