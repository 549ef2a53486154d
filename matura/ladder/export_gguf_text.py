"""The proof of a GGUF file's text: tokens, chat template and what llama.cpp will make of text,
read back from the file's header alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex
from tokenizers import Tokenizer as Backend

from matura.core.rng import rng
from matura.core.types import Message
from matura.ladder.asked import TEXTS, Asked
from matura.ladder.export_gguf import begins, stop_words
from matura.ladder.export_text import Rendered, plain_check, template_check
from matura.ladder.gguf_reading import TOKENIZER, Reading
from matura.ladder.gguf_scores import EXACT, ScoredTokens, Spacing
from matura.ladder.gguf_tokens import (
    CONTROL,
    CUTS,
    NORMAL,
    USER_DEFINED,
    Nearest,
    Tokens,
    engine,
    own_cut,
)
from matura.ladder.proof import Check, first
from matura.text.imported import SPACE, ImportedTokenizer
from matura.text.template import Template

MADE_UP = 400
"""Texts that a tokenizer with scores is tried with, beside those that the proof asks."""
BITS = (
    *("Straße", "größer als", "Öl für Ünal", "ß", "naïve", "don't", "it's", "世界", "हिन्दी", "ไทย"),
    *(
        "def f(x):",
        "return -1.5e-3",
        "x += 1;",
        "<div>",
        "</p>",
        "{{x}}",
        "\\n",
        "0x1F",
        "a_b",
        "1234",
    ),
    *("🙂", "👨‍👩‍👧", "é", "\u200b", "\ufeff", "<0x41>", "[PAD3]", "<unused>", SPACE, SPACE * 3),
    *(" ", "  ", "    ", " " * 17, "\n", "\n\n\n", "\t", "\r\n", "\u00a0", " \n "),
)
"""What made-up texts are made of, beside tags and the vocabulary's own."""


def differing(said: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    """What the file says otherwise; numbers are held in fp32."""
    wrong = []
    for key, value in want.items():
        got = said.get(key)
        close = isinstance(value, float) and isinstance(got, float | int)
        if not (close and abs(got - value) <= 1e-6 * abs(value)) and got != value:
            wrong.append(f"{key} is {got!r}, not {value!r}")
    return wrong


def _vocabulary(
    said: Mapping[str, Any],
    lists: Mapping[str, Sequence[Any]],
    flags: Mapping[str, Any],
    template: Template,
    text_only: bool,
) -> tuple[Check, dict[str, int]]:
    """Whether the file has these lists and flags, and the template's ids; and these ids."""
    wrong: list[str] = []
    for name, want in lists.items():
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
    adds = {"add_eos_token": False, "add_bos_token": begins(template, text_only=text_only)}
    fields: dict[str, Any] = {**ids, **flags, **adds}
    wrong += differing(said, {TOKENIZER + key: value for key, value in fields.items()})
    numbers: dict[str, Any] = {name: len(want) for name, want in lists.items()} | fields
    unnamed = sorted(template.stop_ids - {*ids.values()})
    if unnamed:
        numbers["stop_ids_without_a_field"] = unnamed
    return Check(
        "tokens",
        f"{', '.join(lists)} and special ids against tokenizer.json",
        numbers,
        first(wrong),
    ), ids


def text_checks(
    said: Mapping[str, Any],
    tokens: Tokens,
    template: Template,
    asked: Asked,
    text_only: bool,
    cut: Nearest,
) -> list[Check]:
    """The checks of a byte-level vocabulary."""
    lists = {"tokens": tokens.texts, "token_type": tokens.types, "merges": tokens.merges}
    flags = {"model": "gpt2", "pre": cut.name}
    vocabulary, ids = _vocabulary(said, lists, flags, template, text_only)
    if vocabulary.wrong:
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


def scored_checks(
    said: Mapping[str, Any],
    source: Path,
    tokens: ScoredTokens,
    template: Template,
    asked: Asked,
    text_only: bool,
    spaces: Spacing,
) -> tuple[list[Check], list[str]]:
    """The checks of a vocabulary with scores, and what gets other ids by its nature."""
    flags = {"model": "llama", "pre": "default", "add_space_prefix": spaces.prefix}
    unknown = {} if tokens.unknown is None else {"unknown_token_id": tokens.unknown}
    lists = {"tokens": tokens.texts, "token_type": tokens.types, "scores": tokens.scores}
    vocabulary, ids = _vocabulary(said, lists, flags | unknown, template, text_only)
    if vocabulary.wrong:
        return [vocabulary], []
    reading = Reading(said)
    checks = [vocabulary]
    if template.chats:
        tags = {f"{kind}_token": tokens.texts[ids[f"{kind}_token_id"]] for kind in ("bos", "eos")}
        rendered = Rendered(said.get("tokenizer.chat_template", ""), tags)
        checks.append(
            template_check(
                "chat template",
                "the file's Jinja template, tokens and scores, read back, against our Template",
                template,
                asked.conversations,
                lambda messages, prompt: reading.encode(rendered.text(messages, prompt=prompt)),
            )
        )
    pieces, other = _pieces(reading, source, tokens, template, asked)
    told = [f"llama.cpp gives other ids to {other}"] if other else []
    if tokens.spelled:
        told.append(
            f"text that spells {', '.join(tokens.spelled)}: llama.cpp makes the tag of it, even "
            "where it is told to read no tags"
        )
    return [*checks, pieces], told


def _pieces(
    reading: Reading, source: Path, tokens: ScoredTokens, template: Template, asked: Asked
) -> tuple[Check, str]:
    """Whether the file's scores give the ids of `tokenizer.json`, and what text gets others since
    llama.cpp puts spaces elsewhere: no fault of the file, so that is only counted."""
    assert isinstance(template.tokenizer, ImportedTokenizer)
    backend = Backend.from_file(str(source / "tokenizer.json"))
    control = tuple(template.tokenizer.control)
    said = {message.content for c in asked.conversations for message in c.messages}
    tried = [*made_up(tokens, control), *TEXTS, *asked.texts, *sorted(said)]
    words = (t for t, kind in zip(tokens.texts, tokens.types, strict=True) if kind == USER_DEFINED)
    whole = (*control, *words)
    tagged = {text for text in tried if any(tag in text for tag in whole)}
    plain = [text for text in dict.fromkeys(tried) if text not in tagged]
    exact = tokens.mark in EXACT
    wrong: list[str] = []
    other: list[str] = []
    for text, encoded in zip(
        plain, backend.encode_batch(plain, add_special_tokens=False), strict=True
    ):
        marked = text if exact or text.startswith((" ", SPACE)) else SPACE + text
        got = reading.encode(text) if exact else reading.stretch(marked) if text else []
        wrong += [] if got == encoded.ids else [f"{text[:30]!r}: other ids"]
        other += [] if reading.encode(text) == encoded.ids else [text]
    mixed = sorted(tagged)
    for text, encoded in zip(mixed, template.tokenizer.written(mixed), strict=True):
        same = reading.encode(text) == encoded.ids
        wrong += [f"{text[:30]!r}: other ids"] if exact and not same else []
        other += [] if same else [text]
    numbers = {
        "texts": len(plain) + len(mixed),
        "with_tags": len(mixed),
        "other_ids": len(other),
        "such_as": [text[:60] for text in other[:3]],
    }
    told = "text by what llama.cpp does with the file's scores, against tokenizer.json"
    where = "begins with a space"
    if tokens.mark == "first":
        where = "begins with no tag" if template.chats else f"{where}, or follows a tag"
    found = f"text that {where}: {len(other)} of {numbers['texts']} made-up texts"
    return Check("pieces", told, numbers, first(wrong)), found if other else ""


def made_up(tokens: ScoredTokens, tags: Sequence[str]) -> list[str]:
    """Texts of anything that a tokenizer may stumble over, always the same ones."""
    draw = rng(0, "export", "pieces")
    own = [
        text.replace(SPACE, " ")
        for text, kind in zip(tokens.texts, tokens.types, strict=True)
        if kind == NORMAL and not any(tag in text for tag in tags)
    ]
    found = []
    for _ in range(MADE_UP):
        parts = []
        for _ in range(draw.randrange(1, 24)):
            letters = chr(draw.choice((draw.randrange(32, 127), draw.randrange(0xA0, 0xD800))))
            kinds = (draw.choice(own), draw.choice(own), draw.choice(BITS), letters)
            parts.append(draw.choice(kinds))
        if tags and draw.random() < 0.3:
            parts.insert(draw.randrange(len(parts) + 1), draw.choice(tags))
        found.append("".join(parts))
    return found
