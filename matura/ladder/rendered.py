"""Conversations of a file as they are trained: ids, weights and segments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from matura.core.errors import DataError, RecipeError
from matura.core.types import Conversation, Example
from matura.data.conversations import Reader
from matura.data.lines import BadLine, lines
from matura.data.too_long import Comparing
from matura.ladder.models import Found
from matura.text.template import Template
from matura.text.tokenizer import Tokenizer


def rendered(path: Path, template: Template) -> Iterator[tuple[str, Example]]:
    """Each row of a JSON-lines file as it is trained: its id and its rendered tokens.

    Raises:
        DataError: `file:line: reason` at the first row that cannot be.
    """
    found = False
    reader = Reader()
    for number, raw in lines(path):
        if not raw.strip():
            continue
        found = True
        try:
            thing = reader.item(reader.row(raw), f"{path.name}:{number}")
            is_talk = isinstance(thing, Conversation)
            example = template.render(thing) if is_talk else template.document(thing)  # type: ignore[arg-type]
        except (BadLine, DataError) as problem:
            raise DataError(f"{path}:{number}: {problem}") from None
        yield thing.id, example
    if not found:
        raise DataError(f"{path}: no rows; expected one JSON object per line")


def template_for(dialect: str | None, model: Found | None) -> Template:
    """A model's own template, in another dialect if one is named; bytes as tokens without a model.

    Raises:
        RecipeError: neither is given, or there is no such dialect.
        DataError: the model's tokenizer lacks the dialect's tags.
    """
    if model is not None:
        own = model.template()
        return own if dialect is None else Template(own.tokenizer, dialect)
    if dialect is None:
        raise RecipeError("--messages needs --dialect NAME or --model MODEL to be rendered with")
    return Template(Tokenizer.bytes_only(dialect))


def comparing(model: Found | None, dialect: str | None, length: int | None) -> Comparing | None:
    """What holds chats against rows of `length` tokens, the model's own if absent; None if nothing
    was asked.

    Raises:
        RecipeError: a length without anything to count tokens with, or a dialect without a length.
    """
    if model is None and dialect is None:
        if length is None:
            return None
        raise RecipeError("--sequence-length needs --model MODEL or --dialect NAME to count tokens")
    if length is None and model is None:
        raise RecipeError("--dialect counts bytes; say --sequence-length, or --model MODEL")
    template = template_for(dialect, model)
    if length is None:
        from matura.models.config import read_config

        assert model is not None
        length = read_config(model.path).sequence_length
    return Comparing(template, length + 1)


def example_json(example: Example) -> str:
    """`{"ids", "weights", "segments"}` on one line; one conversation is one segment."""
    return json.dumps(
        {
            "ids": list(example.ids),
            "weights": list(example.weights),
            "segments": [1] * len(example.ids),
        }
    )
