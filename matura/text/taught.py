"""A model's own tokenizer with one of our dialects: for base models, which have no chat template.

Tags that the vocabulary has are taken as they are. For any other a reserved token is renamed, where
there is one, or an id is added at the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from matura.core.errors import DataError
from matura.text.dialects import dialect_named
from matura.text.imported import ImportedTokenizer
from matura.text.jinja import BREAK, ESCAPE, ESCAPED, chat_template

RESERVED = re.compile(r"reserved|unused|extra_?\d|placeholder|dummy", re.IGNORECASE)
FORMS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def speaking(tokenizer: ImportedTokenizer, dialect: str) -> ImportedTokenizer:
    """The tokenizer with the dialect's tags; ordinary text keeps its ids.

    Raises:
        RecipeError: there is no such dialect.
        DataError: the tokenizer puts a space in front of each piece of text (SentencePiece), so
            that what stands between tags would not be what was said.
    """
    spoken = dialect_named(dialect)
    if tokenizer.is_sentencepiece:
        raise DataError(
            f"{tokenizer.where}: a SentencePiece tokenizer speaks no dialect but its model's own, "
            "'hf': it would put a space in front of each message"
        )
    added = {id: dict(token) for id, token in tokenizer.added.items()}
    for tag, id in places(tokenizer, dialect).items():
        added[id] = {"id": id, "content": tag, "special": True, **FORMS}
    mending = [
        {"type": "Replace", "pattern": {"String": old}, "content": new}
        for old, new in ((ESCAPE + BREAK, ""), (ESCAPE + ESCAPED, ESCAPE))
    ]
    own = tokenizer.found.get("normalizer")
    found: Mapping[str, Any] = {
        **tokenizer.found,
        "added_tokens": [added[id] for id in sorted(added)],
        "normalizer": {"type": "Sequence", "normalizers": mending + ([own] if own else [])},
        "post_processor": None,  # the template writes what a conversation begins with
    }
    every = tuple(str(token["content"]) for token in added.values())
    hiding = spoken.model_copy(update={"tags": every})  # content may spell the model's own tags too
    names = {"bos_token": spoken.begin, "eos_token": spoken.end, "pad_token": spoken.pad}
    return ImportedTokenizer(
        found,
        {**tokenizer.config, **names},
        where=tokenizer.where,
        chat_template=chat_template(hiding, spare=0),
        stop_ids=sorted(tokenizer.stop_ids),
        generation=tokenizer.generation,
        dialect=dialect,
    )


def places(tokenizer: ImportedTokenizer, dialect: str) -> dict[str, int]:
    """The ids for the dialect's tags that the tokenizer lacks: reserved ones, then new ones."""
    text = tokenizer.found["model"]["vocab"]
    free = [id for tag, id in tokenizer.control.items() if RESERVED.search(tag) and tag not in text]
    missing = [tag for tag in dialect_named(dialect).tags if tag not in tokenizer.control]
    more = range(tokenizer.vocab_size, tokenizer.vocab_size + len(missing))
    return dict(zip(missing, [*free, *more], strict=False))
