"""`replay: usual`: what a chat stage shows again unless somebody says otherwise.

A fifth of the chat stage before and a tenth of all older ones together: 100 %, 80 + 20,
70 + 20 + 10, and from the fourth on the tenth is shared. That is MyPT's table of its stages, whose
"gold" set every lesson is. Text is never among it; whoever wants some writes the replay out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

USUAL = "usual"
LAST, OLDER = 0.2, 0.1
_DIGITS = 10
_CHAT = "sft"


def filled(value: Any) -> Any:
    """A recipe's value with the usual replay written out; own shares that sum to 1 make room."""
    stages = value.get("stages") if isinstance(value, Mapping) else None
    if not isinstance(stages, Sequence) or not any(_asks(stage) for stage in stages):
        return value
    found: list[Any] = []
    before: list[Any] = []
    for stage in stages:
        found.append(_with(stage, before) if _asks(stage) else stage)
        if isinstance(stage, Mapping) and stage.get("kind") == _CHAT:
            before.append(stage.get("name"))
    return {**value, "stages": found}


def refused(given: Any) -> Any:
    """`given` if it is written out.

    Raises:
        ValueError: it is `usual` in a stage that has none.
    """
    if given == USUAL:
        raise ValueError(
            f"{USUAL!r} is for chat stages (kind: {_CHAT}); write out what is replayed"
        )
    return given


def _asks(stage: Any) -> bool:
    return (
        isinstance(stage, Mapping) and stage.get("kind") == _CHAT and stage.get("replay") == USUAL
    )


def _with(stage: Mapping[str, Any], before: Sequence[Any]) -> dict[str, Any]:
    older = before[:-1]
    shares = {name: OLDER / len(older) for name in older}
    if before:
        shares |= {before[-1]: LAST}
    replay = [{"stage": name, "share": round(s, _DIGITS)} for name, s in reversed(shares.items())]
    mixture = stage.get("mixture")
    own: list[Any] = [
        part.get("share") if isinstance(part, Mapping) else None for part in mixture or ()
    ]
    whole = all(isinstance(share, int | float) for share in own) and math.isclose(sum(own), 1)
    if not whole or not isinstance(mixture, Sequence):
        return {**stage, "replay": replay}  # sums that are wrong are said where they stand
    room = 1 - sum(entry["share"] for entry in replay)
    parts = [{**part, "share": round(part["share"] * room, _DIGITS)} for part in mixture]
    return {**stage, "mixture": parts, "replay": replay}
