"""A model as one GGUF file, for llama.cpp and what is built on it.

Streams tensor by tensor, so that it takes no more room than the largest. Norms, biases and short
convolutions stay fp32 in every type, as llama.cpp wants them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core.disk import telling
from matura.core.errors import DataError
from matura.core.ledger import Ledger
from matura.core.types import Message
from matura.ladder.gguf_names import (
    ARCHITECTURES,
    FREQUENCIES,
    header,
    interleaved,
    slowing,
    turned_heads,
)
from matura.ladder.gguf_scores import ScoredTokens, Spacing, read_scored, spacing
from matura.ladder.gguf_tokens import (
    Nearest,
    Tokens,
    is_byte_level,
    nearest,
    read_tokens,
    read_whole,
)
from matura.ladder.proof import Dtype
from matura.text.template import Template

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from matura.models.shape import DecoderConfig

FILE = "model.gguf"
MISSING = "writing GGUF needs the package `gguf`: pip install 'matura[gguf]'"
FILE_TYPES: dict[Dtype, str] = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}


def package() -> Any:
    """The `gguf` package.

    Raises:
        DataError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise DataError(MISSING) from None
    return gguf


def stop_words(template: Template) -> dict[str, int]:
    """Where llama.cpp stops: the ends of a document, of a turn and of a turn that calls a tool."""
    ids = {"eos": template.eos_id, "eot": template.end_of_turn_id}
    more = sorted(template.stop_ids - {*ids.values()})
    return ids | ({"eom": more[0]} if more else {})


def begins(template: Template, *, text_only: bool) -> bool:
    """Whether llama.cpp puts the begin tag in front of what it reads: before running text, and
    before chats that open with it."""
    return text_only or template.prompt([Message("user", "hello")])[0] == template.bos_id


def read_vocabulary(source: Path, size: int) -> Tokens | ScoredTokens:
    """The tokenizer of the folder `source` as GGUF spells it, for a model of `size` rows.

    Raises:
        DataError: llama.cpp has no tokenizer of this kind.
    """
    byte_level = is_byte_level(read_whole(source))
    return read_tokens(source, size) if byte_level else read_scored(source, size)


def cut_of(source: Path, template: Template, texts: list[str]) -> Nearest | Spacing:
    """How llama.cpp had best cut text for the model of the folder `source`, tried with `texts`;
    of a tokenizer with scores, how it had best put spaces in front.

    Raises:
        DataError: llama.cpp has no tokenizer of this kind.
    """
    from matura.models.config import read_config

    tokens = read_vocabulary(source, read_config(source).vocab_size)
    if isinstance(tokens, ScoredTokens):
        return spacing(tokens, template)
    return nearest(tokens, texts)


def write_gguf(
    source: Path,
    folder: Path,
    template: Template,
    *,
    name: str,
    text_only: bool,
    cut: Nearest | Spacing,
    dtype: Dtype,
    ledger: Ledger,
) -> None:
    """The model of the Hugging Face folder `source` as `folder/model.gguf`; `cut` is what
    `cut_of` says of it.

    Raises:
        DataError: llama.cpp has no such model or tokenizer, or `gguf` is not installed.
        StoreError: the source cannot be read, or the disk refuses.
    """
    from matura.models.config import family, read_config
    from matura.models.weights import Tensors

    gguf = package()
    config = read_config(source)
    architecture = ARCHITECTURES[family(config)]
    tokens = read_vocabulary(source, config.vocab_size)
    writer = gguf.GGUFWriter(folder / FILE, architecture)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(int(getattr(gguf.LlamaFileType, FILE_TYPES[dtype])))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in header(config, architecture).items():
        _add(writer, f"{architecture}.{key}", value)
    _add_tokens(writer, tokens, template, cut, text_only=text_only)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.layers)
    with telling(folder, "write"), Tensors(source) as tensors:
        names = [n for n in sorted(tensors.names()) if not _computed(n, config)]
        theirs = {n: table.get_name(n, try_suffixes=(".weight", ".bias")) for n in names}
        if unknown := [n for n in names if theirs[n] is None]:
            raise DataError(f"{source}: llama.cpp's {architecture} has no {unknown[0]}")
        extra = slowing(config)
        if extra is not None:
            factors = extra.numpy()
            writer.add_tensor_info(FREQUENCIES, factors.shape, factors.dtype, factors.nbytes)
        for n in names:
            data, kind = _stored(gguf, tensors.read(n), n, config, architecture, dtype)
            writer.add_tensor_info(theirs[n], data.shape, data.dtype, data.nbytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if extra is not None:
            writer.write_tensor_data(extra.numpy())
        for done, n in enumerate(names, start=1):
            data, _ = _stored(gguf, tensors.read(n), n, config, architecture, dtype)
            writer.write_tensor_data(data)
            ledger.progress(done, len(names), unit="tensors")
        writer.close()


def _computed(name: str, config: DecoderConfig) -> bool:
    """Tensors that some folders hold although the file needs none."""
    tied = config.tie_embeddings and name == "lm_head.weight"
    return tied or name.endswith((".rotary_emb.inv_freq", ".masked_bias"))


def _stored(
    gguf: Any, weight: Tensor, name: str, config: DecoderConfig, architecture: str, dtype: Dtype
) -> tuple[np.ndarray, Any]:
    """A tensor's numbers as the file holds them, and their type."""
    heads = turned_heads(name, config, architecture)
    if heads is not None:
        weight = interleaved(weight, heads)
    if name.endswith("conv.conv.weight"):
        weight = weight.squeeze(1)
    wide = weight.ndim == 1 or name.endswith("conv.conv.weight")
    kinds = gguf.GGMLQuantizationType
    kind = kinds.F32 if wide else getattr(kinds, dtype.upper())
    return gguf.quants.quantize(weight.contiguous().numpy(), kind), kind


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _add_tokens(
    writer: Any,
    tokens: Tokens | ScoredTokens,
    template: Template,
    cut: Nearest | Spacing,
    *,
    text_only: bool,
) -> None:
    lead = ""
    writer.add_token_list(list(tokens.texts))
    writer.add_token_types(list(tokens.types))
    if isinstance(tokens, Tokens) and isinstance(cut, Nearest):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(cut.name)
        writer.add_token_merges(list(tokens.merges))
    elif isinstance(tokens, ScoredTokens) and isinstance(cut, Spacing):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(list(tokens.scores))
        writer.add_add_space_prefix(cut.prefix)
        if tokens.unknown is not None:
            writer.add_unk_token_id(tokens.unknown)
        lead = f"{{{{ '{cut.lead}' }}}}" if cut.lead else ""
    writer.add_bos_token_id(template.bos_id)
    writer.add_pad_token_id(template.pad_id)
    stops = stop_words(template)
    writer.add_eos_token_id(stops["eos"])
    writer.add_eot_token_id(stops["eot"])
    if "eom" in stops:
        writer.add_eom_token_id(stops["eom"])
    writer.add_add_bos_token(begins(template, text_only=text_only))
    writer.add_add_eos_token(False)
    if template.chats:
        writer.add_chat_template(lead + template.jinja())
