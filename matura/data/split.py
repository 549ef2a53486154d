"""Which split an item belongs to, decided by its content alone: no copy can be in two.

The same text gets the same split in every source, run and machine. Text that differs only in upper
and lower case or in white space counts as the same content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

from matura.core.record import plain
from matura.core.rng import fraction
from matura.core.types import Conversation, Document, Split

VALIDATION_SHARE = 0.04
EXAM_SHARE = 0.04
SECTION_CHARS = 4000

_SPACE = re.compile(r"\s+")


def content_of(item: Document | Conversation) -> str:
    """What the item says, spelled in one way; ids and notes are no content."""
    if isinstance(item, Document):
        return item.text if item.ids is None else " ".join(map(str, item.ids))
    turns = [
        [turn.role, turn.content, [[call.name, plain(dict(call.arguments))] for call in turn.calls]]
        for turn in item.messages
    ]
    return json.dumps(turns, sort_keys=True, ensure_ascii=False)


def content_key(item: Document | Conversation) -> str:
    """A hash of exactly what the item says: equal keys mean duplicates."""
    return hashlib.blake2b(
        content_of(item).encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


def place_of(item: Document | Conversation) -> float:
    """A number in [0, 1) from the content, case and white space aside."""
    return fraction(_SPACE.sub(" ", content_of(item)).strip().casefold())


def split_of(item: Document | Conversation) -> Split:
    """The split of this content: 4 % validation, 4 % exam, the rest training."""
    place = place_of(item)
    if place < EXAM_SHARE:
        return "exam"
    return "validation" if place < EXAM_SHARE + VALIDATION_SHARE else "train"


def sections(document: Document, chars: int = SECTION_CHARS) -> Iterator[Document]:
    """The document in parts of about `chars` characters, cut after a blank line or else a line.

    For sources of a few long documents, which could not be split otherwise. The parts joined are
    the document.
    """
    if document.ids is not None or len(document.text) <= chars:
        yield document
        return
    text, start, number = document.text, 0, 1
    while start < len(text):
        stop = min(start + chars, len(text))
        if stop < len(text):
            for end in ("\n\n", "\n"):
                found = text.rfind(end, start + chars // 2, stop)
                if found >= 0:
                    stop = found + len(end)
                    break
        yield Document(text=text[start:stop], id=f"{document.id}#{number}")
        start, number = stop, number + 1
