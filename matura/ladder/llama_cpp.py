"""What llama.cpp itself makes of a GGUF file, where `llama-cpp-python` is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.ladder.asked import Asked
from matura.ladder.export_weights import Spoken
from matura.ladder.gguf_reading import Tags
from matura.ladder.proof import SAME_LOGITS, Check, Dtype, first
from matura.text.template import Template

if TYPE_CHECKING:
    import numpy as np

F32 = 0
"""The type's number in llama.cpp, which keeps keys and values in f16 if nobody says."""
CLOSE: dict[Dtype, float] = {"f32": 1e-5, "f16": 1e-2, "bf16": 5e-2}
"""Of the largest logit: llama.cpp rounds what it multiplies to the type of the weights."""


def by_llama_cpp(
    path: Path,
    template: Template,
    asked: Asked,
    ours: Spoken,
    dtype: Dtype,
    read: Mapping[tuple[str, Tags], Sequence[int]],
    spelled: Sequence[str],
) -> list[Check] | None:
    """Whether llama.cpp, given the same ids, says what our decoder says with the same weights, and
    whether it gives the tags their ids, and text those in `read`; None if it is not installed.
    `spelled`: tags that it is known to make of text."""
    try:
        import llama_cpp
    except ImportError:
        return None
    longest = max(len(p) + len(s) for p, s in zip(asked.prompts, ours.said, strict=True))
    length = max(longest, ours.ids_BT.shape[1])
    try:
        model: Any = llama_cpp.Llama(
            str(path),
            n_ctx=length,
            n_batch=length,
            logits_all=True,
            type_k=F32,
            type_v=F32,
            verbose=False,
        )
    except (ValueError, OSError) as problem:
        said = "llama.cpp loads the file"
        return [Check("loading by llama.cpp", said, {}, (str(problem),))]
    try:
        return [_answers(model, asked, ours, dtype), _words(model, template, asked, read, spelled)]
    finally:
        model.close()


def _answers(model: Any, asked: Asked, ours: Spoken, dtype: Dtype) -> Check:
    banned = ours.banned_V.numpy()
    scale = float(ours.logits_BTV.abs().max())
    gap = max(
        float(abs(_logits(model, ids) - want).max())
        for ids, want in zip(ours.ids_BT.tolist(), ours.logits_BTV.numpy(), strict=True)
    )
    allowed = max(SAME_LOGITS[0], CLOSE[dtype] * scale)
    equal = close = 0
    for prompt, said in zip(asked.prompts, ours.said, strict=True):
        seen = _logits(model, [*prompt, *said])[len(prompt) - 1 : -1] + banned
        short = seen.max(-1) - seen[range(len(said)), list(said)]
        equal += bool((seen.argmax(-1) == list(said)).all())
        close += bool((short <= allowed).all())
    wrong = [] if gap <= allowed else [f"logits differ by {gap:.3g}, {allowed:.3g} is allowed"]
    if close < len(asked.prompts):
        wrong.append(f"{len(asked.prompts) - close} of {len(asked.prompts)} greedy answers differ")
    numbers = {
        "logits": ours.logits_BTV.numel(),
        "largest_difference": gap,
        "allowed": allowed,
        "prompts": len(asked.prompts),
        "greedy_equal": equal,
        "greedy_close": close - equal,
    }
    said_of = "llama.cpp on the file against our decoder with the same weights"
    return Check("answers by llama.cpp", said_of, numbers, tuple(wrong))


def _logits(model: Any, ids: list[int]) -> np.ndarray:
    model.reset()
    model.eval(ids)
    found: np.ndarray = model.scores[: len(ids)].copy()
    return found


def _words(
    model: Any,
    template: Template,
    asked: Asked,
    read: Mapping[tuple[str, Tags], Sequence[int]],
    spelled: Sequence[str],
) -> Check:
    """Tags are their ids where a template writes them, and text where a user does; how often other
    text has our ids is only counted."""
    wrong = [
        f"{text[:30]!r}: other ids than by our reading of the file"
        for (text, tags), want in read.items()
        if model.tokenize(text.encode(), add_bos=False, special=tags == "read") != want
    ]
    for tag, id in template.tokenizer.control.items():
        if model.tokenize(tag.encode(), add_bos=False, special=True) != [id]:
            wrong.append(f"{tag} is not {id}")
        as_text = model.tokenize(tag.encode(), add_bos=False, special=False)
        if id in as_text and tag not in spelled:
            wrong.append(f"{tag} as text is a tag")
    texts = {m.content for c in asked.conversations for m in c.messages if m.content}
    texts = texts.union(text for text in asked.texts if text)
    other = [
        text
        for text in sorted(texts)
        if model.tokenize(text.encode(), add_bos=False, special=False)
        != template.tokenizer.encode(text)
    ]
    numbers: dict[str, Any] = {"texts": len(texts), "other_ids": len(other), "such_as": other[:3]}
    if read:
        numbers["by_our_reading"] = len(read)
    said = "ids of tags and of text by llama.cpp against our tokenizer"
    return Check("ids by llama.cpp", said, numbers, first(wrong))
