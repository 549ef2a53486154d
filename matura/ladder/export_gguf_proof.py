"""The proof that a GGUF file is the model it was made from: read back from the file alone.

The header becomes a config again, every tensor gets its own name and row order back, and the model
built of them is asked what the source is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex
from tokenizers import Tokenizer as Backend

from matura.core.errors import StoreError
from matura.core.types import Message
from matura.ladder.asked import Asked
from matura.ladder.export_gguf import FILE, begins, package, stop_words
from matura.ladder.export_text import Rendered, cautions, plain_check, template_check
from matura.ladder.export_weights import compared, rounding, spoken
from matura.ladder.gguf_names import (
    ARCHITECTURES,
    FREQUENCIES,
    halved,
    header,
    our_name,
    slowing,
    turned_heads,
)
from matura.ladder.gguf_tokens import CONTROL, CUTS, Nearest, engine, own_cut, read_tokens
from matura.ladder.llama_cpp import by_llama_cpp
from matura.ladder.proof import Check, Dtype, first
from matura.text.template import Template

if TYPE_CHECKING:
    from torch import Tensor

    from matura.models.decoder import Decoder
    from matura.models.shape import DecoderConfig

TOKENIZER = "tokenizer.ggml."


def prove_gguf(
    source: Path,
    folder: Path,
    template: Template,
    asked: Asked,
    *,
    text_only: bool,
    dtype: Dtype,
    cut: Nearest,
) -> tuple[list[Check], list[str]]:
    """The checks of `folder/model.gguf`, and what could not be checked."""
    from matura.models.config import read_config

    reader = _opened(folder / FILE)
    said = {name: field.contents() for name, field in reader.fields.items()}
    config = read_config(source)
    heading = _header_check(said, config, source)
    checks = [heading, *_text_checks(said, source, config, template, asked, text_only, cut)]
    if heading.wrong:
        return checks, []
    model, weights = _rebuilt(reader, source, config, said["general.architecture"], dtype)
    checks.append(weights)
    if weights.wrong:
        return checks, []
    unchecked = cautions(template, checks)
    before = spoken(source, template, asked)
    after = spoken(model, template, asked)
    checks.append(compared(before, after, dtype))
    del model
    theirs = by_llama_cpp(folder / FILE, template, asked, after, dtype)
    if theirs is None:
        missing = "loading it with llama.cpp: llama-cpp-python is not installed"
        return checks, [missing, *unchecked]
    return [*checks, *theirs], unchecked


def _opened(path: Path) -> Any:
    try:
        return package().GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as problem:
        raise StoreError(f"{path}: cannot be read back: {problem}") from problem


def _differing(said: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    """What the file says otherwise; numbers are held in fp32."""
    wrong = []
    for key, value in want.items():
        got = said.get(key)
        close = isinstance(value, float) and isinstance(got, float | int)
        if not (close and abs(got - value) <= 1e-6 * abs(value)) and got != value:
            wrong.append(f"{key} is {got!r}, not {value!r}")
    return wrong


def _header_check(said: Mapping[str, Any], config: DecoderConfig, source: Path) -> Check:
    from matura.models.config import family

    architecture = ARCHITECTURES[family(config)]
    want = {f"{architecture}.{key}": v for key, v in header(config, architecture).items()}
    want["general.architecture"] = architecture
    wrong = _differing(said, want)
    return Check(
        "header", "the file's shape against config.json", {"fields": len(want)}, first(wrong)
    )


def _text_checks(
    said: Mapping[str, Any],
    source: Path,
    config: DecoderConfig,
    template: Template,
    asked: Asked,
    text_only: bool,
    cut: Nearest,
) -> list[Check]:
    tokens = read_tokens(source, config.vocab_size)
    names = {"tokens": tokens.texts, "token_type": tokens.types, "merges": tokens.merges}
    wrong: list[str] = []
    for name, want in names.items():
        got: Sequence[Any] = said.get(TOKENIZER + name) or ()
        if len(got) != len(want):
            wrong.append(f"{len(got)} {name}, not {len(want)}")
        wrong += [
            f"{name}[{n}] is {a!r}, not {b!r}"
            for n, (a, b) in enumerate(zip(got, want, strict=False))
            if a != b
        ]
    ids = {f"{kind}_token_id": id for kind, id in stop_words(template).items()}
    ids |= {"bos_token_id": template.bos_id, "padding_token_id": template.pad_id}
    flags = {"model": "gpt2", "pre": cut.name, "add_eos_token": False}
    flags["add_bos_token"] = begins(template, text_only=text_only)
    told = {TOKENIZER + key: value for key, value in (ids | flags).items()}
    wrong += _differing(said, told)
    numbers = {"tokens": len(tokens.texts), "merges": len(tokens.merges), **ids, **flags}
    unnamed = sorted(template.stop_ids - {*ids.values()})
    if unnamed:
        numbers["stop_ids_without_a_field"] = unnamed
    vocabulary = Check(
        "tokens",
        "tokens, types, merges and special ids against tokenizer.json",
        numbers,
        first(wrong),
    )
    if wrong:
        return [vocabulary]
    ours = engine(
        said[TOKENIZER + "tokens"],
        said[TOKENIZER + "token_type"],
        said[TOKENIZER + "merges"],
        own_cut(tokens.whole),
    )
    ours.normalizer = _normalizer(tokens.whole)
    tags = {f"{kind}_token": tokens.texts[ids[f"{kind}_token_id"]] for kind in ("bos", "eos")}
    rendered = Rendered(said.get("tokenizer.chat_template", ""), tags)

    def ids_of(messages: Sequence[Message], prompt: bool) -> Sequence[int]:
        text = rendered.text(messages, prompt=prompt)
        found: list[int] = ours.encode(text, add_special_tokens=False).ids
        return found

    if not template.chats:
        plain = plain_check(ours, template, asked.texts)
        return [vocabulary, plain, _cut_check(said, tokens.texts, cut)]
    spelled = template_check(
        "chat template",
        "the file's Jinja template, tokens and merges, read back, against our Template",
        template,
        asked.conversations,
        ids_of,
    )
    return [vocabulary, spelled, _cut_check(said, tokens.texts, cut)]


def _normalizer(whole: Mapping[str, Any]) -> Any:
    """The source's own, which takes out what hides tags that content spells."""
    bare = {"type": "BPE", "vocab": {}, "merges": []}
    told = {"version": "1.0", "model": bare, "normalizer": whole.get("normalizer")}
    return Backend.from_str(json.dumps(told)).normalizer


def _cut_check(said: Mapping[str, Any], texts: Sequence[str], cut: Nearest) -> Check:
    """How often llama.cpp will give text other ids, by its own pattern applied here: no fault of
    the file, so it only counts. That the patterns keep control tags whole has to hold."""
    theirs = engine(
        texts,
        said[TOKENIZER + "token_type"],
        said[TOKENIZER + "merges"],
        [Regex(CUTS[said[TOKENIZER + "pre"]])],
    )
    tags = [n for n, kind in enumerate(said[TOKENIZER + "token_type"]) if kind == CONTROL]
    wrong = [texts[n] for n in tags if theirs.encode(f"a{texts[n]}b").ids.count(n) != 1]
    numbers = {
        "pre": cut.name,
        "texts": cut.tried,
        "other_ids": len(cut.other),
        "such_as": list(cut.other[:3]),
    }
    told = "text cut by the nearest pattern that llama.cpp has, against our tokenizer"
    return Check("cutting", told, numbers, first(f"{tag} is not kept whole" for tag in wrong))


def _rebuilt(
    reader: Any, source: Path, config: DecoderConfig, architecture: str, dtype: Dtype
) -> tuple[Decoder, Check]:
    """The decoder that the file holds, and whether each weight is the source's, rounded."""
    import torch

    from matura.models import hf
    from matura.models.decoder import Decoder

    quants = package().quants
    model = hf.load(source)
    own = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    wrong: list[str] = []
    for tensor in reader.tensors:
        numbers = quants.dequantize(tensor.data, tensor.tensor_type)
        rows = torch.from_numpy(numbers.copy()).reshape(*reversed(tensor.shape.tolist()))
        if tensor.name == FREQUENCIES:
            want = slowing(config)
            if want is None or not torch.equal(rows, want):
                wrong.append(f"{tensor.name} does not slow positions as the config says")
            continue
        name = our_name(tensor.name)
        if name not in own:
            wrong.append(f"{tensor.name}: no tensor of the source")
            continue
        heads = turned_heads(name, config, architecture)
        if heads is not None:
            rows = halved(rows, heads)
        if name.endswith("conv.conv.weight"):
            rows = rows.unsqueeze(1)
        found[name] = rows
        wide = tensor.tensor_type.name == "F32"
        problem = rounding(name, own[name].detach(), rows, "f32" if wide else dtype)
        wrong += [problem] if problem else []
    wrong += [f"{name} is missing" for name in sorted(own.keys() - found.keys())]
    if slowing(config) is not None and FREQUENCIES not in {t.name for t in reader.tensors}:
        wrong.append(f"{FREQUENCIES} is missing")
    counted = {
        "dtype": dtype,
        "tensors": len(found),
        "numbers": sum(map(torch.numel, found.values())),
    }
    check = Check(
        "weights",
        "each tensor, its name and row order undone, against the source's",
        counted,
        first(wrong),
    )
    rebuilt = Decoder(config)
    if not wrong:
        with torch.no_grad():
            for name, weight in rebuilt.named_parameters():
                weight.copy_(found[name])
    return rebuilt.eval(), check
