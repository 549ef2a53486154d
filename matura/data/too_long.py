"""What becomes of examples that are longer than a row, and what that costs of what is learnt.

The surprising thing: `keep_start` is the cut to prefer. An answer is only worth learning together
with all that was said before it; who learns the later ones without the first learns to answer from
what nobody told him. So `keep_end` and `split` are there, but say so.

A chat is cut between exchanges only: what the user says, up to what he says next. An answer keeps
its question, a call its result, and every piece keeps the system message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from matura.core.errors import DataError
from matura.core.types import Conversation, Example, Message
from matura.data.split import Item
from matura.text.template import Template

TooLong = Literal["drop", "keep_start", "keep_end", "split", "refuse"]
POLICIES: tuple[TooLong, ...] = get_args(TooLong)
CUTS: tuple[TooLong, ...] = ("keep_start", "keep_end", "split")
LOSE_AT_MOST = 0.1
"""Of what a source has to be learnt, where nobody said what may be lost: long chats hold more of it
than their number tells, so a few in a hundred stay below, and a row that does not suit does not."""

Piece = tuple[Item, Example]


@dataclass(frozen=True, slots=True)
class Fit:
    """How long rows are, and what is to become of what is longer."""

    row_length: int
    too_long: TooLong | None = None
    """Of chats; they are dropped where nobody said."""
    lose_at_most: float | None = None
    """Share of the trained tokens; where nobody said, `LOSE_AT_MOST` unless chats are cut."""
    documents: Literal["drop", "split"] = "split"
    """Of text. What is split is so when rows are laid out, and loses nothing."""
    faults: Literal["raise", "count"] = "raise"
    """Of a sample, faults are only counted: it is not the whole."""

    @property
    def policy(self) -> TooLong:
        """Of chats, stated or not."""
        return self.too_long or "drop"

    @property
    def limit(self) -> float:
        """The share of trained tokens that may be lost."""
        if self.lose_at_most is not None:
            return self.lose_at_most
        return 1.0 if self.policy in CUTS else LOSE_AT_MOST


@dataclass(slots=True)
class Tally:
    """What became of a source's items: `long` = `cut` + `dropped`; tokens are trained ones."""

    row_length: int
    policy: TooLong
    limit: float
    chats: int = 0
    items: int = 0
    long: int = 0
    long_chats: int = 0
    cut: int = 0
    dropped: int = 0
    pieces: int = 0
    """That were made of those which were cut."""
    trained: int = 0
    """Of all items, as long as they were."""
    lost: int = 0
    longest: int = 0
    """Tokens, trained or not."""
    longest_at: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for a record; empty where nothing was too long."""
        return asdict(self) if self.long else {}


@dataclass(slots=True)
class Fitting:
    """Makes examples fit, one after the other, and counts what became of them."""

    fit: Fit
    template: Template
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.fit.row_length, self.fit.policy, self.fit.limit)

    def pieces(self, thing: Item, example: Example) -> list[Piece]:
        """The item as it is if it fits, what is left of it, or nothing.

        Raises:
            DataError: it is too long, and that is to be refused.
        """
        tally, fit = self.tally, self.fit
        is_chat = isinstance(thing, Conversation)
        trained = trained_in(example)
        tally.items += 1
        tally.chats += is_chat
        tally.trained += trained
        size = len(example.ids)
        if not (is_chat or fit.documents == "drop"):
            return [(thing, example)]
        if size > tally.longest:
            tally.longest, tally.longest_at = size, place_of(thing)
        if size <= fit.row_length:
            return [(thing, example)]
        tally.long += 1
        tally.long_chats += is_chat
        if is_chat and fit.policy == "refuse" and fit.faults == "raise":
            raise DataError(
                f"{place_of(thing)}: this chat has {size:,} tokens, a row {fit.row_length:,}, and "
                "too_long is 'refuse': shorten it, give rows more tokens (model.sequence_length), "
                "or cut it between exchanges (too_long: keep_start)"
            )
        kept: list[Piece] = []
        if isinstance(thing, Conversation) and fit.policy in CUTS:
            kept = list(self._cut(thing))
        tally.cut += bool(kept)
        tally.dropped += not kept
        tally.pieces += len(kept)
        tally.lost += max(0, trained - sum(trained_in(short) for _, short in kept))
        return kept

    def refuse(self, name: str) -> None:
        """Nothing, if what was lost may be.

        Raises:
            DataError: more is lost than may be, or a policy was stated for chats and there were
                none.
        """
        if self.fit.faults == "count":
            return
        if self.fit.too_long is not None and not self.tally.chats:
            raise DataError(
                f"{name}: 'too_long' is for chats, and the source has none; take it out (text is "
                "laid out over as many rows as it takes)"
            )
        if why := complaint(self.tally.as_dict()):
            raise DataError(f"{name}: {why}")

    def _cut(self, talk: Conversation) -> Iterator[Piece]:
        head, exchanges = exchanges_of(talk.messages)
        at = 0
        while at < len(exchanges):
            count, piece = self._most(talk, head, exchanges[at:])
            if piece is not None and trained_in(piece[1]):
                yield piece
            if self.fit.policy != "split":
                return
            at += max(1, count)  # an exchange that is longer than a row by itself is lost

    def _most(
        self, talk: Conversation, head: Sequence[Message], exchanges: Sequence[Sequence[Message]]
    ) -> tuple[int, Piece | None]:
        """As many exchanges as a row holds, from the end that is kept; how many that are."""
        found: tuple[int, Piece | None] = (0, None)
        least, most = 1, len(exchanges)
        while least <= most:
            count = (least + most) // 2
            some = exchanges[-count:] if self.fit.policy == "keep_end" else exchanges[:count]
            short = replace(talk, messages=(*head, *(turn for one in some for turn in one)))
            example = self.template.render(short)
            if len(example.ids) <= self.fit.row_length:
                found = (count, (short, example))
                least = count + 1
            else:
                most = count - 1
        return found


class Comparing:
    """What each policy would make of the same chats, before one is chosen."""

    def __init__(self, template: Template, row_length: int) -> None:
        self._template = template
        policies: tuple[TooLong, ...] = ("drop", *CUTS)
        self._ways = [
            Fitting(Fit(row_length, policy, faults="count"), template) for policy in policies
        ]

    def add(self, talk: Conversation) -> None:
        """One chat more.

        Raises:
            DataError: the template cannot render it.
        """
        example = self._template.render(talk)
        for way in self._ways:
            way.pieces(talk, example)

    def tallies(self) -> dict[str, dict[str, Any]]:
        """Each policy's tally as plain numbers; empty if there was no chat."""
        return {way.fit.policy: asdict(way.tally) for way in self._ways if way.tally.chats}


def exchanges_of(
    messages: Sequence[Message],
) -> tuple[tuple[Message, ...], list[tuple[Message, ...]]]:
    """What stands before all, and the exchanges: each from what the user says up to what he says
    next. What nobody answered at the end is none."""
    start = 0
    while start < len(messages) and messages[start].role == "system":
        start += 1
    begins = [
        place
        for place in range(start, len(messages))
        if place == start or (messages[place].role == "user" and messages[place - 1].role != "user")
    ]
    found = [
        tuple(messages[begin:end])
        for begin, end in zip(begins, [*begins[1:], len(messages)], strict=True)
    ]
    if found and all(turn.role != "assistant" for turn in found[-1]):
        found.pop()
    return tuple(messages[:start]), found


def trained_in(example: Example) -> int:
    """Tokens with a weight; the first has nothing before it to predict it from."""
    return sum(weight != 0 for weight in example.weights[1:])


def place_of(thing: Item) -> str:
    """Where it stands, as far as is known."""
    if isinstance(thing, Conversation) and thing.place:
        return thing.place
    return thing.id


def told(tally: Mapping[str, Any]) -> str:
    """One line on what was too long, from a tally's plain numbers; empty if nothing was."""
    if not tally:
        return ""
    lost = f"{tally['lost']:,} of {tally['trained']:,} trained tokens ({_share(tally):.1%})"
    return f"{_how_many(tally)}; {_outcome(tally)}; lost {lost}"


def complaint(tally: Mapping[str, Any]) -> str | None:
    """Why a stage with such a tally is not trained, and what to do; None if it is."""
    if not tally:
        return None
    if tally["policy"] == "refuse" and tally["long_chats"]:
        return f"{_how_many(tally)}, and too_long is 'refuse'"
    lost = _share(tally)
    if lost <= tally["limit"]:
        return None
    ways = ["give rows more tokens (model.sequence_length)"]
    if tally["policy"] == "drop" and tally["long_chats"]:
        ways.append("cut chats between exchanges (too_long: keep_start)")
    # rounded up, so that what is proposed is enough
    ways.append(f"shorten them, or accept it (lose_at_most: {math.ceil(lost * 100) / 100:g})")
    return (
        f"{lost:.1%} of its trained tokens would be lost, lose_at_most is {tally['limit']:g}: "
        f"{_how_many(tally)}; {_outcome(tally)}. Ways out: {'; '.join(ways)}"
    )


def compared(tallies: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What each policy would do to the same chats: a line that says how many are too long, then one
    a policy."""
    for policy, tally in tallies.items():
        if policy == "drop":
            if not tally["long"]:
                yield (
                    f"all {tally['chats']:,} chats fit into a row of {tally['row_length']:,} "
                    f"tokens (the longest has {tally['longest']:,}: {tally['longest_at']})"
                )
                return
            yield _how_many(tally)
        yield f"  too_long: {policy}: {_outcome(tally)}; {_share(tally):.1%} of trained tokens lost"


def _how_many(tally: Mapping[str, Any]) -> str:
    return (
        f"{tally['long']:,} of {tally['items']:,} are longer than a row of "
        f"{tally['row_length']:,} tokens (the longest has {tally['longest']:,}: "
        f"{tally['longest_at']})"
    )


def _outcome(tally: Mapping[str, Any]) -> str:
    made = f" into {tally['pieces']:,}" if tally["pieces"] > tally["cut"] else ""
    return f"{tally['cut']:,} cut{made}, {tally['dropped']:,} dropped"


def _share(tally: Mapping[str, Any]) -> float:
    return float(tally["lost"] / max(1, tally["trained"]))
