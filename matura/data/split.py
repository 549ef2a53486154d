"""Which split an item belongs to, decided by its content alone: no copy can be in two.

The same text gets the same split in every source, run and machine. Text that differs only in upper
and lower case or in white space counts as the same content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from matura.core.errors import DataError
from matura.core.record import plain
from matura.core.rng import fraction
from matura.core.types import Conversation, Document, Split

VALIDATION_SHARE = 0.04
EXAM_SHARE = 0.04
SECTION_CHARS = 4000

Item = Document | Conversation

_BESIDES = ("context", "think", "cite")


def content_of(item: Item) -> str:
    """What the item says, spelled in one way; ids and notes are no content."""
    if isinstance(item, Document):
        return item.text if item.ids is None else " ".join(map(str, item.ids))
    turns = [
        [turn.role, turn.content, [[call.name, plain(dict(call.arguments))] for call in turn.calls]]
        + [[name, text] for name in _BESIDES if (text := getattr(turn, name))]
        for turn in item.messages
    ]
    return json.dumps(turns, sort_keys=True, ensure_ascii=False)


def content_key(item: Item) -> str:
    """A hash of exactly what the item says: equal keys mean duplicates."""
    return hashlib.blake2b(
        content_of(item).encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


def place_of(item: Item) -> float:
    """A number in [0, 1) from the content, case and white space aside."""
    return fraction(" ".join(content_of(item).split()).casefold())


def split_of(item: Item) -> Split:
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


@dataclass(frozen=True, slots=True)
class Division:
    """How the items of one source get their splits: by content, unless a split would stay empty."""

    cut: bool = False
    """Whether documents are cut into sections first."""
    moved: Mapping[str, Split] = field(default_factory=dict)
    """Splits of single items, by content key, against their place."""

    def items(self, things: Iterable[Item]) -> Iterator[Item]:
        """The things, or their sections."""
        for thing in things:
            if self.cut and isinstance(thing, Document):
                yield from sections(thing)
            else:
                yield thing

    def split(self, thing: Item) -> Split:
        """The split of one item. What no exam could read (chats, token ids) is validation
        instead."""
        split = self.moved.get(content_key(thing)) or split_of(thing)
        return "validation" if split == "exam" and not examinable(thing) else split


def examinable(thing: Item) -> bool:
    """Whether it is held-out text that bits per byte can be measured on."""
    return isinstance(thing, Document) and thing.ids is None


def division(read: Callable[[], Iterator[Item]], name: str) -> Division:
    """The plainest division that leaves no split empty. Reads only until each split has an item.

    A few long documents are cut into sections; where that does not help, the items whose places
    come nearest go to the empty splits.

    Raises:
        DataError: there is nothing, or too little for the splits.
    """
    places: list[tuple[float, str]] = []
    wanted: list[Split] = []
    for cut in (False, True):
        found = Division(cut)
        keys: dict[str, float] = {}
        splits: set[Split] = set()
        for thing in found.items(read()):
            splits.add(found.split(thing))
            keys.setdefault(content_key(thing), place_of(thing))
            wanted = ["train", "validation", "exam"] if examinable(thing) else wanted
            wanted = wanted or ["train", "validation"]
            if splits.issuperset(wanted):
                return found
        places = sorted((place, key) for key, place in keys.items())
    if not places:
        raise DataError(f"{name}: the source yielded nothing")
    if len(places) < len(wanted):
        raise DataError(
            f"{name}: too little to split: {len(places)} different items; "
            f"expected at least {len(wanted)}, one each for {', '.join(wanted)}"
        )
    in_order = wanted[:0:-1] + wanted[:1] * (len(places) - len(wanted) + 1)
    return Division(cut=True, moved={key: s for (_, key), s in zip(places, in_order, strict=True)})
