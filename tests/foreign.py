"""Tokenizers and chat templates in the style of other people's models, made from nothing.

The templates are written for these tests, each with the habits of a family: headers as text or as
tags, contents stripped or not, a system message of its own or in front of what the user says.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any, Literal

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

Kind = Literal["bytes", "normalised bytes", "pieces", "old pieces"]

CHATML = """\
{%- for m in messages %}
    {%- if loop.first and m['role'] != 'system' %}
        {{- '<|im_start|>system\\nBe of use.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
HEADERS = """\
{{- bos_token }}
{%- for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}
{{- m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
INSTRUCTIONS = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set told = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set told = '' %}
    {%- set rest = messages %}
{%- endif %}
{%- for m in rest %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant take turns') }}
    {%- endif %}
    {%- if m['role'] == 'user' %}
        {%- set said = told + m['content'] if loop.first else m['content'] %}
        {{- bos_token + '[INST] ' + said.strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + m['content'].strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""
PIPES = """\
{% for m in messages %}
{% if m.role == 'assistant' %}
{% generation %}
{{ '<|assistant|>\\n' + m.content + eos_token }}
{% endgeneration %}
{% else %}
{{ '<|' + m.role + '|>\\n' + m.content + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
FORMS: dict[str, tuple[str, Kind, list[str], dict[str, str]]] = {
    "chatml": (
        CHATML,
        "normalised bytes",
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
    "headers": (
        HEADERS,
        "bytes",
        [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            *(f"<|reserved_special_token_{n}|>" for n in range(4)),
        ],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    ),
    "instructions": (
        INSTRUCTIONS,
        "old pieces",
        ["<unk>", "<s>", "</s>"],
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "pipes": (
        PIPES,
        "pieces",
        ["<unk>", "<s>", "</s>"],
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
    ),
}
"""By name: a chat template, the tokenizer it goes with, its tags, and what they are for."""
WORDS = ["the", "cat", "sat", "on", "a", "mat", "über", "größere", "Äpfel", "quick", "fox"]
WORDS += ["user", "assistant", "system", "end"]
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sentence(rng: Random) -> str:
    """Ordinary text: words, numbers, code, lines, and white space at the ends now and then."""
    parts = [rng.choice(WORDS) for _ in range(rng.randrange(1, 9))]
    text = rng.choice([" ", " ", "  ", "\n"]).join(parts)
    end = rng.choice(["", ".", "!\n", " = [3.14];", " 🙂", "\t\tx  "])
    return rng.choice(["", "", " ", "\n", "  \n"]) + text + end


def tokenizer(kind: Kind, tags: list[str]) -> Tokenizer:
    """A small tokenizer of that kind; its tags have the first ids (pieces) or the last (bytes)."""
    rng = Random(1)
    texts = [sentence(rng) + "".join(rng.choices(tags, k=2)) for _ in range(400)]
    if kind in ("bytes", "normalised bytes"):
        made = Tokenizer(models.BPE())
        if kind == "normalised bytes":
            made.normalizer = normalizers.NFC()
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        made.decoder = decoders.ByteLevel()
        made.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=400,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        made.add_special_tokens([AddedToken(tag, special=True) for tag in tags])
        return made
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if kind == "old pieces":
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.train_from_iterator(
        [word for text in texts for word in text.replace(" ", " \n").split("\n")],
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=[*tags, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )
    whole = json.loads(made.to_str())  # the single bytes are text, and no added tokens
    whole["added_tokens"] = [t for t in whole["added_tokens"] if t["content"] in tags]
    return Tokenizer.from_str(json.dumps(whole))


def foreign(folder: Path, form: str, **changes: Any) -> Path:
    """The tokenizer's part of a stock model folder; `changes` go into `tokenizer_config.json`."""
    template, kind, tags, names = FORMS[form]
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer(kind, tags)
    if (begin := names.get("bos_token")) is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, made.token_to_id(begin))]
        )
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
        **names,
        **changes,
    }
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ends = [made.token_to_id(names["eos_token"])]
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": ends, "temperature": 0.7, "do_sample": True})
    )
    return folder
