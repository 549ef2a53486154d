"""The proof that a GGUF file is the model it was made from: read back from the file alone.

The header becomes a config again, every tensor gets its own name and row order back, and the model
built of them is asked what the source is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from matura.core.errors import StoreError
from matura.ladder.asked import Asked
from matura.ladder.export_gguf import FILE, package, read_vocabulary
from matura.ladder.export_gguf_text import differing, made_up, scored_checks, text_checks
from matura.ladder.export_text import cautions
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
from matura.ladder.gguf_reading import Reading, Tags
from matura.ladder.gguf_scores import ScoredTokens, Spacing
from matura.ladder.gguf_tokens import Nearest
from matura.ladder.llama_cpp import by_llama_cpp
from matura.ladder.proof import Check, Dtype, first
from matura.text.template import Template

if TYPE_CHECKING:
    from torch import Tensor

    from matura.models.decoder import Decoder
    from matura.models.shape import DecoderConfig


def prove_gguf(
    source: Path,
    folder: Path,
    template: Template,
    asked: Asked,
    *,
    text_only: bool,
    dtype: Dtype,
    cut: Nearest | Spacing,
) -> tuple[list[Check], list[str]]:
    """The checks of `folder/model.gguf`, and what could not be checked."""
    from matura.models.config import read_config

    reader = _opened(folder / FILE)
    said = {name: field.contents() for name, field in reader.fields.items()}
    config = read_config(source)
    heading = _header_check(said, config, source)
    tokens = read_vocabulary(source, config.vocab_size)
    if isinstance(tokens, ScoredTokens):
        assert isinstance(cut, Spacing)
        texts, told = scored_checks(said, source, tokens, template, asked, text_only, cut)
    else:
        assert isinstance(cut, Nearest)
        texts, told = text_checks(said, tokens, template, asked, text_only, cut), []
    checks = [heading, *texts]
    if any(check.wrong for check in checks):
        return checks, []
    model, weights = _rebuilt(reader, source, config, said["general.architecture"], dtype)
    checks.append(weights)
    if weights.wrong:
        return checks, []
    unchecked = [*told, *cautions(template, checks)]
    before = spoken(source, template, asked)
    after = spoken(model, template, asked)
    checks.append(compared(before, after, dtype))
    del model
    read: dict[tuple[str, Tags], list[int]] = {}
    spelled: tuple[str, ...] = ()
    if isinstance(tokens, ScoredTokens):
        reading, spelled = Reading(said), tokens.spelled
        for text in made_up(tokens, tuple(template.tokenizer.control)):
            read |= {(text, tags): reading.encode(text, tags=tags) for tags in get_args(Tags)}
    theirs = by_llama_cpp(folder / FILE, template, asked, after, dtype, read, spelled)
    if theirs is None:
        missing = "loading it with llama.cpp: llama-cpp-python is not installed"
        return checks, [missing, *unchecked]
    return [*checks, *theirs], unchecked


def _opened(path: Path) -> Any:
    try:
        return package().GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as problem:
        raise StoreError(f"{path}: cannot be read back: {problem}") from problem


def _header_check(said: Mapping[str, Any], config: DecoderConfig, source: Path) -> Check:
    from matura.models.config import family

    architecture = ARCHITECTURES[family(config)]
    want = {f"{architecture}.{key}": v for key, v in header(config, architecture).items()}
    want["general.architecture"] = architecture
    wrong = differing(said, want)
    return Check(
        "header", "the file's shape against config.json", {"fields": len(want)}, first(wrong)
    )


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
